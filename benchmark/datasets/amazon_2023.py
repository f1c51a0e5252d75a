"""Amazon Reviews 2023 (Hou et al., arXiv 2403.03952), any category, filtered as in the R2ec paper or its released code.

Two files per category: user_id, parent_asin, rating, timestamp in ms
(`benchmark/{0core|5core}/rating_only/{category}.csv.gz`, one row per user and item) and one JSON object per item
(`raw/meta_categories/meta_{category}.jsonl.gz`).

| step | `paper` (arXiv 2505.16994v3, its text) | `released` (its preprocess.py) |
|---|---|---|
| interactions | 0core: "omit the 5-core filter" | 5core |
| items dropped | no title, or one over 20 words once it is clean | no title; one over 20 words, separated by single |
|   |   | spaces, before it is cleaned; one with a piece of the page's source; or a price that is no number |
| window | from 2022-10-01 up to 2023-10-01 (UTC) | the same, and that very midnight |
| widened | by a month at a time | by three months at a time |
| titles | HTML and white space cleaned, Unicode kept | HTML cleaned, ASCII only |
| descriptions | HTML and white space cleaned | as they are |

**The window** is widened to the past, its end fixed, while fewer than 10,000 items that pass the rules (`min_items`)
have an interaction in it (after the k-core, if there is one), and there is anything earlier.
**Repeats**: a user's first interaction with an item in the window stays, as in benchmark/data/protocol.py.
**Descriptions** are lists: their parts are joined in their own order, repeated ones left out. The released code sends
them through `set()` and reverses them, so that their order depends on the hash seed.
**average_rating and rating_number** are of the time of the crawl, after all cases: the protocol leaves them out, unless
the dataset's popularity_columns keeps them. They are numbers, so no method takes them for text; R2ec shows them with
`leaky_attributes` alone.
**No value**: a title that is no text or "nan", a price that is no finite number, a rating of 0.
History length, the cases and the split are the protocol's; the paper's counts need min_user_count and min_item_count 1
and same_time order there.
"""

import datetime
import re
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from benchmark.config.wording import among
from benchmark.datasets import Expected, Limits, Raw, _duckdb
from benchmark.datasets import _amazon_tables as tables
from benchmark.datasets._amazon_text import title, title_released
from benchmark.errors import InputError
from benchmark.storage.download import check_pinned, download

MIRROR = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/"
# Categories without a 5core file, because the 5-core leaves nothing of them.
ONLY_0CORE = ("Amazon_Fashion", "Appliances", "Digital_Music", "Handmade_Products", "Health_and_Personal_Care",
              "Subscription_Boxes")  # fmt: skip
CATEGORIES = (
    *ONLY_0CORE,
    "All_Beauty", "Arts_Crafts_and_Sewing", "Automotive", "Baby_Products", "Beauty_and_Personal_Care", "Books",
    "CDs_and_Vinyl", "Cell_Phones_and_Accessories", "Clothing_Shoes_and_Jewelry", "Electronics", "Gift_Cards",
    "Grocery_and_Gourmet_Food", "Health_and_Household", "Home_and_Kitchen", "Industrial_and_Scientific", "Kindle_Store",
    "Magazine_Subscriptions", "Movies_and_TV", "Musical_Instruments", "Office_Products", "Patio_Lawn_and_Garden",
    "Pet_Supplies", "Software", "Sports_and_Outdoors", "Tools_and_Home_Improvement", "Toys_and_Games", "Unknown",
    "Video_Games",
)  # fmt: skip
Attribute = Literal["description", "features", "store", "main_category", "categories", "subtitle", "price", "details"]

# arXiv 2505.16994v3: users, items, cases, train, valid, test.
PAPER = {
    "Video_Games": (29_230, 10_144, 63_502, 50_801, 6_350, 6_351),
    "CDs_and_Vinyl": (7_701, 12_024, 13_435, 10_748, 1_343, 1_344),
    "Musical_Instruments": (15_656, 10_320, 34_373, 27_498, 3_437, 3_438),
}
COUNTS = ("users", "items", "cases", "cases_train", "cases_valid", "cases_test")
# Options that decide about these counts.
DECISIVE = ("core", "start", "end", "min_items", "widen_months", "k_core", "title_words", "broken_lines")


class Options(BaseModel):
    """Settings of this source; None: the preset's. config/README.md explains each."""

    model_config = ConfigDict(extra="forbid")
    category: str
    preset: Literal["paper", "released"] = "paper"
    mirror: str = MIRROR
    core: Literal["0core", "5core"] | None = None
    start: datetime.date = datetime.date(2022, 10, 1)
    end: datetime.date = datetime.date(2023, 10, 1)
    min_items: int = Field(default=10_000, ge=0)
    widen_months: int | None = Field(default=None, ge=1)
    k_core: int = Field(default=1, ge=1)
    title_words: int = Field(default=20, ge=1)
    attributes: list[Attribute] = ["description"]
    attribute_words: int | None = Field(default=100, ge=1)
    broken_lines: int = Field(default=0, ge=0)
    sha256: dict[str, str] = {}

    @field_validator("category")
    @classmethod
    def category_is_one_of_theirs(cls, value: str) -> str:
        if value not in CATEGORIES:
            raise ValueError(f"no category {value!r}{among(value, sorted(CATEGORIES))}")
        return value

    @field_validator("mirror")
    @classmethod
    def mirror_is_an_address_or_a_folder(cls, value: str) -> str:
        if "://" in value and not value.startswith(("http://", "https://")):
            raise ValueError(f"{value!r} is neither an http(s) address nor a folder")
        return value

    @field_validator("sha256")
    @classmethod
    def checksums_are_sha256(cls, value: dict[str, str]) -> dict[str, str]:
        for name, digest in value.items():
            if not re.fullmatch("[0-9a-f]{64}", digest):
                raise ValueError(f"{digest!r} of {name} is no sha256 (64 digits of 0-9 and a-f)")
        return value

    @model_validator(mode="after")
    def what_is_asked_for_exists(self) -> "Options":
        if self.start >= self.end:
            raise ValueError(f"start {self.start} is not before end {self.end}")
        if self.interaction_core == "5core" and self.category in ONLY_0CORE:
            raise ValueError(f"category {self.category} has no 5core file; take preset paper or core 0core")
        if unknown := [name for name in self.sha256 if name not in self.names]:
            raise ValueError(f"sha256 of {unknown[0]!r}, which is not read; the files are {' and '.join(self.names)}")
        return self

    @property
    def interaction_core(self) -> str:
        """The file of interactions that is read: `0core` or `5core`."""
        return self.core or ("0core" if self.preset == "paper" else "5core")

    @property
    def names(self) -> tuple[str, str]:
        """The two files, relative to the mirror."""
        return (
            f"benchmark/{self.interaction_core}/rating_only/{self.category}.csv.gz",
            f"raw/meta_categories/meta_{self.category}.jsonl.gz",
        )

    @property
    def own_folder(self) -> Path | None:
        """The mirror, if it is a folder of the user's."""
        return None if "://" in self.mirror else Path(self.mirror)

    def rules(self) -> tables.Rules:
        """The rules that preset and options amount to."""
        paper = self.preset == "paper"
        return tables.Rules(
            start=pd.Timestamp(self.start, tz="UTC"),
            end=pd.Timestamp(self.end, tz="UTC"),
            end_included=not paper,
            min_items=self.min_items,
            widen_months=self.widen_months or (1 if paper else 3),
            k_core=self.k_core,
            title_words=self.title_words,
            needs_price=not paper,
            title=title if paper else title_released,
            cleaned=paper,
            attributes=tuple(dict.fromkeys(self.attributes)),
            attribute_words=self.attribute_words,
            broken_lines=self.broken_lines,
        )


def inputs(options: Options) -> list[Path]:
    """The two files, where the mirror is a folder. Raises InputError if one is missing there."""
    if options.own_folder is None:
        return []
    files = [options.own_folder / name for name in options.names]
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: missing; the mirror's folder needs it at this place, as the server has it")
    return files


def fetch(options: Options, folder: Path) -> list[Path]:
    """Both files, downloaded to `folder`/amazon-2023 or in the mirror's folder; their sha256 checked every time.

    A sha256 is recorded in `folder`/amazon-2023 on first use, also that of a file in the mirror's folder.
    """
    own_copies = folder / "amazon-2023"
    own = inputs(options)
    files = []
    for i, name in enumerate(options.names):
        file = own[i] if own else download(options.mirror.rstrip("/") + "/" + name, own_copies / name)
        check_pinned(file, own_copies / f"{name}.sha256", options.sha256.get(name))
        files.append(file)
    return files


def load(options: Options, files: list[Path], limits: Limits) -> Raw:
    """Interactions in the window and their items, by the rules above. Raises InputError for files of another form."""
    log_file, items_file = files
    rules = options.rules()
    end_ms = int(rules.end.timestamp()) * 1000 + rules.end_included
    with _duckdb.workspace(log_file, items_file) as (con, folder):
        counts = tables.read_interactions(con, log_file, end_ms, limits)
        counts |= tables.read_items(con, items_file, rules)
        counts |= tables.check_known(con, log_file, limits)
        start, chosen = tables.choose(con, rules, end_ms, counts["dropped_unknown_item"])
        counts |= chosen
        if not counts["interactions"]:
            raise InputError(
                f"{log_file}: no interaction is left by the rules ({counts}); widen the window or lower k_core"
            )
        items, texts = tables.items_left(con, rules, folder)
        raw = Raw(
            interactions=tables.interactions_left(con),
            items=items,
            texts=texts,
            about={"window": [str(start.date()), str(options.end)], "counts": counts},
            expected=expected(options),
        )
    return raw


def expected(options: Options) -> Expected | None:
    """The paper's counts, for its three categories."""
    if options.category not in PAPER:
        return None
    other = "released" if options.preset == "paper" else "paper"
    why = {
        "paper": "The 0core file that its text asks for has several times the items of the 5core file that its "
        "released code reads",
        "released": "The files may have changed since, or another version of the code may have been run",
    }[options.preset]
    changed = [name for name in DECISIVE if getattr(options, name) != Options.model_fields[name].default]
    own = f"; the preset's own {', '.join(changed)} would be nearer" if changed else ""
    return Expected(
        source="arXiv 2505.16994v3",
        counts=dict(zip(COUNTS, PAPER[options.category], strict=True)),
        settings={"min_user_count": 1, "min_item_count": 1, "split": "global-temporal", "same_time": "order"},
        advice=f"{why}; preset {other} is the other reading{own}",
    )
