"""Write the page of verdicts on the claims of a config: `python -m benchmark.output.claims`.

The workflow calls this for the section `ablations` of a config, and writes --factors itself. By hand: `snakemake
ablations`.

The folder gets claims.csv and the page claims.md. `python -m benchmark.statistics.claims` comes first; it explains how
a verdict is found.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from benchmark.analysis import significance
from benchmark.config.wording import many
from benchmark.errors import command, command_line
from benchmark.output.ablations import in_words
from benchmark.output.arguments import ablations_arguments
from benchmark.output.captions import joined
from benchmark.output.forms import csv
from benchmark.output.markdown import plain, table
from benchmark.statistics.files import CLAIMS, read_csv
from benchmark.storage.io import write_text

EXPECTATION = {"higher": "higher than", "lower": "lower than", "equal": "no other than"}
RULE = (
    "A claim that expects a difference is supported where p, Holm-corrected over all claims here, is below "
    f"{significance.ALPHA} and the difference has the expected sign, and contradicted where it has the other one. A "
    "claim that expects none is supported where the whole 95 % interval, which isn't corrected for the number of "
    "claims, lies within the margin that was set beforehand, a share of the second mean, and contradicted where it "
    "lies outside on one side and p is below that. In all other cases, and where several seeds disagree about the "
    "sign, the data can't tell, which is not evidence of no difference: the smallest detectable difference says what "
    f"could have been seen (power {100 * significance.POWER:.0f} %, at the level of Holm's first step). Two-sided "
    "paired tests over users, as in the tables. Users are their units: they say whether these trained models differ on "
    "other users, not whether other trainings would; where there are several seeds, each one's difference is given. "
    "The claims are about other models, data and budgets than those that were run here: what is said holds at this "
    "scale."
)


def sentences(row: dict) -> str:
    """The sentences on one claim on one dataset, from a row of claims.csv."""
    if row["why"]:
        return f"{expected(row)}. {cannot_be_judged([row['dataset']], row['why'])}"
    margin = "" if np.isnan(row["margin"]) else f", to within {row['margin']:.4f}"
    return f"{expected(row)}{margin}. {found(row)}"


def expected(row: dict) -> str:
    """What a claim expects, without its margin: the same on all datasets."""
    claimed = f'"{row["value"]}" {EXPECTATION[row["expect"]]} "{row["against"]}"'
    return f"Expected: {row['metric']} of {claimed}"


def cannot_be_judged(datasets: Sequence[str], why: str) -> str:
    """Why a claim has no verdict on these datasets."""
    return f"Nothing can be said on {joined(datasets)}: {why}."


def found(row: dict) -> str:
    """What was found of a claim on one dataset."""
    seeds = [float(text) for text in row["by_seed"].split()]
    difference = f"{row['difference']:+.4f}{share(row['difference'], row)}"
    text = (
        f"Found on {row['dataset']} ({many(row['n_cases'], 'case')} of "
        f"{many(row['n_users'], 'user')}, {many(len(seeds), 'seed')}): {row['mean']:.4f} against "
        f"{row['mean_against']:.4f}, a difference of {difference} with the 95 % interval [{row['low']:+.4f}, "
        f"{row['high']:+.4f}], p = {row['p']:.2g}, {row['p_holm']:.2g} after Holm's correction over "
        f"{many(row['family_size'], 'claim')}. "
    )
    if len(seeds) > 1:
        spread = float(np.std(seeds, ddof=1))
        text += f"By seed: {', '.join(f'{seed:+.4f}' for seed in seeds)} (sd {spread:.4f}). "
    else:
        text += "One seed: how much another training would differ is not known. "
    if np.isnan(row["detectable"]):
        return (
            text + "The two gave every user the same value, so that nothing can be said of what could have been seen."
        )
    detectable = f"{in_words(row['detectable'])}{share(row['detectable'], row, sign='')}"
    return text + f"The smallest difference that would have been found: {detectable}."


def share(value: float, row: dict, sign: str = "+") -> str:
    """A difference as a share of the second mean, in brackets; "" where that mean is 0."""
    return f" ({value / row['mean_against']:{sign}.0%})" if row["mean_against"] > 0 else ""


def as_markdown(frame: pd.DataFrame) -> str:
    """The page: a table of verdicts, then each claim in sentences."""
    head = ["claim", "verdict", "difference", "95 % interval", "p, Holm", "smallest detectable"]
    body, text = [], []
    several = frame.dataset.nunique() > 1
    for number, row in enumerate(frame.to_dict("records"), 1):
        where = f" ({row['dataset']})" if several else ""
        claim = plain(row["says"])
        line = [f"{number}. {claim}{plain(where)}", f"**{row['verdict']}**"]
        if row["why"]:
            line += [plain(row["why"]), "", "", ""]
        else:
            line += [f"{row['difference']:+.4f}", f"[{row['low']:+.4f}, {row['high']:+.4f}]", f"{row['p_holm']:.2g}"]
            line.append(in_words(row["detectable"]))
        body.append(line)
        heading = f"## {number}. {plain(row['title'] + where)}: {row['verdict']}"
        text.append(f"{heading}\n\n{claim}\n\n{plain(sentences(row))}")
    return "\n\n".join(["# What the data here say about each claim", table(head, body, left=2), RULE, *text]) + "\n"


@command
def main() -> None:
    args = ablations_arguments(command_line("benchmark.output.claims", __doc__), factors=False)
    frame = read_csv(args.statistics / CLAIMS)
    text = as_markdown(frame) if len(frame) else "No factor of the config has claims that are judged here.\n"
    write_text(args.out / CLAIMS, csv(frame))
    write_text(args.out / "claims.md", text)


if __name__ == "__main__":
    main()
