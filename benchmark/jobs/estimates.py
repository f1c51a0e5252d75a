"""Estimate the seconds and memory of each job of a config before anything runs, by plain formulas from its settings.

`python -m benchmark.jobs.estimates --configfile config/paper.yaml` prints them, as a dry run does. Snakemake gets them
with a reserve, as the resources runtime, mem_mb and gpu_mem_mb of each job. The formulas for processors are fitted to
embedded runs (docs/scale-out.md says how near they come); **those for GPUs are fitted to nothing**: none has run this.

An LM reads (2 floating-point operations per token and weight), learns (4, as adapters alone have gradients of their
own; 6 where activations are computed twice; 2 in layers below all adapters) and writes token by token. Other methods
cost a fixed time per training case and epoch.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmark.config.factors import Ablations, ablations_of
from benchmark.config.methods import all_params, load_method
from benchmark.config.overlay import overlaid
from benchmark.config.read import read_config_file
from benchmark.config.schema import Config
from benchmark.config.wording import many
from benchmark.errors import command, command_line
from benchmark.jobs.lm_cost import GPU, by_kept_layers, most_memory, parts_by_lm, processor, seconds_of, weight_bytes
from benchmark.jobs.outputs import Outputs
from benchmark.jobs.plan import Plan
from benchmark.jobs.sizes import sizes_of
from benchmark.workload import STATES, TUNING, WARM_START, Sizes, longest_prompt

GIB = 2**30
# A cluster kills a job that takes longer or more than it asked for, so it asks for more than the estimate.
TIME_RESERVE, MEMORY_RESERVE, LEAST_MINUTES = 3.0, 1.5, 15
# Seconds of importing, reading and writing: of a job that imports torch (a method's `START_SECONDS` says otherwise) or
# loads an LM.
TORCH, START = 5.0, 10.0
PROCESS = 0.9 * GIB  # bytes of a process that has imported torch and holds a dataset
LOADED = 1.5 * GIB  # further bytes of one that has loaded and run an LM, beside the LM itself
VLLM_STEP = 0.01  # seconds of a decoding step: vLLM's kernels are captured, and its batches don't wait for the longest
GPU_CONTEXT = 2 * GIB  # of CUDA and fragmentation
GPU_SIZE = 80 * GIB  # an A100's, of which colocated vLLM takes a share


@dataclass(frozen=True)
class Estimate:
    """The estimate of one job. `known` is False where the method gives none: the numbers are then a default."""

    seconds: float
    memory: float  # bytes of main memory, all processes together
    gpu_memory: float = 0  # bytes of each GPU
    known: bool = True
    # Seconds of these that make results which later fits find on disk, by the name of the result.
    kept: dict[tuple[str, ...], float] = field(default_factory=dict)

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

    def finding(self, on_disk: Collection[tuple[str, ...]]) -> "Estimate":
        """The same job where the results of these names are on disk already."""
        saved = sum(seconds for name, seconds in self.kept.items() if name in on_disk)
        return replace(self, seconds=self.seconds - saved)


ANY = Estimate(seconds=2400, memory=8e9 / MEMORY_RESERVE, known=False)
# The most that each rule but `run` takes, for which its jobs ask. Small jobs are estimated at less (`of_rule`).
RULES = {
    "fetch": Estimate(600, 1 * GIB),
    "prepare": Estimate(600, 2 * GIB),
    "fetch_backbone": Estimate(60, 2 * GIB),
    "fetch_encoder": Estimate(60, 1 * GIB),
    "statistics": Estimate(600, 2 * GIB),
    "overall_statistics": Estimate(600, 2 * GIB),
    "against_statistics": Estimate(120, 2 * GIB),
    "table": Estimate(60, 1 * GIB),
    "tables": Estimate(60, 1 * GIB),
    "plots": Estimate(300, 1 * GIB),
    "against": Estimate(60, 1 * GIB),
    "thinking": Estimate(60, 1 * GIB),
    "page": Estimate(120, 2 * GIB),
    "factor_statistics": Estimate(300, 2 * GIB),
    "ablation": Estimate(60, 1 * GIB),
    "ablation_plot": Estimate(60, 1 * GIB),
    "claims_statistics": Estimate(60, 1 * GIB),
    "claims": Estimate(60, 1 * GIB),
}
# Seconds of an output: of its start, of each dataset, and of each thousand values, of which each method (or value of a
# factor) has one per test case. Fitted to made-up rankings of 3 methods and 150 cases, 9 methods and 3 times 1,000
# cases, 9 methods and 6,000 cases.
OUTPUTS = {
    "statistics": (1.4, 0.35, 0.015),
    "overall_statistics": (1.3, 0.2, 0.007),
    "against_statistics": (1.4, 0.15, 0.007),
    "table": (1.3, 0.2, 0.0),
    "tables": (1.2, 0.25, 0.0),
    "plots": (0.8, 3.6, 0.0),
    "against": (2.2, 0.3, 0.0),
    "thinking": (2.2, 0.3, 0.0),  # as against, whose figure is as large
    "page": (1.7, 0.3, 0.015),
    "factor_statistics": (1.4, 0.35, 0.015),
    "ablation": (1.3, 0.2, 0.0),
    "ablation_plot": (1.0, 1.5, 0.0),
    "claims_statistics": (1.4, 0.15, 0.007),
    "claims": (1.2, 0.0, 0.0),
}
# Seconds to fetch and to prepare a source that comes in a small wheel or lies on this machine; others hold gigabytes.
SMALL = {"files": (2.0, 2.0), "ml_100k": (3.0, 1.5), "movielens_2016": (3.0, 1.5), "complete_journey": (5.0, 5.0)}


def longest(p: dict[str, Any], s: Sizes) -> int:
    """The most tokens of a prompt and the text that is written behind it."""
    prompts = p.get("prompts", {})
    items, limit = prompts.get("max_items", p.get("max_items", 0)), prompts.get("max_prompt_tokens", 10**9)
    length: int = p.get("rollouts", p).get("max_new_tokens", s.line)
    return longest_prompt(s, items, limit) + length


def estimate(module: str, params: dict[str, Any], sizes: Sizes, *, gpus: int, threads: int, processes: int) -> Estimate:
    """One fit with these params, and the ranking of the test cases."""
    method = load_method(module)
    says, filled = vars(method), all_params(method, params)
    start = START if "work" in says else says.get("START_SECONDS", TORCH)
    # Items scored and counted for each test case; histories and titles in memory.
    seconds = start + sizes.test * sizes.items * 3e-8
    memory = processes * (PROCESS + sizes.train * 800 + sizes.items * 1000)
    if "work" not in says and "fit_cost" not in says:
        return ANY
    if "fit_cost" in says:
        cost = method.fit_cost(sizes, filled)
        seconds, memory = seconds + cost.seconds, memory + cost.memory
    if "work" not in says:
        return Estimate(seconds, memory)
    by_lm = parts_by_lm(filled["backbone"], method.work(sizes, filled, processes))
    if by_lm is None:
        return ANY
    memory += processes * LOADED
    machine = GPU if gpus else processor(max(1, threads // processes))
    # LMs are loaded one after the other. The item table is float32.
    width = weight_bytes(filled["backbone"], gpus)
    by_lm, kept_below = by_kept_layers(by_lm, sizes.items * sizes.item, width, gpus)
    device = most_memory(by_lm, longest(filled, sizes), width) + kept_below + 4 * sizes.items * next(iter(by_lm)).hidden
    parts = [(lm, part) for lm, work in by_lm.items() for part in work]
    training = machine
    by_vllm = gpus and filled.get("rollouts", {}).get("backend") == "vllm"
    if by_vllm and any(part.learned and part.written for _, part in parts):
        training = replace(machine, step=VLLM_STEP)  # cases are evaluated by transformers
        device += GPU_SIZE * filled["vllm"]["gpu_memory_utilization"] * (filled["vllm"]["mode"] == "colocate")
    each = [(part.kept, seconds_of(lm, part, training if part.learned else machine)) for lm, part in parts]
    seconds += sum(needed for _, needed in each)
    kept = {name: needed for name, needed in each if name}
    if not gpus:
        return Estimate(seconds, memory + processes * device, kept=kept)
    memory += processes * 3 * max(lm.weights for lm in by_lm)
    return Estimate(seconds, memory, GPU_CONTEXT + device, kept=kept)


def of_job(config: Config, ablations: Ablations, dataset: str, run: str, seed: int, results: Path) -> Estimate:
    """One job of the rule `run`.

    Repetition 1 of a method fits each setting of its grid and scores the validation cases by it; any other job fits
    one. Results on disk that its fits share count once; those that it might find of other jobs are in `kept`. An
    ablation's run counts as a fit even where it only scores another run's fit.
    """
    variant = ablations.variants.get(run)
    method = run if variant is None else variant.base
    entry, sizes = config.method(method), sizes_of(dataset, config.datasets[dataset], results)
    fitted = entry.settings()[: None if seed == 1 and variant is None else 1]
    overlay = {} if variant is None else variant.overlay
    module, processes = config.module_of(method), entry.process_count()

    def estimate_with(params: dict[str, Any], scored: int) -> Estimate:
        counts = replace(sizes, test=scored)
        laid_over_base = overlaid(params, overlay)
        return estimate(module, laid_over_base, counts, gpus=entry.gpus, threads=entry.threads, processes=processes)

    if len(fitted) == 1:
        fits, seconds = [estimate_with(fitted[0], sizes.test)], 0.0
    else:
        fits = [estimate_with(params, sizes.valid) for params in fitted]
        seconds = max(estimate_with(params, sizes.test).seconds - estimate_with(params, 0).seconds for params in fitted)
    kept: dict[tuple[str, ...], float] = {}
    for fit in fits:
        seconds += fit.finding(kept).seconds
        kept |= fit.kept
    owners = {STATES: (dataset,), TUNING: (dataset, str(seed)), WARM_START: (dataset, method, str(seed))}
    return Estimate(
        seconds,
        max(fit.memory for fit in fits),
        max(fit.gpu_memory for fit in fits),
        all(fit.known for fit in fits),
        {(*owners[name[0]], *name): needed for name, needed in kept.items() if name[0] in owners},
    )


def of_rule(
    config: Config, ablations: Ablations, rule: str, wildcards: Mapping[str, str], results: Path
) -> Estimate | None:
    """One job of any rule, named as Snakemake names it; None for a rule that only collects files."""
    if rule == "run":
        place = wildcards["dataset"], wildcards["method"], int(wildcards["seed"])
        return of_job(config, ablations, *place, results)
    if rule not in RULES:
        return None
    most = RULES[rule]
    if rule in ("fetch", "prepare"):
        few = SMALL.get(config.datasets[wildcards["dataset"]].source)
        return most if few is None else replace(most, seconds=few[rule == "prepare"])
    if rule in ("fetch_backbone", "fetch_encoder"):
        return replace(most, seconds=30 if rule == "fetch_backbone" else 5)
    if "factor" in wildcards:
        factor = ablations.factors[wildcards["factor"]]
        datasets, compared = factor.datasets, len(factor.runs)
    elif rule in ("claims_statistics", "claims"):
        datasets, compared = list(config.datasets), 2 * sum(len(factor.claims) for factor in ablations.factors.values())
    else:
        datasets = [wildcards["dataset"]] if "dataset" in wildcards else list(config.datasets)
        compared = len(config.methods)
    cases = [sizes_of(name, config.datasets[name], results).test for name in datasets]
    return replace(most, seconds=output_seconds(rule, compared, cases))


def output_seconds(rule: str, compared: int, cases: list[int]) -> float:
    """Seconds of a table, a plot or the page. compared: its number of rows. cases: test cases of each dataset."""
    start, each_dataset, each_value = OUTPUTS[rule]
    return start + sum(each_dataset + each_value * compared * n / 1000 for n in cases)


@dataclass(frozen=True)
class Row:
    """All jobs of one rule, and of one method of the rule `run`."""

    name: str
    jobs: list[Estimate]
    gpus: int = 0
    threads: int = 1


# A job as Snakemake names it: its rule and wildcards.
Named = tuple[str, Mapping[str, str]]


def every_job(config: Config) -> Iterator[Named]:
    """All jobs of a config but downloads of models; those of the ablations follow each method's own."""
    ablations = ablations_of(config)
    for rule in ("fetch", "prepare"):
        yield from ((rule, {"dataset": dataset}) for dataset in config.datasets)
    for method in config.methods:
        seeds = range(1, config.seeds_of(method) + 1)
        own = [(dataset, method, seed) for dataset in config.datasets for seed in seeds]
        for dataset, run, seed in [*own, *sorted(_added(ablations, method) - set(own))]:
            yield "run", {"dataset": dataset, "method": run, "seed": str(seed)}
    for rule in ("statistics", "table", "plots"):
        yield from ((rule, {"dataset": dataset}) for dataset in config.datasets)
    outputs = Outputs(Plan(config, ablations, {}))
    against, thinking = bool(outputs.against_files()), bool(outputs.thinking_files())
    overall = bool(outputs.overall_statistics_files())
    wanted = {"overall_statistics": overall, "tables": True, "against_statistics": against, "against": against}
    yield from ((rule, {}) for rule, made in {**wanted, "thinking": thinking, "page": True}.items() if made)
    for rule in ("factor_statistics", "ablation", "ablation_plot") if ablations.factors else ():
        yield from ((rule, {"factor": factor}) for factor in ablations.factors)
    for rule in ("claims_statistics", "claims") if ablations.factors else ():
        yield rule, {}


def rows(config: Config, results: Path, planned: Iterable[Named] | None = None) -> Iterator[Row]:
    """The estimates of the planned jobs by rule and method; without `planned`, of the whole config, done or not.

    States, tunings and warm starts that several jobs share count for the first of them.
    """
    ablations = ablations_of(config)
    jobs = list(every_job(config) if planned is None else planned)
    order = ["fetch", "prepare", "fetch_backbone", "fetch_encoder", "run", *RULES]
    jobs.sort(key=lambda job: order.index(job[0]) if job[0] in order else len(order))
    grouped: dict[tuple[str, int, int], list[Estimate]] = {}
    on_disk: set[tuple[str, ...]] = set()  # of the jobs before
    for rule, wildcards in jobs:
        job_estimate = of_rule(config, ablations, rule, wildcards, results)
        if job_estimate is not None:
            grouped.setdefault(_row_of(config, ablations, rule, wildcards), []).append(job_estimate.finding(on_disk))
            on_disk |= job_estimate.kept.keys()
    for (name, gpus, threads), estimates in grouped.items():
        yield Row(name, estimates, gpus, threads)


def _row_of(config: Config, ablations: Ablations, rule: str, wildcards: Mapping[str, str]) -> tuple[str, int, int]:
    """The row that counts a job: its name, GPUs and cores."""
    if rule != "run":
        return rule, 0, 1
    run = wildcards["method"]
    base = ablations.variants[run].base if run in ablations.variants else run
    more = run in ablations.variants or int(wildcards["seed"]) > config.seeds_of(run)
    entry = config.method(base)
    return f"ablations of {base}" if more else f"run {base}", entry.gpus, entry.threads


def _added(ablations: Ablations, base: str) -> set[tuple[str, str, int]]:
    """Dataset, run and seed of every run of this row, or of its variants, that the factors compare."""
    return {
        (dataset, run, seed)
        for factor in ablations.factors.values()
        for dataset in factor.datasets
        for run in factor.runs.values()
        if base == (ablations.variants[run].base if run in ablations.variants else run)
        for seed in range(1, factor.seeds + 1)
    }


def in_words(seconds: float) -> str:
    """A duration in units that fit it, rounded up.

    >>> in_words(0.2), in_words(89), in_words(91), in_words(5400), in_words(25 * 3600 + 1)
    ('1 s', '89 s', '2 min', '1 h 30 min', '26 h')
    """
    if seconds <= 90:
        return f"{max(1, math.ceil(seconds))} s"
    minutes = math.ceil(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 10 * 60:
        return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")
    return f"{math.ceil(seconds / 3600):,} h"


def table(config: Config, results: Path, planned: Iterable[Named] | None = None, cores: int | None = None) -> str:
    """The estimates as text: a line per rule and method, then totals and how far to trust them.

    planned: the jobs to count, those of the whole config without it. cores: how many run them, if that is known.
    """
    every = list(rows(config, results, planned))
    width = max((len(row.name) for row in every), default=0)
    width = max(width, len("estimates"))
    heading = ("jobs", "     time of each", "time of all", "main GiB", "cores", "GPUs", "GiB of each")
    lines = [f"{'estimates':{width}}  " + "  ".join(heading)]
    for row in every:
        seconds = [job.seconds for job in row.jobs]
        least, most = in_words(min(seconds)), in_words(max(seconds))
        cells = (
            str(len(seconds)),
            least if least == most else f"{least} to {most}",
            in_words(sum(seconds)),
            f"{max(job.memory for job in row.jobs) / GIB:.0f}",
            str(row.threads),
            str(row.gpus or "-"),
            f"{max(job.gpu_memory for job in row.jobs) / GIB:.0f}" if row.gpus else "-",
        )
        known = all(job.known for job in row.jobs)
        texts = [f"{cell if known or i in (0, 4, 5) else '?':>{len(heading[i])}}" for i, cell in enumerate(cells)]
        lines.append(f"{row.name:{width}}  " + "  ".join(texts))
    return "\n".join([*lines, *_in_all(every, cores, planned is not None)])


def _in_all(every: list[Row], cores: int | None, planned: bool) -> list[str]:
    """The lines below the table."""
    known = [(job.seconds, row) for row in every for job in row.jobs if job.known]
    work = sum(seconds * row.threads for seconds, row in known)
    gpu = sum(seconds * row.gpus for seconds, row in known)
    total = f"In all {in_words(work)} of one core" + (f" and {in_words(gpu)} of one GPU" if gpu else "")
    if cores and not gpu:
        longest = max((seconds for seconds, _ in known), default=0.0)
        together = sum(seconds * min(row.threads, cores) for seconds, row in known) / cores
        total += f", about {in_words(max(longest, together))} on {many(cores, 'core')}"
    lines = [f"{total}: {'these jobs alone' if planned else 'the whole config, whatever of it is done already'}."]
    advice = (
        f"Jobs ask for {TIME_RESERVE:g} times the time and at least {LEAST_MINUTES} min, and for {MEMORY_RESERVE:g} "
        "times the main memory."
    )
    if len(known) < sum(len(row.jobs) for row in every):
        advice += (
            " `?`: the method or its backbone is not known here; it counts for nothing and asks for what any job gets."
        )
    lines.append(advice)
    if gpu:
        lines.append("Figures with GPUs are guesses from an A100's data sheet: nothing here has run on a GPU.")
    return lines


@command
def main() -> None:
    parser = command_line("benchmark.jobs.estimates", __doc__)
    parser.add_argument("--configfile", type=Path, required=True, help="a config, such as config/paper.yaml")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where prepared datasets lie, if any do")
    args = parser.parse_args()
    print(table(read_config_file(args.configfile), args.results))


if __name__ == "__main__":
    main()
