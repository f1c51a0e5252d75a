"""Format the numbers of a table, and find their marks, without markup."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmark.analysis.significance import ALPHA
from benchmark.metrics import METRICS


@dataclass(frozen=True)
class Cell:
    """One printed number of the table, without markup."""

    mean: str
    sd: str  # "" for one seed
    low: str
    high: str
    place: int  # 1 best, 2 second best of its column, 0 otherwise; by the printed mean, so equal prints share a place
    dagger: bool  # differs significantly from the best baseline


def cells(frame: pd.DataFrame) -> list[list[Cell]]:
    """The rows of the table, [rows][6]; places are taken within each dataset."""
    rows: list[list[Cell]] = [[] for _ in range(len(frame))]
    for metric in METRICS:
        printed = frame[metric].map("{:.4f}".format)
        # Places by the printed text: "0.1234" sorts like its number, and equal prints tie.
        order = printed.groupby(frame.dataset).transform(lambda column: column.rank(method="dense", ascending=False))
        for i, row in enumerate(frame.to_dict("records")):
            sd = row[f"{metric}_sd"]
            place = int(order.iloc[i])
            rows[i].append(
                Cell(
                    mean=printed.iloc[i],
                    sd="" if np.isnan(sd) else f"{sd:.4f}",
                    low=f"{row[f'{metric}_low']:.4f}",
                    high=f"{row[f'{metric}_high']:.4f}",
                    place=place if place <= 2 and row[metric] > 0 else 0,
                    dagger=bool(row[f"{metric}_p_holm"] < ALPHA),
                )
            )
    return rows
