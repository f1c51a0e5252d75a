"""Pack the cases of a page into parts: histories, ranks, recommended items and texts.

A page holds at most LIMIT texts. Where runs wrote more, it shows a seeded sample of each dataset's cases, the same for
every method, so that methods can be read side by side, and says so. Means and tests are always over all cases.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmark.analysis.collect import Collected
from benchmark.contract import Cases
from benchmark.errors import InputError
from benchmark.output.page.variants import Variant
from benchmark.provenance import derive_seed
from benchmark.storage.checksums import check_file

LIMIT = 50_000  # texts on one page
PART = 1_000  # cases in one part of texts: so many are unpacked at once
TOP = 10  # recommended items shown of a case
REPEATED = 0.5  # a text repeats itself where at least this share of its runs of three words came before in it
SHORTEST = 6  # words; no shorter text counts as repeating itself


@dataclass(frozen=True)
class Texts:
    """The texts of one run for the shown cases, in their order."""

    reasoning: list[str]
    prompt: list[str]
    cut: np.ndarray  # bool [shown]: stopped by the limit of tokens

    @property
    def empty(self) -> bool:
        """Whether the run read prompts but wrote nothing."""
        return not any(self.reasoning)


def repeats(text: str) -> bool:
    """Whether at least REPEATED of its runs of three words came before in the same text.

    >>> repeats("a good film a good film a good film"), repeats("one two three four five six seven")
    (True, False)
    >>> repeats("no no no")
    False
    """
    words = re.findall(r"\w+", text.lower())
    if len(words) < SHORTEST:
        return False
    runs = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(runs)) / len(runs) >= REPEATED


def read_texts(results: Collected, method: str) -> pd.DataFrame | None:
    """texts.parquet of seed 1, one row per case of rankings.parquet; None for a method without text.

    Raises InputError where it is damaged, a column is missing, or its cases aren't those of the run.
    """
    path = results.run_folder(method, 1) / "texts.parquet"
    if not path.exists():
        return None
    record = results.records[method, 1]
    if record.files is not None:
        again = f"delete {path.parent} and run this seed again"
        check_file(path, record.files.get(path.name), again)
    names = pq.read_schema(path).names
    if missing := [name for name in ("case", "prompt", "reasoning") if name not in names]:
        raise InputError(f"{path}: column {missing[0]!r} is missing; run this seed again")
    columns = [name for name in ("case", "prompt", "reasoning", "cut") if name in names]
    texts = pd.read_parquet(path, columns=columns).drop_duplicates("case").set_index("case")
    if len(unknown := texts.index[~texts.index.isin(results.cases.case)]):
        raise InputError(f"{path}: case {unknown[0]} is not in rankings.parquet; run this seed again")
    if len(absent := results.cases.case[~np.isin(results.cases.case, texts.index)]):
        raise InputError(f"{path}: case {absent[0]} of rankings.parquet is missing; run this seed again")
    return texts if "cut" in texts else texts.assign(cut=False)


def shown_cases(results: Collected, texts_per_case: int, budget: int) -> np.ndarray:
    """Row numbers of the cases that the page holds, int64 ascending: all, or a seeded sample that fits `budget`
    texts."""
    most = max(1, budget // max(1, texts_per_case))
    if len(results.cases) <= most:
        return np.arange(len(results.cases))
    drawn = np.random.default_rng(derive_seed("page", results.dataset)).permutation(len(results.cases))
    return np.sort(drawn[:most])


class Titled:
    """The items that stand in a page's list of titles, in the order in which they were first asked for.

    n_items: of the catalogue.
    """

    def __init__(self, n_items: int) -> None:
        self._place = np.full(n_items, -1)
        self.items = np.empty(0, np.int64)

    def places(self, items: np.ndarray) -> list[int]:
        """Their places in the list of titles, to which those are added that aren't in it. items: int [any]."""
        new, first = np.unique(items[self._place[items] < 0], return_index=True)
        ordered = new[np.argsort(first)]
        self._place[ordered] = len(self.items) + np.arange(len(ordered))
        self.items = np.r_[self.items, ordered]
        found: list[int] = self._place[items].tolist()
        return found


def top_items(path: Path, rows: np.ndarray, titled: Titled) -> list[list[int]]:
    """Places of the titles of the TOP items of these cases in a run's rankings.parquet."""
    column = pq.read_table(path, columns=["top_items"]).column("top_items").take(rows).combine_chunks()
    shown = pc.list_slice(column, 0, TOP)
    places = titled.places(shown.flatten().to_numpy())
    ends = np.cumsum(pc.list_value_length(shown).to_numpy()).tolist()
    return [places[start:end] for start, end in pairwise([0, *ends])]


def history(cases: Cases, titled: Titled) -> list[list[Any]]:
    """For each case its history as three lists: places of titles, ratings (None: not rated), seconds before it."""
    places = titled.places(cases.items)
    out = []
    for i in range(len(cases)):
        part = slice(cases.offsets[i], cases.offsets[i + 1])
        ratings = [None if np.isnan(value) else round(float(value), 2) for value in cases.ratings[part]]
        out.append([places[part], ratings, (cases.time[i] - cases.times[part]).tolist()])
    return out


def candidates_of(results: Collected, shown: Cases) -> list[int]:
    """The number of items that each case ranks: the catalogue without the case's history, as the evaluator masks it."""
    return [int(results.about["counts"]["items"]) - len(np.unique(shown.history(i))) for i in range(len(shown))]


def parts_of(
    results: Collected, place: int, numbers: Mapping[str, int], budget: int, variants: Sequence[Variant] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The cases of one dataset on the page: an entry for the document, and the parts by name.

    The entry has the number of shown cases and of all; and for each method with texts whether any isn't empty, and
    which of them were cut or repeat themselves. The part `index/{place}` has every case's number, user, target and
    ranks by method. Of PART cases each, `cases/{place}/{k}` has histories and top items, and
    `texts/{place}/{method}/{k}` and `prompts/{place}/{method}/{k}` have texts. numbers: by name the number of a method
    on the whole page.

    variants: of ablations, with texts of the same cases. As many stand there as the budget has room for behind the
    methods; the numbers of the others are `left_out`. Prompts that are those of the base's row aren't held twice.
    """
    texts_of = {name: texts for name in results.methods if (texts := read_texts(results, name)) is not None}
    rows = shown_cases(results, len(texts_of), budget)
    shown = results.cases.take(rows)
    titled = Titled(int(results.about["counts"]["items"]))
    targets = titled.places(results.target[rows])
    past = history(shown, titled)
    room = max(0, budget // len(rows) - len(texts_of))
    held = variants[:room]
    rankings = {numbers[name]: _rankings(results, name) for name in results.methods}
    rankings |= {variant.number: _rankings(variant.results, variant.run) for variant in held}
    tops = {number: top_items(path, rows, titled) for number, path in rankings.items()}
    titles = pd.read_parquet(results.folder / "items.parquet", columns=["title"])["title"].astype(str).to_numpy()
    own_texts = {numbers[name]: _texts(frame, shown.case) for name, frame in texts_of.items()}
    counts, parts = _texts_in_parts(place, own_texts, held, shown.case)
    all_ranks = dict(zip([numbers[name] for name in results.methods], results.ranks, strict=True))
    all_ranks |= {one.number: one.results.ranks[one.results.methods.index(one.run)] for one in held}
    parts[f"index/{place}"] = {
        "case": shown.case.tolist(),
        "user": shown.user.tolist(),
        "target": targets,
        "candidates": candidates_of(results, shown),
        "titles": titles[titled.items].tolist(),
        # Of each method its seeds' ranks, [seeds][cases].
        "ranks": {number: ranks[:, rows].tolist() for number, ranks in all_ranks.items()},
    }
    for k, start in enumerate(range(0, len(rows), PART)):
        part = slice(start, start + PART)
        parts[f"cases/{place}/{k}"] = {
            "history": past[part],
            "top": {number: top[part] for number, top in tops.items()},
        }
    counts |= {"shown": len(rows), "of": len(results.cases), "part": PART}
    return counts | {"left_out": [variant.number for variant in variants[room:]]}, parts


def _texts_in_parts(
    place: int, own_texts: Mapping[int, Texts], variants: Sequence[Variant], cases: np.ndarray
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entries of the runs with texts, `texts` of methods and `variants`, and their texts and prompts in parts.

    own_texts: of methods by number. cases: the numbers of those that the page holds.
    """
    starts = range(0, len(cases), PART)
    parts: dict[str, Any] = {}
    for number, texts in own_texts.items():
        parts |= _parts(place, number, texts, starts)
    of_variants = []
    for variant in variants:
        frame = read_texts(variant.results, variant.run)
        assert frame is not None
        texts = _texts(frame, cases)
        base = None if variant.base is None else own_texts.get(variant.base)
        shares_prompts = base is not None and base.prompt == texts.prompt
        of_variants.append(_entry(variant.number, texts) | ({"prompts": variant.base} if shares_prompts else {}))
        parts |= _parts(place, variant.number, texts, starts, prompts=not shares_prompts)
    return {"texts": [_entry(*one) for one in own_texts.items()], "variants": of_variants}, parts


def _entry(number: int, texts: Texts) -> dict[str, Any]:
    """What the document has of the texts of one run."""
    repeated = [i for i, text in enumerate(texts.reasoning) if repeats(text)]
    cut = np.flatnonzero(texts.cut).tolist()
    return {"method": number, "wrote": not texts.empty, "cut": cut, "repeats": repeated}


def _parts(place: int, number: int, texts: Texts, starts: range, prompts: bool = True) -> dict[str, Any]:
    """The texts of one run, and its prompts where they are asked for, in parts."""
    parts: dict[str, Any] = {}
    for k, start in enumerate(starts):
        parts[f"texts/{place}/{number}/{k}"] = texts.reasoning[start : start + PART]
        if prompts:
            parts[f"prompts/{place}/{number}/{k}"] = texts.prompt[start : start + PART]
    return parts


def _rankings(results: Collected, method: str) -> Path:
    return results.run_folder(method, 1) / "rankings.parquet"


def _texts(frame: pd.DataFrame, cases: np.ndarray) -> Texts:
    selected = frame.loc[cases]
    return Texts(
        selected["reasoning"].astype(str).tolist(),
        selected["prompt"].astype(str).tolist(),
        selected["cut"].to_numpy(bool),
    )
