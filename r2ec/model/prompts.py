"""The two prompts of R2ec, as token ids: a user's history with an instruction, and an item's attributes.

Wording: arXiv 2505.16994v3. The backbone's own chat template goes around each. By default one user message is sent and
no system message of ours; templates that add one themselves (SmolLM2, Qwen2.5: "You are ...") are left to do so, as the
paper's released code does, and Gemma 2's has none. `system_prompt` replaces it, where the template allows that.

Titles and attributes are cleaned and cut by `benchmark.data.texts`, as for every method. A catalogue's titles are
tokenised once. A prompt is put together from pieces that end where no tokenizer merges: behind a line break and before
a single space. That this gives the ids of the whole string is checked when a builder is made.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from benchmark.contract import Cases, Split
from benchmark.data import texts
from benchmark.errors import InputError
from lm.chat import ids_of, split_template, text_of
from lm.writing.stopping import EndOfReasoning
from r2ec.settings import PromptSettings

ANSWER = "<answer>"
USER_INSTRUCTION = (
    "Analyze in depth and finally recommend next {category} I might purchase inside <answer> and </answer>. "
    "For example, <answer>a product</answer>.\n\n"
)
WITH_RATINGS = "Below is my historical {category} purchases and ratings (out of {scale:g}):\n"
WITHOUT_RATINGS = "Below is my historical {category} purchases:\n"
ITEM_INSTRUCTION = "Summarize key attributes of the following {category} inside <answer> and </answer>:\n"
# The released code's instead, under `wording: released`: other breaks and stops, and ratings with a decimal, "(5.0)".
RELEASED_USER_INSTRUCTION = USER_INSTRUCTION.replace(". For", ".\nFor")
# Up to "Title:", since many tokenizers split a blank line by what stands behind it: a piece may not end there.
RELEASED_ITEM_INSTRUCTION = ITEM_INSTRUCTION.replace(":\n", ".\n\nTitle:")

# The released code's words for texts.LEAKY.
LEAKY_WORDS = {"average_rating": "User Rating", "rating_number": "Number of Buyers"}

# Units of "{delta} ago", largest first, in seconds; months and years are the Gregorian calendar's means.
UNITS = (
    ("year", 31_556_952),
    ("month", 2_629_746),
    ("week", 604_800),
    ("day", 86_400),
    ("hour", 3_600),
    ("minute", 60),
)
TITLES_CHECKED = 256


class PromptBuilder:
    """Builds the prompts of one dataset for one tokenizer.

    Args:
        items: row v is item v, with a column `title`; every further text column but `item_id` is an attribute.
        category: the word for an item, such as "movie". rating_scale: what ratings are out of; None: no rating is
            mentioned. A single missing rating (NaN) is just left out of its line. category_plural: the word for several
            items; None: category.

    Raises InputError where the template refuses the system prompt, an item has no title, or the tokenizer merges tokens
    across lines or words in a way that the pieces can't reproduce.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        items: pd.DataFrame,
        category: str,
        settings: PromptSettings | None = None,
        *,
        rating_scale: float | None,
        category_plural: str | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.settings = settings or PromptSettings()
        self.category, self.rating_scale = category, rating_scale
        self.answer_ids = ids_of(tokenizer, ANSWER)
        header = WITHOUT_RATINGS if rating_scale is None else WITH_RATINGS
        opening, closing = split_template(tokenizer, self.settings.system_prompt)
        released = self.settings.wording == "released"
        instruction = RELEASED_USER_INSTRUCTION if released else USER_INSTRUCTION
        item_instruction = RELEASED_ITEM_INSTRUCTION if released else ITEM_INSTRUCTION
        header = header.format(category=category_plural or category, scale=rating_scale)
        self._head = opening + instruction.format(category=category) + header
        self._item_head = opening + item_instruction.format(category=category)
        self._in_item_head = "Title:" if released else ""
        self._tail = closing
        self._head_ids, self._tail_ids, self._item_head_ids = self._encode([self._head, closing, self._item_head])
        self._items = items
        self.titles = texts.titles(items, tokenizer)
        self._title_ids = self._encode([f" [{title}]" for title in self.titles])
        self._unrated_ids: dict[int, list[int]] = {}
        self._pieces: dict[str, list[int]] = {}
        self._check_pieces()

    @classmethod
    def for_split(cls, tokenizer: PreTrainedTokenizerBase, split: Split, settings: PromptSettings) -> "PromptBuilder":
        """The builder of a prepared dataset."""
        plural, scale = split.category_plural, split.rating_scale
        return cls(tokenizer, split.items, split.category, settings, rating_scale=scale, category_plural=plural)

    # Users

    def user_prompts(self, cases: Cases, *, open_answer: bool = False) -> list[list[int]]:
        """Token ids of one prompt per case, up to where the assistant begins to write.

        open_answer: the assistant's turn is opened with `<answer>`, for "w/o Reasoning" (nothing is written).
        Histories longer than `max_prompt_tokens` lose their oldest items, never the instruction. A newest item whose
        title alone is too long loses its end; InputError if not even its first letter fits.
        """
        tail = self._tail_ids + self.answer_ids if open_answer else self._tail_ids
        room = self.settings.max_prompt_tokens - len(self._head_ids) - len(tail)
        prompts = []
        for i in range(len(cases)):
            lines = self._lines(cases, i, self.settings.max_items)
            newest_first = np.cumsum([len(line) for line in reversed(lines)])
            kept = int(np.searchsorted(newest_first, room, side="right"))
            chosen = lines[len(lines) - kept :] if kept else [self._cut_line(cases, i, room)]
            prompts.append(self._head_ids + [token for line in chosen for token in line] + tail)
        return prompts

    def text(self, ids: Sequence[int]) -> str:
        """A prompt or a reasoning as text, special tokens included."""
        return text_of(self.tokenizer, ids)

    def _rows(self, cases: Cases, i: int, most: int) -> list[tuple[str, int, str]]:
        """Case i's newest `most` history items, oldest first: the words "{delta} ago:", item, " ({rating})" or ""."""
        span = slice(max(cases.offsets[i], cases.offsets[i + 1] - most), cases.offsets[i + 1])
        times = cases.times[span].tolist()
        anchor = times[-1] if self.settings.time_anchor == "last" else int(cases.time[i])
        silent, shape = self.rating_scale is None, ".1f" if self.settings.wording == "released" else "g"
        given_ratings = cases.ratings[span].tolist()
        ratings = ["" if silent or math.isnan(rating) else f" ({rating:{shape}})" for rating in given_ratings]
        words = delta_released if self.settings.deltas == "released" else delta_words
        ago = [f"{words(anchor - time)} ago:" for time in times]
        return list(zip(ago, cases.items[span].tolist(), ratings, strict=True))

    def _lines(self, cases: Cases, i: int, most: int) -> list[list[int]]:
        """Token ids of case i's newest `most` history lines, oldest first."""
        rows = self._rows(cases, i, most)
        lines = []
        for j, (ago, item, rating) in enumerate(rows):
            end = "\n" if j + 1 < len(rows) else ""
            if rating:
                lines.append(self._piece(ago) + self._title_ids[item] + self._piece(rating + end))
            else:
                lines.append(self._piece(ago) + (self._unrated(item) if end else self._title_ids[item]))
        return lines

    def _unrated(self, item: int) -> list[int]:
        # "]" and the line break behind it can be one token, so that the two aren't separate pieces.
        if item not in self._unrated_ids:
            self._unrated_ids[item] = self._encode([f" [{self.titles[item]}]\n"])[0]
        return self._unrated_ids[item]

    def _piece(self, text: str) -> list[int]:
        if text not in self._pieces:
            self._pieces[text] = self._encode([text])[0]
        return self._pieces[text]

    def _cut_line(self, cases: Cases, i: int, room: int) -> list[int]:
        """Case i's newest line with as much of its title as fits into `room` tokens."""
        ((ago, item, rating),) = self._rows(cases, i, 1)

        def line(title: str) -> list[int]:
            return self._encode([f"{ago} [{title}]{rating}"])[0]

        title = texts.longest(self.titles[item], lambda prefix: len(line(prefix)) <= room)
        if title:
            return line(title)
        raise InputError(
            f"case {cases.case[i]}: max_prompt_tokens {self.settings.max_prompt_tokens} holds the instruction and "
            f"nothing of item {item}'s title; raise it"
        )

    # Items

    def item_prompts(self) -> list[list[int]]:
        """Token ids of one prompt per item, `<answer>` at its end; the last token's state is the item's vector.

        One line "{Key}: {value}" for the title and each text column that has a value. Words are dropped from the end of
        the longest attribute, the title last, where a prompt exceeds `max_prompt_tokens`.
        """
        tail = self._tail_ids + self.answer_ids
        room = self.settings.max_prompt_tokens - len(self._item_head_ids) - len(tail)
        values = self._attributes()
        bodies = self._encode([self._item_body(item) for item in values])
        for v, body in enumerate(bodies):
            if len(body) > room:
                bodies[v] = self._cut_item(v, values[v], room)
        return [self._item_head_ids + body + tail for body in bodies]

    def _attributes(self) -> list[dict[str, str]]:
        """The attributes of each item in the order of their columns, title first, empty ones left out."""
        attributes = texts.attributes(self._items, self.tokenizer, self.settings.description_words)
        if self.settings.leaky_attributes:
            marks = texts.marks_of(self.tokenizer)
            leaky = [column for column in texts.LEAKY if column in self._items.columns]
            attributes |= {column: texts.cleaned(self._items[column], marks) for column in leaky}
        keys = {"Title": self.titles}
        keys |= {_key_words(column): attributes[column] for column in self._items.columns if column in attributes}
        return [{key: column[v] for key, column in keys.items() if column[v]} for v in range(len(self.titles))]

    def _item_body(self, values: dict[str, str]) -> str:
        """The lines of an item, title first, without what stands in the head already."""
        return "\n".join(f"{key}: {value}" for key, value in values.items()).removeprefix(self._in_item_head)

    def _cut_item(self, item: int, values: dict[str, str], room: int) -> list[int]:
        words = {key: value.split(" ") for key, value in values.items()}
        while True:
            attributes = [key for key in words if key != "Title"]
            if not attributes:
                break
            key = max(attributes, key=lambda k: sum(map(len, words[k])))  # in characters: one may have no spaces
            # An eighth at a time: few rounds for long values, single words for short ones.
            words[key] = words[key][: len(words[key]) - max(1, len(words[key]) // 8)]
            if not words[key]:
                del words[key]
            body = self._encode([self._item_body({k: " ".join(w) for k, w in words.items()})])[0]
            if len(body) <= room:
                return body

        def with_title_only(title: str) -> list[int]:
            return self._encode([self._item_body({"Title": title})])[0]

        title = texts.longest(values["Title"], lambda prefix: len(with_title_only(prefix)) <= room)
        if title:
            return with_title_only(title)
        raise InputError(
            f"item {item}: max_prompt_tokens {self.settings.max_prompt_tokens} holds the instruction and nothing of "
            "its title; raise it"
        )

    # Tokens

    def _encode(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids

    def _check_pieces(self) -> None:
        """Raise InputError unless a prompt built from pieces has the ids of the whole string, on these titles."""
        items = np.unique(np.linspace(0, len(self.titles) - 1, min(TITLES_CHECKED, len(self.titles))).astype(np.int64))
        n = len(items)
        ratings = np.where(np.arange(n) % 3 == 2, np.nan, 4.0 + (np.arange(n) % 2) / 2)
        times = np.cumsum(np.geomspace(1, 4e7, n).astype(np.int64)[::-1])
        cases = Cases(
            case=np.arange(1),
            user=np.zeros(1, np.int32),
            time=times[-1:],
            offsets=np.array([0, n]),
            items=items.astype(np.int32),
            ratings=ratings.astype(np.float32),
            times=times,
            target=None,
        )
        lines = self._lines(cases, 0, n)
        pieces = self._head_ids + [token for line in lines for token in line] + self._tail_ids + self.answer_ids
        whole = self._whole(cases, 0, n) + ANSWER
        if pieces != self._encode([whole])[0]:
            raise InputError(
                f"{type(self.tokenizer).__name__}: this tokenizer merges tokens across lines or before spaces, so that "
                "prompts can't be built from tokenised titles; use another backbone"
            )

    def user_text(self, cases: Cases, i: int) -> str:
        """Case i's prompt as a string with all its `max_items` items, not truncated: what `user_prompts` tokenises."""
        return self._whole(cases, i, self.settings.max_items)

    def _whole(self, cases: Cases, i: int, most: int) -> str:
        lines = [f"{ago} [{self.titles[item]}]{rating}" for ago, item, rating in self._rows(cases, i, most)]
        return self._head + "\n".join(lines) + self._tail


def end_of_reasoning(tokenizer: PreTrainedTokenizerBase) -> EndOfReasoning:
    """A reasoning ends with `<answer>`, written or appended."""
    return EndOfReasoning(tokenizer, ANSWER)


def delta_words(seconds: int) -> str:
    """A duration in the largest unit that it fills, rounded down.

    >>> [delta_words(s) for s in (0, 59, 60, 7200, 86400 * 13, 86400 * 400)]
    ['moments', 'moments', '1 minute', '2 hours', '1 week', '1 year']
    """
    for unit, length in UNITS:
        if seconds >= length:
            count = seconds // length
            return f"{count} {unit}" + ("s" if count > 1 else "")
    return "moments"


def delta_released(seconds: int) -> str:
    """A duration as the released code writes it: two units, the smaller with a decimal; below an hour minutes.

    >>> [delta_released(s) for s in (0, 90, 3 * 3600 + 720, 86400 * 12 + 12240)]
    ['0.0min', '1.5min', '3h 12.0min', '12d 3.4h']
    """
    days, rest = divmod(seconds, 86_400)
    if days:
        return f"{days}d {rest / 3_600:.1f}h"
    hours, rest = divmod(rest, 3_600)
    return f"{hours}h {rest / 60:.1f}min" if hours else f"{rest / 60:.1f}min"


def _key_words(column: str) -> str:
    """A column's name as a key: `store_name` -> `Store Name`."""
    return LEAKY_WORDS.get(column, column.replace("_", " ").title())
