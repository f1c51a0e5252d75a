"""Test one method against each of the others: `python -m benchmark.statistics.against`.

Differences are per dataset and over all datasets.

    python -m benchmark.statistics.against --reference r2ec --datasets ml-100k --methods popularity sasrec r2ec \\
        --seeds 3

The folder gets against.csv (`benchmark.statistics.files`): differences in NDCG@10, their paired tests, and what both
cost. The workflow makes it where a config names a `reference`. Nothing is written unless the runs pass the checks of
`benchmark.analysis.collect`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from benchmark.analysis import significance
from benchmark.analysis.arguments import runs_arguments
from benchmark.analysis.collect import Collected, collect_all, shared_methods
from benchmark.analysis.comparisons import comparisons
from benchmark.analysis.costs import costs
from benchmark.errors import command, command_line
from benchmark.metrics import METRICS
from benchmark.provenance import derive_seed
from benchmark.statistics.files import AGAINST, write_csv

MAIN = "NDCG@10"
EVERY = "all datasets"
COSTS = ("users", "targets", "settings", "fit_s", "score_s", "tokens", "ms_alone")  # columns of costs.csv


def against(collected: Sequence[Collected], reference: str) -> pd.DataFrame:
    """The reference's NDCG@10 minus every other method's; one family of tests per dataset, and one over all datasets.

    Columns: dataset, method, reference, mean, mean_reference, difference, low, high (95 % interval of the difference
    over users), p, p_holm, detectable (`significance.smallest_detectable` at Holm's first step), family_size, n_cases,
    n_users, and of COSTS the method's own and, as `*_reference`, the reference's, averaged under "all datasets". That
    part is there if there are several datasets; each of them weighs the same in it.
    """
    frames = [_on_one(results, reference) for results in collected]
    if len(collected) > 1 and len(shared_methods(collected)) > 1:
        frames.append(_on_all(collected, reference, frames))
    frame = pd.concat(frames, ignore_index=True)
    sizes = frame.groupby("dataset", sort=False).p.transform("size")
    corrected = frame.groupby("dataset", sort=False).p.transform(lambda p: significance.holm(p.to_numpy()))
    errors = zip(frame.pop("error"), sizes, strict=True)
    detectable = [significance.smallest_detectable(error, size) for error, size in errors]
    return frame.assign(p_holm=corrected, detectable=detectable, family_size=sizes)


def _on_one(results: Collected, reference: str) -> pd.DataFrame:
    others = [method for method in results.methods if method != reference]
    compared = [c for c in comparisons(results, [(reference, other) for other in others]) if c.metric == MAIN]
    costs_of = costs(results).set_index("method")[list(COSTS)]
    rows = [
        {
            "dataset": results.dataset,
            "method": c.b,
            "reference": reference,
            "mean": c.mean_b,
            "mean_reference": c.mean_a,
            "difference": c.mean_a - c.mean_b,
            "low": c.low,
            "high": c.high,
            "p": c.p,
            "error": c.error,
            "n_cases": len(results.cases),
            "n_users": results.n_users,
            **costs_of.loc[c.b].to_dict(),
            **costs_of.loc[reference].add_suffix("_reference").to_dict(),
        }
        for c in compared
    ]
    return pd.DataFrame(rows)


def _on_all(collected: Sequence[Collected], reference: str, frames: list[pd.DataFrame]) -> pd.DataFrame:
    """The mean of the datasets' differences, as a frame like that of one dataset.

    Users are resampled within their datasets; in a sign flip, each user of each dataset has one sign.
    """
    # A method that failed on one of these datasets has no mean over all.
    others = [method for method in shared_methods(collected) if method != reference]
    stacked, replicates = [], []
    for results in collected:
        at = [results.methods.index(method) for method in (reference, *others)]
        values = results.case_means[METRICS.index(MAIN)][at]
        sums, counts = significance.user_sums(values, results.cases.user)
        stacked.append(sums / counts.sum() / len(collected))
        replicates.append(significance.bootstrap_means(sums, counts, derive_seed("bootstrap", results.dataset)))
    sums = np.concatenate(stacked)
    pairs = [(0, i + 1) for i in range(len(others))]
    flips = significance.flips_for(len(pairs))
    p = significance.randomisation_test(sums, pairs, derive_seed("sign flips", EVERY), flips)
    drawn = np.mean(replicates, axis=0)
    differences = drawn[:, [0]] - drawn[:, 1:]
    low, high = significance.interval(differences)
    # A dataset's number is there once, so that the mean over rows of a method is that over datasets.
    means = pd.concat(frames).groupby("method", sort=False).mean(numeric_only=True).loc[others].reset_index()
    return means.assign(
        dataset=EVERY,
        reference=reference,
        low=low,
        high=high,
        p=p,
        error=differences.std(axis=0, ddof=1),
        n_cases=sum(len(results.cases) for results in collected),
        n_users=sum(results.n_users for results in collected),
    )[frames[0].columns]


def comparable(collected: Sequence[Collected], reference: str) -> list[Collected]:
    """The datasets on which the reference and another method have results."""
    return [results for results in collected if reference in results.methods and len(results.methods) > 1]


def nothing(collected: Sequence[Collected], reference: str) -> pd.DataFrame:
    """The frame of against.csv where no method can be compared with the reference: which have failed, and why."""
    rows = [
        (results.dataset, method, reference, failure.failed)
        for results in collected
        for method, failure in results.failed.items()
    ]
    return pd.DataFrame(rows, columns=["dataset", "method", "reference", "failed"])


@command
def main() -> None:
    parser = command_line("benchmark.statistics.against", __doc__)
    parser.add_argument("--reference", required=True, help="the row that is held against each of the others")
    args = runs_arguments(parser)
    everything = collect_all(args)
    compared = comparable(everything, args.reference)
    frame = against(compared, args.reference) if compared else nothing(everything, args.reference)
    write_csv(args.out / AGAINST, frame)


if __name__ == "__main__":
    main()
