"""Turn titles and attributes of Amazon Reviews 2023 into plain text, by our rules or by those of the released code."""

import html
import json
import re
from typing import Any

from benchmark.errors import InputError

TAG = re.compile(r"<!--.*?-->|</?[A-Za-z][^<>]*>", re.DOTALL)
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028\u2029\ufeff]")


def clean(text: str) -> str:
    """Text on one line: HTML entities resolved, tags and control characters out, one space between words.

    >>> clean(" Tom &amp; Jerry<br/>Vol.&nbsp;2 ")
    'Tom & Jerry Vol. 2'
    >>> clean("I <3 Caf\\u00e9 < 5 > 4")
    'I <3 Café < 5 > 4'
    """
    text = TAG.sub(" ", html.unescape(text)) if "<" in text or "&" in text else text
    return " ".join(CONTROL.sub(" ", text).split())


def clean_released(text: str) -> str:
    """A title as the released code cleans it: tags go without a space, each non-ASCII character becomes a space.

    >>> clean_released("Caf\\u00e9 <b>Blue</b>\\tnote")
    'Caf  Blue note'
    """
    text = re.sub(r"<[^>]+>", "", html.unescape(text).strip())
    return re.sub(r"[^\x00-\x7F]", " ", re.sub(r" +", " ", re.sub(r"[\n\t]", " ", text)))


def is_title(raw: str) -> bool:
    """Whether a text is a title, and not a missing one that pandas turned into "nan".

    >>> is_title("Nan Goldin"), is_title(" nan "), is_title("")
    (True, False, False)
    """
    return raw.strip().lower() not in ("", "nan")


def title(raw: str) -> tuple[str, int]:
    """A title, "" for none, and its number of words.

    >>> title("  The <i>Sims</i> 4 ")
    ('The Sims 4', 3)
    """
    text = clean(raw)
    return text, len(text.split())


def title_released(raw: str) -> tuple[str, int]:
    """A title by the released code, and its number of words: single spaces part them, and the text isn't cleaned yet.

    A title of one character counts as none, and so does one that holds a piece of the page's source. A title that is
    cleaned to spaces, such as a Japanese one, counts as none here, too; the released code keeps it.

    >>> title_released('"Tom &amp; Jerry"'), title_released("one  two"), title_released("X")
    (('Tom & Jerry', 3), ('one two', 3), ('', 0))
    """
    text = raw.replace("&quot;", '"').replace("&amp;", "&").strip(" ").strip('"')
    if len(text) <= 1 or "<span id" in raw:
        return "", 0
    cleaned = clean_released(text).strip()
    return cleaned, text.count(" ") + 1 if cleaned else 0


def attribute(raw: str | None, words: int | None, between: str = " ", cleaned: bool = True) -> str:
    """An attribute's text out of its JSON: a string, a list, or a dictionary; the first `words` words (None: all).

    The parts of a list are joined by `between` in their own order, whatever the hash seed; a part that occurs before is
    left out. Entries of a dictionary become "key: value", parted by "; ".

    >>> attribute('["Two discs.", "A &amp; B", "Two discs."]', None)
    'Two discs. A & B'
    >>> attribute('{"Brand": "Fender", "Color": null, "Strings": 6}', 4)
    'Brand: Fender; Strings: 6'
    >>> attribute("null", None), attribute(None, None), attribute("NaN", None), attribute('["a", NaN]', None)
    ('', '', '', 'a')
    """
    try:
        text = "" if raw is None else _flat(json.loads(raw), between)
        text.encode()
    except (ValueError, RecursionError) as error:  # half a surrogate pair, thousands of digits or brackets
        start = str(raw)[:60]
        raise InputError(f"the metadata's attribute {start!r} can't be read ({error}); leave its line out") from None
    text = clean(text) if cleaned else " ".join(text.split())
    return text if words is None else " ".join(text.split(" ")[:words])


def _flat(value: Any, between: str) -> str:
    """The text of a JSON value; what is empty is left out."""
    if isinstance(value, list):
        return between.join(dict.fromkeys(part for entry in value if (part := _flat(entry, between))))
    if isinstance(value, dict):
        return "; ".join(f"{key}: {part}" for key, entry in value.items() if (part := _flat(entry, between)))
    return "" if value is None or value != value else str(value)  # NaN, which Python writes into JSON, is none
