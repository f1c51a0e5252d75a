"""The captions of tables: what the numbers are, their marks and tests, and the runs behind them."""

from collections.abc import Sequence

import pandas as pd

from benchmark.analysis import significance
from benchmark.analysis.comparisons import AGAINST_BEST
from benchmark.analysis.information import in_words
from benchmark.config.wording import many
from benchmark.contract import Learned
from benchmark.data.account import share
from benchmark.evaluate import TOP
from benchmark.metrics import METRICS
from benchmark.output.cells import cells
from benchmark.statistics.against import EVERY

DAGGER = "†"
FEW = 0.05  # share of the items that the lists could hold; a method that shows fewer is named in the caption


def joined(names: Sequence[str]) -> str:
    """Names in a sentence.

    >>> joined(["a"]), joined(["a", "b"]), joined(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def number_of_each(methods: Sequence[str], numbers: Sequence[int], row: str = "row") -> str:
    """Which methods have which number of something, in words; the number that most have comes last.

    row: the word for a method where it isn't named.

    >>> number_of_each(["popularity", "sasrec", "r2ec"], [3, 3, 3])
    '3 of each row'
    >>> number_of_each(["popularity", "sasrec", "r2ec", "r2ec_untrained", "item_knn"], [3, 3, 1, 1, 3])
    '1 of r2ec and r2ec_untrained, 3 of each other row'
    >>> number_of_each(["popularity", "sasrec", "caser", "r2ec"], [1, 5, 3, 1], "method")
    '5 of sasrec, 3 of caser, 1 of each other method'
    >>> number_of_each(["popularity", "sasrec"], [1, 2])
    '1 of popularity, 2 of sasrec'
    """
    named: dict[int, list[str]] = {}
    for method, number in zip(methods, numbers, strict=True):
        named.setdefault(number, []).append(method)
    most = max(named, key=lambda number: (len(named[number]), number))
    common = named.pop(most)
    parts = [f"{number:,} of {joined(names)}" for number, names in named.items()]
    last = f"each {'other ' if named else ''}{row}" if len(common) > 1 or not named else common[0]
    return ", ".join([*parts, f"{most:,} of {last}"])


def trainings_in_words(methods: Sequence[str], seeds: Sequence[int]) -> str:
    """`number_of_each` of the trainings of a table's rows.

    >>> trainings_in_words(["popularity", "sasrec", "r2ec", "r2ec_untrained", "item_knn"], [3, 3, 1, 1, 3])
    '1 training of r2ec and r2ec_untrained, 3 of each other row'
    >>> trainings_in_words(["popularity", "sasrec"], [3, 3])
    '3 trainings of each row'
    """
    first, _, rest = number_of_each(methods, seeds).partition(" ")
    return f"{first} {'training' if first == '1' else 'trainings'} {rest}"


def notes(frame: pd.DataFrame, *, plain: bool = False) -> list[str]:
    """The caption of a table of methods: `what_it_shows`, a paragraph per dataset, then what its runs learned from.

    plain: for a table without deviations over seeds and without bold and underlined means.
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
                f"({many(len(part) - 1, 'method')} x {len(METRICS)} metrics)"
            )
        else:
            family = "no baseline among the methods, so no test in this table"
        out.append(runs_behind(part, family))
    return out + backgrounds_in_words(frame) + of_different_code(frame)


def what_it_shows(frame: pd.DataFrame, reference: str, family: str, *, plain: bool = False) -> str:
    """The sentences on a table's numbers, its tests against `reference` in this family, and its marks."""
    printed = [cell for row in cells(frame) for cell in row]
    sentences = ["Full-catalogue ranking."]
    mean = "Mean over seeds" if frame.seeds.max() > 1 else "One seed"
    if not plain and any(cell.sd for cell in printed):
        mean += " ± sd over seeds"
    sentences.append(
        f"{mean}; below it the 95 % interval of a bootstrap over users ({significance.RESAMPLES:,} resamples)."
    )
    if not plain:
        second = ", second underlined" if any(cell.place == 2 for cell in printed) else ""
        if any(cell.place == 1 for cell in printed):
            sentences.append(f"Best bold{second}.")
    if (frame[[f"{metric}_p_holm" for metric in METRICS]].notna()).any(axis=None):
        marked = any(cell.dagger for cell in printed)
        sentences.append(
            f"{f'{DAGGER} differs' if marked else 'No value differs'} from {reference}, in either direction, at p < "
            f'{significance.ALPHA} after Holm\'s correction over the family "{family}". Two-sided paired tests over '
            "users: randomisation test with signs flipped per user for NDCG, McNemar's test clustered by user for Hit "
            f"(exact where fewer than {significance.FEW_USERS} users differ)."
        )
    if not plain:
        sentences.append(
            "Users are resampled and not trainings: another seed may move a value by more than its interval says."
        )
    return " ".join(sentences)


def runs_behind(part: pd.DataFrame, family: str) -> str:
    """A sentence on one dataset's cases, seeds and commits. family: its family of tests in words."""
    row = part.iloc[0]
    commits = [commit[:10] + ("-dirty" if commit.endswith("-dirty") else "") for commit in row.commit.split()]
    return (
        f"{row.dataset}: {many(row.n_cases, 'case')} of {many(row.n_users, 'user')}; "
        f"{trainings_in_words(part.method.tolist(), part.seeds.tolist())}; {family}; "
        f"{'commits' if len(commits) > 1 else 'commit'} {', '.join(commits)}."
    )


def of_different_code(frame: pd.DataFrame) -> list[str]:
    """A sentence on rows of one declared version, or of one name, that different code has made; none without such rows.

    Rows of one version may stand beside each other, as whoever edits the code declares whether its numbers change. By
    this sentence a reader learns that a difference may be the code's.
    """
    several = frame.dataset.nunique() > 1
    rows: dict[str, dict[str, list[str]]] = {}  # by what should be the same, the rows by code
    for row in frame.to_dict("records"):
        by_code = rows.setdefault(row["version"] or f"row {row['method']}", {})
        for code in row["code"].split():
            by_code.setdefault(code, []).append(f"{row['dataset']}: {row['method']}" if several else row["method"])
    different = [
        f"{code} made {', '.join(names)}"
        for by_code in rows.values()
        if len(by_code) > 1
        for code, names in by_code.items()
    ]
    if not different:
        return []
    return [
        f"Made by different code under one declared version: {'; '.join(different)}. Tests hold such code to the same "
        "numbers (tests/test_golden.py); snakemake --config fresh=true makes all rows anew."
    ]


def backgrounds_in_words(frame: pd.DataFrame) -> list[str]:
    """A paragraph of `background` for each dataset; a sentence that holds for several is said once, behind their names.

    Those of one dataset come first.
    """
    datasets: dict[str, list[str]] = {}  # by sentence
    for dataset, part in frame.groupby("dataset", sort=False):
        for sentence in background(part):
            datasets.setdefault(sentence, []).append(str(dataset))
    paragraphs: dict[tuple[str, ...], list[str]] = {}
    for sentence, names in datasets.items():
        paragraphs.setdefault(tuple(names), []).append(sentence)
    ordered = sorted(paragraphs.items(), key=lambda paragraph: len(paragraph[0]))
    return [f"{joined(names)}: {'. '.join(sentences)}." for names, sentences in ordered]


def background(part: pd.DataFrame) -> list[str]:
    """The sentences on one dataset's rows and cases, from the columns of `benchmark.analysis.summary.background`.

    Without their full stops. They say what the rows learned from, how many settings they tried, how many targets no
    method could have learned, how many items the lists hold, and how many interactions equal times hide.
    """
    row = part.iloc[0]
    tried = number_of_each(part.method.tolist(), part.settings_tried.tolist())
    undecided = part.method[part.settings_undecided == 1].tolist()
    alike = f"; those of {joined(undecided)} made no difference there, so that none was chosen" if undecided else ""
    sentences = [
        what_they_learned(part),
        f"Settings tried on validation cases: {tried}{alike}",
        f"{share(row.cold_targets, row.n_cases)} test targets stand in no training interaction: no method could have "
        "learned them"
        if row.cold_targets
        else "Every test target stands in a training interaction",
        of_the_lists(part),
    ]
    if row.hidden_share:
        sentences.append(
            f"Equal times take {max(0.1, 100 * row.hidden_share):.1f} % of the interactions out of the histories of "
            "cases of the same second (same_time: exclude)"
        )
    return sentences


def what_they_learned(part: pd.DataFrame) -> str:
    """A clause on what the rows of one dataset learned from: the usual amount, then each row with another one.

    The usual amount is that of most rows without a reason to learn from less, even where rows with a reason are more.
    """
    columns = ["learned_targets", "learned_users", "learned_positions"]
    numbers = [Learned(users, targets, read) for targets, users, read in part[columns].to_numpy().tolist()]
    whole = [amount for amount, reason in zip(numbers, part.less_information, strict=True) if not reason] or numbers
    usual = max(whole, key=lambda amount: (whole.count(amount), amount.targets))
    others: dict[tuple[Learned, str], list[str]] = {}
    for method, amount, reason in zip(part.method, numbers, part.less_information, strict=True):
        if amount != usual:
            others.setdefault((amount, reason), []).append(str(method))
    text = f"{'most rows' if others else 'each row'} learned from {in_words(usual)} ({usual.positions:,} positions)"
    for (amount, reason), names in others.items():
        read = f" ({amount.positions:,} positions)" if amount.targets else ""
        text += f"; but {', '.join(names)} from {in_words(amount)}{read}{f': {reason}' if reason else ''}"
    return text


def of_the_lists(part: pd.DataFrame) -> str:
    """Two sentences on how many different items the rows of one dataset recommend, and how often the same three."""
    n_items, n_cases = int(part.n_items.iloc[0]), int(part.n_cases.iloc[0])
    least, most = part.distinct_items.min(), part.distinct_items.max()
    span = f"{least:,} to {most:,}" if most > least else f"{least:,}"
    text = f"Distinct items in the top {TOP} of all cases: {span} of {n_items:,}"
    few = part[part.distinct_items < FEW * min(n_items, TOP * n_cases)]
    rows = ", ".join(f"{method} {number:,}" for method, number in zip(few.method, few.distinct_items, strict=True))
    if rows:
        text += f"; strikingly few (below {100 * FEW:.0f} %): {rows}"
    shares = [f"{100 * share:.1f} %" for share in (part.three_items_share.min(), part.three_items_share.max())]
    return f"{text}. The three most recommended items take {' to '.join(dict.fromkeys(shares))} of all places there"


def against_note(frame: pd.DataFrame) -> str:
    """The caption of one method against each of the others. frame: of against.csv."""
    measured = "; ".join(
        f"{dataset}: {many(part.n_cases.iloc[0], 'case')} of {many(part.n_users.iloc[0], 'user')}"
        for dataset, part in frame.groupby("dataset", sort=False)
    )
    methods = many(frame.family_size.iloc[0], "method")
    several = (
        f' Under "{EVERY}" each dataset weighs the same, and costs are means.' if EVERY in set(frame.dataset) else ""
    )
    return (
        f"{measured}. Two-sided paired randomisation tests, signs flipped per user; Holm's correction over the "
        f"{methods} of one part of the table. Interval: bootstrap over users. Smallest "
        f"detectable: the true difference that the test would find with a power of {100 * significance.POWER:.0f} % at "
        f"the level of Holm's first step. Users are resampled and not trainings.{several} Costs: as in costs.md, where "
        "a run is charged for what others had encoded or written."
    )
