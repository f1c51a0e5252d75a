# Each target does all the set-up that it needs; the only thing assumed is Python 3.11.
PYTHON ?= python3.11
CORES ?= all
CONFIG ?= config/config.yaml
GPUS ?= $(shell nvidia-smi --list-gpus 2>/dev/null | wc -l)
# Size of the made-up raw file that make speed prepares.
RAW_GB ?= 0.1
# Items of the catalogues that it searches; ten million take another 15 minutes and 27 GB of disk.
ITEMS ?= 10000 100000 1000000
# Where the Amazon slices lie that make slices runs on; config/README.md says what they hold.
SLICES ?= slices
READY := .venv/.ready
SNAKEMAKE := .venv/bin/snakemake --cores $(CORES)

.PHONY: help setup quick reproduce ablations decoupled slices paper publish readme dry-run test speed lint clean-results
help:
	@echo "make quick       install, then a first look in minutes: one dataset, five methods, table, plots, page; in results/quick"
	@echo "make reproduce   install, then run everything: datasets, methods, tables, plots, page (make dry-run: only say what)"
	@echo "make ablations   all that the paper varied and more controls, on one dataset: hours; in results/ablations-full"
	@echo "make decoupled   R2ec against pipelines in which an LLM writes and another model recommends, in results/decoupled"
	@echo "make slices      ID baselines and R2ec on slices of Amazon's 2018 release (SLICES=folder that holds them), in results/slices"
	@echo "make paper       the paper's experiments on this machine's GPUs, in results/paper (make dry-run CONFIG=config/paper.yaml: what they take)"
	@echo "make publish     copy a finished run to results/published/NAME, which is committed: NAME=default, decoupled, slices, ablations, speed"
	@echo "make clean-results  remove all that runs wrote to results/ (downloads in resources/ stay)"
	@echo "make test        install, then run the tests"
	@echo "make speed       measure evaluator, preparation (RAW_GB=2: of a raw file of 2 GB), each part of R2ec against the plain way, large catalogues (ITEMS='1000000 10000000'), on this machine"
	@echo "make lint        ruff, mypy, snakefmt, snakemake --lint"

# Rebuilt when the lock changes. The marker is written last, so an interrupted installation is never taken for a whole one.
$(READY): requirements.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: no $(PYTHON) on the PATH; install Python 3.11 or say PYTHON=/path/to/it"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "error: $(PYTHON) is not Python 3.11, which RecBole needs"; exit 2; }
	@echo "Setting up .venv from requirements.txt (about 2.5 GB, several more with CUDA builds of torch; a few minutes) ..."
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	.venv/bin/python -m pip check
	@touch $@

setup: $(READY)

# In a folder of its own, so that a full run's tables stay; what has been fetched once serves both.
quick: $(READY)
	@mkdir -p results/quick resources
	@cd results/quick && ln -sfn ../../resources resources
	$(SNAKEMAKE) --configfile config/quick.yaml --directory results/quick

reproduce: $(READY)
	$(SNAKEMAKE)

# Runs that the default has made already serve here too; the main tables are left alone.
ablations: $(READY)
	$(SNAKEMAKE) ablations --configfile config/ablations.yaml

# In folders of their own, so that the main tables stay; what has been fetched, written and encoded once serves all.
# Paths of links go up from results/NAME, and from results/NAME/results.
define own_folder
	@mkdir -p results/$(1)/results resources results/states results/texts
	@cd results/$(1) && ln -sfn ../../resources resources
	@cd results/$(1)/results && ln -sfn ../../states states && ln -sfn ../../texts texts
endef

decoupled: $(READY)
	$(call own_folder,decoupled)
	$(SNAKEMAKE) --configfile config/decoupled.yaml --directory results/decoupled

# The slices are found by a link, so that no path of a machine is in any file.
slices: $(READY)
	@test -d "$(SLICES)" || { echo "error: $(SLICES): no such folder; say SLICES=folder with the slices (config/README.md)"; exit 2; }
	$(call own_folder,slices)
	@ln -sfn "$(abspath $(SLICES))" results/slices/slices
	$(SNAKEMAKE) --configfile config/slices.yaml --directory results/slices

# For GPUs, and never run so far.
paper: $(READY)
	@test $(GPUS) -gt 0 || { echo "error: nvidia-smi lists no GPU; make dry-run CONFIG=config/paper.yaml says what it would take"; exit 2; }
	$(call own_folder,paper)
	.venv/bin/snakemake --profile workflow/profiles/paper --resources gpu=$(GPUS) --directory results/paper

# Into results/published/NAME, to be committed: make publish NAME=default; NAME=decoupled; NAME=ablations; NAME=speed.
publish: $(READY)
	@test -n "$(NAME)" || { echo "error: say NAME=default, decoupled, slices, ablations or speed"; exit 2; }
	.venv/bin/python -m benchmark.publish $(NAME) $(PUBLISH_$(NAME))
PUBLISH_decoupled := --directory results/decoupled
PUBLISH_slices := --directory results/slices
PUBLISH_ablations := --factors ablations-full
PUBLISH_speed := --folder speed

# The README's table is that of results/published/default.
readme: $(READY)
	.venv/bin/python -m benchmark.readme

dry-run: $(READY)
	.venv/bin/snakemake --cores $(CORES) --configfile $(CONFIG) --dry-run --quiet rules

test: $(READY)
	.venv/bin/python -m pytest

speed: $(READY)
	OMP_NUM_THREADS=1 .venv/bin/python -m benchmark.speed --gigabytes $(RAW_GB)
	.venv/bin/snakemake --cores $(CORES) --quiet all -- results/data/ml-100k/dataset.json resources/smollm2-135m-instruct/manifest.json
	.venv/bin/python -m r2ec.speed
	.venv/bin/python -m r2ec.speed.catalogue --sizes $(ITEMS)

lint: $(READY)
	.venv/bin/ruff check . && .venv/bin/ruff format --check .
	.venv/bin/mypy benchmark baselines r2ec
	.venv/bin/snakefmt --check workflow
	.venv/bin/snakemake --lint

# What runs wrote, and nothing else: neither results/published nor what somebody has put beside it.
WRITTEN := ablations ablations-full data decoupled fetched logs made_from paper plots quick report runs slices speed states tables \
	texts usage work
clean-results:
	rm -rf $(WRITTEN:%=results/%)
