"""The plot of the headroom: what an oracle gains by choosing among G reasonings, and what can choose without it."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from benchmark.output.plots import head_and_foot, new_figure

ORACLE, OTHERS = "#e07b39", "#4477aa"
BORROWED = "best of the user's case before"


def plot(best: pd.DataFrame, picked: pd.DataFrame, borrowed: pd.DataFrame, about: str) -> Figure:
    """Gains in log rank over one reasoning drawn at random, with intervals: left the oracle's by G, right all others'.

    best, picked, borrowed: as `oracle`, `pickers` and `of_lenders` give them.
    """
    figure = new_figure(9.6, 3.4)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    left.fill_between(best.samples, best.low, best.high, color=ORACLE, alpha=0.25, linewidth=0)
    left.plot(best.samples, best.gain, marker=".", color=ORACLE)
    left.set_xscale("log", base=2)
    left.xaxis.set_major_formatter(ScalarFormatter())
    left.set_xticks(best.samples)
    left.set_xlabel("best of G, by an oracle")
    left.set_ylabel("change of the log rank")
    left.axhline(0, color="black", linewidth=0.6)
    rows = pd.concat([picked, borrowed.assign(picker=BORROWED)], ignore_index=True)
    rows = rows[rows.statistic == "log rank"]
    places = range(len(rows) - 1, -1, -1)
    right.hlines(places, rows.low, rows.high, color=OTHERS, linewidth=1.6)
    right.plot(rows.gain, places, linestyle="", marker="o", markersize=4, color=OTHERS)
    right.axvline(0, color="black", linewidth=0.6)
    right.set_yticks(list(places), rows.picker)
    right.set_xlabel("change of the log rank, without the target")
    rule = (
        "Against a random reasoning; less is better. Lines and band: 95 % interval over users. The oracle knows the "
        "target and picks luck, too."
    )
    head_and_foot(figure, "What choosing among reasonings could gain", [about, rule])
    return figure
