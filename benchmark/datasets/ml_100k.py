"""MovieLens 100K (GroupLens, 1998): 100,000 ratings of 1,682 films, out of the wheel of RecBole.

Harper and Konstan, The MovieLens Datasets: History and Context, ACM TiiS 2015.
"""

import io
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict

from benchmark.datasets import Limits, Raw
from benchmark.datasets._films import article_first, merged, year_apart
from benchmark.storage.wheel import fetch_wheel, read_member

UNKNOWN = "unkonwn"  # the source's spelling
FOLDER = "recbole/dataset_example/ml-100k/ml-100k"


class Options(BaseModel):
    """This source has no settings of its own."""

    model_config = ConfigDict(extra="forbid")


def inputs(options: Options) -> list[Path]:
    """No file of the user's own."""
    return []


def fetch(options: Options, folder: Path) -> list[Path]:
    """The wheel that carries the data."""
    sha256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
    return [fetch_wheel("recbole==1.2.1", "recbole-1.2.1-py3-none-any.whl", sha256, folder)]


def load(options: Options, files: list[Path], limits: Limits) -> Raw:
    """Ratings, and films with title, year and genres; films that agree in all three are one.

    Film 267 is called "unkonwn" like its year: it gets no title, so that it is left out. Film 1412 has its year at the
    end of its title.
    """
    inter = _table(files[0], "inter")
    items = _table(files[0], "item")
    titles = items["movie_title"].where(items["movie_title"] != UNKNOWN, "")
    named = [year_apart(*pair) for pair in zip(titles, items["release_year"], strict=True)]
    log, films, twice = merged(
        pd.DataFrame(
            {
                "user_id": inter["user_id"],
                "item_id": inter["item_id"],
                "timestamp": inter["timestamp"].astype("int64"),
                "rating": inter["rating"].astype("float32"),
            }
        ),
        pd.DataFrame(
            {
                "item_id": items["item_id"],
                "title": [article_first(title) for title, _ in named],
                "year": [year for _, year in named],
                "genres": items["class"].str.split().str.join(", "),
            }
        ),
    )
    return Raw(log, films, about={"items_merged": twice})


def _table(wheel: Path, ending: str) -> pd.DataFrame:
    """One of RecBole's tab-separated atomic files, columns without their type suffix, all strings."""
    text = read_member(wheel, f"{FOLDER}.{ending}")
    table = pd.read_csv(io.BytesIO(text), sep="\t", dtype=str, encoding="utf-8", quoting=3)
    return table.rename(columns=lambda name: name.split(":")[0])
