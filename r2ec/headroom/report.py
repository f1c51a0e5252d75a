"""What the measures of the headroom say, as markdown and as the page takes it."""

from collections.abc import Hashable
from typing import Any

import pandas as pd

from benchmark.output.markdown import table
from benchmark.output.page.headroom import BestOf, Choice, Headroom, MeasuredRun, rows_of
from r2ec.headroom.pickers import STATISTICS
from r2ec.headroom.plot import BORROWED
from r2ec.headroom.sampled import Sampled


def measure_of(
    run: MeasuredRun | None,
    reasonings: Sampled,
    tables: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame],
    shares: dict[str, float],
) -> Headroom:
    """The measure for the page. tables: as `oracle`, `pickers` and `of_lenders` give them."""
    best, picked, borrowed = tables
    statistics = pd.Series(best[list(STATISTICS)].to_dict("records"), index=best.index)
    return Headroom(
        run=run,
        cases=reasonings.rank.shape[0],
        users=len(set(reasonings.user.tolist())),
        samples=reasonings.rank.shape[1],
        within=shares,
        oracle=rows_of(best.assign(statistics=statistics), BestOf),
        pickers=rows_of(picked, Choice),
        lent=rows_of(borrowed.assign(picker=BORROWED), Choice),
        lent_cases=0 if borrowed.empty else int(borrowed.cases[0]),
        lent_users=0 if borrowed.empty else int(borrowed.users[0]),
    )


def as_markdown(
    best: pd.DataFrame, picked: pd.DataFrame, borrowed: pd.DataFrame, shares: dict[str, float], about: str
) -> str:
    """The report: shares of variance, and tables of the oracle, of the pickers and of lent reasonings."""
    names = [column for column in best.columns if column not in ("picker", "samples", "gain", "low", "high")]
    lines = [
        [str(row["samples"]), *(f"{row[name]:.4f}" for name in names), f"{row['gain']:+.4f} {interval_of(row)}"]
        for row in best.to_dict("records")
    ]
    head = ["picker", "statistic", "random", "picked", "gain", "95 % interval", "p"]
    rows = [[row["picker"], *gain_of(row)] for row in picked.to_dict("records")]
    lent_rows = [gain_of(row) for row in borrowed.to_dict("records")]
    lent_to = "" if borrowed.empty else f"{borrowed.cases[0]:,} cases of {borrowed.users[0]:,} users with several. "
    inside = "; ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
    return "\n\n".join(
        [
            "# RecPO's headroom",
            f"{about} Share of the variance that lies within a case: {inside}.",
            "## An oracle that knows the target",
            table(["best of", *names, "gain in log rank"], lines, left=0),
            "An oracle picks luck, too: it bounds what can be gained.",
            "## What can choose without knowing it",
            table(head, rows, left=2),
            "Gain over a random sample; intervals over users, of one trained model. Learned pickers chose for users "
            "that they had not learned from. A lower log rank is better.",
            "## The best reasoning of the user's case before it",
            table(head[1:], lent_rows, left=1) if lent_rows else "No user has two of these cases.",
            f"{lent_to}Each case is read with the reasoning that was best for the case before it, and with others that "
            "were written for that case (random).",
        ]
    )


def gain_of(row: dict[Hashable, Any]) -> list[str]:
    """The cells of one gain: statistic, both means, gain, interval and p."""
    numbers = [f"{row['random']:.4f}", f"{row['picked']:.4f}", f"{row['gain']:+.4f}"]
    return [row["statistic"], *numbers, interval_of(row), f"{row['p']:.2g}"]


def interval_of(row: dict[Hashable, Any]) -> str:
    """The cell of an interval."""
    return f"[{row['low']:+.4f}, {row['high']:+.4f}]"
