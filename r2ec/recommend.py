"""One user's history in, a reasoning and the best items out: `python -m r2ec.recommend`.

    python -m r2ec.recommend --run results/runs/ml-100k/r2ec/seed1 --data results/data/ml-100k \\
        --history "Toy Story=5" Alien

Items are named by their exact title or their item_id, in upper or lower case. Where no times are given, the items count
as taken one day apart. The history's own items are never recommended.
"""

import argparse
import contextlib
import csv
import difflib
import json
import math
import sys
import warnings
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.config.wording import printable
from benchmark.contract import Cases, Split
from benchmark.data.store import read_about, read_split, read_test
from benchmark.data.texts import COMMON_MARKS
from benchmark.errors import InputError, command, command_line
from benchmark.evaluate import top_items
from benchmark.jobs.records import read_run

if TYPE_CHECKING:
    from r2ec.scoring.recommender import R2ecRecommender

DAY = 86_400
COLUMNS = ("title", "item_id", "rating", "time")
LARGEST = 3e38  # ratings are float32
YEAR_10000 = 253_402_300_800  # in Unix seconds
NAMED = 3  # titles named beside an unknown one


@dataclass(frozen=True)
class Taken:
    """One item of a history: its number, its rating (NaN: none) and when it was taken, in Unix seconds."""

    item: int
    rating: float = math.nan
    time: int | None = None


class Catalogue:
    """Finds items by title or item_id, whatever their case and spacing."""

    def __init__(self, split: Split) -> None:
        self.dataset = split.name
        self.titles = split.items["title"].astype(str).tolist()
        self.ids = split.items["item_id"].astype(str).tolist()
        self._by: dict[str, dict[str, list[int]]] = {}
        for column, names in (("title", self.titles), ("item_id", self.ids)):
            self._by[column] = defaultdict(list)
            for item, name in enumerate(names):
                self._by[column][_key(name)].append(item)

    def items(self, name: str, *columns: str) -> list[int]:
        """The items of this name in any of these columns (default: both), ascending."""
        matches = [self._by[column].get(_key(name), []) for column in columns or ("title", "item_id")]
        return sorted({item for items in matches for item in items})

    def find(self, name: str, *columns: str) -> int:
        """The one item of this name. Raises InputError where there is none, naming the closest titles, or several."""
        matches = self.items(name, *columns)
        if not matches:
            closest = ", ".join(repr(title) for title in self.closest(name))
            raise InputError(
                f"no item {name!r} in {self.dataset}; {f'closest: {closest}' if closest else 'see its items.parquet'}"
            )
        if len(matches) > 1:
            several = ", ".join(f"{self.ids[item]} ({self.titles[item]})" for item in matches[:NAMED])
            raise InputError(
                f"{name!r} could be one of {len(matches)} items, such as {several}; give its item_id, in a "
                "--history-file with that column if need be"
            )
        return matches[0]

    def closest(self, name: str) -> list[str]:
        """Titles that hold the name, the shortest first, then those that are spelled alike."""
        key, keys = _key(name), self._by["title"]
        holding = sorted((title for title in keys if key and key in title), key=len)
        alike = difflib.get_close_matches(key, keys, n=NAMED, cutoff=0.4)
        return [self.titles[keys[title][0]] for title in list(dict.fromkeys([*holding, *alike]))[:NAMED]]


def _key(name: str) -> str:
    return " ".join(name.split()).casefold()


# Histories


def from_words(words: list[str], catalogue: Catalogue) -> list[Taken]:
    """Items as the command line gives them, oldest first: "title", "item_id", or either with "=rating"."""
    history = []
    for word in words:
        name, _, rating = word.rpartition("=")
        if name and not catalogue.items(word) and (value := _number(rating)) is not None:
            history.append(Taken(catalogue.find(name), value))
        else:  # a title may hold "=" itself
            history.append(Taken(catalogue.find(word)))
    return history


def from_file(path: Path, catalogue: Catalogue) -> list[Taken]:
    """The rows of a csv file, sorted by time where it has times. Raises InputError naming row and value."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns, rows = list(reader.fieldnames or []), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: can't be read as csv ({error})") from None
    if unknown := [column for column in columns if column not in COLUMNS]:
        raise InputError(f"{path}: unknown column {unknown[0]!r}; the columns are {', '.join(COLUMNS)}")
    if twice := [column for column in columns if columns.count(column) > 1]:
        raise InputError(f"{path}: column {twice[0]!r} occurs twice; keep one")
    history = [_row(row, f"{path}: row {number}", catalogue) for number, row in enumerate(rows, 1)]
    timed = [taken for taken in history if taken.time is not None]
    if timed and len(timed) < len(history):
        raise InputError(f"{path}: {len(history) - len(timed)} of {len(history)} rows have no time; give all or none")
    return sorted(history, key=lambda taken: taken.time or 0)


def _row(row: dict[str, Any], where: str, catalogue: Catalogue) -> Taken:
    if None in row:
        raise InputError(f"{where}: more values than columns; quote what holds a comma")
    value = {column: (text or "").strip() for column, text in row.items()}
    column = "item_id" if value.get("item_id") else "title"
    if not value.get(column):
        raise InputError(f"{where}: neither a title nor an item_id; give one")
    try:
        item = catalogue.find(value[column], column)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    rating, time = value.get("rating"), value.get("time")
    if rating and _number(rating) is None:
        raise InputError(f"{where}: rating is {rating!r}; give a finite number")
    return Taken(
        item,
        math.nan if not rating else float(rating),
        _seconds(time, where) if time else None,
    )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < LARGEST else None


def _seconds(text: str, where: str) -> int:
    """Unix seconds of a time that is a number or an ISO date (UTC unless it says otherwise)."""
    if (number := _number(text)) is not None:
        if abs(number) >= YEAR_10000:
            raise InputError(f"{where}: time {text[:30]!r} is after the year 9999; give Unix seconds")
        return int(number)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"{where}: time is {text!r}; give Unix seconds or an ISO date") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def as_case(history: list[Taken], split: Split) -> Cases:
    """A history as one case without target, a day after its newest item. Raises InputError for an impossible one."""
    if not history:
        raise InputError("the history is empty; give at least one item")
    items = [taken.item for taken in history]
    for place, item in enumerate(items):
        if item in items[:place]:
            raise InputError(f"{split.items['title'][item]!r} is given twice; a history holds an item once")
    rated = [taken for taken in history if not math.isnan(taken.rating)]
    if rated and not np.isfinite(split.train.ratings).any():
        raise InputError(f"rating {rated[0].rating:g} is given, but {split.name} has no ratings; leave them out")
    times = [place * DAY if taken.time is None else taken.time for place, taken in enumerate(history)]
    return Cases(
        case=np.zeros(1, np.int64),
        user=np.zeros(1, np.int32),
        time=np.array([times[-1] + DAY], np.int64),
        offsets=np.array([0, len(items)], np.int64),
        items=np.array(items, np.int32),
        ratings=np.array([taken.rating for taken in history], np.float32),
        times=np.array(times, np.int64),
        target=None,
    )


def stored_case(data: Path, split: Split, number: int) -> Cases:
    """A case of the prepared dataset, without its target. Raises InputError where no file holds it."""
    for cases in (split.train, split.valid, read_test(data, read_about(data))):
        if len(row := np.flatnonzero(cases.case == number)):
            return replace(cases.take(row), target=None)
    raise InputError(f"{data}: no case {number}; the numbers are in the column case of its parquet files")


# Answers


@dataclass(frozen=True)
class Answer:
    """What the model wrote and recommends, best first."""

    prompt: str
    reasoning: str
    items: list[int]
    scores: list[float]


def recommend(recommender: "R2ecRecommender", case: Cases, history_length: int, top: int) -> Answer:
    """The `top` best items outside the history, of which the model sees the newest `history_length`, as in a fit."""
    start = max(0, len(case.items) - history_length)
    shown = replace(
        case,
        offsets=np.array([0, len(case.items) - start], np.int64),
        items=case.items[start:],
        ratings=case.ratings[start:],
        times=case.times[start:],
    )
    (scores,) = recommender.score(shown)
    masked = scores.astype(np.float32)
    masked[:, case.items] = -np.inf
    best = [int(item) for item in top_items(masked, min(top, masked.shape[1]))[0] if item >= 0]
    written = recommender.texts().iloc[0]
    return Answer(str(written["prompt"]), str(written["reasoning"]), best, [float(scores[0, item]) for item in best])


def as_json(answer: Answer, case: Cases, items: pd.DataFrame, show_prompt: bool) -> dict[str, Any]:
    """The answer as JSON values; a missing rating is null."""

    def about(item: int) -> dict[str, str]:
        return {"item_id": str(items["item_id"][item]), "title": str(items["title"][item])}

    history = [
        about(item) | {"rating": None if math.isnan(rating) else rating}
        for item, rating in zip(case.items.tolist(), case.ratings.tolist(), strict=True)
    ]
    best = [
        {"rank": rank, "score": round(score, 6)} | about(item)
        for rank, (item, score) in enumerate(zip(answer.items, answer.scores, strict=True), 1)
    ]
    prompt = {"prompt": answer.prompt} if show_prompt else {}
    return {"history": history, **prompt, "reasoning": answer.reasoning, "recommendations": best}


def show(answer: Answer, items: pd.DataFrame, show_prompt: bool) -> None:
    """Print the answer for a reader."""
    console = Console()
    if show_prompt:
        console.print(Text(printable(answer.prompt + "\n")), soft_wrap=True)
    # A reasoning ends where the answer begins, which the table gives. Marks of turns are no words; --json has them.
    reasoning = COMMON_MARKS.sub("", answer.reasoning.removesuffix("<answer>")).strip()
    console.print(Text(printable(reasoning or "(no reasoning was written)")), soft_wrap=True)
    table = Table("Rank", "Score", "Title", box=SIMPLE_HEAD)
    for rank, (item, score) in enumerate(zip(answer.items, answer.scores, strict=True), 1):
        table.add_row(str(rank), f"{score:.3f}", Text(printable(str(items["title"][item])), overflow="fold"))
    console.print(table)


# The command


def model_of(run: Path, split_hash: str) -> Path:
    """The model folder of a finished run. Raises InputError where it has none, or was fitted on other data."""
    path = run / "run.json"
    if not path.is_file():
        raise InputError(f"{path}: missing; give the folder of a finished run, such as results/runs/ml-100k/r2ec/seed1")
    record = read_run(path)
    folder = record.report.get("model")
    if not isinstance(folder, str):
        raise InputError(f"{path}: its report names no model; give a run of r2ec, this is one of {record.method}")
    if record.data_hash != split_hash:
        raise InputError(
            f"{path}: fitted on {record.dataset} as it was then; give the --data of that run, or fit again"
        )
    # It is named as seen from the folder that the workflow ran in, whose results/runs/dataset/method/seed1 this is.
    # That folder comes first: the current one may hold another run's model under the same name.
    above = run.resolve().parents
    beside_run = above[4] / folder if len(above) > 4 else Path(folder)
    return beside_run if beside_run.exists() else Path(folder)


def parse() -> argparse.Namespace:
    parser = command_line("r2ec.recommend", __doc__)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument(
        "--run", type=Path, metavar="FOLDER", help="a finished run, such as results/runs/ml-100k/r2ec/seed1"
    )
    model.add_argument("--model", type=Path, metavar="FOLDER", help="or a model's own folder, as a fit writes it")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER", help="its dataset, such as results/data/ml-100k"
    )
    history = parser.add_mutually_exclusive_group(required=True)
    history.add_argument("--history", nargs="*", metavar="ITEM[=RATING]", help="titles or item_ids, oldest first")
    history.add_argument(
        "--history-file",
        type=Path,
        metavar="FILE.csv",
        help="columns title or item_id, optional rating and time (Unix seconds or ISO date); oldest first without "
        "times",
    )
    history.add_argument(
        "--case", type=int, metavar="N", help="the history of a case, by its number in the dataset's parquet files"
    )
    parser.add_argument("--top", type=int, default=20, metavar="K", help="how many items (default: 20)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--show-prompt", action="store_true", help="print the prompt as well")
    return parser.parse_args()


@command
def main() -> None:
    args = parse()
    if args.top < 1:
        raise InputError(f"--top is {args.top}; give at least 1")
    split = read_split(args.data)
    folder = args.model or model_of(args.run, read_about(args.data, "split_hash")["split_hash"])
    if not (folder / "settings.json").is_file():
        raise InputError(f"{folder}: holds no model; fit again, or give the folder by --model if it was moved")
    if args.case is not None:
        case = stored_case(args.data, split, args.case)
    else:
        catalogue = Catalogue(split)
        by_file = args.history_file is not None
        history = from_file(args.history_file, catalogue) if by_file else from_words(args.history, catalogue)
        case = as_case(history, split)
    # Imported late: torch and transformers take seconds, and what is wrong with the arguments is said before.
    from transformers.utils import logging

    from r2ec.scoring.recommender import R2ecRecommender

    # The answer is all that a user asks for: no bar of a second's work, and no word of one library to another.
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    # What loading says, of the backbone's dtype or of a file that is damaged, would break the JSON on stdout.
    with contextlib.redirect_stdout(sys.stderr):
        answer = recommend(R2ecRecommender.load(folder, split), case, split.history_length, args.top)
    if args.json:
        print(printable(json.dumps(as_json(answer, case, split.items, args.show_prompt), indent=1, ensure_ascii=False)))
    else:
        show(answer, split.items, args.show_prompt)


if __name__ == "__main__":
    main()
