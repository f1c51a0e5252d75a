"""Collect everything that the page shows: a document of plain values, and parts that the page unpacks when needed.

The document goes into the page as it is; the parts (histories, ranks, texts) are compressed. Means, intervals and
tests are read from the files of `benchmark.statistics`, like those of the tables; nothing is tested here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from benchmark.analysis.arguments import STATISTICS, registered_files
from benchmark.analysis.collect import Collected
from benchmark.analysis.comparisons import ALL_PAIRS
from benchmark.analysis.significance import ALPHA, POWER
from benchmark.config.factors import Factor
from benchmark.errors import InputError
from benchmark.metrics import CUTOFFS, METRICS
from benchmark.output.captions import against_note, notes
from benchmark.output.costs import HEADINGS, NOTE, on_seconds_of
from benchmark.output.page import ablations, cases, headroom, paper, thinking
from benchmark.output.page.answer import answer
from benchmark.output.page.pairs import EVERY, MAIN, by_slice, digits, over_all, pairs_of, rounded
from benchmark.output.page.provenance import provenance
from benchmark.output.page.variants import named, variants_of
from benchmark.statistics.files import AGAINST, CLAIMS, OVERALL_METHODS, DatasetStatistics, FactorStatistics, read_csv

Parts = dict[str, Any]


def rows_of(results: Collected, statistics: DatasetStatistics, numbers: Mapping[str, int]) -> list[dict[str, Any]]:
    """The leaderboard's rows on one dataset, in the methods' order; values by metric in the order of METRICS.

    `equal`: several trainings ranked every case alike, as of a method without a seed: a deviation would say nothing.
    """
    costs = statistics.costs.set_index("method")[list(HEADINGS)]
    frame = statistics.methods.set_index("method").loc[results.methods]
    rows = []
    for number, (method, row) in enumerate(zip(results.methods, frame.to_dict("records"), strict=True)):
        ranks = results.ranks[number]
        equal = len(ranks) > 1 and bool((ranks == ranks[0]).all())
        sd = [None if equal else digits(row[f"{metric}_sd"]) for metric in METRICS]
        rows.append(
            {name: [digits(row[f"{metric}{end}"]) for metric in METRICS] for name, end in _ENDS}
            | {"sd": sd, "p": [digits(row[f"{metric}_p_holm"]) for metric in METRICS]}
            | {"method": numbers[method], "seeds": len(ranks), "equal": equal, "less": str(row["less_information"])}
            | {"costs": rounded(costs.loc[method].to_numpy(float)), "paper": paper.of_row(results, method)}
        )
    return rows


_ENDS = (("mean", ""), ("low", "_low"), ("high", "_high"))


def section(results: Collected, statistics: DatasetStatistics, numbers: Mapping[str, int]) -> dict[str, Any]:
    """Everything about one dataset but its cases; `failed` says in sentences which methods failed on it.

    Raises InputError for statistics that lack a method.
    """
    methods = statistics.methods.method.tolist()
    if absent := [method for method in results.methods if method not in methods]:
        raise InputError(
            f"{results.dataset}: the statistics are of {', '.join(methods)}, but {absent[0]} has runs, too; "
            "make the statistics of these runs again"
        )
    tests = statistics.tests[statistics.tests.family == ALL_PAIRS]
    return {
        "name": results.dataset,
        "cases": len(results.cases),
        "users": results.n_users,
        "best_baseline": statistics.methods.best_baseline.iloc[0] or None,
        "rows": rows_of(results, statistics, numbers),
        "failed": [f"{row.method} failed: {row.why}" for row in statistics.failed.itertuples()],
        "notes": notes(statistics.methods),
        "pairs": pairs_of(tests, results.methods, numbers),
        "slices": by_slice(statistics, results.methods),
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
        of_dataset = {part["name"]: row for part in sections for row in part["rows"] if row["method"] == numbers[name]}
        method_rows = list(of_dataset.values())
        rows.append(
            {side: rounded(values[side][:, place]) for side, _ in _ENDS}
            | {"sd": [None] * len(METRICS), "p": [None] * len(METRICS), "seeds": method_rows[0]["seeds"]}
            | {
                "method": numbers[name],
                "equal": all(row["equal"] for row in method_rows),
                "less": _less_somewhere([(dataset, row["less"]) for dataset, row in of_dataset.items()]),
            }
            | {"costs": rounded(np.mean([row["costs"] for row in method_rows], axis=0)), "paper": None}
        )
    users = sum(results.n_users for results in collected)
    total = sum(len(results.cases) for results in collected)
    note = "Mean over datasets, each of which weighs the same; users are resampled within their datasets."
    return {"name": EVERY, "cases": total, "users": users, "rows": rows, "notes": [note], "failed": [], "pairs": pairs}


def _less_somewhere(reasons: Sequence[tuple[str, str]]) -> str:
    """Why a method learned from less, of each dataset's name and reason ("": it did not): once if all are the same.

    >>> _less_somewhere([("a", "small"), ("b", "small")]), _less_somewhere([("a", ""), ("b", "small")])
    ('small', 'on b: small')
    """
    if len({reason for _, reason in reasons}) == 1:
        return reasons[0][1]
    return "; ".join(f"on {dataset}: {reason}" for dataset, reason in reasons if reason)


def against_reference(collected: Sequence[Collected], reference: str | None, folder: Path) -> dict[str, Any] | None:
    """The reference against each of the others, from the statistics in `folder`; None without a reference or others."""
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
    return {"title": f"{reference} against each of the others", "note": against_note(frame), "rows": rows}


def leading_pairs(
    collected: Sequence[Collected], entries: Sequence[dict[str, Any]], names: Sequence[str], reference: str | None
) -> list[tuple[int, int, str]]:
    """Pairs of methods by number that the page's first sentences compare, with the words for their difference.

    A trained row that writes is compared with a trained one that writes nothing, and with an untrained one that writes.
    Of trained rows that write the reference is taken, or else the first. entries: of `cases.parts_of`, by dataset.
    names: of all methods by number.
    """
    wrote: dict[int, bool] = {}
    learned: dict[int, bool] = {}
    for results, entry in zip(collected, entries, strict=True):
        for texts in entry["texts"]:
            name = names[texts["method"]]
            if results.kind(name) == "reference":
                wrote[texts["method"]] = wrote.get(texts["method"], False) or texts["wrote"]
                learned[texts["method"]] = results.records[name, 1].learned.targets > 0
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
    declared: Mapping[str, str] = MappingProxyType({}),
) -> tuple[dict[str, Any], Parts]:
    """The document and the parts of a page. folder: name of the ablations' folders. limit: of the texts that it holds.
    declared: what each method computes before it recommends, where the page has a view of it.

    Raises InputError for texts that don't belong to their runs, or where statistics are missing.
    """
    kinds = {name: runs.kind(name) for runs in collected for name in runs.methods}
    numbers = {name: number for number, name in enumerate(kinds)}
    statistics = results / STATISTICS
    of_datasets = [DatasetStatistics.read(statistics, runs.dataset) for runs in collected]
    sections = [section(runs, part, numbers) for runs, part in zip(collected, of_datasets, strict=True)]
    whole = overall(collected, sections, numbers, statistics)
    over_datasets = read_csv(statistics / OVERALL_METHODS) if whole and declared else None
    costs_note = " ".join([NOTE, *on_seconds_of(of_datasets)])
    parts: Parts = {}
    entries = []
    for place, runs in enumerate(collected):
        ablated = variants_of(factors, numbers, results, runs.dataset)
        entry, dataset_parts = cases.parts_of(runs, place, numbers, limit // len(collected), ablated)
        entries.append(entry)
        parts |= dataset_parts
    spoken = leading_pairs(collected, entries, list(numbers), reference)
    comparisons = against_reference(collected, reference, statistics)
    return {
        "answer": answer(collected, sections, whole, list(numbers), comparisons["rows"] if comparisons else [], spoken),
        "note": note,
        "metrics": METRICS,
        "cutoffs": list(CUTOFFS),
        "main": MAIN,
        "alpha": ALPHA,
        "power": POWER,
        "reference": numbers.get(reference or ""),
        "methods": [{"name": name, "kind": kind} for name, kind in kinds.items()],
        # Their numbers are those behind the methods'.
        "variants": [{"name": name} for name in named(factors, numbers).values()],
        "spoken": [[a, b] for a, b, _ in spoken],
        "against": comparisons,
        "datasets": sections,
        "overall": whole,
        "thinking": thinking.part_of(of_datasets, over_datasets, declared, numbers),
        "costs": {"headings": list(HEADINGS.values()), "names": list(HEADINGS), "note": costs_note},
        "held": entries,
        "ablations": [
            ablations.part_of(factor, FactorStatistics.read(statistics / folder, factor.name)) for factor in factors
        ],
        "claims": ablations.claims(read_csv(statistics / folder / CLAIMS)) if factors else None,
        "registered": ablations.registered_claims(registered_files(results, folder)),
        "headroom": headroom.part_of(collected, results),
        "provenance": provenance(collected),
    }, parts
