"""A blind sample of texts for two raters, their answers read back, and how far they agree with each other and a rule.

Agreement beyond chance is Cohen's kappa ("A coefficient of agreement for nominal scales", Educational and Psychological
Measurement 1960), by scikit-learn.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import cohen_kappa_score

from benchmark.analysis import significance
from benchmark.behaviours.rules import BEHAVIOURS
from benchmark.errors import InputError
from benchmark.jobs.records import check_beside
from benchmark.provenance import derive_seed
from benchmark.storage.io import write_text

SIZE = 100  # texts that are rated
ENOUGH = 0.6  # kappa from which a behaviour is spoken of: "substantial" by Landis and Koch, Biometrics 1977
KEY, SHEET, GUIDE = "key.csv", "sheet.csv", "guide.md"
NO_RATINGS = (
    f"no behaviour is reported without two raters: have each fill in a copy of {SHEET}, which --sample makes, and "
    "give both by --ratings"
)


def read_texts(runs: Sequence[Path]) -> pd.DataFrame:
    """Columns run, case, user, reasoning of what runs' folders hold, empty texts left out. InputError without them."""
    frames = []
    for run in runs:
        for name in ("texts.parquet", "rankings.parquet"):
            check_beside(run / name)
        try:
            texts = pd.read_parquet(run / "texts.parquet", columns=["case", "reasoning"]).drop_duplicates("case")
            users = pd.read_parquet(run / "rankings.parquet", columns=["case", "user"])
        except (OSError, ValueError, KeyError) as error:
            said = " ".join(str(error).split())
            raise InputError(
                f"{run}: has no readable texts.parquet and rankings.parquet ({said}); give a run that writes"
            ) from None
        found = texts.merge(users, on="case", how="left")
        if found.user.isna().any():
            raise InputError(f"{run}: texts.parquet has cases that rankings.parquet hasn't; run this seed again")
        frames.append(found[found.reasoning.str.strip() != ""].assign(run=str(run)))
    return pd.concat(frames, ignore_index=True)[["run", "case", "user", "reasoning"]]


def draw(texts: pd.DataFrame, size: int = SIZE) -> pd.DataFrame:
    """A seeded sample, equally many of each run, in an order that tells nothing: columns id (1 to size), run, case,
    reasoning. Raises InputError for fewer texts than are asked for."""
    runs = texts.run.unique().tolist()
    random = np.random.default_rng(derive_seed("behaviours", *runs))
    parts = []
    for number, run in enumerate(runs):
        rows = texts[texts.run == run]
        wanted = size // len(runs) + (number < size % len(runs))
        if len(rows) < wanted:
            raise InputError(f"{run}: {len(rows)} texts, but {wanted} are to be rated; give a run with more test cases")
        parts.append(rows.iloc[random.permutation(len(rows))[:wanted]])
    drawn = pd.concat(parts, ignore_index=True)
    drawn = drawn.iloc[random.permutation(size)].reset_index(drop=True)
    return drawn.assign(id=np.arange(1, size + 1))[["id", "run", "case", "reasoning"]]


def write_sample(drawn: pd.DataFrame, out: Path) -> None:
    """Write the raters' sheet, which tells nothing of runs, ranks or rules; what they are asked; and the key."""
    sheet = drawn[["id", "reasoning"]].assign(**dict.fromkeys([one.name for one in BEHAVIOURS], ""))
    asks = "\n".join(f"- **{one.name}**: {one.asks}" for one in BEHAVIOURS)
    guide = (
        f"# What is asked of each text\n\nPut 1 (yes) or 0 (no) into every cell of a copy of {SHEET}, alone and "
        f"without the key. A text may have several of these or none.\n\n{asks}\n"
    )
    write_text(out / SHEET, sheet.to_csv(index=False, lineterminator="\n"))
    write_text(out / GUIDE, guide)
    write_text(out / KEY, drawn[["id", "run", "case"]].to_csv(index=False, lineterminator="\n"))


def read_ratings(paths: Sequence[Path], ids: Sequence[int]) -> list[pd.DataFrame]:
    """Two raters' answers, bool, by id in this order and behaviour.

    Raises InputError, naming file, text and column, for anything but two different files with a 0 or 1 in each cell.
    """
    if len(paths) != 2:
        raise InputError(NO_RATINGS)
    if paths[0].resolve() == paths[1].resolve():
        raise InputError(f"{paths[0]}: given for both raters; give the file of another person as the second")
    return [_one_rater(path, ids) for path in paths]


def _one_rater(path: Path, ids: Sequence[int]) -> pd.DataFrame:
    names = [one.name for one in BEHAVIOURS]
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: can't be read as csv ({' '.join(str(error).split())}); give a filled {SHEET}"
        ) from None
    # Of two columns of one name pandas calls the second NAME.1.
    twice = [name.rpartition(".")[0] for name in frame.columns if re.fullmatch(r".+\.\d+", name)]
    if found := [name for name in twice if name in ("id", *names)]:
        raise InputError(f"{path}: column {found[0]!r} occurs twice; keep the one that was filled in")
    if absent := [name for name in ("id", *names) if name not in frame.columns]:
        raise InputError(f"{path}: no column {absent[0]!r}; give a filled copy of {SHEET}")
    if frame.id.tolist() != [str(one) for one in sorted(ids)] and sorted(frame.id) != sorted(str(one) for one in ids):
        raise InputError(
            f"{path}: rates other texts than {KEY} names ({len(frame)} rows for {len(ids)}); rate this sample"
        )
    for name in names:
        wrong = frame[~frame[name].str.strip().isin(["0", "1"])]
        if len(wrong):
            row = wrong.iloc[0]
            raise InputError(f"{path}: text {row.id}, {name}: {row[name]!r}; put 0 or 1 there")
    frame = frame.set_index(frame.id.astype(int)).loc[list(ids), names]
    return frame.apply(lambda column: column.str.strip() == "1")


def kappa(first: np.ndarray, second: np.ndarray) -> float:
    """Cohen's kappa of two raters' answers, bool [n]; NaN where both gave one and the same answer to every text.

    By hand: they agree on 7 of 10, say yes 5 and 6 times, so that chance agrees on .5 x .6 + .5 x .4 = .5:

    >>> a = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0], dtype=bool)
    >>> b = np.array([1, 1, 1, 1, 0, 1, 1, 0, 0, 0], dtype=bool)
    >>> round(kappa(a, b), 4)  # (.7 - .5) / (1 - .5)
    0.4
    """
    if len({*first.tolist(), *second.tolist()}) == 1:
        return float("nan")
    return float(cohen_kappa_score(first, second))


def agreement(ratings: Sequence[pd.DataFrame], reasonings: Sequence[str]) -> pd.DataFrame:
    """A row per behaviour: behaviour, yes_first, yes_second, yes_rule (shares), agree (share of texts), kappa (of the
    raters), kappa_rule (the mean of the rule's with each), reported (whether both are at least ENOUGH)."""
    rows = []
    for one in BEHAVIOURS:
        first, second = (rater[one.name].to_numpy(dtype=bool) for rater in ratings)
        rule = np.array([one.in_text(text) for text in reasonings])
        of_raters = kappa(first, second)
        of_rule = float(np.mean([kappa(rule, first), kappa(rule, second)]))
        row: dict[str, object] = {"behaviour": one.name, "yes_first": first.mean(), "yes_second": second.mean()}
        row |= {"yes_rule": rule.mean(), "agree": float((first == second).mean())}
        row |= {"kappa": of_raters, "kappa_rule": of_rule}
        rows.append(row | {"reported": bool(of_raters >= ENOUGH and of_rule >= ENOUGH)})
    return pd.DataFrame(rows)


def shares(texts: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The share of each run's texts that have these behaviours by rule, with its 95 % interval over users: columns run,
    behaviour, n_texts, n_users, share, low, high."""
    rows = []
    for run, part in texts.groupby("run", sort=False):
        for one in BEHAVIOURS:
            if one.name not in names:
                continue
            has = np.array([one.in_text(text) for text in part.reasoning], dtype=np.float64)
            sums, counts = significance.user_sums(has, part.user.to_numpy())
            drawn = significance.bootstrap_means(sums, counts, derive_seed("behaviours", str(run)))
            low, high = significance.interval(drawn)
            numbers = (len(part), len(counts), float(has.mean()), float(low[0]), float(high[0]))
            rows.append((run, one.name, *numbers))
    return pd.DataFrame(rows, columns=["run", "behaviour", "n_texts", "n_users", "share", "low", "high"])
