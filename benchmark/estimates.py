"""What a config will take, before anything runs: seconds and memory of each job, by plain formulas from its settings.

`python -m benchmark.estimates --configfile config/paper.yaml` prints them, as a dry run does; Snakemake gets them with a
reserve, as the resources runtime, mem_mb and gpu_mem_mb of each job. The formulas for processors are fitted to embedded runs
(docs/scale-out.md says how near they come); **those for GPUs are fitted to nothing**: none has run this.

An LM reads (2 floating-point operations per token and weight), learns (4, as adapters alone have gradients of their own; 6 where
activations are computed twice; 2 in layers below all adapters) and writes token by token. Other methods cost a fixed time per
training case and epoch.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.config import Config, read_config_file
from benchmark.errors import command
from benchmark.factors import Ablations, ablations_of
from benchmark.methods import all_params, laid_over, load_method
from benchmark.workload import WITH_LM, Sizes, Work, longest, sizes_of

GIB = 2**30
# A cluster kills a job that takes longer or more than it asked for, so it asks for more than the estimate.
TIME_RESERVE, MEMORY_RESERVE, LEAST_MINUTES = 3.0, 1.5, 15
START = 10.0  # seconds of importing, reading and writing
PROCESS = 0.9 * GIB  # bytes of a process that has imported torch and holds a dataset
LOADED = 1.5 * GIB  # further bytes of one that has loaded and run an LM, beside the LM itself


@dataclass(frozen=True)
class LM:
    """The shape of a causal LM with gated feed-forward layers and tied embeddings: layers, widths, vocabulary."""

    layers: int
    hidden: int
    inner: int
    queries: int  # width of all query heads
    keys: int  # width of all key heads, and of all value heads
    vocabulary: int

    @property
    def body(self) -> int:
        """Weights that each token read is multiplied with."""
        return self.layers * self.hidden * (2 * self.queries + 2 * self.keys + 3 * self.inner)

    @property
    def weights(self) -> int:
        """All weights, which each token written is multiplied with."""
        return self.body + self.vocabulary * self.hidden

    @property
    def activations(self) -> int:
        """Bytes kept per token for the backward pass: some 20 bf16 vectors of a layer and the adapters' float32 inputs."""
        return self.layers * (40 * self.hidden + 14 * self.inner)

    @property
    def kept_twice(self) -> int:
        """The same where activations are computed twice: each layer's input, and one layer whole."""
        return 2 * self.layers * self.hidden + self.activations // self.layers

    @property
    def cache(self) -> int:
        """Bytes of the keys and values of a token, bf16."""
        return 4 * self.layers * self.keys


KNOWN = {
    "resources/smollm2-135m-instruct": LM(30, 576, 1_536, 576, 192, 49_152),
    "Qwen/Qwen2.5-3B-Instruct": LM(36, 2_048, 11_008, 2_048, 256, 151_936),
    "google/gemma-2-2b-it": LM(26, 2_304, 9_216, 2_048, 1_024, 256_000),
}


@dataclass(frozen=True)
class Machine:
    """What one process reaches with an LM in bf16: operations per second in its matrix products when it reads, learns and writes,
    and the seconds that a step of writing takes at least."""

    reading: float
    learning: float
    writing: float
    step: float

    def times(self, threads: int) -> "Machine":
        """The same with so many threads."""
        return Machine(self.reading * threads, self.learning * threads, self.writing * threads, self.step)


# Of one thread: fitted to the run in tests/test_estimates.py. The slowest machine so far took twice as long.
THREAD = Machine(reading=2.1e11, learning=1.4e11, writing=1.15e11, step=0.01)
# A guess at an A100: a third of the 312e12 of its data sheet, which plain PyTorch code tends to reach. Never measured.
GPU = Machine(reading=1e14, learning=1e14, writing=1e14, step=0.03)
VLLM_STEP = 0.01  # seconds; its kernels are captured and its batches don't wait for the longest
GPU_CONTEXT = 2 * GIB  # of CUDA and fragmentation
GPU_SIZE = 80 * GIB  # an A100's, of which colocated vLLM takes a share


@dataclass(frozen=True)
class Estimate:
    """One job. `known` is False where nothing is known of the method, and the numbers are those of any job."""

    seconds: float
    memory: float  # bytes of main memory, all processes together
    gpu_memory: float = 0  # bytes of each GPU
    known: bool = True

    @property
    def mem_mb(self) -> int:
        """Main memory to ask for, MB."""
        return math.ceil(self.memory * MEMORY_RESERVE / 1e6)

    @property
    def gpu_mem_mb(self) -> int:
        """Memory that a GPU should have, MB."""
        return math.ceil(self.gpu_memory / 1e6)

    @property
    def runtime(self) -> int:
        """Minutes to ask for."""
        return max(LEAST_MINUTES, math.ceil(self.seconds * TIME_RESERVE / 60))


ANY = Estimate(seconds=2400, memory=8e9 / MEMORY_RESERVE, known=False)
# The rules beside `run`: one dataset's download and preparation in bounded memory, and the outputs from all rankings.
RULES = {
    "fetch": Estimate(600, 1 * GIB),
    "prepare": Estimate(600, 2 * GIB),
    "fetch_backbone": Estimate(60, 2 * GIB),
    "tables": Estimate(600, 2 * GIB),
    "plots": Estimate(300, 2 * GIB),
    "against": Estimate(120, 2 * GIB),
    "page": Estimate(30, 1 * GIB),
    "ablation": Estimate(300, 2 * GIB),
    "ablation_plot": Estimate(60, 2 * GIB),
    "claims": Estimate(60, 1 * GIB),
}


def lm_of(backbone: dict[str, Any]) -> LM | None:
    """The shape of a backbone: a known one, or that of the config.json in its folder; None for any other name."""
    path = Path(backbone["name"])
    if (known := KNOWN.get(str(path))) is not None:
        return known
    if not (path / "config.json").is_file():
        return None
    about = json.loads((path / "config.json").read_text(encoding="utf-8"))
    if (
        not {"num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size"}
        <= about.keys()
    ):
        return None  # a family of another shape
    heads = about["num_attention_heads"]
    width = about.get("head_dim") or about["hidden_size"] // heads
    return LM(
        about["num_hidden_layers"],
        about["hidden_size"],
        about["intermediate_size"],
        heads * width,
        about.get("num_key_value_heads", heads) * width,
        about["vocab_size"],
    )


def seconds_of(lm: LM, work: Work, machine: Machine) -> float:
    """How long one process takes for its tokens."""
    read = 2 * lm.body * work.read / machine.reading
    learned = (2 + (4 if work.twice else 2) * learning_share(lm, work)) * lm.body * work.learned / machine.learning
    step = max(machine.step, 2 * lm.weights * work.rows / machine.writing)
    return read + learned + step * work.written / work.rows


def learning_share(lm: LM, work: Work) -> float:
    """The share of the LM's layers that have a backward pass."""
    return max(0, lm.layers - work.frozen) / lm.layers


# Seconds per training case and epoch on one thread, RecBole's with 3,500 items; each further item costs them ITEM.
PER_CASE = {"gru4rec": 2.5e-4, "caser": 1.5e-4, "sasrec": 3.0e-4, "bert4rec": 6.0e-4, "kar": 6.0e-4, "tiger": 1.5e-3}
PER_CASE |= {"d3": PER_CASE["sasrec"], "llm_rerank": PER_CASE["sasrec"]}  # within them
ITEM = 1.5e-8
EPOCHS = 30  # after which early stopping has ended most fits
COUNTING = ("popularity", "item_knn")


def estimate(module: str, params: dict[str, Any], sizes: Sizes, *, gpus: int, threads: int, processes: int) -> Estimate:
    """One fit with these params, and the ranking of the test cases."""
    filled = all_params(load_method(module), params)
    # Items scored and counted for each test case; histories and titles in memory.
    seconds = START + sizes.test * sizes.items * 3e-8
    memory = processes * (PROCESS + sizes.train * 800 + sizes.items * 1000)
    if module in COUNTING:
        return Estimate(seconds + sizes.train * 1e-4, memory + sizes.items * 100_000)
    if module not in WITH_LM and module not in PER_CASE:
        return ANY
    if module in PER_CASE:
        per_epoch = sizes.train * (PER_CASE[module] + ITEM * sizes.items) + sizes.valid * 3 * ITEM * sizes.items
        fits = filled.get("sasrec", [filled])  # each setting of a SASRec within
        seconds += sum(min(EPOCHS, one.get("epochs", EPOCHS)) for one in fits) * per_epoch
        memory += 6 * 4 * 256 * sizes.items  # the logits of a batch of 256, and what is kept of them
    if module not in WITH_LM:
        return Estimate(seconds, memory)
    lm = lm_of(filled["backbone"])
    if lm is None:
        return ANY
    memory += processes * LOADED
    work = WITH_LM[module](sizes, filled, processes)
    machine = GPU if gpus else THREAD.times(max(1, threads // processes))
    # The item table is float32.
    device = device_memory(lm, work, longest(filled, sizes)) + 4 * sizes.items * lm.hidden
    training = machine
    if (
        gpus
        and filled.get("rollouts", {}).get("backend") == "vllm"
        and any(part.learned and part.written for part in work)
    ):
        training = replace(machine, step=VLLM_STEP)  # cases are evaluated by transformers
        device += GPU_SIZE * filled["vllm"]["gpu_memory_utilization"] * (filled["vllm"]["mode"] == "colocate")
    seconds += sum(seconds_of(lm, part, training if part.learned else machine) for part in work)
    if not gpus:
        return Estimate(seconds, memory + processes * device)
    return Estimate(seconds, memory + processes * 3 * lm.weights, GPU_CONTEXT + device)


def device_memory(lm: LM, work: list[Work], longest: int) -> float:
    """Bytes of one process: bf16 weights and their copy with the adapters folded in, activations and KV caches of a batch."""
    kept = max(
        part.held * (lm.kept_twice if part.twice else lm.activations) * learning_share(lm, part) for part in work
    )
    return 4 * lm.weights + kept + max(part.rows for part in work) * longest * lm.cache


def of_job(config: Config, ablations: Ablations, dataset: str, run: str, seed: int, results: Path) -> Estimate:
    """One job of the rule `run`: repetition 1 of a method fits each setting of its grid, any other job one.

    An ablation's run counts as a fit even where it only scores another one's.
    """
    variant = ablations.variants.get(run)
    method = run if variant is None else variant.base
    entry, sizes = config.method(method), sizes_of(dataset, config.datasets[dataset], results)
    fitted = entry.settings()[: None if seed == 1 and variant is None else 1]
    overlay = {} if variant is None else variant.overlay
    module, processes = config.module_of(method), entry.process_count()
    made = [
        estimate(module, laid_over(params, overlay), sizes, gpus=entry.gpus, threads=entry.threads, processes=processes)
        for params in fitted
    ]
    return Estimate(
        sum(one.seconds for one in made),
        max(one.memory for one in made),
        max(one.gpu_memory for one in made),
        all(one.known for one in made),
    )


@dataclass(frozen=True)
class Row:
    """All jobs of one rule, and of one method of the rule `run`."""

    name: str
    jobs: list[Estimate]
    gpus: int = 0
    threads: int = 1


def rows(config: Config, results: Path) -> Iterator[Row]:
    """What the whole config takes, whatever of it is done already."""
    ablations = ablations_of(config)
    for rule in ("fetch", "prepare"):
        yield Row(rule, [RULES[rule]] * len(config.datasets))
    for method in config.methods:
        entry, seeds = config.method(method), range(1, config.seeds_of(method) + 1)
        own = [(dataset, method, seed) for dataset in config.datasets for seed in seeds]
        yield Row(f"run {method}", [of_job(config, ablations, *job, results) for job in own], entry.gpus, entry.threads)
        varied = _added(ablations, method) - set(own)
        if varied:
            jobs = [of_job(config, ablations, *job, results) for job in sorted(varied)]
            yield Row(f"ablations of {method}", jobs, entry.gpus, entry.threads)
    for rule in ("tables", "plots", *(["against"] if config.reference else []), "page"):
        yield Row(rule, [RULES[rule]])
    if ablations.factors:
        for rule in ("ablation", "ablation_plot"):
            yield Row(rule, [RULES[rule]] * len(ablations.factors))
        yield Row("claims", [RULES["claims"]])


def _added(ablations: Ablations, base: str) -> set[tuple[str, str, int]]:
    """Dataset, run and seed of all that the factors of this base compare."""
    return {
        (dataset, run, seed)
        for factor in ablations.factors.values()
        if factor.runs[factor.base] == base
        for dataset in factor.datasets
        for run in factor.runs.values()
        for seed in range(1, factor.seeds + 1)
    }


def clock(seconds: float) -> str:
    """Hours and minutes, rounded up.

    >>> clock(59), clock(3600), clock(99 * 3600 + 61)
    ('0:01', '1:00', '99:02')
    """
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02}"


def table(config: Config, results: Path) -> str:
    """The estimates as text, a line per rule and method, totals and what to think of them below."""
    every = list(rows(config, results))
    width = max(len(row.name) for row in every)
    heading = ("jobs", "  h:min of each", "h:min of all", "main GiB", "cores", "GPUs", "GiB of each")
    lines = [f"{'estimates':{width}}  " + "  ".join(heading)]
    for row in every:
        seconds = [job.seconds for job in row.jobs]
        least, most = clock(min(seconds)), clock(max(seconds))
        cells = (
            str(len(seconds)),
            least if least == most else f"{least} to {most}",
            clock(sum(seconds)),
            f"{max(job.memory for job in row.jobs) / GIB:.0f}",
            str(row.threads),
            str(row.gpus or "-"),
            f"{max(job.gpu_memory for job in row.jobs) / GIB:.0f}" if row.gpus else "-",
        )
        known = all(job.known for job in row.jobs)
        texts = [f"{cell if known or i in (0, 4, 5) else '?':>{len(heading[i])}}" for i, cell in enumerate(cells)]
        lines.append(f"{row.name:{width}}  " + "  ".join(texts))
    core = sum(job.seconds * row.threads for row in every for job in row.jobs) / 3600
    gpu = sum(job.seconds * row.gpus for row in every for job in row.jobs) / 3600
    lines.append(f"In all {core:,.0f} core hours and {gpu:,.0f} GPU hours, of which nothing is counted as done.")
    lines.append(
        f"Jobs ask for {TIME_RESERVE:g} times the time and {MEMORY_RESERVE:g} times the main memory. `?`: the method or its "
        "backbone is not known here; it asks for what any job gets."
    )
    if gpu:
        lines.append("Figures with GPUs are guesses from an A100's data sheet: nothing here has run on a GPU.")
    return "\n".join(lines)


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configfile", type=Path, required=True, help="a config, such as config/paper.yaml")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where prepared datasets lie, if any do")
    given = parser.parse_args()
    print(table(read_config_file(given.configfile), given.results))


if __name__ == "__main__":
    main()
