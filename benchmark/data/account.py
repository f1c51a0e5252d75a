"""Count what is dropped of a dataset's interactions, say it in sentences, and refuse to drop too many."""

import unicodedata
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from benchmark.data.texts import only_marks
from benchmark.datasets import Raw
from benchmark.errors import InputError

UNKNOWN_ITEM = "their item isn't in items"
UNTITLED = "their item has no title"
MOST_RARE = 0.5  # share of the interactions that the minimum counts may take without a warning


@dataclass(frozen=True)
class Dropped:
    """Interactions that one rule left out."""

    rows: int
    first: int  # row of the first of them in the source's interactions, from 0
    note: str = ""  # what else there is to say about it


@dataclass
class Account:
    """What became of a dataset's interactions.

    It is filled while they are read, so that it also shows what came before an error.
    """

    counts: dict[str, int] = field(default_factory=dict)  # as in dataset.json
    dropped: dict[str, Dropped] = field(default_factory=dict)  # by the reason in words, in the order of the rules
    warnings: list[str] = field(default_factory=list)  # sentences about data that the user may not mean

    def drop(self, reason: str, rows: np.ndarray, note: str = "") -> None:
        """Write down that these rows of the source's interactions are left out; nothing for none."""
        if len(rows):
            self.dropped[reason] = Dropped(len(rows), int(rows.min()), note)


def check_unknown(raw: Raw, account: Account, most: float, where: str) -> None:
    """Raise InputError where more than the share `most` of the interactions name an item that isn't in items."""
    unknown, rows = account.dropped.get(UNKNOWN_ITEM), len(raw.interactions)
    if unknown is None or unknown.rows <= most * rows:
        return
    name = raw.interactions["item_id"].iloc[unknown.first]
    if not len(raw.items):
        raise InputError(f"{where}: there are {rows:,} interactions and no items; give the items a row each")
    of_items = f"items begin with {raw.items['item_id'].iloc[0]!r}"
    users_known = raw.interactions["user_id"].isin(raw.items["item_id"]).mean()
    if users_known >= 1 - most:
        of_items += "; the user_ids are ids of items: if the two columns are swapped, swap their names"
    # Where none is known, accepting that leaves nothing.
    accept = f", or let max_unknown_items accept them (it is {most:g})" if unknown.rows < rows else ""
    raise InputError(
        f"{where}: {share(unknown.rows, rows)} interactions name an item that isn't in items, first {name!r} in row "
        f"{unknown.first + 1} ({_meant(name, set(raw.items['item_id'])) or of_items}); write ids alike in "
        f"both{accept}"
    )


def share(part: int, whole: int) -> str:
    """A part of a whole in words; none is 0.0 % that isn't.

    >>> share(48, 96), share(1, 100_000), share(0, 96)
    ('48 of 96 (50.0 %)', '1 of 100,000 (below 0.1 %)', '0 of 96 (0.0 %)')
    """
    return f"{part:,} of {whole:,} ({percent(part, whole)})"


def percent(part: int, whole: int) -> str:
    """A part of a whole in per cent; none is 0.0 % that isn't."""
    return f"{100 * part / whole:.1f} %" if not part or part * 1000 >= whole else "below 0.1 %"


def _meant(name: str, known: set[str]) -> str:
    r"""The known id that an unknown one may stand for, as words; "" for none.

    >>> _meant("00011", {"11"}), _meant("2.0", {"2"}), _meant("b7", {"B7"}), _meant("x", {"y"})
    ("items have '11'", "items have '2'", "items have 'B7'", '')
    >>> _meant("7", {"007", "008"}), _meant("\u00e9", {"e\u0301"})
    ("items have '007'", "items have it with other codes of its accents, as Unicode's NFD has them")
    """
    stripped = name.strip()
    for other in (
        stripped,
        stripped.lstrip("0") or "0",
        stripped.removesuffix(".0"),
        f"{stripped}.0",
        stripped.upper(),
        stripped.lower(),
    ):
        if other != name and other in known:
            return f"items have {other!r}"
    if stripped.isdecimal() and (padded := min((key for key in known if key.lstrip("0") == stripped), default="")):
        return f"items have {padded!r}"
    for form in ("NFC", "NFD"):
        if (other := unicodedata.normalize(form, stripped)) != stripped and other in known:
            return f"items have it with other codes of its accents, as Unicode's {form} has them"
    return ""


def warnings_of(raw: Raw, account: Account, items: pd.DataFrame) -> list[str]:
    """Sentences about data that is no error, but that the user may not mean. items: those that are kept."""
    sentences, counts = [], account.counts
    whole = counts["interactions_read"]
    for reason, problem in (
        (UNKNOWN_ITEM, "name an item that isn't in items"),
        (UNTITLED, "are of an item without a title"),
    ):
        if dropped := account.dropped.get(reason):
            first = raw.interactions["item_id"].iloc[dropped.first]
            sentences.append(f"{share(dropped.rows, whole)} interactions {problem}, first {first!r}; they are dropped")
    if marked := [v for v, title in enumerate(items["title"]) if only_marks(title)]:
        name, title = items["item_id"].iloc[marked[0]], items["title"].iloc[marked[0]]
        row = int(np.argmax((raw.items["item_id"] == name).to_numpy())) + 1
        sentences.append(
            f"{share(len(marked), len(items))} items have a title of nothing but marks of a chat template or a "
            f"tokenizer, first {str(title)!r} (item {str(name)!r}, row {row} of items); an LLM with such a mark reads "
            "the words in it alone"
        )
    rare, before = counts["dropped_minimum_counts"], counts["interactions_before_minimum_counts"]
    if rare > MOST_RARE * before:
        sentences.append(
            f"the minimum counts drop {share(rare, before)} interactions; where the log is a part of a larger one, set "
            "min_user_count and min_item_count to 1"
        )
    if counts["test_users"] == 1:
        sentences.append("all test cases are one user's; intervals and tests are over users and need several")
    return sentences
