"""Everything that the page shows, as one document of plain values and parts that are unpacked when they are looked at.

The document goes into the page as it is; the parts (histories, ranks, texts) are compressed. Means, intervals and
tests are read from the files of `benchmark.statistics`, which the tables print, too; nothing is tested here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.analysis.arguments import STATISTICS
from benchmark.analysis.collect import Collected
from benchmark.analysis.comparisons import ALL_PAIRS
from benchmark.analysis.significance import ALPHA
from benchmark.config.factors import Factor
from benchmark.errors import InputError
from benchmark.metrics import CUTOFFS, METRICS
from benchmark.output import against
from benchmark.output.captions import notes
from benchmark.output.costs import HEADINGS
from benchmark.output.costs import NOTE as COSTS_NOTE
from benchmark.output.page import ablations, cases, paper
from benchmark.output.page.answer import answer
from benchmark.output.page.pairs import EVERY, MAIN, by_slice, digits, over_all, pairs_of, rounded
from benchmark.output.page.provenance import provenance
from benchmark.statistics.files import AGAINST, CLAIMS, DatasetStatistics, FactorStatistics, read_csv

Parts = dict[str, Any]
REGISTERED = "registered.csv"


def rows_of(results: Collected, found: DatasetStatistics, numbers: Mapping[str, int]) -> list[dict[str, Any]]:
    """The leaderboard's rows on one dataset, in the methods' order; values by metric in the order of METRICS.

    `equal`: all of several trainings ranked every case alike, so that a deviation over them would say nothing.
    """
    spent = found.costs.set_index("method")[list(HEADINGS)]
    frame = found.methods.set_index("method").loc[results.methods]
    rows = []
    for number, (method, row) in enumerate(zip(results.methods, frame.to_dict("records"), strict=True)):
        ranks = results.ranks[number]
        equal = len(ranks) > 1 and bool((ranks == ranks[0]).all())
        sd = [None if equal else digits(row[f"{metric}_sd"]) for metric in METRICS]
        rows.append(
            {name: [digits(row[f"{metric}{end}"]) for metric in METRICS] for name, end in _ENDS}
            | {"sd": sd, "p": [digits(row[f"{metric}_p_holm"]) for metric in METRICS]}
            | {"method": numbers[method], "seeds": len(ranks), "equal": equal, "less": str(row["less_information"])}
            | {"costs": rounded(spent.loc[method].to_numpy(float)), "paper": paper.of_row(results, method)}
        )
    return rows


_ENDS = (("mean", ""), ("low", "_low"), ("high", "_high"))


def section(results: Collected, found: DatasetStatistics, numbers: Mapping[str, int]) -> dict[str, Any]:
    """Everything about one dataset but its cases, and in sentences which methods failed on it.

    Raises InputError for statistics that lack a method.
    """
    there = found.methods.method.tolist()
    if absent := [method for method in results.methods if method not in there]:
        raise InputError(
            f"{results.dataset}: the statistics are of {', '.join(there)}, but {absent[0]} has runs, too; "
            "make the statistics of these runs again"
        )
    tests = found.tests[found.tests.family == ALL_PAIRS]
    return {
        "name": results.dataset,
        "cases": len(results.cases),
        "users": results.n_users,
        "best_baseline": found.methods.best_baseline.iloc[0] or None,
        "rows": rows_of(results, found, numbers),
        "failed": [f"{row.method} failed: {row.why}" for row in found.failed.itertuples()],
        "notes": notes(found.methods),
        "pairs": pairs_of(tests, results.methods, numbers),
        "slices": by_slice(found, results.methods),
    }


def overall(
    collected: Sequence[Collected], sections: Sequence[dict[str, Any]], numbers: Mapping[str, int], folder: Path
) -> dict[str, Any] | None:
    """The mean over datasets, as a section of its own without slices, of the methods that all of them have.

    None for a single dataset, or fewer than two such methods. folder: of the statistics.
    """
    shared = [name for name in collected[0].methods if all(name in results.methods for results in collected)]
    if len(collected) == 1 or len(shared) < 2:
        return None
    values, pairs = over_all(folder, shared, numbers)
    rows = []
    for place, name in enumerate(shared):
        mine = [row for part in sections for row in part["rows"] if row["method"] == numbers[name]]
        rows.append(
            {side: rounded(values[side][:, place]) for side, _ in _ENDS}
            | {"sd": [None] * len(METRICS), "p": [None] * len(METRICS), "seeds": mine[0]["seeds"]}
            | {"method": numbers[name], "equal": all(row["equal"] for row in mine), "less": mine[0]["less"]}
            | {"costs": rounded(np.mean([row["costs"] for row in mine], axis=0)), "paper": None}
        )
    users = sum(results.n_users for results in collected)
    total = sum(len(results.cases) for results in collected)
    note = "Mean over datasets, each of which weighs the same; users are resampled within their datasets."
    return {"name": EVERY, "cases": total, "users": users, "rows": rows, "notes": [note], "failed": [], "pairs": pairs}


def held(collected: Sequence[Collected], reference: str | None, folder: Path) -> dict[str, Any] | None:
    """The reference against each of the others, from the statistics in `folder`; None where there is none, or no
    other."""
    if not any(reference in results.methods and len(results.methods) > 1 for results in collected):
        return None
    frame = read_csv(folder / AGAINST)
    if "failed" in frame:  # there is nothing to compare
        return None
    columns = ["dataset", "method", "reference", "mean", "mean_reference"]
    numbers = ["difference", "low", "high", "p", "p_holm", "detectable"]
    rows = [
        {name: row[name] for name in columns} | {name: digits(row[name]) for name in numbers}
        for row in frame.to_dict("records")
    ]
    return {"title": f"{reference} against each of the others", "note": against.note(frame), "rows": rows}


def told_about(
    collected: Sequence[Collected], entries: Sequence[dict[str, Any]], names: Sequence[str], reference: str | None
) -> list[tuple[int, int, str]]:
    """Pairs that the page speaks of first: a row that writes against one that writes nothing, and against one not
    trained.

    entries: of `cases.parts_of`, by dataset; names: of all methods by number. Of the rows that write and learned the
    reference goes first, then the order of the names.
    """
    wrote: dict[int, bool] = {}
    learned: dict[int, bool] = {}
    for results, entry in zip(collected, entries, strict=True):
        for one in entry["texts"]:
            name = names[one["method"]]
            if results.kind(name) == "reference":
                wrote[one["method"]] = wrote.get(one["method"], False) or one["wrote"]
                learned[one["method"]] = results.records[name, 1].learned.targets > 0
    writers = sorted((i for i, does in wrote.items() if does and learned[i]), key=lambda i: (names[i] != reference, i))
    silent = sorted(i for i, does in wrote.items() if not does and learned[i])
    untrained = sorted(i for i, does in wrote.items() if does and not learned[i])
    return [(writer, i, "With a reasoning against none") for writer in writers[:1] for i in silent[:1]] + [
        (writer, i, "Trained against untrained") for writer in writers[:1] for i in untrained[:1]
    ]


def document(
    collected: Sequence[Collected],
    results: Path,
    factors: Sequence[Factor] = (),
    folder: str = "ablations",
    reference: str | None = None,
    note: str = "",
    limit: int = cases.LIMIT,
) -> tuple[dict[str, Any], Parts]:
    """The document and the parts of a page. folder: name of the ablations' folders. limit: of the texts that it holds.

    Raises InputError for texts that don't belong to their runs, or where statistics are missing.
    """
    kinds = {name: one.kind(name) for one in collected for name in one.methods}
    numbers = {name: number for number, name in enumerate(kinds)}
    statistics = results / STATISTICS
    sections = [section(one, DatasetStatistics.read(statistics, one.dataset), numbers) for one in collected]
    whole = overall(collected, sections, numbers, statistics)
    parts: Parts = {}
    entries = []
    for place, one in enumerate(collected):
        entry, mine = cases.parts_of(one, place, numbers, limit // len(collected))
        entries.append(entry)
        parts |= mine
    spoken = told_about(collected, entries, list(numbers), reference)
    others = held(collected, reference, statistics)
    return {
        "answer": answer(collected, sections, whole, list(numbers), others["rows"] if others else [], spoken),
        "note": note,
        "metrics": METRICS,
        "cutoffs": list(CUTOFFS),
        "main": MAIN,
        "alpha": ALPHA,
        "reference": numbers.get(reference or ""),
        "methods": [{"name": name, "r2ec": kind == "reference"} for name, kind in kinds.items()],
        "spoken": [[a, b] for a, b, _ in spoken],
        "against": others,
        "datasets": sections,
        "overall": whole,
        "costs": {"headings": list(HEADINGS.values()), "names": list(HEADINGS), "note": COSTS_NOTE},
        "held": entries,
        "ablations": [
            ablations.part_of(factor, FactorStatistics.read(statistics / folder, factor.name)) for factor in factors
        ],
        "claims": ablations.claims(read_csv(statistics / folder / CLAIMS)) if factors else None,
        # Where `make claims` leaves them, beside this run or as part of it.
        "registered": ablations.registered_claims(
            [results / folder / REGISTERED, results / "claims/results/claims" / REGISTERED]
        ),
        "provenance": provenance(collected),
    }, parts
