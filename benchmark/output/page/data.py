"""Everything that the page shows, as one document of plain values and parts that are unpacked when they are looked at.

The document goes into the page as it is; the parts (histories, ranks, texts) are compressed. The numbers are those of
`benchmark.analysis` and `benchmark.output.summary`, which the tables print, too; this module asks
for them, and no other of the page.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmark.analysis.collect import Collected, is_r2ec
from benchmark.analysis.comparisons import compare
from benchmark.analysis.costs import HEADINGS, costs
from benchmark.analysis.costs import NOTE as COSTS_NOTE
from benchmark.analysis.significance import ALPHA
from benchmark.config.factors import Factor
from benchmark.metrics import CUTOFFS, METRICS
from benchmark.output import against
from benchmark.output.captions import notes
from benchmark.output.page import ablations, cases, paper
from benchmark.output.page.answer import answer
from benchmark.output.page.pairs import EVERY, MAIN, by_slice, digits, over_all, pairs_of, rounded
from benchmark.output.page.provenance import provenance
from benchmark.output.summary import summarise

Parts = dict[str, Any]
REGISTERED = "registered.csv"


def rows_of(results: Collected, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The leaderboard's rows on one dataset, in the methods' order; values by metric in the order of METRICS.

    `equal`: all of several trainings ranked every case alike, so that a deviation over them would say nothing.
    """
    spent = costs(results).set_index("method")[list(HEADINGS)]
    rows = []
    for number, (method, row) in enumerate(zip(results.methods, frame.to_dict("records"), strict=True)):
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


def section(results: Collected) -> dict[str, Any]:
    """Everything about one dataset but its cases."""
    tests = compare(results)
    frame = summarise(results, tests)
    return {
        "name": results.dataset,
        "cases": len(results.cases),
        "users": results.n_users,
        "best_baseline": results.best_baseline,
        "rows": rows_of(results, frame),
        "notes": notes(frame),
        "pairs": pairs_of(results, tests) if len(results.methods) > 1 else [],
        "slices": by_slice(results),
    }


def overall(collected: Sequence[Collected], sections: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The mean over datasets, as a section of its own without slices; None for a single dataset."""
    if len(collected) == 1:
        return None
    found = over_all(collected)
    rows = []
    for number in range(len(collected[0].methods)):
        mine = [part["rows"][number] for part in sections]
        rows.append(
            {name: rounded(getattr(found, name)[:, number]) for name, _ in _ENDS}
            | {"sd": [None] * len(METRICS), "p": [None] * len(METRICS), "seeds": mine[0]["seeds"]}
            | {"equal": all(row["equal"] for row in mine), "less": mine[0]["less"]}
            | {"costs": rounded(np.mean([row["costs"] for row in mine], axis=0)), "paper": None}
        )
    users = sum(results.n_users for results in collected)
    total = sum(len(results.cases) for results in collected)
    note = "Mean over datasets, each of which weighs the same; users are resampled within their datasets."
    return {"name": EVERY, "cases": total, "users": users, "rows": rows, "notes": [note], "pairs": found.pairs}


def held(collected: Sequence[Collected], reference: str | None) -> dict[str, Any] | None:
    """The reference against each of the others, as `benchmark.output.against` has it; None without a reference."""
    if reference is None or len(collected[0].methods) < 2:
        return None
    frame = against.against(collected, reference)
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
    learned = {i: first.records[methods[i], 1].learned.targets > 0 for i in wrote}
    writers = [i for i, does in wrote.items() if does and learned[i] and is_r2ec(methods[i])]
    if reference in methods and methods.index(reference) in writers:
        writers.insert(0, methods.index(reference))
    if not writers:
        return []
    writer = writers[0]
    silent = [i for i, does in wrote.items() if not does and learned[i] and is_r2ec(methods[i])]
    untrained = [i for i, does in wrote.items() if does and not learned[i] and is_r2ec(methods[i])]
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
    """The document and the parts of a page. folder: of the ablations' tables, in results. limit: of the texts that it holds.

    Raises InputError for texts that don't belong to their runs, or where the ablations' tables are missing.
    """
    methods = collected[0].methods
    sections = [section(one) for one in collected]
    whole = overall(collected, sections) if len(methods) > 1 else None
    parts: Parts = {}
    entries = []
    for place, one in enumerate(collected):
        entry, mine = cases.parts_of(one, place, limit // len(collected))
        entries.append(entry)
        parts |= mine
    spoken = told_about(collected, entries, reference)
    others = held(collected, reference)
    return {
        "answer": answer(collected, sections, whole, others["rows"] if others else [], spoken),
        "note": note,
        "metrics": METRICS,
        "cutoffs": list(CUTOFFS),
        "main": MAIN,
        "alpha": ALPHA,
        "reference": methods.index(reference) if reference else None,
        "methods": [{"name": name, "r2ec": is_r2ec(name)} for name in methods],
        "spoken": [[a, b] for a, b, _ in spoken],
        "against": others,
        "datasets": sections,
        "overall": whole,
        "costs": {"headings": list(HEADINGS.values()), "names": list(HEADINGS), "note": COSTS_NOTE},
        "held": entries,
        "ablations": [ablations.part_of(factor, results / folder, results) for factor in factors],
        "claims": ablations.claims(factors, results / folder),
        # Where `make claims` leaves them, beside this run or as part of it.
        "registered": ablations.registered_claims(
            [results / folder / REGISTERED, results / "claims/results/claims" / REGISTERED]
        ),
        "provenance": provenance(collected),
    }, parts
