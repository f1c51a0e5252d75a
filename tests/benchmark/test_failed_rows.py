"""A method that failed is a row with its reason, in every form.

The others are compared as if it had not been asked for.
"""

import json
from pathlib import Path

import pandas as pd
import pytest

from benchmark.analysis import registered
from benchmark.analysis.collect import collect
from benchmark.analysis.comparisons import compare
from benchmark.config.factors import Factor
from benchmark.config.schema import ClaimConfig
from benchmark.errors import InputError
from benchmark.jobs.records import FailedRun, read_failed, read_run, write_failed
from benchmark.output import ablation_plots, ablations, against, claims, plots, tables
from benchmark.output.page.__main__ import main as page_main
from benchmark.output.page.ablations import claims as claims_of_page
from benchmark.output.page.ablations import part_of
from benchmark.output.page.data import document
from benchmark.statistics import ablations as factor_statistics
from benchmark.statistics import against as against_statistics
from benchmark.statistics import claims as claims_statistics
from benchmark.statistics import datasets as statistics
from benchmark.statistics import overall
from benchmark.statistics.claims import NOT_JUDGED
from benchmark.statistics.files import FactorStatistics, read_csv
from tests.support.results_tree import write_results

WHY = "ValueError: broken | on_purpose & 100 %"
LOG = "results/logs/runs/small.sasrec.seed2.log"


@pytest.fixture()
def results(tmp_path: Path) -> Path:
    write_results(tmp_path / "results", ["small", "other"], {"popularity": 0.1, "item_knn": 0.4, "sasrec": 0.6})
    fail(tmp_path / "results", "small", "sasrec", 2)
    return tmp_path / "results"


def fail(results: Path, dataset: str, method: str, seed: int) -> None:
    failed = FailedRun(failed=WHY, log=LOG, dataset=dataset, method=method, seed=seed)
    write_failed(results / "runs" / dataset / method / f"seed{seed}", failed)


def call(monkeypatch: pytest.MonkeyPatch, main: object, results: Path, *more: str) -> None:
    """Run a command that reads runs."""
    show(monkeypatch, main, results, "--methods", "popularity", "item_knn", "sasrec", "--seeds", "2", *more)


def show(monkeypatch: pytest.MonkeyPatch, main: object, results: Path, *more: str) -> None:
    """Run a command that reads statistics."""
    monkeypatch.setattr("sys.argv", ["command", "--results", str(results), "--datasets", "small", "other", *more])
    main()  # type: ignore[operator]


def test_a_failed_run_is_read_as_one(results: Path) -> None:
    run = results / "runs/small/sasrec/seed2/run.json"
    failed = read_failed(run)
    assert failed is not None and (failed.failed, failed.log, failed.seed) == (WHY, LOG, 2)
    with pytest.raises(InputError, match=r"sasrec on small, seed 2, has failed: ValueError: broken"):
        read_run(run)
    run.write_text(run.read_text().replace("broken", "Broken"))
    with pytest.raises(InputError, match=r"run\.json: its content is not what was written there; delete its folder"):
        read_failed(run)


def test_the_others_are_compared_as_if_it_were_not_there(results: Path) -> None:
    with_it = collect(results, "small", dict.fromkeys(("popularity", "item_knn", "sasrec"), 2))
    without = collect(results, "small", dict.fromkeys(("popularity", "item_knn"), 2))
    assert with_it.methods == ["popularity", "item_knn"] and list(with_it.failed) == ["sasrec"]
    assert compare(with_it).equals(compare(without))
    with pytest.raises(InputError, match=r"small: no method has a result; sasrec has failed: .*\(log: results/logs/"):
        collect(results, "small", {"sasrec": 2})


def test_it_is_a_row_of_every_table_and_of_the_page(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, statistics.main, results)
    call(monkeypatch, overall.main, results)
    show(monkeypatch, tables.main, results)
    folder = results / "tables"
    for name in ("small", "main"):
        frame = pd.read_csv(folder / f"{name}.csv", keep_default_na=False, dtype=str)
        (row,) = frame[frame.failed != ""].to_dict("records")
        assert (row["dataset"], row["method"], row["failed"]) == ("small", "sasrec", f"{WHY} (log: {LOG})")
        assert row["NDCG@10"] == "" and frame.n_cases.tolist().count("120") == len(frame) - 1
        assert (
            r"| sasrec | failed: ValueError: broken \| on\_purpose & 100 % (log: results/logs/"
            in (folder / f"{name}.md").read_text()
        )
        assert r"failed: ValueError: broken | on\_purpose \& 100 \% (log: " in (folder / f"{name}.tex").read_text()
    assert "failed" not in (folder / "other.csv").read_text() and "sasrec" in (folder / "other.csv").read_text()
    assert f"  sasrec: failed: {WHY}" in (folder / "main.txt").read_text().replace("\n", " ")
    show(monkeypatch, plots.main, results)
    call(monkeypatch, against_statistics.main, results, "--reference", "sasrec")
    show(monkeypatch, against.main, results)
    collected = [
        collect(results, name, dict.fromkeys(("popularity", "item_knn", "sasrec"), 2)) for name in ("small", "other")
    ]
    page, _ = document(collected, results, reference="sasrec")
    assert [row["name"] for row in page["methods"]] == ["popularity", "item_knn", "sasrec"]
    assert [part["failed"] for part in page["datasets"]] == [[f"sasrec failed: {WHY} (log: {LOG})"], []]
    assert [len(part["rows"]) for part in [*page["datasets"], page["overall"]]] == [2, 3, 2]
    # It is held against the others where it has a result.
    assert {(row["dataset"], row["method"]) for row in page["against"]["rows"]} == {
        ("other", "popularity"),
        ("other", "item_knn"),
    }
    call(monkeypatch, page_main, results, "--reference", "sasrec")
    assert "broken | on_purpose" in (results / "report/index.html").read_text()


def test_a_reference_that_failed_everywhere_leaves_words_in_its_place(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(results, "other", "sasrec", 1)
    call(monkeypatch, against_statistics.main, results, "--reference", "sasrec")
    show(monkeypatch, against.main, results)
    assert "Nothing to compare: sasrec on small failed: ValueError" in (results / "tables/against.md").read_text()
    assert (results / "plots/against.png").exists()
    frame = pd.read_csv(results / "tables/against.csv")
    assert frame.failed.tolist() == [WHY, WHY]


# --- values of ablations


def made_factor(**changes: object) -> Factor:
    """A factor over the runs of `results`: a base and two values, with a claim about each."""
    claims = [{"says": f"{value} helps", "value": value, "against": "base"} for value in ("good", "bad")]
    given = {"name": "kind", "title": "kind of model", "datasets": ["small", "other"], "seeds": 2, "base": "base"}
    runs = {"base": "popularity", "good": "item_knn", "bad": "sasrec"}
    return Factor.model_validate(given | {"runs": runs, "claims": claims} | changes)


def of_ablations(monkeypatch: pytest.MonkeyPatch, results: Path, factor: Factor) -> Path:
    """Statistics, tables, plot and claims of a factor; the folder of its tables."""
    told = ["--factors", json.dumps([factor.model_dump(mode="json")])]
    for main in (factor_statistics.main, claims_statistics.main, ablations.main, ablation_plots.main):
        monkeypatch.setattr("sys.argv", ["command", "--results", str(results), *told])
        main()
    monkeypatch.setattr("sys.argv", ["command", "--results", str(results)])
    claims.main()
    return results / "ablations"


SAID = f"bad failed on small: {WHY} (log: {LOG})"


def test_a_failed_value_is_a_row_of_its_factor_and_its_claims_say_why(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factor = made_factor()
    folder = of_ablations(monkeypatch, results, factor)
    frame = pd.read_csv(folder / "kind.csv", keep_default_na=False, dtype=str)
    (row,) = frame[frame.failed != ""].to_dict("records")
    assert (row["dataset"], row["value"], row["failed"], row["NDCG@10"]) == ("small", "bad", f"{WHY} (log: {LOG})", "")
    assert r"| bad | failed: ValueError: broken \| on\_purpose" in (folder / "kind.md").read_text()
    judged = read_csv(results / "statistics" / "ablations" / "claims.csv")
    # It failed on one dataset, and is left out of both.
    assert judged.says.tolist() == ["good helps", "good helps", "bad helps", "bad helps"]
    assert judged.verdict.tolist()[2:] == [NOT_JUDGED] * 2 and judged.why.tolist() == ["", "", SAID, SAID]
    assert judged.family_size.tolist() == [4] * 4 and judged.difference.isna().tolist() == [False, False, True, True]
    # Those that can't be judged count with p = 1: the smallest of the others is multiplied by all four.
    assert judged.p_holm[:2].min() == pytest.approx(min(1, 4 * judged.p[:2].min()))
    text = (folder / "claims.md").read_text()
    assert (
        "**not judged** | bad failed on small: ValueError: broken" in text
        and "Nothing can be said on other: bad" in text
    )
    found = FactorStatistics.read(results / "statistics" / "ablations", "kind")
    shown = part_of(factor, found)
    assert shown["failed"] == [SAID] and [one["label"] for one in shown["datasets"][1]["values"]] == ["base", "good"]
    told = claims_of_page(judged)
    assert told is not None
    assert [(row["missing"], row["difference"] is None) for row in told["rows"]][1:3] == [("", False), (SAID, True)]


@pytest.mark.parametrize("lost", ["base", "all others"])
def test_a_factor_of_which_nothing_is_left_says_so_and_ends_nothing(
    lost: str, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = ["popularity"] if lost == "base" else ["item_knn", "sasrec"]
    for method in failed:
        fail(results, "other", method, 1)
    factor = made_factor()
    folder = of_ablations(monkeypatch, results, factor)
    assert "Nothing to compare: " in (folder / "kind.md").read_text()
    assert "Nothing to compare: " in (folder / "kind.tex").read_text()
    assert pd.read_csv(folder / "kind.csv").failed.str.startswith("ValueError").all()
    assert (results / "plots" / "ablations" / "kind.png").exists()
    judged = read_csv(results / "statistics" / "ablations" / "claims.csv")
    assert judged.verdict.tolist() == [NOT_JUDGED] * 4 and judged.why.str.contains(" failed on ").all()
    shown = part_of(factor, FactorStatistics.read(results / "statistics" / "ablations", "kind"))
    assert shown["datasets"] == [] and shown["failed"][0].startswith("There is nothing to compare: ")


def test_a_registered_claim_of_a_failed_run_says_why(results: Path) -> None:
    claim = ClaimConfig(says="bad helps", value="bad", against="base", smallest_effect=0.05)
    factor = made_factor(claims=[claim])
    frame = registered.verdicts([registered.measure(factor, claim, results, "config/claims.yaml")])
    assert frame.verdict.tolist() == [registered.NOT_RUN] and frame.missing.tolist() == [SAID]
