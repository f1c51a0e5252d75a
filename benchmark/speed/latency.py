"""Measure what the paper's Table 4 shows, on this machine: how long one user waits for each method's answer.

`python -m benchmark.speed.latency config/latency.yaml --directory results/latency`, which `make latency` calls once the
data are prepared, fits each row of the config, one after the other. Then it times them in rounds, each method in every
round, so that what slows the machine for a while slows all of them: every query alone (the paper: batch 1), and all of
them together. Nothing that earlier scoring kept is read. Where fits are short, hardly trained LMs write: a prompt and a
token take what they take after a long training, but a text may have another length. A method that fails is a row that
says why, and the others go on; the exit code is then 1.
"""

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark import provenance
from benchmark.config.methods import all_params, load_method
from benchmark.config.read import read_config_file
from benchmark.config.schema import MethodConfig
from benchmark.contract import Cases, Recommender, Split
from benchmark.data.store import read_about, read_split, read_test
from benchmark.errors import InputError, command, command_line
from benchmark.jobs.last_words import sentence, shown
from benchmark.output.markdown import plain, table
from benchmark.output.page.labels import machine
from benchmark.statistics.files import no_formula
from benchmark.storage.io import write_csv, write_text

COLUMNS = ("method", "queries", "rounds", "alone_s", "alone_5_s", "alone_95_s", "batch_s", "tokens")
Row = dict[str, str | int | float]


@dataclass(frozen=True)
class Latency:
    """Seconds of one method. alone: float64 [rounds, queries]; together: [rounds], of all queries in batches.

    tokens: that an LLM wrote per query.
    """

    alone: np.ndarray
    together: np.ndarray
    tokens: float

    def row(self, method: str) -> Row:
        """Its line of the table: of each query the median over rounds; of these the median, and 5 and 95 %."""
        rounds, queries = self.alone.shape
        low, middle, high = np.quantile(np.median(self.alone, axis=0), (0.05, 0.5, 0.95))
        values = (middle, low, high, np.median(self.together) / queries, self.tokens)
        numbers = [float(f"{value:.4g}") for value in values]
        return dict(zip(COLUMNS, (method, queries, rounds, *numbers), strict=True))


def measured(
    recommenders: Mapping[str, Recommender],
    cases: Cases,
    rounds: int,
    clock: Callable[[], float] = time.monotonic,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, Latency], dict[str, str]]:
    """Time every method on these cases, all methods in each round. The first case warms each up. clock: in seconds.

    A method that raises an exception takes no part in what follows. Gives the latencies of the others, and its reason.
    """
    alone = {name: np.zeros((rounds, len(cases))) for name in recommenders}
    together = {name: np.zeros(rounds) for name in recommenders}
    tokens, failed = dict[str, float](), dict[str, str]()
    for at in range(-1, rounds):
        for name, recommender in recommenders.items():
            if name in failed:
                continue
            try:
                if at < 0:
                    _score(recommender, cases.take(np.arange(1)))
                    continue
                for query in range(len(cases)):
                    alone[name][at, query] = _seconds(recommender, cases.take(np.array([query])), clock)
                together[name][at] = _seconds(recommender, cases, clock)
                tokens[name] = recommender.tokens_written() / len(cases)
            except Exception as error:
                failed[name] = why(error)
                say(f"{name} failed: {failed[name]}")
                continue
            seconds = np.median(alone[name][at]), together[name][at] / len(cases)
            say(f"round {at + 1} of {rounds}: {name}, s per query: {seconds[0]:.3g} alone, {seconds[1]:.3g} in batches")
    return {
        name: Latency(alone[name], together[name], tokens[name]) for name in recommenders if name not in failed
    }, failed


def _seconds(recommender: Recommender, cases: Cases, clock: Callable[[], float]) -> float:
    began = clock()
    _score(recommender, cases)
    return clock() - began


def _score(recommender: Recommender, cases: Cases) -> None:
    for _ in recommender.score(cases):
        pass


def why(error: Exception) -> str:
    """Why a method failed, in the words that the workflow has for a run."""
    said = [f"error: {error}"] if isinstance(error, InputError) else traceback.format_exception(error)
    return shown(sentence("".join(said)) or type(error).__name__)


def markdown(
    rows: list[Row],
    reference: str | None,
    printed: Mapping[str, float],
    about: str,
    failed: Mapping[str, str] | None = None,
) -> str:
    """The table: seconds, and by how many times they are those of the reference. about: the sentence on the machine.

    printed: seconds by method of another table, which stand beside; methods that are in it alone get a row, too.
    failed: the reason by method that failed, which stands in the place of its seconds.
    """
    failed = failed or {}
    own = {str(row["method"]): row for row in rows}
    seconds = {name: float(row["alone_s"]) for name, row in own.items()}
    head = ["method", "s per query, alone", "5 to 95 % of queries", "in batches", "tokens written"]
    head += [f"times {reference}"] * bool(reference) + ["printed: s"] * bool(printed)
    head += [f"printed: times {reference}"] * bool(reference and printed)
    body = []
    for name in dict.fromkeys([*own, *failed, *printed]):
        row = own.get(name)
        blank = [plain(f"failed: {failed[name]}") if name in failed else "", *[""] * 3]
        line = [plain(name), *(blank if row is None else _measured_cells(row))]
        line += [_times(seconds, name, reference)] * bool(reference)
        line += [f"{printed[name]:g}" if name in printed else ""] * bool(printed)
        line += [_times(printed, name, reference)] * bool(reference and printed)
        body.append(line)
    return f"{table(head, body)}\n\n{about}\n"


def _measured_cells(row: Row) -> list[str]:
    cells = [f"{row['alone_s']:.3g}", f"{row['alone_5_s']:.3g} to {row['alone_95_s']:.3g}"]
    return [*cells, f"{row['batch_s']:.3g}", f"{row['tokens']:.3g}"]


def _times(seconds: Mapping[str, float], name: str, reference: str | None) -> str:
    if reference is None or not {reference, name} <= seconds.keys():
        return ""
    return f"{seconds[name] / seconds[reference]:.2g}"


def printed_in(path: Path) -> dict[str, float]:
    """Seconds by method of a file with these two columns. Raises InputError for anything else."""
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read ({error}); give a CSV of method and seconds") from None
    if list(frame.columns) != ["method", "seconds"]:
        raise InputError(f"{path}: has the columns {list(frame.columns)}; give method and seconds")
    printed = {}
    for number, (method, text) in enumerate(frame.itertuples(index=False), 1):
        value = _finite(text)
        if value is None or value <= 0:
            raise InputError(f"{path}: row {number}: seconds is {text!r}; give a number above 0")
        if method in printed:
            raise InputError(f"{path}: row {number}: {method!r} stands there twice; give each method once")
        printed[method] = value
    return printed


def _finite(text: str) -> float | None:
    """A finite number; None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def fitted(name: str, entry: MethodConfig, split: Split, workdir: Path) -> Recommender:
    """Fit a row by its params; nothing of earlier scoring is kept in what is returned."""
    method = load_method(entry.module or name)
    seed = provenance.derive_seed(split.name, name, 1)
    recommender: Recommender = method.fit(split, seed=seed, params=all_params(method, entry.params), workdir=workdir)
    return recommender.uncached()


def chosen(
    methods: Mapping[str, MethodConfig | None], names: Sequence[str] | None, where: Path
) -> dict[str, MethodConfig | None]:
    """The rows of these names in the config's order, or all of them. Raises InputError for a name that is no row."""
    if unknown := [name for name in names or () if name not in methods]:
        raise InputError(f"--methods {unknown[0]}: {where} has no such row; give some of {', '.join(methods)}")
    return {name: entry for name, entry in methods.items() if names is None or name in names}


def all_fitted(
    methods: Mapping[str, MethodConfig | None], split: Split, folder: Path
) -> tuple[dict[str, Recommender], dict[str, str]]:
    """Every row fitted, one after the other, and the reasons of those that failed."""
    recommenders, failed = dict[str, Recommender](), dict[str, str]()
    for name, entry in methods.items():
        _say(f"fitting {name}")
        (folder / name).mkdir()
        try:
            recommenders[name] = fitted(name, entry or MethodConfig(), split, folder / name)
        except Exception as error:
            failed[name] = why(error)
            _say(f"{name} failed: {failed[name]}")
    return recommenders, failed


def _say(line: str) -> None:
    print(line, flush=True)


@command
def main() -> None:
    parser = command_line("benchmark.speed.latency", __doc__)
    parser.add_argument("config", type=Path, help="a config with one dataset")
    parser.add_argument(
        "--directory", type=Path, required=True, help="the folder of its run, where its data are prepared"
    )
    parser.add_argument("--queries", type=int, default=100, help="test cases (default: 100, as in the paper)")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3, as in the paper")
    parser.add_argument("--methods", nargs="+", help="rows of the config to time (default: all of them)")
    parser.add_argument("--printed", type=Path, help="a CSV of method and seconds, such as a paper's, to stand beside")
    args = parser.parse_args()
    printed = {} if args.printed is None else printed_in(args.printed)
    if args.queries < 1 or args.rounds < 1:
        raise InputError(f"--queries {args.queries} --rounds {args.rounds}: give numbers of at least 1")
    config = read_config_file(args.config)
    if len(config.datasets) != 1:
        raise InputError(f"{args.config}: has {len(config.datasets)} datasets; give a config with one")
    methods = chosen(config.methods, args.methods, args.config)
    if not args.directory.is_dir():
        raise InputError(f"--directory {args.directory}: no such folder; run the config there first (make latency)")
    os.chdir(args.directory)
    (dataset,) = config.datasets
    data = Path("results/data", dataset)
    split, cases = read_split(data), read_test(data, read_about(data))
    if len(cases) < args.queries:
        raise InputError(f"{args.directory / data}: has {len(cases)} test cases; give --queries {len(cases)} or fewer")
    cases = cases.take(
        np.random.default_rng(provenance.derive_seed(dataset, "latency")).permutation(len(cases))[: args.queries]
    )
    with tempfile.TemporaryDirectory() as folder:
        recommenders, unfitted = all_fitted(methods, split, Path(folder))
        found, unmeasured = measured(recommenders, cases, args.rounds, say=_say)
    failed = {name: (unfitted | unmeasured)[name] for name in methods if name in unfitted | unmeasured}
    if not found:
        name, reason = next(iter(failed.items()))
        raise InputError(f"no method could be timed; {name} failed: {reason}")
    rows = [found[name].row(name) for name in found]
    about = said(dataset, config.note, args.queries, args.rounds)
    write(Path("results/latency"), rows, failed, markdown(rows, config.reference, printed, about, failed))
    if failed:
        sys.exit(1)


def said(dataset: str, note: str, queries: int, rounds: int) -> str:
    """The paragraph below the table."""
    versions = provenance.versions()
    packages = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers") if name in versions)
    return (
        f"{queries} test cases of {dataset}, {rounds} rounds, at commit {provenance.commit()[:12]}. Machine: "
        f"{machine(provenance.hardware())}; {packages}. alone: of each query the median over rounds, and of these the "
        f"median. {note}"
    )


def write(results: Path, rows: list[Row], failed: Mapping[str, str], text: str) -> None:
    """Write latency.csv, with the reasons of failed methods in a last column, and latency.md, and show the table."""
    reasons: list[Row] = [{"method": name, "failed": no_formula(reason)} for name, reason in failed.items()]
    write_csv(results / "latency.csv", (*COLUMNS, *["failed"] * bool(failed)), [*rows, *reasons])
    write_text(results / "latency.md", text)
    for name, reason in failed.items():
        print(f"{name} failed: {reason}", file=sys.stderr)
    print(f"\n{text}\nTable: {results.absolute() / 'latency.md'}")


if __name__ == "__main__":
    main()
