#!/usr/bin/env bash
# statsmodels 0.15.0: of two methods that hit the same cases, McNemar's test says p = 0; of a p that is NaN, Holm says rejected.
#
# mcnemar(table, exact=False) takes 1 from the difference for continuity, its default, also where there is no difference: (0 - 1)^2 / 0 is
# infinite, and p is 0. The only word is numpy's warning of a division by zero. Where both methods win alike the 1 stays, too: of 3
# cases each p is .683. By hand the difference is 0 and p 1, as exact=True says.
#
# scipy's paired t-test has p = NaN for equal values. multipletests with "holm" or "holm-sidak", the default, sorts NaN behind all others
# and asks whether it is greater than its bound, which NaN never is. So a NaN is rejected, as a significant difference, if all other p
# are; alone it always is. Its corrected p stays NaN, and there is no error and no warning. "bonferroni" and "fdr_bh" don't reject it.
# scipy's false_discovery_control refuses NaN.
#
# Such pairs are no rarity: a re-ranker that changes no top 10, or a slice of few users in which neither method has a hit.
# Issue 2899 of statsmodels says that one NaN makes all corrected p of "fdr_bh" NaN. That one is rejected wasn't found there.
#
# One would guess that what shows no difference is never significant.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check statsmodels==0.15.0 scipy==1.17.1 numpy==2.4.6 pandas==2.3.3
cd "$folder"
cat > check.py <<'P'
import sys, warnings

import numpy as np
import scipy
import statsmodels
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

# Cases that both methods hit, that one alone hits, that the other alone hits, that neither hits; and p by hand.
tables = {"the same cases hit": ([[5, 0], [0, 95]], 1), "three each": ([[5, 3], [3, 89]], 1), "9 and 1": ([[5, 9], [1, 85]], None)}
p = {}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for name, (table, by_hand) in tables.items():
        p[name] = {
            "exact": mcnemar(table, exact=True).pvalue, "with the correction": mcnemar(table, exact=False).pvalue,
            "without it": mcnemar(table, exact=False, correction=False).pvalue,
        }
        print(f"McNemar, {name}: by hand {by_hand}, " + ", ".join(f"{kind} {value:.4f}" for kind, value in p[name].items()))
print("warnings:", sorted({f"{one.category.__name__}: {one.message}" for one in caught}))
equal, alike, apart = p.values()
mcnemar_wrong = equal["exact"] == 1 and equal["with the correction"] == 0 and alike["exact"] == alike["without it"] == 1
mcnemar_wrong &= abs(alike["with the correction"] - stats.chi2.sf(1 / 6, 1)) < 1e-12
mcnemar_wrong &= abs(apart["with the correction"] - stats.chi2.sf(49 / 10, 1)) < 1e-12  # |9 - 1| - 1 = 7: right where they differ

base = np.array([1, 0, 0, 1, 0.5, 0, 1, 0])  # NDCG@10 of eight users
better = base + np.array([0.20, 0.10, 0.15, 0.20, 0.10, 0.12, 0.20, 0.18])
families = {
    "better, equal": [stats.ttest_rel(better, base).pvalue, stats.ttest_rel(base.copy(), base).pvalue],
    "better, some, equal": [stats.ttest_rel(better, base).pvalue, 0.3, stats.ttest_rel(base.copy(), base).pvalue],
    "equal alone": [stats.ttest_rel(base.copy(), base).pvalue],
}
verdicts = {}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for name, values in families.items():
        for method in ("holm", "holm-sidak", "bonferroni", "fdr_bh"):
            rejected, corrected = multipletests(values, alpha=0.05, method=method)[:2]
            verdicts[name, method] = rejected.tolist()
            print(f"{name}, {method}: p {np.array(values).round(5)} rejected {rejected.tolist()} corrected {corrected.round(5)}")
print("warnings of multipletests:", sorted({str(one.message) for one in caught}))
wrong = all(verdicts["better, equal", method] == [True, True] and verdicts["equal alone", method] == [True]
            and verdicts["better, some, equal", method] == [True, False, False] for method in ("holm", "holm-sidak"))
right = all(not verdicts[name, method][-1] for name in families for method in ("bonferroni", "fdr_bh"))
try:
    stats.false_discovery_control(families["better, equal"])
    refused = False
except ValueError as error:
    refused = True
    print("scipy's false_discovery_control:", error)
print("statsmodels", statsmodels.__version__, "scipy", scipy.__version__)
sys.exit(not (mcnemar_wrong and wrong and right and refused and not caught))
P
"$folder/venv/bin/python" check.py
