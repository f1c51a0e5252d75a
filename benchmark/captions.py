"""What stands below a table: what its numbers are, its marks and tests, and the runs behind them."""

import pandas as pd

from benchmark import significance
from benchmark.collect import seeds_in_words
from benchmark.comparisons import AGAINST_BEST
from benchmark.metrics import METRICS
from benchmark.summary import cells

DAGGER = "†"


def notes(frame: pd.DataFrame, *, plain: bool = False) -> list[str]:
    """The caption: what the numbers are, the marks and the test, and per dataset its family, n, seeds and commit.

    plain: of a table without deviations over seeds and without bold and underlined means.
    """
    best = "the best baseline (highest NDCG@10 of its dataset, chosen on these cases)"
    general = what_it_shows(frame, best, AGAINST_BEST, plain=plain)
    if frame.seeds.nunique() > 1:
        general += " A case's value is its mean over the method's own seeds" + (
            "." if plain else "; one seed has no sd."
        )
    out = [general]
    for _, part in frame.groupby("dataset", sort=False):
        row = part.iloc[0]
        if row.best_baseline:
            family = (
                f"best baseline {row.best_baseline}; family of {row.family_size} tests "
                f"({len(part) - 1} methods x {len(METRICS)} metrics)"
            )
        else:
            family = "no baseline among the methods, so no test in this table"
        out.append(runs_behind(part, family))
    return out


def what_it_shows(frame: pd.DataFrame, reference: str, family: str, *, plain: bool = False) -> str:
    """What a table's numbers are, its methods being tested against `reference` in this family, and the marks that it has."""
    printed = [cell for row in cells(frame) for cell in row]
    said = ["Full-catalogue ranking."]
    mean = "Mean over seeds" if frame.seeds.max() > 1 else "One seed"
    if not plain and any(cell.sd for cell in printed):
        mean += " ± sd over seeds"
    said.append(f"{mean}; below it the 95 % interval of a bootstrap over users ({significance.RESAMPLES:,} resamples).")
    if not plain:
        second = ", second underlined" if any(cell.place == 2 for cell in printed) else ""
        if any(cell.place == 1 for cell in printed):
            said.append(f"Best bold{second}.")
    if (frame[[f"{metric}_p_holm" for metric in METRICS]].notna()).any(axis=None):
        marked = any(cell.dagger for cell in printed)
        said.append(
            f"{f'{DAGGER} differs' if marked else 'No value differs'} from {reference}, in either direction, at p < "
            f'{significance.ALPHA} after Holm\'s correction over the family "{family}". Two-sided paired tests over users: '
            "randomisation test with signs flipped per user for NDCG, McNemar's test clustered by user for Hit (exact where "
            f"fewer than {significance.FEW_USERS} users differ)."
        )
    if not plain:
        said.append(
            "Users are resampled and not trainings: another seed may move a value by more than its interval says."
        )
    return " ".join(said)


def runs_behind(part: pd.DataFrame, family: str) -> str:
    """One dataset's cases, seeds and commits, and its family of tests in words."""
    row = part.iloc[0]
    commits = [commit[:10] + ("-dirty" if commit.endswith("-dirty") else "") for commit in row.commit.split()]
    return (
        f"{row.dataset}: {row.n_cases:,} cases of {row.n_users:,} users, "
        f"{seeds_in_words(part.method.tolist(), part.seeds.tolist())}, {family}; "
        f"{'commits' if len(commits) > 1 else 'commit'} {', '.join(commits)}."
    )
