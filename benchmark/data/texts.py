"""Clean and shorten a catalogue's titles and attributes, and find the scale of its ratings, alike for every method.

A title may hold anything: line breaks that would begin a line of their own in a prompt, tokens of a chat template that
would open a turn, ten thousand letters without a space. Every method that reads titles or attributes reads them by
these functions.
"""

import contextlib
import re
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING

import jinja2
import numpy as np
import pandas as pd

from benchmark.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TITLE_TOKENS = 128  # of the tokenizer in use; a longer title loses its end
ATTRIBUTE_WORDS, ATTRIBUTE_CHARACTERS = 100, 2000  # of each attribute; characters bound texts without spaces
PROMPT_TOKENS = 1024  # of a whole prompt, where a method's settings don't say another number
# Attributes that were read when a catalogue was crawled, after the cases: they tell how popular an item became. The
# names are Amazon Reviews 2023's. `benchmark.data.prepare` leaves them out, or keeps them as text, which all methods
# read (popularity_columns). The numbers that leaky_popularity adds are read by R2ec's `prompts.leaky_attributes`
# alone, the control that measures this leak.
LEAKY = ("average_rating", "rating_number")
NOT_ATTRIBUTES = ("item_id", "title")
SCALES = (5.0, 10.0, 100.0)  # what ratings may be out of

# Invisible characters that belong to what is read: they hold emoji together and keep Persian letters apart.
JOINERS = "\u200c\u200d"
# What a template writes around turns in plain text, such as <|user|>, [INST] and <<SYS>>.
TEMPLATE_MARK = re.compile(r"<{1,2}/?[^<>\s]+>{1,2}|\[/?[A-Z_]+\]")
# Marks of turns and of a text's ends that tokenizers and templates in use have. Which of them a tokenizer has, says
# `marks_of`; a dataset is prepared without any.
COMMON_MARKS = re.compile(
    r"<[|\uff5c][^<>]{1,40}[|\uff5c]>|</?s>|<(?:bos|eos|pad|unk|mask|(?:start|end)_of_turn)>|\[/?INST\]|<</?SYS>>"
    r"|\[(?:CLS|SEP|PAD|UNK|MASK)\]"
)
NO_TOKEN_IS_LONGER = 100  # characters, on average: what lies beyond need not be tokenised


def one_line(value: object) -> str:
    """A value as text on one line, with single spaces; control characters are spaces, invisible ones are left out.

    >>> one_line("two\\nlines\\x00 and a zero\\u200b-width space ")
    'two lines and a zero-width space'
    """
    text = str(value)
    if not text.isprintable():
        text = "".join(_visible(character) for character in text)
    return " ".join(text.split())


def _visible(character: str) -> str:
    kind = unicodedata.category(character)
    if kind == "Cc":
        return " "
    return "" if kind in ("Cf", "Cs") and character not in JOINERS else character


def only_marks(value: object) -> bool:
    """Whether a text holds nothing but marks that are common among tokenizers and templates.

    >>> only_marks("<|im_end|> <s>"), only_marks("Up <s>"), only_marks("[REC]"), only_marks("")
    (True, False, False, False)
    """
    text = one_line(value)
    return text[:1] in ("<", "[") and not COMMON_MARKS.sub("", text).strip()


def marks_of(tokenizer: "PreTrainedTokenizerBase") -> re.Pattern[str]:
    """A pattern of what is no plain text to a tokenizer or its chat template: special tokens, and marks of a turn."""
    added = tokenizer.added_tokens_decoder.values()
    # A plain word that somebody added to the vocabulary is text.
    marks = {str(token) for token in added if token.special or not str(token).isalnum()}
    if tokenizer.chat_template is not None:
        messages = [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]
        with contextlib.suppress(jinja2.TemplateError):  # lm.chat.split_template says what is wrong with it
            marks.update(TEMPLATE_MARK.findall(str(tokenizer.apply_chat_template(messages, tokenize=False))))
    marks = {" ".join(mark.split()) for mark in marks} - {""}
    longest_first = sorted(marks, key=lambda mark: (-len(mark), mark))
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def cleaned(column: pd.Series, marks: re.Pattern[str]) -> list[str]:
    """Values as text on one line, "" where missing, without the marks: those of a tokenizer, see `marks_of`."""
    return [_unmarked(one_line(value), marks) for value in column.astype(object).where(column.notna(), "")]


def _unmarked(text: str, marks: re.Pattern[str]) -> str:
    # Nothing but marks: the words in them, so that a title stays one.
    return _without(text, marks, " ") or _without(" ".join(re.findall(r"\w+", text)), marks, "")


def _without(text: str, marks: re.Pattern[str], between: str) -> str:
    """The text on one line with `between` in the place of the marks."""
    while marks.search(text):  # what is left may be a mark again
        text = " ".join(marks.sub(between, text).split())
    return text


def titles(items: pd.DataFrame, tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """The items' titles as every method with this tokenizer reads them: cleaned, of at most TITLE_TOKENS tokens.

    Raises InputError for an item without a title, and for one whose title this tokenizer reads as nothing.
    """
    marks = marks_of(tokenizer)
    titles_read = [title[: NO_TOKEN_IS_LONGER * TITLE_TOKENS] for title in cleaned(items["title"], marks)]
    if empty := [v for v, title in enumerate(titles_read) if not title]:
        name, value = items["item_id"].iloc[empty[0]] if "item_id" in items else empty[0], items["title"].iloc[empty[0]]
        raise InputError(
            f"items.parquet: row {empty[0] + 1}: item {str(name)!r} has no title (it is {str(value)!r}; special tokens "
            f"of {tokenizer.name_or_path or 'the tokenizer'} are none); give it one in the source, or leave it out"
        )

    def fits(text: str) -> bool:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"]) <= TITLE_TOKENS

    lengths = [len(ids) for ids in tokenizer(titles_read, add_special_tokens=False)["input_ids"]]
    titles_read = [
        title if length <= TITLE_TOKENS else longest(title, fits)
        for title, length in zip(titles_read, lengths, strict=True)
    ]
    # In R2ec's brackets a title INST would be [INST].
    return [title.lower() if marks.search(f"[{title}]") else title for title in titles_read]


def attributes(
    items: pd.DataFrame, tokenizer: "PreTrainedTokenizerBase", words: int = ATTRIBUTE_WORDS
) -> dict[str, list[str]]:
    """The items' other text columns as every method reads them, by column, "" where an item has none.

    Cleaned, the first `words` words and ATTRIBUTE_CHARACTERS characters of each. Numbers are no attributes.
    """
    marks = marks_of(tokenizer)
    return {
        str(name): [_first(value, words) for value in cleaned(items[name], marks)]
        for name in items.columns
        if name not in NOT_ATTRIBUTES and not pd.api.types.is_numeric_dtype(items[name])
    }


def _first(text: str, words: int) -> str:
    return " ".join(text.split(" ")[:words])[:ATTRIBUTE_CHARACTERS].rstrip()


def longest(text: str, fits: Callable[[str], bool]) -> str:
    """The longest beginning of a text that fits, "" for none; in whole words unless the first one alone is too long.

    >>> longest("one two three", lambda text: len(text) < 10), longest("unbroken", lambda text: len(text) < 4)
    ('one two', 'unb')
    """
    if fits(text):
        return text
    low, high = 0, len(text)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(text[:middle]) else (low, middle)
    beginning = text[:low]
    if low and not text[low].isspace() and " " in beginning:
        beginning = beginning[: beginning.rindex(" ")]
    beginning = beginning.rstrip()
    while beginning and not fits(beginning):  # some tokenizers need more tokens for less text
        beginning = beginning[:-1].rstrip()
    return beginning


def rating_scale(ratings: np.ndarray) -> float | None:
    """The upper end of the scale of ratings (float [n], NaN: none): 5, 10 or 100; None where they don't say liking.

    They say nothing where there are none, where all are equal or none is above 1 (somebody took the item, and no more),
    and where one is negative or above 100 (counts, not ratings).

    >>> rating_scale(np.array([4.0, 8.0])), rating_scale(np.array([1.0, 1.0]))
    (10.0, None)
    """
    known = ratings[np.isfinite(ratings)]
    if len(known) == 0 or known.min() == known.max() or known.min() < 0 or known.max() <= 1:
        return None
    return next((scale for scale in SCALES if known.max() <= scale), None)
