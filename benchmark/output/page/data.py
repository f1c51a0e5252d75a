"""Everything that the page shows, as one document of plain values and parts that are unpacked when they are looked at.

The document goes into the page as it is; the parts (histories, ranks, texts) are compressed. Means, intervals and
tests are read from the files of `benchmark.statistics`, which the tables print, too; nothing is tested here.
"""

from collections.abc import Sequence
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


def rows_of(results: Collected, found: DatasetStatistics) -> list[dict[str, Any]]:
    """The leaderboard's rows on one dataset, in the methods' order; values by metric in the order of METRICS.

    `equal`: all of several trainings ranked every case alike, so that a deviation over them would say nothing.
    """
    spent = found.costs.set_index("method")[list(HEADINGS)]
    rows = []
    for number, (method, row) in enumerate(zip(results.methods, found.methods.to_dict("records"), strict=True)):
        ranks = results.ranks[number]
        equal = len(ranks) > 1 and bool((ranks == ranks[0]).all())
        sd = [None if equal else digits(row[f"{metric}_sd"]) for metric in METRICS]
        rows.append(
            {name: [digits(row[f"{metric}{end}"]) for metric in METRICS] for name, end in _ENDS}
            | {"sd": sd, "p": [digits(row[f"{metric}_p_holm"]) for metric in METRICS]}
            | {"seeds": len(ranks), "equal": equal, "less": str(row["less_information"])}
            | {"costs": rounded(spent.loc[method].to_numpy(float)), "paper": paper.of_row(results, method)}
        )
    return rows


_ENDS = (("mean", ""), ("low", "_low"), ("high", "_high"))


def section(results: Collected, found: DatasetStatistics) -> dict[str, Any]:
    """Everything about one dataset but its cases. Raises InputError for statistics of other methods than the runs'."""
    if found.methods.method.tolist() != results.methods:
        raise InputError(
            f"{results.dataset}: the statistics are of {', '.join(found.methods.method)}, but the runs of "
            f"{', '.join(results.methods)}; make the statistics of these runs again"
        )
    tests = found.tests[found.tests.family == ALL_PAIRS]
    return {
        "name": results.dataset,
        "cases": len(results.cases),
        "users": results.n_users,
        "best_baseline": results.best_baseline,
        "rows": rows_of(results, found),
        "notes": notes(found.methods),
        "pairs": pairs_of(tests, results.methods),
        "slices": by_slice(found),
    }


def overall(collected: Sequence[Collected], sections: Sequence[dict[str, Any]], folder: Path) -> dict[str, Any] | None:
    """The mean over datasets, as a section of its own without slices; None for a single dataset. folder: of the statistics."""
    if len(collected) == 1:
        return None
    values, pairs = over_all(folder, collected[0].methods)
    rows = []
    for number in range(len(collected[0].methods)):
        mine = [part["rows"][number] for part in sections]
        rows.append(
            {name: rounded(values[name][:, number]) for name, _ in _ENDS}
            | {"sd": [None] * len(METRICS), "p": [None] * len(METRICS), "seeds": mine[0]["seeds"]}
            | {"equal": all(row["equal"] for row in mine), "less": mine[0]["less"]}
            | {"costs": rounded(np.mean([row["costs"] for row in mine], axis=0)), "paper": None}
        )
    users = sum(results.n_users for results in collected)
    total = sum(len(results.cases) for results in collected)
    note = "Mean over datasets, each of which weighs the same; users are resampled within their datasets."
    return {"name": EVERY, "cases": total, "users": users, "rows": rows, "notes": [note], "pairs": pairs}


def held(reference: str | None, folder: Path) -> dict[str, Any] | None:
    """The reference against each of the others, from the statistics in `folder`; None without a reference."""
    if reference is None:
        return None
    frame = read_csv(folder / AGAINST)
    columns = ["dataset", "method", "reference", "mean", "mean_reference"]
    numbers = ["difference", "low", "high", "p", "p_holm", "detectable"]
    rows = [
        {name: row[name] for name in columns} | {name: digits(row[name]) for name in numbers}
        for row in frame.to_dict("records")
    ]
    return {"title": f"{reference} against each of the others", "note": against.note(frame), "rows": rows}


def told_about(
    collected: Sequence[Collected], entries: Sequence[dict[str, Any]], reference: str | None
) -> list[tuple[int, int, str]]:
    """Pairs that the page speaks of first: a row that writes against one that writes nothing, and against one not trained.

    entries: of `cases.parts_of`, by dataset. The row that writes is the reference, if it does, or
    else the first that does and learned.
    """
    methods, first = collected[0].methods, collected[0]
    wrote = {entry["method"]: entry["wrote"] for entry in entries[0]["texts"]}
    references = [i for i, method in enumerate(methods) if first.kind(method) == "reference"]
    learned = {i: first.records[methods[i], 1].learned.targets > 0 for i in wrote}
    writers = [i for i, does in wrote.items() if does and learned[i] and i in references]
    if reference in methods and methods.index(reference) in writers:
        writers.insert(0, methods.index(reference))
    if not writers:
        return []
    writer = writers[0]
    silent = [i for i, does in wrote.items() if not does and learned[i] and i in references]
    untrained = [i for i, does in wrote.items() if does and not learned[i] and i in references]
    return [(writer, i, "With a reasoning against none") for i in silent[:1]] + [
        (writer, i, "Trained against untrained") for i in untrained[:1]
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
    methods = collected[0].methods
    statistics = results / STATISTICS
    sections = [section(one, DatasetStatistics.read(statistics, one.dataset)) for one in collected]
    whole = overall(collected, sections, statistics) if len(methods) > 1 else None
    parts: Parts = {}
    entries = []
    for place, one in enumerate(collected):
        entry, mine = cases.parts_of(one, place, limit // len(collected))
        entries.append(entry)
        parts |= mine
    spoken = told_about(collected, entries, reference)
    others = held(reference, statistics)
    return {
        "answer": answer(collected, sections, whole, others["rows"] if others else [], spoken),
        "note": note,
        "metrics": METRICS,
        "cutoffs": list(CUTOFFS),
        "main": MAIN,
        "alpha": ALPHA,
        "reference": methods.index(reference) if reference else None,
        "methods": [{"name": name, "r2ec": collected[0].kind(name) == "reference"} for name in methods],
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
