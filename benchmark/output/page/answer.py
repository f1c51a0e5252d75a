"""Make the page's title and first sentences from its numbers: which methods differ, and which can't be told apart."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.analysis.collect import Collected
from benchmark.analysis.significance import ALPHA, POWER
from benchmark.config.wording import many
from benchmark.metrics import METRICS
from benchmark.output.captions import joined, number_of_each
from benchmark.output.page.pairs import EVERY, MAIN

NAMED = 4  # methods that a sentence names before it counts them


def title_of(sections: Sequence[dict[str, Any]], overall: dict[str, Any] | None, methods: Sequence[str]) -> str:
    """The page's title: the best method by mean NDCG@10, and those not told apart from it. methods: names by number."""
    if len(methods) == 1:
        return f"{methods[0]} on {joined([part['name'] for part in sections])}"
    if len(sections) == 1:
        return _on_one(sections[0], methods)
    best = {leader(part) for part in sections}
    if len(best) == 1 and overall is not None and (first := best.pop()) in numbers_of(overall):
        claim = f"{methods[first]} ranks best on {'both' if len(sections) == 2 else f'all {len(sections)}'} datasets"
        _, equal = told_apart(overall, first)
        if not equal:
            return f"{claim}, and over them differs from every other method"
        return f"{claim}; over them {listed(equal, methods)} can't be told apart from it"
    places: dict[int, list[str]] = {}
    for part in sections:
        places.setdefault(leader(part), []).append(part["name"])
    parts = [f"{methods[method]} on {joined(on)}" for method, on in places.items()]
    return f"{'No method ranks best everywhere' if len(parts) > 1 else 'Ranking best'}: {'; '.join(parts)}"


def _on_one(part: dict[str, Any], methods: Sequence[str]) -> str:
    """The title of a single dataset."""
    best = leader(part)
    apart, equal = told_apart(part, best)
    if not apart and not equal:
        return f"{methods[best]} alone has a result on {part['name']}"
    if not equal:
        return f"{methods[best]} ranks best on {part['name']} and differs from every other method"
    if not apart:
        return f"No method on {part['name']} can be told apart from the best, {methods[best]}"
    return f"{methods[best]} ranks best on {part['name']}; {listed(equal, methods)} can't be told apart from it"


def numbers_of(part: dict[str, Any]) -> list[int]:
    """The numbers of the methods that a dataset has, in the order of its rows."""
    return [row["method"] for row in part["rows"]]


def leader(part: dict[str, Any]) -> int:
    """The number of the method with the highest NDCG@10, the first of equals."""
    return max(part["rows"], key=lambda row: row["mean"][MAIN])["method"]


def pair(part: dict[str, Any], a: int, b: int) -> dict[str, Any]:
    """The comparison a - b by NDCG@10: difference, low, high, p_holm, detectable."""
    comparison = next(entry for entry in part["pairs"] if {entry["a"], entry["b"]} == {a, b})
    sign = 1 if comparison["a"] == a else -1
    low, high = comparison["low"][MAIN], comparison["high"][MAIN]
    return {
        "difference": sign * comparison["difference"][MAIN],
        "low": low if sign > 0 else -high,
        "high": high if sign > 0 else -low,
        "p_holm": comparison["p_holm"][MAIN],
        "detectable": comparison["detectable"][MAIN],
    }


def told_apart(part: dict[str, Any], method: int) -> tuple[list[int], list[int]]:
    """The methods that differ from this one at ALPHA, Holm-corrected over all pairs, and those that don't."""
    others = [i for i in numbers_of(part) if i != method]
    apart = [i for i in others if pair(part, method, i)["p_holm"] < ALPHA]
    return apart, [i for i in others if i not in apart]


def listed(numbers: Sequence[int], methods: Sequence[str]) -> str:
    """Methods by name, or counted where they are many.

    >>> listed([0, 2], ["a", "b", "c"]), listed(range(5), list("abcde"))
    ('a and c', '5 other methods')
    """
    return joined([methods[i] for i in numbers]) if len(numbers) <= NAMED else f"{len(numbers)} other methods"


def missed(part: dict[str, Any], method: int, others: Sequence[int]) -> str:
    """A clause on the smallest differences that could have been seen; "" where no user's value differs."""
    detectable = [value for i in others if (value := pair(part, method, i)["detectable"]) is not None]
    if not detectable:
        return ""
    low, high = min(detectable), max(detectable)
    size = f"{low:.4f}" if f"{low:.4f}" == f"{high:.4f}" else f"{low:.4f} to {high:.4f}"
    return f"true differences below {size} would often have been missed"


def on_dataset(part: dict[str, Any], methods: Sequence[str]) -> str:
    """The sentences on one dataset: its best method, and which methods differ from it."""
    best = leader(part)
    row = part["rows"][numbers_of(part).index(best)]
    where = f"Over {EVERY}" if part["name"] == EVERY else part["name"]
    text = f"{where}: {methods[best]} has the highest {METRICS[MAIN]}, {row['mean'][MAIN]:.4f}"
    text += f" [{row['low'][MAIN]:.4f}, {row['high'][MAIN]:.4f}]."
    apart, equal = told_apart(part, best)
    if apart:
        text += f" It differs from {listed(apart, methods)}."
    if equal:
        small = missed(part, best, equal)
        text += f" It can't be told apart from {listed(equal, methods)}{': ' + small if small else ''}."
    return text


def verdict(where: str, comparison: dict[str, Any], a: str, b: str) -> str:
    """One comparison a - b on one dataset in words. comparison: difference, low, high, p_holm."""
    text = f"{where} {comparison['difference']:+.4f} [{comparison['low']:+.4f}, {comparison['high']:+.4f}]"
    if comparison["p_holm"] < ALPHA:
        return f"{text}, {a if comparison['difference'] > 0 else b} ranks better"
    return f"{text}, not told apart"


def pair_in_words(
    sections: Sequence[dict[str, Any]],
    rows: Sequence[dict[str, Any]],
    methods: Sequence[str],
    spoken: tuple[int, int, str],
) -> str:
    """A sentence on two rows that differ in reasoning or in training, on each of these sections that has both.

    rows: of against.csv, whose tests are corrected over the reference's own comparisons; where a pair has one, it is
    taken before that of the family of all pairs. spoken: the numbers of both rows, and the words for their difference.
    """
    a, b, claim = spoken
    by_dataset = {row["dataset"]: row for row in rows if row["reference"] == methods[a] and row["method"] == methods[b]}
    both = [part for part in sections if {a, b} <= set(numbers_of(part))]
    compared = {part["name"]: by_dataset.get(part["name"]) or pair(part, a, b) for part in both}
    parts = [verdict(name, comparison, methods[a], methods[b]) for name, comparison in compared.items()]
    text = f"{claim}, {METRICS[MAIN]} of {methods[a]} minus {methods[b]}: {'; '.join(parts)}."
    return text + could_have_been_found(compared)


def could_have_been_found(compared: Mapping[str, Mapping[str, Any]]) -> str:
    """A sentence on how large a difference would have been seen where none was, "" without such a dataset.

    compared: by dataset p_holm and detectable (None: unknown).

    >>> could_have_been_found({"a": {"p_holm": 0.2, "detectable": 0.01}, "b": {"p_holm": 0.6, "detectable": 0.02}})
    ' True differences of 0.0100 (a) and 0.0200 (b) would have been found in 80 % of such runs.'
    >>> could_have_been_found({"all": {"p_holm": 0.2, "detectable": 0.01}})
    ' A true difference of 0.0100 would have been found in 80 % of such runs.'
    """
    sizes = [
        f"{one['detectable']:.4f}" + (f" ({name})" if len(compared) > 1 else "")
        for name, one in compared.items()
        if one["p_holm"] >= ALPHA and one["detectable"]
    ]
    if not sizes:
        return ""
    subject = "True differences" if len(sizes) > 1 else "A true difference"
    return f" {subject} of {joined(sizes)} would have been found in {100 * POWER:.0f} % of such runs."


def scope(collected: Sequence[Collected]) -> str:
    """Sentences on the scope: methods, datasets, cases, trainings and runs."""
    most = max((results.seeds for results in collected), key=len)
    cases = joined(
        [
            f"{results.dataset} ({many(len(results.cases), 'test case')} of {many(results.n_users, 'user')})"
            for results in collected
        ]
    )
    runs = sum(len(results.records) for results in collected)
    number = len({name for results in collected for name in results.methods})
    trainings = number_of_each(list(most), list(most.values()), "method")
    return (
        f"{many(number, 'method')} on {cases}. Trainings{' per dataset' if len(collected) > 1 else ''}: {trainings}; "
        f"{many(runs, 'run')} in all. Every case ranks the full catalogue; every difference has a paired test over "
        "users."
    )


def answer(
    collected: Sequence[Collected],
    sections: Sequence[dict[str, Any]],
    overall: dict[str, Any] | None,
    methods: Sequence[str],
    rows: Sequence[dict[str, Any]],
    spoken: Sequence[tuple[int, int, str]],
) -> dict[str, Any]:
    """The page's title, the sentences below it, and those that are folded away.

    sections, overall, methods (names by number), rows (of against.csv): of `data.document`.
    """
    sentences, more = [scope(collected)], []
    if len(methods) > 1:
        whole = [overall] if overall else []
        for pair_spoken in spoken:
            over_all = [part for part in whole if {*pair_spoken[:2]} <= {*numbers_of(part)}]
            sentences.append(pair_in_words(over_all or sections, rows, methods, pair_spoken))
            more += [pair_in_words(sections, rows, methods, pair_spoken)] if over_all else []
        sentences += [on_dataset(part, methods) for part in whole or sections]
        more += [on_dataset(part, methods) for part in sections] if whole else []
        families = ["over all pairs and metrics of a dataset"]
        families += [f"{EVERY}: over all pairs by NDCG"] if overall else []
        families += [f"what {rows[0]['reference']} is held against: over its own comparisons"] if rows else []
        more.append(
            f"Told apart: p < {ALPHA} after Holm's correction ({'; '.join(families)}). Users are resampled and not "
            "trainings: another training may move a value by more than its interval says."
        )
    return {"title": title_of(sections, overall, methods), "said": sentences, "more": more}
