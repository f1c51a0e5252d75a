"""Make tables and significance tests of finished runs: `python -m benchmark.tables`.

    python -m benchmark.tables --datasets ml-100k --methods popularity sasrec r2ec --seeds 3

The folder gets, per dataset and as `main` for all of them, a table as .csv, .md and .tex (`main` as .txt too), and
{dataset}.tests.csv with each pair of methods, and `costs` as .csv and .md. Nothing is written unless every dataset passes the
checks of `benchmark.collect`: all runs are there, on the same data and cases, with numbers that can be.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmark import costs, significance
from benchmark.check_table import Row, impossible
from benchmark.collect import Collected, arguments, collect, seeds_in_words
from benchmark.errors import InputError, command, command_line
from benchmark.io import write_text
from benchmark.metrics import METRICS
from benchmark.provenance import derive_seed

AGAINST_BEST = "against the best baseline"
ALL_PAIRS = "all pairs"
DAGGER = "†"


def summarise(results: Collected, tests: pd.DataFrame, family: str = AGAINST_BEST) -> pd.DataFrame:
    """One row per method: the frame that every form of the table is made from.

    Columns: dataset, method, best_baseline, n_cases, n_users, seeds, family_size, commit, and per metric m the mean `m`,
    `m_sd` over seeds (ddof 1; NaN for one seed), `m_low` and `m_high` (95 % bootstrap interval over users) and
    `m_p_holm`, the method's test in this family of `tests` as method_a (NaN where it has none, as the best baseline).
    Rounded here, once, to what the csv prints.
    """
    low, high = intervals(results)
    against = tests[tests.family == family]
    rows = []
    for i, method in enumerate(results.methods):
        row: dict[str, object] = {
            "dataset": results.dataset,
            "method": method,
            "best_baseline": results.best_baseline or "",
            "n_cases": len(results.cases),
            "n_users": results.n_users,
            "seeds": results.seeds[method],
            "family_size": len(against),
            "commit": " ".join(results.commits),
        }
        for j, metric in enumerate(METRICS):
            by_seed = results.values[i][j].mean(axis=-1)
            mine = against[(against.method_a == method) & (against.metric == metric)]
            row[metric] = round(float(by_seed.mean()), 6)
            row[f"{metric}_sd"] = round(float(by_seed.std(ddof=1)), 6) if len(by_seed) > 1 else np.nan
            row[f"{metric}_low"], row[f"{metric}_high"] = round(float(low[j, i]), 6), round(float(high[j, i]), 6)
            row[f"{metric}_p_holm"] = float(mine.p_holm.iloc[0]) if len(mine) else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def intervals(
    results: Collected, rows: np.ndarray | None = None, metrics: list[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """95 % bootstrap intervals of metric means over the cases `rows` (int; default: all): [metrics, methods] each.

    `metrics` are places in METRICS (default: all). A case's value is its mean over the method's seeds; users are resampled,
    so the interval holds the spread over users and not the spread over seeds.
    """
    rows = np.arange(len(results.cases)) if rows is None else rows
    chosen = results.case_means if metrics is None else results.case_means[metrics]
    values = chosen[..., rows]
    sums, counts = significance.user_sums(values.reshape(-1, len(rows)), results.cases.user[rows])
    replicates = significance.bootstrap_means(sums, counts, derive_seed("bootstrap", results.dataset))
    low, high = significance.interval(replicates)
    return low.reshape(values.shape[:2]), high.reshape(values.shape[:2])


@dataclass(frozen=True)
class Comparison:
    """One paired comparison of two methods by one metric; the difference is a - b."""

    metric: str
    a: str
    b: str
    mean_a: float
    mean_b: float
    low: float  # of the 95 % interval of the difference
    high: float
    error: float  # standard error of the difference: the standard deviation of its bootstrap replicates
    p: float
    test: str

    def swapped(self) -> "Comparison":
        """The same comparison as b - a; the tests are two-sided, so p stays."""
        return Comparison(
            self.metric, self.b, self.a, self.mean_b, self.mean_a, -self.high, -self.low, self.error, self.p, self.test
        )


def compare(results: Collected) -> pd.DataFrame:
    """Every pair of methods and metric: difference a - b, its interval and paired test, in two Holm families.

    A pair with the best baseline is in both families: "against the best baseline" (method_b is the baseline) and
    "all pairs". A family spans all six metrics. Columns as in {dataset}.tests.csv.
    """
    every = comparisons(results, list(combinations(results.methods, 2)))
    best = results.best_baseline
    with_best = [c if c.b == best else c.swapped() for c in every if best in (c.a, c.b)]
    return tests_frame(results, {AGAINST_BEST: with_best, ALL_PAIRS: every})


def tests_frame(results: Collected, families: dict[str, list[Comparison]]) -> pd.DataFrame:
    """Comparisons by family, each Holm-corrected over its own, as rows. Columns as in {dataset}.tests.csv."""
    rows = []
    for family, members in families.items():
        corrected = significance.holm([c.p for c in members])
        for c, p_holm in zip(members, corrected, strict=True):
            # + 0.0 turns -0.0 into 0.0, or csv files would differ in a sign that means nothing
            numbers = [round(x, 6) + 0.0 for x in (c.mean_a, c.mean_b, c.mean_a - c.mean_b, c.low, c.high)]
            p_values = [float(f"{x:.4g}") for x in (c.p, p_holm)]
            rows.append((family, len(members), c.metric, c.a, c.b, *numbers, *p_values, c.test))
    columns = [
        "family",
        "family_size",
        "metric",
        "method_a",
        "method_b",
        "mean_a",
        "mean_b",
        "difference",
        "low",
        "high",
    ]
    frame = pd.DataFrame(rows, columns=[*columns, "p", "p_holm", "test"])
    frame = frame.assign(n_cases=len(results.cases), n_users=results.n_users)
    return frame.assign(seeds_a=frame.method_a.map(results.seeds), seeds_b=frame.method_b.map(results.seeds))


def comparisons(results: Collected, pairs: Sequence[tuple[str, str]], family: int = 0) -> list[Comparison]:
    """These pairs of methods by every metric, metric by metric; one resample matrix and one sign matrix serve them all.

    family: number of tests that are corrected together, where it is more than these.
    """
    n_methods, n_cases = len(results.methods), len(results.cases)
    at = {method: place for place, method in enumerate(results.methods)}
    places = [(row, at[a], at[b]) for row in range(len(METRICS)) for a, b in pairs]
    # Column of metric `row` and method `a`.
    columns = np.array([(row * n_methods + a, row * n_methods + b) for row, a, b in places], dtype=np.int64).reshape(
        -1, 2
    )
    totals, n_seeds = results.case_totals()
    over_seeds = totals.reshape(-1, n_cases)
    sums, counts = significance.user_sums(over_seeds, results.cases.user)
    means = over_seeds.mean(axis=1) / n_seeds

    seed = derive_seed("bootstrap", results.dataset)
    replicates = significance.bootstrap_means(sums / n_seeds, counts, seed)
    is_ndcg = np.array([METRICS[row].startswith("NDCG") for row, _, _ in places], dtype=bool)
    flips = significance.flips_for(max(len(places), family))
    seed = derive_seed("sign flips", results.dataset)
    randomised = iter(significance.randomisation_test(sums, columns[is_ndcg], seed, flips).tolist())

    out = []
    for (row, a, b), (i, j), random in zip(places, columns, is_ndcg, strict=True):
        difference = replicates[:, [i]] - replicates[:, [j]]
        low, high = significance.interval(difference)
        if random:
            p, name = next(randomised), f"{significance.RANDOMISATION}, {flips} flips"
        else:
            test = significance.mcnemar_test(sums[:, i] - sums[:, j])
            p, name = test.p, test.name
        out.append(
            Comparison(
                metric=METRICS[row],
                a=results.methods[a],
                b=results.methods[b],
                mean_a=float(means[i]),
                mean_b=float(means[j]),
                low=float(low[0]),
                high=float(high[0]),
                error=float(difference.std(ddof=1)),
                p=p,
                test=name,
            )
        )
    return out


@dataclass(frozen=True)
class Cell:
    """One printed number of the table, without markup."""

    mean: str
    sd: str  # "" for one seed
    low: str
    high: str
    place: int  # 1 best, 2 second best of its column, 0 otherwise; by the printed mean, so equal prints share a place
    dagger: bool  # differs significantly from the best baseline


def cells(frame: pd.DataFrame) -> list[list[Cell]]:
    """The rows of the table, [rows][6]; places are taken within each dataset."""
    rows: list[list[Cell]] = [[] for _ in range(len(frame))]
    for metric in METRICS:
        printed = frame[metric].map("{:.4f}".format)
        # Places by the printed text: "0.1234" sorts like its number, and equal prints tie.
        order = printed.groupby(frame.dataset).transform(lambda column: column.rank(method="dense", ascending=False))
        for i, row in enumerate(frame.to_dict("records")):
            sd = row[f"{metric}_sd"]
            place = int(order.iloc[i])
            rows[i].append(
                Cell(
                    mean=printed.iloc[i],
                    sd="" if np.isnan(sd) else f"{sd:.4f}",
                    low=f"{row[f'{metric}_low']:.4f}",
                    high=f"{row[f'{metric}_high']:.4f}",
                    place=place if place <= 2 and row[metric] > 0 else 0,
                    dagger=bool(row[f"{metric}_p_holm"] < significance.ALPHA),
                )
            )
    return rows


def notes(frame: pd.DataFrame, *, plain: bool = False) -> list[str]:
    """The caption: what the numbers are, the marks and the test, and per dataset its family, n, seeds and commit.

    plain: of a table without deviations over seeds and without bold and underlined means.
    """
    best = "the best baseline (highest NDCG@10 of its dataset, chosen on these cases)"
    general = what_it_shows(frame, best, AGAINST_BEST, plain=plain)
    if frame.seeds.nunique() > 1:
        general += " A case's value is its mean over the method's own seeds" + (
            "." if plain else "; one seed has no sd."
        )
    out = [general]
    for _, part in frame.groupby("dataset", sort=False):
        row = part.iloc[0]
        if row.best_baseline:
            family = (
                f"best baseline {row.best_baseline}; family of {row.family_size} tests "
                f"({len(part) - 1} methods x {len(METRICS)} metrics)"
            )
        else:
            family = "no baseline among the methods, so no test in this table"
        out.append(runs_behind(part, family))
    return out


def what_it_shows(frame: pd.DataFrame, reference: str, family: str, *, plain: bool = False) -> str:
    """What a table's numbers are, its methods being tested against `reference` in this family, and the marks that it has."""
    printed = [cell for row in cells(frame) for cell in row]
    said = ["Full-catalogue ranking."]
    mean = "Mean over seeds" if frame.seeds.max() > 1 else "One seed"
    if not plain and any(cell.sd for cell in printed):
        mean += " ± sd over seeds"
    said.append(f"{mean}; below it the 95 % interval of a bootstrap over users ({significance.RESAMPLES:,} resamples).")
    if not plain:
        second = ", second underlined" if any(cell.place == 2 for cell in printed) else ""
        if any(cell.place == 1 for cell in printed):
            said.append(f"Best bold{second}.")
    if (frame[[f"{metric}_p_holm" for metric in METRICS]].notna()).any(axis=None):
        marked = any(cell.dagger for cell in printed)
        said.append(
            f"{f'{DAGGER} differs' if marked else 'No value differs'} from {reference}, in either direction, at p < "
            f'{significance.ALPHA} after Holm\'s correction over the family "{family}". Two-sided paired tests over users: '
            "randomisation test with signs flipped per user for NDCG, McNemar's test clustered by user for Hit (exact where "
            f"fewer than {significance.FEW_USERS} users differ)."
        )
    if not plain:
        said.append(
            "Users are resampled and not trainings: another seed may move a value by more than its interval says."
        )
    return " ".join(said)


def runs_behind(part: pd.DataFrame, family: str) -> str:
    """One dataset's cases, seeds and commits, and its family of tests in words."""
    row = part.iloc[0]
    commits = [commit[:10] + ("-dirty" if commit.endswith("-dirty") else "") for commit in row.commit.split()]
    return (
        f"{row.dataset}: {row.n_cases:,} cases of {row.n_users:,} users, "
        f"{seeds_in_words(part.method.tolist(), part.seeds.tolist())}, {family}; "
        f"{'commits' if len(commits) > 1 else 'commit'} {', '.join(commits)}."
    )


def _rows(
    frame: pd.DataFrame, cell: Callable[[Cell], str], name: Callable[[str], str], rows: str = "method"
) -> list[list[str]]:
    """Header and body as strings, for every markup; the dataset has a column where there are several."""
    several = frame.dataset.nunique() > 1
    head = [*(["dataset"] if several else []), rows, *METRICS]
    body = [
        [*([name(dataset)] if several else []), name(method), *map(cell, row)]
        for dataset, method, row in zip(frame.dataset, frame.method, cells(frame), strict=True)
    ]
    return [head, *body]


def markdown(frame: pd.DataFrame, caption: list[str] | None = None, rows: str = "method") -> str:
    """The table in GitHub's Markdown, below it `caption`, or `notes` of it; `rows`: what a row is called."""

    def cell(c: Cell) -> str:
        mean = {1: f"**{c.mean}**", 2: f"<ins>{c.mean}</ins>", 0: c.mean}[c.place]
        sd = f" ± {c.sd}" if c.sd else ""
        return f"{mean}{DAGGER if c.dagger else ''}{sd}<br><sub>[{c.low}, {c.high}]</sub>"

    head, *body = _rows(frame, cell, plain_markdown, rows)
    left = len(head) - len(METRICS)
    lines = [head, [":--"] * left + ["--:"] * len(METRICS), *body]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([table, *(caption or notes(frame))]) + "\n"


def plain_markdown(text: str) -> str:
    """Text that Markdown shows as it is."""
    return "".join("\\" + c if c in "\\|_*`<>[]" else c for c in text)


def latex(frame: pd.DataFrame, caption: list[str] | None = None, rows: str = "method") -> str:
    """The same as a LaTeX table environment; needs booktabs and graphicx."""

    def cell(c: Cell) -> str:
        mean = {1: rf"\textbf{{{c.mean}}}", 2: rf"\underline{{{c.mean}}}", 0: c.mean}[c.place]
        sd = rf" {{\scriptsize$\pm${c.sd}}}" if c.sd else ""
        dagger = r"$^\dagger$" if c.dagger else ""
        return rf"\shortstack[r]{{{mean}{dagger}{sd}\\{{\scriptsize[{c.low}, {c.high}]}}}}"

    head, *body = _rows(frame, cell, plain_latex, rows)
    left = len(head) - len(METRICS)
    rule = "\\midrule"
    lines = [" & ".join(map(plain_latex, head)) + r" \\", rule]
    for i, line in enumerate(body):
        if i and frame.dataset.iloc[i] != frame.dataset.iloc[i - 1]:
            lines.append(rule)
        lines.append(" & ".join(line) + r" \\[2pt]")
    words = " ".join(map(plain_latex, caption or notes(frame)))
    return "\n".join(
        [
            "% needs \\usepackage{booktabs,graphicx}",
            r"\begin{table*}[t]",
            r"\centering",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{{'l' * left}{'r' * len(METRICS)}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            rf"\caption{{{words}}}",
            r"\end{table*}",
            "",
        ]
    )


def plain_latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    special = {c: "\\" + c for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}
    special |= {"^": r"\textasciicircum{}", "±": r"$\pm$", DAGGER: r"$\dagger$", "<": "$<$", ">": "$>$"}
    return "".join(special.get(c, c) for c in text)


def csv(frame: pd.DataFrame) -> str:
    """A frame as csv with a fixed number of digits: p values 4 significant, other numbers 6 decimals."""
    out = frame.copy()
    for column in out.columns:
        if out[column].dtype.kind == "f":
            form = "{:.4g}" if column in ("p", "p_holm") or column.endswith("_p_holm") else "{:.6f}"
            out[column] = [("" if np.isnan(x) else form.format(x)) for x in out[column]]
    text: str = out.to_csv(index=False, lineterminator="\n")
    return text


def show(frame: pd.DataFrame, console: Console, note: str = "") -> None:
    """Print `note`, one table per dataset to a terminal, means with their intervals, and the notes; marks of the best are for
    terminals."""

    def cell(c: Cell) -> str:
        style = {1: "bold", 2: "underline", 0: "default"}[c.place]
        # Three digits, or the table would be wider than a terminal.
        low, high = (f"{float(bound):.3f}".removeprefix("0") for bound in (c.low, c.high))
        return f"[{style}]{c.mean}[/]{DAGGER if c.dagger else ' '}\n[dim]{low}–{high}[/]"

    if note:
        console.print(f"{note}\n", markup=False, highlight=False)
    for dataset, part in frame.groupby("dataset", sort=False):
        head, *body = _rows(part, cell, escape)
        table = Table(title=escape(f"{dataset}, mean over seeds"), box=SIMPLE_HEAD, title_justify="left")
        for column in head:
            table.add_column(column, justify="right" if column in METRICS else "left", no_wrap=column in METRICS)
        for line in body:
            table.add_row(*line)
        console.print(table)
    for note in notes(frame, plain=not console.is_terminal):
        console.print(note, markup=False, highlight=False)


def check_printed(frame: pd.DataFrame) -> None:
    """Refuse a table with numbers that no ranking has: the check that printed tables of others get (benchmark.check_table)."""
    half = dict.fromkeys(METRICS, 0.5e-6)
    for line in frame.to_dict("records"):
        values = {metric: line[metric] for metric in METRICS}
        row = Row(f"{line['dataset']}, {line['method']}", values, half, line["n_cases"] * line["seeds"])
        if why := impossible(row):
            raise InputError(f"{row.name}: {why}; evaluate this method's runs again")


def _in_every_form(name: str, frame: pd.DataFrame, note: str) -> dict[str, str]:
    """Files by name; `note` stands first in the captions."""
    caption = [note, *notes(frame)] if note else notes(frame)
    return {f"{name}.csv": csv(frame), f"{name}.md": markdown(frame, caption), f"{name}.tex": latex(frame, caption)}


def tables_of(results: Collected, note: str) -> dict[str, str]:
    """The files of one dataset, by name."""
    tests = compare(results)
    frame = summarise(results, tests)
    check_printed(frame)
    return _in_every_form(results.dataset, frame, note) | {f"{results.dataset}.tests.csv": csv(tests)}


def tables_of_all(parts: Sequence[pd.DataFrame], spent: Sequence[pd.DataFrame], note: str) -> dict[str, str]:
    """The files of all datasets together, by name. parts: each dataset's csv. spent: each dataset's costs."""
    everything, cost = pd.concat(parts, ignore_index=True), pd.concat(spent, ignore_index=True)
    plain = io.StringIO()  # what `make reproduce` ends with; of one width, so that it is the same everywhere
    show(everything, Console(file=plain, width=110), note)
    more = {"costs.csv": csv(cost), "costs.md": costs.markdown(cost), "main.txt": plain.getvalue()}
    return _in_every_form("main", everything, note) | more


def read_csv(path: Path) -> pd.DataFrame:
    """A dataset's table as `summarise` made it. Raises InputError without it."""
    if not path.exists():
        raise InputError(
            f"{path}: missing; run `python -m benchmark.tables` with the same arguments and --only datasets"
        )
    return pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"dataset": str, "method": str}).fillna(
        {"best_baseline": "", "commit": ""}
    )


@command
def main() -> None:
    given = arguments(command_line("benchmark.tables", __doc__), out="tables", parts=True)
    collected = [collect(given.results, dataset, given.seeds, given.settings) for dataset in given.datasets]
    for results in collected if given.only != "main" else ():
        for name, text in tables_of(results, given.note).items():
            write_text(given.out / name, text)
    if given.only != "datasets":
        parts = [read_csv(given.out / f"{dataset}.csv") for dataset in given.datasets]
        for name, text in tables_of_all(parts, [costs.costs(results) for results in collected], given.note).items():
            write_text(given.out / name, text)
        print((given.out / "main.txt").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
