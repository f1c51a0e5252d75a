"""Make the page of finished runs, one file of HTML that needs no network: `python -m benchmark.output.page`.

    python -m benchmark.output.page --datasets ml-100k --methods popularity sasrec r2ec --seeds 3

It shows tables, tests, costs and reasonings of the runs, and the plots that `benchmark.output.plots` has left in
{results}/plots; with --reference that of `benchmark.output.against`, too; of the ablations in --factors, if there are any,
what `benchmark.output.ablations`, `benchmark.output.ablation_plots` and `benchmark.output.claims` left. Everything is
embedded, so that it can be mailed or archived.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from benchmark.analysis.collect import Collected, arguments, collect_all
from benchmark.analysis.comparisons import ALL_PAIRS, compare
from benchmark.analysis.costs import number
from benchmark.config.factors import Factor
from benchmark.errors import InputError, command, command_line
from benchmark.metrics import METRICS
from benchmark.output import against
from benchmark.output.ablations import in_words
from benchmark.output.captions import DAGGER, notes
from benchmark.output.page.ablations import claims, part_of
from benchmark.output.page.images import plot_uri
from benchmark.output.summary import cells, summarise
from benchmark.storage.io import write_text

CAPTIONS = {
    "metrics": "Every metric with its 95 % interval over users and every seed",
    "slices": "NDCG@10 by history length and by popularity of the target",
    "cost": "Seconds of one run against NDCG@10",
}
N_EXAMPLES = 4  # reasonings shown per method and dataset
TOP = 5  # recommended titles shown with each


@dataclass(frozen=True)
class Example:
    """One reasoning, what was recommended after it and what the user took."""

    case: int
    rank: int
    candidates: int
    target: str
    top: list[str]
    prompt: str
    reasoning: str


def examples(results: Collected, method: str) -> list[Example]:
    """Reasonings of seed 1 at evenly spaced places from the best to the worst target rank; [] for a method without text.

    The rule keeps failures on the page: the first is the best-ranked case and the last the worst. Raises InputError where
    texts.parquet lacks a column or a case.
    """
    folder = results.run_folder(method, 1)
    path = folder / "texts.parquet"
    if not path.exists():
        return []
    texts = pd.read_parquet(path)
    if missing := [name for name in ("case", "prompt", "reasoning") if name not in texts.columns]:
        raise InputError(f"{path}: column {missing[0]!r} is missing; run this seed again")
    rankings = pd.read_parquet(folder / "rankings.parquet").set_index("case")
    if len(unknown := texts.case[~texts.case.isin(rankings.index)]):
        raise InputError(f"{path}: case {unknown.iloc[0]} is not in rankings.parquet; run this seed again")
    titles = pd.read_parquet(results.folder / "items.parquet")["title"].astype(str).tolist()
    texts = texts.drop_duplicates("case").assign(rank=lambda frame: rankings["rank"].loc[frame.case].to_numpy())
    texts = texts.sort_values(["rank", "case"], kind="stable")
    places = np.unique(np.linspace(0, len(texts) - 1, min(N_EXAMPLES, len(texts))).round().astype(int))
    out = []
    for row in texts.iloc[places].to_dict("records"):
        ranking = rankings.loc[row["case"]]
        out.append(
            Example(
                case=int(row["case"]),
                rank=int(ranking["rank"]),
                candidates=int(ranking["candidates"]),
                target=titles[int(ranking["target"])],
                top=[titles[item] for item in ranking["top_items"][:TOP]],
                prompt=str(row["prompt"]),
                reasoning=str(row["reasoning"]),
            )
        )
    return out


def section(results: Collected, plots: Path) -> dict[str, Any]:
    """Everything that the page shows of one dataset."""
    tests = compare(results)
    frame = summarise(results, tests)
    shown = dict(zip(results.methods, cells(frame), strict=True))
    return {
        "name": results.dataset,
        "anchor": "data-" + "".join(c if c.isalnum() else "-" for c in results.dataset),
        "about": results.about,
        "rows": list(shown.items()),
        "by_method": shown,
        "failed": results.failed,
        "notes": notes(frame),
        "families": [
            (name, rows.to_dict("records"), list(rows.test.unique()))
            for name, rows in tests.groupby("family", sort=False)
        ],
        "plots": [
            (plot_uri(plots / f"{results.dataset}.{name}.png", "benchmark.output.plots"), f"{results.dataset}: {text}")
            for name, text in CAPTIONS.items()
        ],
        "runs": list(results.records.values()),
        "examples": [(method, found) for method in results.methods if (found := examples(results, method))],
    }


def shared(sections: list[dict[str, Any]], field: str) -> list[tuple[str, int]]:
    """The distinct values of one field of all runs as text, with the number of runs that have it; commonest first."""
    count: dict[str, int] = {}
    for run in (run for part in sections for run in part["runs"]):
        value = getattr(run, field)
        text = ", ".join(f"{key} {entry}" for key, entry in value.items()) if isinstance(value, dict) else str(value)
        count[text] = count.get(text, 0) + 1
    return sorted(count.items(), key=lambda pair: (-pair[1], pair[0]))


def as_text(value: Any) -> str:
    """Nested settings as "key: value" words.

    >>> as_text({"grid": {"lr": [0.1, 1]}, "name": "ml", "none": None})
    'grid: (lr: 0.1, 1), name: ml, none: none'
    """
    if isinstance(value, dict):
        parts = [(key, as_text(entry), isinstance(entry, dict)) for key, entry in value.items()]
        return ", ".join(f"{key}: ({text})" if nested else f"{key}: {text}" for key, text, nested in parts)
    if isinstance(value, list):
        return ", ".join(f"({as_text(entry)})" if isinstance(entry, dict | list) else as_text(entry) for entry in value)
    return "none" if value is None else str(value)


def page(
    collected: list[Collected],
    plots: Path,
    factors: Sequence[Factor] = (),
    ablations: str = "ablations",
    reference: str | None = None,
    note: str = "",
) -> str:
    """The whole page as HTML, `note` at its top; every text from data or a model is escaped.

    The plots of the factors are read from the folder `ablations` in `plots`, their tables from that beside `plots`.
    """
    environment = Environment(
        loader=PackageLoader("benchmark.output.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"p": lambda p: f"{p:.2g}", "signed": lambda x: f"{x:+.4f}", "text": as_text}
    environment.filters |= {"detectable": in_words, "cost": number}
    sections = [section(results, plots) for results in collected]
    return environment.get_template("page.html.jinja").render(
        sections=sections,
        methods=list(dict.fromkeys(name for results in collected for name in [*results.methods, *results.failed])),
        note=note,
        factors=[part_of(factor, plots.parent / ablations, plots / ablations) for factor in factors],
        claims=claims(factors, plots.parent / ablations),
        reference=_against(collected, reference, plots) if reference else None,
        metrics=METRICS,
        main=METRICS.index("NDCG@10"),
        dagger=DAGGER,
        all_pairs=ALL_PAIRS,
        provenance=[(field, shared(sections, field)) for field in ("commit", "versions", "hardware")],
    )


def _against(collected: list[Collected], reference: str, plots: Path) -> dict[str, Any] | None:
    """What the page shows of the reference: its table, its plot and what their numbers are; None where it has failed."""
    if not (compared := against.comparable(collected, reference)):
        return None
    frame = against.against(compared, reference)
    text = f"{against.MAIN} of {reference} minus that of each other method"
    return {
        "name": reference,
        "rows": frame.to_dict("records"),
        "note": against.note(frame),
        "costs": list(against.COSTS.items()),
        "plot": (plot_uri(plots / "against.png", "benchmark.output.against"), text),
    }


@command
def main() -> None:
    given = arguments(command_line("benchmark.output.page", __doc__), out="report", factors=True, reference=True)
    collected = collect_all(given)
    html = page(collected, given.results / "plots", given.factors, given.ablations, given.reference, given.note)
    write_text(given.out / "index.html", html)


if __name__ == "__main__":
    main()
