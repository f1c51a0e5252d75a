"""How small a difference of two methods would be found, what that took, and what a smaller one would take.

    python -m benchmark.statistics.power --runs results/runs --datasets ml-100k movielens-2016 complete-journey \\
        --method r2ec --against r2ec_no_reasoning --out somewhere
    python -m benchmark.statistics.power --table results/published/default/tables/against.csv \\
        --against r2ec_no_reasoning --out somewhere

The first reads rankings. A difference is found with a power of 80 % at the 5 % level by the test over users and
trainings (`benchmark.analysis.trainings`), over all datasets, each of the same weight. Its variance on one dataset with
k times as many cases of the same users and s trainings of both methods is planned as

    U ((1 - w) + w / k) + T / s

U: the users' part as it was found. w: its share that lies within users, by the moments of a one-way layout; what lies
between users stays, however many cases each of them has (Kish, Survey Sampling, 1965: the design effect). T: the
variance of one training's difference, the sum of both methods', or that of the pairs where trainings are --paired.
Of two methods of which one has a single training, the other's variance stands for both, and the table says so. Where
both have one, trainings are not covered, and no number of them can be said. More trainings make U smaller, too; that
is left out, so that the plan is careful.

--smallest is in NDCG@10. For another statistic it is the same share of the mean of --against.

The second reads the row "all datasets" of a table of one method against the others, and covers users alone: with k
times as many cases, of as many more users, the smallest difference is divided by the square root of k.

--out gets power.csv and power.md. Seconds are those of fitting and ranking, without the search for settings.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.analysis import significance
from benchmark.analysis.discrimination import read_rankings
from benchmark.analysis.trainings import Components, Part, components, judge
from benchmark.errors import InputError, command, command_line
from benchmark.metrics import statistic
from benchmark.output.markdown import plain, table
from benchmark.statistics.against import EVERY, MAIN
from benchmark.statistics.files import read_csv
from benchmark.storage.io import read_json, write_text

STATISTICS = (MAIN, "NDCG@100")
PLANNED = (2, 3, 5, 8, 10, 20)  # trainings of both methods
MOST_CASES = 1_000.0  # times as many; beyond it the answer is that no number of cases is enough
COLUMNS = (
    *("statistic", "mean", "mean_against", "difference", "smallest", "trainings", "trainings_against", "planned"),
    *("detectable", "times_cases", "cases", "seconds", "covers", "assumed"),
)


@dataclass(frozen=True)
class Pair:
    """Two methods' rankings of one dataset's test cases, and the seconds of one training of each, a mean over them."""

    dataset: str
    users: np.ndarray  # int [n]
    ranks: tuple[np.ndarray, np.ndarray]  # int [trainings, n] each
    fit: tuple[float, float]  # seconds
    score: tuple[float, float]

    @property
    def took(self) -> float:
        """Seconds of all trainings of both methods."""
        return sum(n * (fit + score) for n, fit, score in zip(self.trainings, self.fit, self.score, strict=True))

    @property
    def trainings(self) -> tuple[int, int]:
        """Of both methods."""
        return len(self.ranks[0]), len(self.ranks[1])


@dataclass(frozen=True)
class Noise:
    """What the variance of a difference on one dataset is made of."""

    users: Part
    within: float  # share of the users' part that lies within users
    training: float | None  # variance of one training's difference; None: not known

    def planned(self, times: float, trainings: int) -> Components:
        """The parts with `times` as many cases of the same users and so many trainings of both methods."""
        users = Part(self.users.variance * (1 - self.within + self.within / times), self.users.df)
        assert self.training is not None
        part = Part(self.training / trainings, max(1, trainings - 1))
        return Components(0.0, users, (part,), (trainings, trainings), covered=True)


def share_within(values: np.ndarray, users: np.ndarray) -> float:
    """The share of the variance of the mean that lies within users, 0 to 1: the one-way layout's moments.

    values: float [n], a case's difference. users: int [n]. With m_u cases of user u, mean squares between and within
    users, and n0 = (n - sum m_u^2 / n) / (users - 1): between = max(0, (MSB - MSW) / n0), and the share is
    (MSW / n) / (MSW / n + between sum m_u^2 / n^2). 1 where no user has two cases, since nothing is known then.

    >>> share_within(np.array([1.0, 3.0, 1.0, 3.0]), np.array([0, 0, 1, 1]))  # users have one mean
    1.0
    >>> share_within(np.array([1.0, 1.0, 3.0, 3.0]), np.array([0, 0, 1, 1]))
    0.0
    """
    _, place = np.unique(users, return_inverse=True)
    counts = np.bincount(place)
    n, n_users = len(values), len(counts)
    if n == n_users or n_users < 2:
        return 1.0
    means = np.bincount(place, values) / counts
    inside = float(((values - means[place]) ** 2).sum()) / (n - n_users)
    outside = float((counts * (means - values.mean()) ** 2).sum()) / (n_users - 1)
    squares = float((counts**2).sum())
    between = max(0.0, (outside - inside) / ((n - squares / n) / (n_users - 1)))
    total = inside / n + between * squares / n**2
    return inside / n / total if total else 1.0


def noise_of(pair: Pair, name: str, paired: bool) -> tuple[Components, Noise]:
    """The difference as it was found, and what its variance is made of."""
    first, second = (statistic(name, ranks) for ranks in pair.ranks)
    parts = components(first, second, pair.users, shared=paired)
    per_training = [part.variance * (part.df + 1) for part in parts.trainings]
    training = None
    if per_training:
        sides = 1 if paired else 2
        training = float(np.mean(per_training)) * sides  # a method with one training is taken to have the other's
    within = share_within(first.mean(axis=0) - second.mean(axis=0), pair.users)
    return parts, Noise(parts.users, within, training)


def detectable(noises: Sequence[Noise], times: float, trainings: int, family: int = 1) -> float:
    """The smallest difference that would be found with `times` as many cases and so many trainings of both."""
    return judge([noise.planned(times, trainings) for noise in noises]).detectable(family)


def cases_needed(noises: Sequence[Noise], trainings: int, smallest: float, family: int = 1) -> float:
    """How many times as many cases find a difference of `smallest`; infinite where MOST_CASES are not enough."""
    low, high = 1e-3, MOST_CASES
    if not detectable(noises, high, trainings, family) <= smallest:
        return float("inf")
    while high / low > 1.001:
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if detectable(noises, middle, trainings, family) <= smallest else (middle, high)
    return high


def read_pairs(runs: Path, datasets: Sequence[str], method: str, against: str) -> list[Pair]:
    """All seeds of both methods. Raises InputError for missing runs, or other cases."""
    out = []
    for dataset in datasets:
        ranks, users, cases, seconds = [], [], [], []
        for name in (method, against):
            files = sorted((runs / dataset / name).glob("seed*/rankings.parquet"))
            if not files:
                raise InputError(
                    f"{runs / dataset / name}: no seed*/rankings.parquet; run this method, or name another"
                )
            tables = [read_rankings(file) for file in files]
            ranks.append(np.stack([rankings["rank"] for rankings in tables]))
            users.append(tables[0]["user"])
            cases += [rankings["case"] for rankings in tables]
            seconds.append(np.mean([_seconds(file.with_name("run.json")) for file in files], axis=0).tolist())
        if any(not np.array_equal(rankings, cases[0]) for rankings in cases):
            raise InputError(f"{runs / dataset}: {method} and {against} ranked other cases; run both on the same data")
        fit, score = zip(*seconds, strict=True)
        out.append(Pair(dataset, users[0], (ranks[0], ranks[1]), fit, score))
    return out


def _seconds(path: Path) -> tuple[float, float]:
    """Of fitting and of ranking."""
    try:
        seconds = read_json(path)["seconds"]
        return float(seconds["fit"]), float(seconds["score"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: says no seconds of fit and score ({error}); run this seed again") from None


def plan(pairs: Sequence[Pair], name: str, smallest: float, paired: bool, family: int = 1) -> pd.DataFrame:
    """A row as it was run (planned: 0), then one per number of PLANNED. smallest: in units of this statistic."""
    read = [noise_of(pair, name, paired) for pair in pairs]
    judged, noises = judge([part for part, _ in read]), [noise for _, noise in read]
    values = [[float(statistic(name, ranks).mean()) for ranks in pair.ranks] for pair in pairs]
    mean, mean_against = np.mean(values, axis=0).tolist()
    n_cases = sum(len(pair.users) for pair in pairs)
    counts = [min(pair.trainings[side] for pair in pairs) for side in (0, 1)]
    one_sided = not paired and min(counts) == 1 < max(counts)
    base = {"statistic": name, "mean": mean, "mean_against": mean_against, "difference": judged.difference}
    base |= {"smallest": smallest, "trainings": counts[0], "trainings_against": counts[1]}
    base |= {"covers": judged.covers, "assumed": one_sided}
    as_run = {"planned": 0, "detectable": judged.detectable(family), "times_cases": 1.0}
    rows = [base | as_run | {"cases": n_cases, "seconds": sum(pair.took for pair in pairs)}]
    if any(noise.training is None for noise in noises):
        return pd.DataFrame(rows, columns=list(COLUMNS))
    for number in PLANNED:
        times = cases_needed(noises, number, smallest, family)
        row: dict[str, object] = {"planned": number, "detectable": detectable(noises, 1.0, number, family)}
        row |= {"times_cases": times, "cases": times * n_cases}
        seconds = number * sum(
            sum(pair.fit) + (sum(pair.score) * times if np.isfinite(times) else np.inf) for pair in pairs
        )
        rows.append(base | row | {"seconds": seconds})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def of_runs(pairs: Sequence[Pair], smallest: float, paired: bool, family: int = 1) -> pd.DataFrame:
    """`plan` for all of STATISTICS. smallest: in NDCG@10; of others the same share of the mean of the second method."""
    means = {name: np.mean([statistic(name, pair.ranks[1]).mean() for pair in pairs]) for name in STATISTICS}
    frames = [plan(pairs, name, smallest * means[name] / means[MAIN], paired, family) for name in STATISTICS]
    return pd.concat(frames, ignore_index=True)


def of_table(path: Path, against: str, smallest: float) -> pd.DataFrame:
    """The row "all datasets" of a against.csv in the same columns: as it was run, in NDCG@10, for a single test.

    Its own smallest difference is that of Holm's first step: it is divided by (z_(1 - a/2m) + z_power) and multiplied
    by (z_(1 - a/2) + z_power), m its family. Raises InputError where the row is missing.
    """
    frame = read_csv(path)
    rows = frame[(frame.dataset == EVERY) & (frame.method == against)] if "method" in frame.columns else frame[:0]
    if rows.empty:
        raise InputError(f'{path}: no row of {against} under "{EVERY}"; name another method by --against')
    row = rows.iloc[0]
    single = significance.smallest_detectable(1.0, 1) / significance.smallest_detectable(1.0, int(row.family_size))
    detectable = row.detectable * single
    times = (detectable / smallest) ** 2
    n_datasets = frame[(frame.method == against) & (frame.dataset != EVERY)].shape[0]
    once = n_datasets * (row.fit_s + row.fit_s_reference), n_datasets * (row.score_s + row.score_s_reference)
    base = {"statistic": MAIN, "mean": row.mean_reference, "mean_against": row["mean"], "difference": row.difference}
    base |= {"smallest": smallest, "trainings": 1, "trainings_against": 1, "covers": "users alone", "assumed": False}
    as_run = {"planned": 0, "detectable": detectable, "times_cases": 1.0, "cases": row.n_cases, "seconds": sum(once)}
    more = {"planned": 1, "detectable": detectable, "times_cases": times, "cases": times * row.n_cases}
    return pd.DataFrame([base | as_run, base | more | {"seconds": once[0] + times * once[1]}], columns=list(COLUMNS))


def as_markdown(frame: pd.DataFrame, title: str, datasets: str) -> str:
    """The frame as a table with its caption."""
    head = ["statistic", "trainings", "smallest detectable", "of the mean", "to be found", "cases for it", "hours"]
    lines = []
    for row in frame.to_dict("records"):
        number = (
            f"{row['trainings']} and {row['trainings_against']}, as run" if not row["planned"] else str(row["planned"])
        )
        cells = [row["statistic"], number, f"{row['detectable']:.4f}"]
        cells += [f"{100 * row['detectable'] / row['mean_against']:.0f} %", f"{row['smallest']:.4f}"]
        if not row["planned"]:
            lines.append([*cells[:4], "", f"{row['cases']:,.0f} ranked", f"{row['seconds'] / 3600:.1f}"])
        elif np.isfinite(row["times_cases"]):
            needed = f"{row['cases']:,.0f} ({row['times_cases']:.1f} times)"
            lines.append([*cells, needed, f"{row['seconds'] / 3600:.1f}"])
        else:
            lines.append([*cells, "no number", ""])
    body = [[plain(cell) for cell in line] for line in lines]
    return f"# {title}\n\n{table(head, body, left=2)}\n\n{_note(frame, datasets)}\n"


def _note(frame: pd.DataFrame, datasets: str) -> str:
    """What the columns are, and what isn't covered."""
    first = frame.iloc[0]
    text = (
        f"Over {datasets}: the smallest true difference that one test at the 5 % level would find in four of five "
        "experiments, as it was run and as planned with other numbers of trainings of both methods on as many cases. "
        "To be found: the difference that is asked for, in NDCG@10 as given, in another statistic the same share of "
        "the mean. Cases for it: test cases of the same users with which it would be found; where it is no number, "
        f"what differs between these users or between trainings is too much. As it was run it covers {first.covers}. "
        "Hours of one machine, fitting and ranking, without the search for settings."
    )
    if (frame.planned > 1).any():
        text += " The plan covers trainings, too; how much they vary is badly known from few of them."
    if first.assumed:
        text += " One of the methods has a single training: it is taken to vary as the other does."
    if (frame.planned <= 1).all() and first.covers != "users and trainings":
        text += (
            " How far other trainings would move the difference is not known, so that nothing is said of more of them."
        )
    return text


def parse() -> argparse.Namespace:
    parser = command_line("benchmark.statistics.power", __doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--runs", type=Path, help="folder with {dataset}/{method}/seed*/rankings.parquet and run.json")
    source.add_argument("--table", type=Path, help="an against.csv")
    parser.add_argument("--datasets", nargs="+", default=[], help="of --runs")
    parser.add_argument("--method", help="of --runs")
    parser.add_argument("--against", required=True, help="the method that it is held against")
    parser.add_argument("--paired", action="store_true", help="training s of both has the same random numbers")
    parser.add_argument("--smallest", type=float, default=0.0025, help="difference in NDCG@10 (default: 0.0025)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    args = parser.parse_args()
    if args.runs and not (args.datasets and args.method):
        raise InputError(
            "--runs without --datasets or --method; name what the difference is taken over, and its method"
        )
    if not args.smallest > 0:
        raise InputError(f"--smallest {args.smallest}; give a difference above 0")
    return args


@command
def main() -> None:
    args = parse()
    if args.table:
        frame, datasets = of_table(args.table, args.against, args.smallest), EVERY
        title = f"What {args.against} against the table's reference can see"
    else:
        pairs = read_pairs(args.runs, args.datasets, args.method, args.against)
        frame, datasets = of_runs(pairs, args.smallest, args.paired), ", ".join(args.datasets)
        title = f"What {args.method} against {args.against} can see"
    text = as_markdown(frame, title, datasets)
    write_text(args.out / "power.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    write_text(args.out / "power.md", text)
    print(text)


if __name__ == "__main__":
    main()
