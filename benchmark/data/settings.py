"""The schema of a dataset's entry in the config: all that getting and preparing a dataset depends on.

It stands apart from `benchmark.config`: once a dataset is prepared again, Snakemake runs every training again, and no
change of the config's schema may cause that.
"""

import calendar
import datetime
import importlib
import json
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from benchmark.config.sections import Name, Strict
from benchmark.config.wording import among
from benchmark.data.texts import COMMON_MARKS, one_line
from benchmark.datasets import Limits
from benchmark.errors import InputError, checked
from benchmark.provenance import ROOT

SOURCES = ROOT / "benchmark" / "datasets"


class DatasetConfig(Strict):
    """One dataset. config/README.md explains each setting."""

    source: Name = Field(description="a file benchmark/datasets/{source}.py")
    options: dict[str, Any] = Field(default={}, description="settings of that source")
    category: str = Field(description="the word for an item in prompts, such as movie")
    category_plural: str | None = Field(
        default=None,
        min_length=1,
        description="for several items; null: category in r2ec's prompts, and with an s in the others'",
    )
    min_user_count: int = Field(default=5, ge=1, description="interactions a user must have (k-core, repeated)")
    min_item_count: int = Field(default=5, ge=1, description="interactions an item must have (k-core, repeated)")
    start: datetime.date | None = Field(default=None, description="first day kept, UTC")
    end: datetime.date | None = Field(default=None, description="first day no longer kept, UTC")
    earliest: datetime.date = Field(
        default=datetime.date(1990, 1, 1),
        description="first day on which an interaction can have been; an earlier one is refused",
    )
    latest: datetime.date | None = Field(
        default=None, description="last day on which an interaction can have been; null: the last day of next year"
    )
    max_unknown_items: float = Field(
        default=0.05, ge=0, le=1, description="share of the interactions whose item may be missing from items"
    )
    popularity_columns: bool = Field(
        default=False,
        description="keep the source's own average_rating and rating_number in items, for all methods; they tell what "
        "came later",
    )
    history_length: int = Field(default=20, ge=1, description="newest items of a user that a case holds")
    split: Literal["global-temporal", "leave-one-out"] = Field(
        default="global-temporal",
        description="global-temporal: the first 80 % of all cases train, the next 10 % validate, the rest test; "
        "leave-one-out: a user's last case tests, the one before validates",
    )
    same_time: Literal["exclude", "order"] = Field(
        default="exclude", description="may a history hold items of the same second as the target?"
    )
    train_cases: int | None = Field(
        default=None, ge=1, description="training cases that an LLM may read, a seeded sample; null: all"
    )
    valid_cases: int | None = Field(default=None, ge=1, description="validation cases, a seeded sample; null: all")
    test_cases: int | None = Field(default=None, ge=1, description="test cases, a seeded sample; null: all")
    rating_scale: Annotated[float, Field(gt=0)] | Literal["none"] | None = Field(
        default=None,
        description="what prompts say that ratings are out of; null: 5, 10 or 100, whichever holds the highest; none: "
        "no prompt mentions a rating",
    )
    leaky_popularity: bool = Field(
        default=False,
        description="a leak, for one control alone: item columns average_rating and rating_number over the whole log, "
        "test period included; only prompts.leaky_attributes of r2ec shows them",
    )

    @field_validator("category", "category_plural")
    @classmethod
    def category_is_a_word(cls, word: str | None) -> str | None:
        """It stands in every prompt."""
        if word is not None and (not word.strip() or one_line(word) != word or COMMON_MARKS.search(word)):
            raise ValueError("give a word for an item on one line, without marks of a chat template, such as movie")
        return word

    @model_validator(mode="after")
    def window_is_not_empty(self) -> "DatasetConfig":
        if self.start and self.end and self.start >= self.end:
            raise ValueError(f"start {self.start} is not before end {self.end}")
        if self.latest and self.latest < self.earliest:
            raise ValueError(f"latest {self.latest} is before earliest {self.earliest}")
        return self

    @property
    def limits(self) -> Limits:
        """The times that an interaction can have, and the share of unknown items that is accepted."""
        latest = self.latest or datetime.date(datetime.date.today().year + 1, 12, 31)
        return Limits(seconds_of(self.earliest), seconds_of(latest) + 86_400, self.max_unknown_items)


def seconds_of(day: datetime.date) -> int:
    """Unix seconds at which a day begins, UTC.

    >>> seconds_of(datetime.date(1990, 1, 1))
    631152000
    """
    return calendar.timegm(day.timetuple())


def source_of(dataset: DatasetConfig, where: str) -> tuple[ModuleType, BaseModel]:
    """The module of a dataset's source and its checked Options. Raises InputError for an unknown source or option."""
    known = sorted(path.stem for path in SOURCES.glob("[!_]*.py"))
    if dataset.source not in known:
        raise InputError(f"{where}: no source {dataset.source!r}{among(dataset.source, known)}")
    source = importlib.import_module(f"benchmark.datasets.{dataset.source}")
    return source, checked(source.Options, dataset.options, f"{where}.options")


def read_dataset_settings(text: str) -> DatasetConfig:
    """One dataset's entry from the command line, as JSON. Raises InputError."""
    try:
        return checked(DatasetConfig, json.loads(text), "--settings")
    except json.JSONDecodeError as error:
        raise InputError(f"--settings: not JSON ({error}); give the dataset's entry of the config") from None
