"""What a method gets and what it returns: the only part of the benchmark that a method has to know.

A method is a module (`baselines/{name}.py`, or `r2ec/method.py`) with

    def fit(split: Split, *, seed: int, params: dict, workdir: Path) -> Recommender

and optionally a pydantic model `Params`, by which its parameters in the config are checked before anything runs.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from benchmark.errors import InputError
from benchmark.provenance import derive_seed


@dataclass(frozen=True)
class Cases:
    """n cases: each a user's history and, for training and validation, the next item.

    Histories are ragged: that of case i is `items[offsets[i]:offsets[i + 1]]`, oldest first, with at least one item and
    at most the dataset's history length. Only a control of leaks may read `time` of the case itself.
    """

    case: np.ndarray  # int64 [n], the number of the case in the whole dataset; ascending in time
    user: np.ndarray  # int32 [n]
    time: np.ndarray  # int64 [n], Unix seconds at which the next item was taken
    offsets: np.ndarray  # int64 [n + 1]
    items: np.ndarray  # int32 [offsets[-1]]
    ratings: np.ndarray  # float32 [offsets[-1]], NaN where the source has none
    times: np.ndarray  # int64 [offsets[-1]], Unix seconds
    target: np.ndarray | None  # int32 [n]; None for test cases

    def __len__(self) -> int:
        return len(self.case)

    def history(self, i: int) -> np.ndarray:
        """Item numbers of case i's history, oldest first, int32 [1..history_length]."""
        return self.items[self.offsets[i] : self.offsets[i + 1]]

    def take(self, rows: np.ndarray) -> "Cases":
        """The cases at these row numbers (int [m]), in the order given."""
        rows = np.asarray(rows, dtype=np.int64)
        lengths = (self.offsets[1:] - self.offsets[:-1])[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        flat = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) + np.repeat(self.offsets[rows], lengths)
        return Cases(
            case=self.case[rows],
            user=self.user[rows],
            time=self.time[rows],
            offsets=offsets,
            items=self.items[flat],
            ratings=self.ratings[flat],
            times=self.times[flat],
            target=None if self.target is None else self.target[rows],
        )

    def batches(self, size: int) -> Iterator["Cases"]:
        """Consecutive pieces of at most `size` cases."""
        for start in range(0, len(self), size):
            yield self.take(np.arange(start, min(start + size, len(self))))

    def sample(self, size: int, *names: object) -> "Cases":
        """`size` of these cases, or all, in their order, drawn by a seed from `names` and the number of the cases.

        A larger sample of the same names holds the smaller one.
        """
        order = np.random.default_rng(derive_seed(*names, len(self))).permutation(len(self))
        return self.take(np.sort(order[:size]))

    def padded(self, pad: int, length: int) -> np.ndarray:
        """Histories as one int64 [n, length] array, the newest `length` items, right-aligned, `pad` to their left."""
        lengths = np.diff(self.offsets)
        column = np.arange(self.offsets[-1]) - np.repeat(self.offsets[1:], lengths) + length
        row = np.repeat(np.arange(len(self)), lengths)
        keep = column >= 0
        out = np.full((len(self), length), pad, dtype=np.int64)
        out[row[keep], column[keep]] = self.items[keep]
        return out

    def sequences(self) -> "Sequences":
        """The items of each user as one sequence: for methods that learn at every position at once.

        These have to be all training cases of a split. Raises ValueError where some are left out, as the histories are
        then not part of one sequence.
        """
        assert self.target is not None
        order = np.lexsort((np.arange(len(self)), self.user))
        user, first = np.unique(self.user[order], return_index=True)
        n_cases = np.diff(np.append(first, len(self)))
        begin = np.diff(self.offsets)[order[first]]  # a line begins with the history of the user's first case
        offsets = np.concatenate([[0], np.cumsum(begin + n_cases)])
        items, times = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.int64)
        shown = np.zeros(offsets[-1], bool)
        shown[np.repeat(offsets[:-1], begin) + _ranges(begin)] = True
        opening = np.repeat(self.offsets[order[first]], begin) + _ranges(begin)
        items[shown], times[shown] = self.items[opening], self.times[opening]
        items[~shown], times[~shown] = self.target[order], self.time[order]
        # The place of each history's newest item, by user and item, of which a line has none twice.
        width = int(items.max()) + 1
        key = np.repeat(user.astype(np.int64), np.diff(offsets)) * width + items
        sorted_places = np.argsort(key, kind="stable")
        newest_keys = self.user.astype(np.int64) * width + self.items[self.offsets[1:] - 1]
        at = np.searchsorted(key[sorted_places], newest_keys).clip(max=len(key) - 1)
        context = sorted_places[at]
        lengths = np.diff(self.offsets)
        inside = np.repeat(context - lengths + 1, lengths) + _ranges(lengths)
        if inside.min() < 0 or not np.array_equal(items[inside], self.items):
            raise ValueError("these cases are not all of their users' cases; take those of a whole split")
        return Sequences(user, offsets, items, times, context, self.target)

    def interactions(self) -> tuple[np.ndarray, np.ndarray]:
        """All distinct (user, item) pairs that these cases show, histories and targets, int32 [m] each."""
        user = np.repeat(self.user, np.diff(self.offsets)).astype(np.int64)
        item = self.items.astype(np.int64)
        if self.target is not None:
            user, item = np.concatenate([user, self.user]), np.concatenate([item, self.target])
        width = int(item.max()) + 1 if len(item) else 1
        pairs = np.unique(user * width + item)
        return (pairs // width).astype(np.int32), (pairs % width).astype(np.int32)


def _ranges(lengths: np.ndarray) -> np.ndarray:
    """0, 1, ..., length - 1 for each length in turn, int64.

    >>> _ranges(np.array([2, 0, 3])).tolist()
    [0, 1, 0, 1, 2]
    """
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)


@dataclass(frozen=True)
class Sequences:
    """The cases of m users as one line of items each, oldest first, and what is predicted where.

    Case i predicts `target[i]` from the items of its user's line up to and with the one at `context[i]`, of which its
    history has the newest `history_length`. Under `same_time: exclude` the cases of one second have one context: none
    of their targets is in another's history.
    """

    user: np.ndarray  # int32 [m], ascending
    offsets: np.ndarray  # int64 [m + 1]: the line of user j is items[offsets[j]:offsets[j + 1]]
    items: np.ndarray  # int32 [offsets[-1]], no item twice in a line
    times: np.ndarray  # int64 [offsets[-1]], Unix seconds
    context: np.ndarray  # int64 [n_cases], a place in items
    target: np.ndarray  # int32 [n_cases]


@dataclass(frozen=True)
class Learned:
    """How much of a dataset's training interactions a fit had: what rows of one table should have in common."""

    users: int  # distinct users
    targets: int  # distinct interactions that were predicted
    positions: int  # distinct interactions that were read, as part of a history or as a target

    @classmethod
    def of(cls, cases: Cases) -> "Learned":
        """What these training cases hold, each of them learned from."""
        return cls(len(np.unique(cases.user)), len(cases), len(cases.interactions()[0]))

    @classmethod
    def of_fit(cls, trained: Cases, counted: Cases | None = None, read: Cases | None = None) -> "Learned":
        """What a fit learned from that trained on some cases, took counts of others and read the histories of others.

        One of these three counts: the cases trained on, where there are any; else the cases of which something was
        counted, such as a prior; else the histories read.
        """
        if len(trained):
            return cls.of(trained)
        if counted is not None:
            return cls.of(counted)
        if read is None:
            return cls(0, 0, 0)
        return cls(len(np.unique(read.user)), 0, len(replace(read, target=None).interactions()[0]))


@dataclass(frozen=True)
class Split:
    """One prepared dataset as a method sees it: items, training and validation cases, no test case."""

    name: str
    category: str  # the word for an item in prompts, such as "movie"
    history_length: int
    items: pd.DataFrame  # row v is item v: title (str), source id (item_id), further text columns
    train: Cases
    valid: Cases
    rating_scale: float | None = None  # what ratings are out of; None: there are none that a prompt may mention
    category_plural: str | None = None  # the word for several of them, where one with an s won't do
    llm_rows: np.ndarray | None = None  # int64, rows of train, ascending; None: all

    @property
    def llm_train(self) -> Cases:
        """The training cases that an LLM may read or write for: a seeded sample of `train_cases`, or all.

        An LLM could not read all of a large dataset in acceptable time. Methods that count, or train in seconds, learn
        from all of `train`.
        """
        return self.train if self.llm_rows is None else self.train.take(self.llm_rows)

    @property
    def several(self) -> str:
        """The word for several items in a sentence: category_plural, or else category with an s."""
        return self.category_plural or f"{self.category}s"

    @property
    def n_items(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class WatchedSplit(Split):
    """A split that notes which of its training cases a fit asks for."""

    asked: set[str] = field(default_factory=set)

    def __getattribute__(self, name: str) -> Any:
        if name in ("train", "llm_train"):
            self.asked.add(name)
        return object.__getattribute__(self, name)

    @property
    def llm_train(self) -> Cases:
        train: Cases = object.__getattribute__(self, "train")
        return train if self.llm_rows is None else train.take(self.llm_rows)

    def learned(self) -> Learned:
        """What the fits asked for: all training cases, only the sample that an LLM may read, or nothing."""
        if not self.asked:
            return Learned(0, 0, 0)
        return Learned.of(self.train if "train" in self.asked else self.llm_train)


class Recommender(ABC):
    """A fitted method."""

    @abstractmethod
    def score(self, cases: Cases) -> Iterable[np.ndarray]:
        """Yield, batch by batch in the order of `cases`, scores as float [batch, n_items]; higher is better.

        -inf means "not retrieved" and ranks last. NaN and +inf are refused. Masking the history is the evaluator's
        work.
        """

    def texts(self) -> pd.DataFrame | None:
        """For methods that write: one row per scored case (case, prompt, reasoning, ...), in the order scored."""
        return None

    def tokens_written(self) -> int:
        """How many tokens an LLM wrote while scoring."""
        return 0

    def uncached(self) -> "Recommender":
        """The same recommender without anything kept from earlier scoring, such as texts on disk.

        One user's latency is measured on it.
        """
        return self

    def learned(self) -> Learned | None:
        """What the fit learned from (`Learned.of_fit`), where that is less than the training cases it asked for.

        None: those that it asked for (`WatchedSplit.learned`). A kept fit says what it said when it was made.
        """
        return None

    def report(self) -> dict[str, Any]:
        """What the fit found worth recording in run.json: epochs, validation curve, best step, tokens written."""
        return {}


def watched(split: Split) -> WatchedSplit:
    """The same split, which notes which of its training cases are asked for."""
    return WatchedSplit(**{attribute.name: getattr(split, attribute.name) for attribute in fields(split)})


def batches_of(scores: Any, method: str) -> Iterable[np.ndarray]:
    """What score() gave, as batches. Raises InputError where it can't be read so, as of a forgotten `yield`."""
    if not isinstance(scores, Iterable):
        raise InputError(f"{method}: score() gave {type(scores).__name__}; yield arrays of scores, batch by batch")
    return scores


def check_scores(scores: np.ndarray, n_items: int, method: str) -> np.ndarray:
    """One batch of scores [b, n_items] as float32 or float64, with their order intact.

    float64 stays, as Unix seconds that differ by one are equal in float32. Whole numbers become float64, and float16
    becomes float32. Raises InputError for a wrong shape or type, NaN or +inf, and whole numbers that float64 can't tell
    apart.
    """
    if type(scores) is not np.ndarray:  # a masked array hides values
        raise InputError(f"{method}: score() gave {type(scores).__name__}, expected NumPy arrays; fix its score()")
    if scores.shape == (n_items,):
        raise InputError(
            f"{method}: score() gave the {n_items} scores of one case at a time; yield arrays [cases, {n_items}], "
            "batch by batch (a `return` in the place of `yield` gives them so, too)"
        )
    if scores.ndim != 2 or scores.shape[1] != n_items:
        raise InputError(f"{method}: scores have shape {scores.shape}, expected [cases, {n_items}]; fix its score()")
    if scores.dtype.kind not in "fiub" or scores.dtype.itemsize > 8:
        raise InputError(
            f"{method}: scores are of type {scores.dtype}, expected numbers such as float32; fix its score()"
        )
    if scores.dtype.kind in "iu" and scores.size and max(abs(int(scores.min())), int(scores.max())) > 2**53:
        raise InputError(
            f"{method}: scores are whole numbers beyond 2**53, which can't be told apart; subtract the smallest"
        )
    exact = np.float64 if scores.dtype.itemsize > 2 and scores.dtype != np.float32 else np.float32
    scores = scores.astype(exact, copy=False)
    # One pass: the row maxima are NaN where any score is, and +inf where any is.
    worst = scores.max(axis=1)
    if (bad := np.flatnonzero(np.isnan(worst) | (worst == np.inf))).size:
        value = worst[bad[0]]
        raise InputError(f"{method}: a score in row {bad[0]} of a batch is {value}; fix its score() (-inf is allowed)")
    return scores
