"""Paired comparisons of methods by every metric, with their intervals, tests and Holm families."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from benchmark.analysis import significance
from benchmark.analysis.collect import Collected
from benchmark.metrics import METRICS
from benchmark.provenance import derive_seed

AGAINST_BEST = "against the best baseline"
ALL_PAIRS = "all pairs"


@dataclass(frozen=True)
class Comparison:
    """One paired comparison of two methods by one metric; the difference is a - b."""

    metric: str
    a: str
    b: str
    mean_a: float
    mean_b: float
    low: float  # of the 95 % interval of the difference
    high: float
    error: float  # standard error of the difference: the standard deviation of its bootstrap replicates
    p: float
    test: str

    def swapped(self) -> "Comparison":
        """The same comparison as b - a; the tests are two-sided, so p stays."""
        return Comparison(
            self.metric, self.b, self.a, self.mean_b, self.mean_a, -self.high, -self.low, self.error, self.p, self.test
        )


def compare(results: Collected) -> pd.DataFrame:
    """Every pair of methods and metric: difference a - b, its interval and paired test, in two Holm families.

    A pair with the best baseline is in both families: "against the best baseline" (method_b is the baseline) and
    "all pairs". A family spans all six metrics. Columns as in {dataset}.tests.csv.
    """
    every = comparisons(results, list(combinations(results.methods, 2)))
    best = results.best_baseline
    with_best = [c if c.b == best else c.swapped() for c in every if best in (c.a, c.b)]
    return tests_frame(results, {AGAINST_BEST: with_best, ALL_PAIRS: every})


def tests_frame(results: Collected, families: dict[str, list[Comparison]]) -> pd.DataFrame:
    """Comparisons by family, each Holm-corrected over its own, as rows. Columns as in {dataset}.tests.csv.

    detectable: the smallest difference that would be found with a power of 80 % at the level of Holm's first step
    (`significance.smallest_detectable`); NaN where no user differs.
    """
    rows = []
    for family, members in families.items():
        corrected = significance.holm([c.p for c in members])
        for c, p_holm in zip(members, corrected, strict=True):
            # + 0.0 turns -0.0 into 0.0, or csv files would differ in a sign that means nothing
            numbers = [round(x, 6) + 0.0 for x in (c.mean_a, c.mean_b, c.mean_a - c.mean_b, c.low, c.high)]
            p_values = [float(f"{x:.4g}") for x in (c.p, p_holm)]
            detectable = significance.smallest_detectable(c.error, len(members))
            rows.append((family, len(members), c.metric, c.a, c.b, *numbers, *p_values, c.test, c.error, detectable))
    columns = [
        "family",
        "family_size",
        "metric",
        "method_a",
        "method_b",
        "mean_a",
        "mean_b",
        "difference",
        "low",
        "high",
    ]
    frame = pd.DataFrame(rows, columns=[*columns, "p", "p_holm", "test", "error", "detectable"])
    frame = frame.assign(n_cases=len(results.cases), n_users=results.n_users)
    frame = frame.assign(seeds_a=frame.method_a.map(results.seeds), seeds_b=frame.method_b.map(results.seeds))
    last = ["error", "detectable"]
    return frame[[*frame.columns.drop(last), *last]]


def comparisons(results: Collected, pairs: Sequence[tuple[str, str]], family: int = 0) -> list[Comparison]:
    """Compare these pairs of methods by every metric; all share one resample matrix and one group of sign flips.

    The result is ordered by metric, then as `pairs`. family: the number of tests that are corrected together, where
    that is more than these.
    """
    n_methods, n_cases = len(results.methods), len(results.cases)
    at = {method: place for place, method in enumerate(results.methods)}
    places = [(row, at[a], at[b]) for row in range(len(METRICS)) for a, b in pairs]
    # Column of metric `row` and method `a`.
    columns = np.array([(row * n_methods + a, row * n_methods + b) for row, a, b in places], dtype=np.int64).reshape(
        -1, 2
    )
    totals, n_seeds = results.case_totals()
    over_seeds = totals.reshape(-1, n_cases)
    sums, counts = significance.user_sums(over_seeds, results.cases.user)
    means = over_seeds.mean(axis=1) / n_seeds

    seed = derive_seed("bootstrap", results.dataset)
    replicates = significance.bootstrap_means(sums / n_seeds, counts, seed)
    is_ndcg = np.array([METRICS[row].startswith("NDCG") for row, _, _ in places], dtype=bool)
    flips = significance.flips_for(max(len(places), family))
    seed = derive_seed("sign flips", results.dataset)
    randomised = iter(significance.randomisation_test(sums, columns[is_ndcg], seed, flips).tolist())

    out = []
    for (row, a, b), (i, j), random in zip(places, columns, is_ndcg, strict=True):
        difference = replicates[:, [i]] - replicates[:, [j]]
        low, high = significance.interval(difference)
        if random:
            p, name = next(randomised), f"{significance.RANDOMISATION}, {flips} flips"
        else:
            test = significance.mcnemar_test(sums[:, i] - sums[:, j])
            p, name = test.p, test.name
        out.append(
            Comparison(
                metric=METRICS[row],
                a=results.methods[a],
                b=results.methods[b],
                mean_a=float(means[i]),
                mean_b=float(means[j]),
                low=float(low[0]),
                high=float(high[0]),
                error=float(difference.std(ddof=1)),
                p=p,
                test=name,
            )
        )
    return out
