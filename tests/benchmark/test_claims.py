"""Claims about ablations: verdicts by the rule, Holm's correction over all of them, and the sentences."""

from pathlib import Path

import numpy as np
import pytest

from benchmark.analysis import significance
from benchmark.analysis.collect import collect
from benchmark.analysis.comparisons import Comparison
from benchmark.config.schema import ClaimConfig
from benchmark.output import claims
from benchmark.output.claims import sentences
from benchmark.output.page.ablations import claims as claims_of_page
from benchmark.statistics.ablations import against_base
from benchmark.statistics.claims import CANT_TELL, CONTRADICTS, SUPPORTS, judge, measure, verdict
from benchmark.statistics.files import read_csv
from tests.support.factors import claim, factor, hand_made, run, write_runs


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_runs(tmp_path_factory.mktemp("ablations") / "results")


def found_(difference: float, low: float, high: float, against: float = 0.1) -> Comparison:
    return Comparison("NDCG@10", "a", "b", against + difference, against, low, high, 0.001, 0.01, "test")


UP, DOWN, EQUAL = claim(), claim(expect="lower"), claim(expect="equal", margin=0.1)
BETTER, WORSE, NEAR = found_(0.02, 0.011, 0.029), found_(-0.02, -0.029, -0.011), found_(0.004, -0.001, 0.009)


@pytest.mark.parametrize(
    ("claim_tested", "comparison", "by_seed", "p_holm", "expected"),
    [
        (UP, BETTER, [0.02], 0.01, SUPPORTS),
        (UP, BETTER, [0.02], 0.05, CANT_TELL),  # 0.05 is not below 0.05
        (UP, WORSE, [-0.02], 0.01, CONTRADICTS),
        (UP, BETTER, [0.05, -0.01], 0.01, CANT_TELL),  # one seed says the opposite
        (UP, WORSE, [-0.05, -0.01], 0.01, CONTRADICTS),
        (DOWN, WORSE, [-0.02], 0.01, SUPPORTS),
        (DOWN, BETTER, [0.02], 0.01, CONTRADICTS),
        (EQUAL, NEAR, [0.01, -0.002], 0.9, SUPPORTS),  # the interval lies within 10 % of 0.1
        (EQUAL, NEAR, [0.004], 0.01, SUPPORTS),  # different, but by less than the margin
        (EQUAL, BETTER, [0.02], 0.01, CONTRADICTS),
        (EQUAL, BETTER, [0.02], 0.9, CANT_TELL),  # a large p alone supports nothing
        (EQUAL, found_(0.0, -0.02, 0.02), [0.0], 1.0, CANT_TELL),
        (EQUAL, found_(0.0, -0.011, 0.005), [0.0], 1.0, CANT_TELL),  # beyond the margin on one side
        (EQUAL, found_(0.011, 0.003, 0.019), [0.011], 0.01, CANT_TELL),  # not 0, which may still be within the margin
        (EQUAL, found_(-0.011, -0.019, -0.003), [-0.011], 0.01, CANT_TELL),
    ],
)
def test_verdicts_follow_the_rule(
    claim_tested: ClaimConfig, comparison: Comparison, by_seed: list[float], p_holm: float, expected: str
) -> None:
    assert verdict(claim_tested, comparison, np.array(by_seed), p_holm) == expected


def test_the_numbers_of_claims_are_those_by_hand(tmp_path: Path) -> None:
    two_values = hand_made(tmp_path)
    (row,) = judge(measure([two_values], tmp_path)).to_dict("records")
    assert (row["verdict"], row["p"], row["p_holm"], row["family_size"]) == (CANT_TELL, 0.5, 0.5, 1)
    assert (row["mean"], row["mean_against"], row["difference"]) == (1.0, 0.375, 0.625)
    # Hit@5 of the base 1/4 and 2/4, of the other 1
    assert row["by_seed"] == "+0.750000 +0.500000"
    assert row["detectable"] == pytest.approx((1.959964 + 0.841621) * row["error"])
    text = sentences(row)
    assert "1.0000 against 0.3750, a difference of +0.6250 (+167%)" in text
    assert "By seed: +0.7500, +0.5000 (sd 0.1768)" in text and "2 seeds" in text


def test_holm_is_over_all_claims_of_the_page(results: Path) -> None:
    both = [factor(), factor(name="again", datasets=["small", "other"], claims=[claim(against="1")])]
    frame = judge(measure(both, results))
    assert frame[["factor", "dataset"]].apply(tuple, axis=1).tolist() == [
        ("beta", "small"),
        ("beta", "small"),
        ("again", "small"),
        ("again", "other"),
    ]
    assert frame.p_holm.to_numpy() == pytest.approx(significance.holm(frame.p)) and set(frame.family_size) == {4}
    first = frame.iloc[0]
    assert first.verdict == SUPPORTS and first.difference > 0  # planted
    # Every number is the tables' own.
    tests = against_base(collect(results, "small", factor().seeds_of_runs), factor())
    same = tests[(tests.method_a == "r2ec--beta=0") & (tests.metric == "NDCG@10")].iloc[0]
    assert (-first.difference, -first.high, -first.low) == pytest.approx(
        (same.difference, same.low, same.high), abs=1e-6
    )
    shown = claims_of_page(frame)
    assert shown is not None and [row["claim"] for row in shown["rows"]] == [0, 1, 2, 2]
    last = shown["sentences"][2]  # of two datasets: what it says is said once
    assert len(shown["sentences"]) == 3 and last["expected"].startswith("Expected: NDCG@10 of ")
    assert ["small" in last["lines"][0][0], "other" in last["lines"][1][0]] == [True, True]
    assert not any("Expected" in text for text, _ in last["lines"])
    failed = claims_of_page(frame.assign(why="0 failed", verdict="not judged"))
    assert failed is not None
    assert failed["sentences"][2]["lines"] == [["Nothing can be said on small and other: 0 failed.", "not judged"]]


def test_the_page_of_claims_has_a_sentence_for_each(results: Path, tmp_path: Path) -> None:
    run(claims, results, factor(), out=tmp_path)
    text = (tmp_path / "ablations" / "claims.md").read_text()
    rows = read_csv(results / "statistics" / "ablations" / "claims.csv")
    assert rows["value"].tolist() == ["0.05", "1"] and rows["verdict"].iloc[0] == SUPPORTS
    assert "1. R\\_c \\<helps\\> | **supports** |" in text and "## 1. weight of R\\_c: supports" in text
    assert claims.RULE in text and "The smallest difference that would have been found:" in text
    # The sentences from the file are those from memory.
    assert [sentences(row) for row in rows.to_dict("records")] == [
        sentences(row) for row in judge(measure([factor()], results)).to_dict("records")
    ]


def test_no_claims_no_verdicts(results: Path, tmp_path: Path) -> None:
    run(claims, results, factor(claims=[]), out=tmp_path)
    assert (
        "No factor of the config has claims that are judged here." in (tmp_path / "ablations" / "claims.md").read_text()
    )
