"""What each row learned from, tried and recommends is said beside every table, and unequal rows are refused."""

import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmark.analysis.collect import collect
from benchmark.analysis.lists import repeated
from benchmark.analysis.summary import background
from benchmark.config.factors import Factor, ablations_of
from benchmark.config.read import read_config
from benchmark.contract import Learned
from benchmark.errors import InputError
from benchmark.jobs.records import LearnedFrom, Trial, Tuning, read_run, write_run
from benchmark.output import ablations, against, tables
from benchmark.output.captions import backgrounds_in_words, of_the_lists, what_they_learned
from benchmark.output.page import __main__ as report
from benchmark.output.page.data import document
from benchmark.output.readme import summary
from benchmark.statistics import ablations as ablation_statistics
from benchmark.statistics import against as against_statistics
from benchmark.statistics import datasets as statistics
from benchmark.statistics import overall
from benchmark.statistics.files import FactorStatistics
from tests.benchmark.test_less_information import NOTHING, config
from tests.support.results_tree import noted_again, write_results

SEEDS = {"popularity": 2, "sasrec": 2, "r2ec": 2, "r2ec_untrained": 1}
REASON = {"r2ec_untrained": "trains nothing"}


def change(results: Path, method: str, learned: Learned, seed: int = 1, dataset: str = "small") -> None:
    path = results / f"runs/{dataset}/{method}/seed{seed}/run.json"
    write_run(path, read_run(path).model_copy(update={"learned": LearnedFrom(**asdict(learned))}))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two datasets; r2ec_untrained learned from nothing, and sasrec tried three settings. The lists hold few items."""
    skill = {"popularity": 0.0, "sasrec": 0.8, "r2ec": 0.85, "r2ec_untrained": 0.1}
    write_results(tmp_path, ["small", "other"], skill, seeds=SEEDS, n_cases=60)
    trials = [Trial(params={}, value=value, seconds=1.0) for value in (0.2, 0.1, 0.1)]
    for dataset in ("small", "other"):
        change(tmp_path, "r2ec_untrained", NOTHING, dataset=dataset)
        for seed in (1, 2):
            path = tmp_path / f"runs/{dataset}/sasrec/seed{seed}/run.json"
            tuning = Tuning(criterion="valid NDCG@10", trials=trials, chosen=0)
            write_run(path, read_run(path).model_copy(update={"tuning": tuning}))
    show(tmp_path / "runs/small/popularity/seed1", [1, 2])  # and all of them with seed 2: (2 + 60) / 2
    show(tmp_path / "runs/small/r2ec_untrained/seed1", [4])
    return tmp_path


def show(run: Path, items: list[int]) -> None:
    """Let a run recommend these items to everybody."""
    table = pq.read_table(run / "rankings.parquet")
    lists = pa.array([items] * len(table), type=pa.list_(pa.int32()))
    pq.write_table(
        table.set_column(table.schema.get_field_index("top_items"), "top_items", lists), run / "rankings.parquet"
    )
    noted_again(run)


def arguments_of(results: Path, *more: str) -> list[str]:
    seeds = map(str, SEEDS.values())
    return [
        "x",
        "--results",
        str(results),
        "--datasets",
        "small",
        "other",
        "--methods",
        *SEEDS,
        "--seeds",
        *seeds,
        *more,
    ]


PERMITTED = ["--less-information", json.dumps(REASON)]
LISTS = (
    "Distinct items in the top 20 of all cases: 1 to 60 of 60; strikingly few (below 5 %): r2ec_untrained 1. "
    "The three most recommended items take 6.9 % to 100.0 % of all places there."
)
SAID = (
    "small: most rows learned from 200 targets of 30 users (230 positions); but r2ec_untrained from nothing: trains "
    "nothing. Settings tried on validation cases: 3 of sasrec, 1 of each other row. "
    f"3 of 60 (5.0 %) test targets stand in no training interaction: no method could have learned them. {LISTS} "
    "Equal times take 6.2 % of the interactions out of the histories of cases of the same second (same_time: exclude)."
)


# --- what is said
# ------------------------------------------------------------------------------------------------------


def test_the_sentences_on_a_dataset_are_those_by_hand(results: Path) -> None:
    frame = background(collect(results, "small", SEEDS, less_information=REASON)).set_index("method")
    assert backgrounds_in_words(frame.reset_index()) == [SAID]
    (text,) = backgrounds_in_words(frame.reset_index().assign(cold_targets=0, hidden_share=0.0))
    assert (
        "3 of sasrec, 1 of each other row. Every test target stands in a training interaction. Distinct" in text
        and "Equal times" not in text
    )
    both = pd.concat([frame.reset_index(), frame.reset_index().assign(dataset="other")])
    assert backgrounds_in_words(both) == [SAID.replace("small:", "small and other:")]
    unlike = both.assign(cold_targets=np.where(both.dataset == "other", 0, both.cold_targets))
    own, others, shared = backgrounds_in_words(unlike)
    assert own.startswith("small: 3 of 60") and others == "other: Every test target stands in a training interaction."
    assert shared.startswith("small and other: most rows learned from") and "test targets" not in shared
    assert frame.learned_targets.to_dict() == {"popularity": 200, "sasrec": 200, "r2ec": 200, "r2ec_untrained": 0}
    assert frame.settings_tried.to_dict() == {"popularity": 1, "sasrec": 3, "r2ec": 1, "r2ec_untrained": 1}
    assert frame.settings_undecided.to_dict() == dict.fromkeys(SEEDS, 0)
    assert frame.distinct_items.to_dict() == {"popularity": 31, "sasrec": 60, "r2ec": 60, "r2ec_untrained": 1}
    assert set(frame.hidden_share) == {0.0625} and set(frame.cold_targets) == {3}  # 25 of 400, as the tree has it


def test_a_grid_that_made_no_difference_is_said_beside_the_number_of_its_settings(results: Path) -> None:
    for method in ("sasrec", "popularity"):
        trials = [Trial(params={"a": a}, value=0.1, seconds=1.0) for a in range(3)]
        path = results / f"runs/small/{method}/seed1/run.json"
        tuning = Tuning(criterion="valid NDCG@10", trials=trials, chosen=0)
        write_run(path, read_run(path).model_copy(update={"tuning": tuning}))
    frame = background(collect(results, "small", SEEDS, less_information=REASON))
    undecided = frame.set_index("method").settings_undecided
    assert undecided.to_dict() == {"popularity": 1, "sasrec": 1, "r2ec": 0, "r2ec_untrained": 0}
    (text,) = backgrounds_in_words(frame)
    said = "those of popularity and sasrec made no difference there, so that none was chosen."
    assert f"Settings tried on validation cases: 1 of r2ec and r2ec_untrained, 3 of each other row; {said}" in text


def test_every_form_says_it(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = ["x", "--results", str(results), "--datasets", "small", "other"]
    monkeypatch.setattr(sys, "argv", arguments_of(results, *PERMITTED))
    statistics.main()
    overall.main()
    monkeypatch.setattr(sys, "argv", shown)
    tables.main()
    texts = {path.name: path.read_text(encoding="utf-8") for path in (results / "tables").iterdir()}
    assert SAID in texts["small.md"].strip().split("\n\n") and "other: " not in texts["small.md"]
    assert SAID.replace("_", r"\_").replace("%", r"\%") in texts["small.tex"]
    # What is true of both datasets is said once.
    for sentence in (SAID.replace(f"{LISTS} ", "").replace("small:", "small and other:"), f"small: {LISTS}"):
        assert sentence in texts["main.md"].strip().split("\n\n") and sentence in " ".join(texts["main.txt"].split())
        assert sentence.replace("_", r"\_").replace("%", r"\%") in texts["main.tex"]
    rows = pd.read_csv(results / "tables/main.csv").set_index(["dataset", "method"])
    row = rows.loc["other", "r2ec_untrained"]
    assert (row.learned_users, row.learned_targets, row.learned_positions) == (0, 0, 0)
    assert row.less_information == "trains nothing" and rows.less_information.notna().sum() == 2
    assert "| small | sasrec | 2 | 30 | 200 | 230 | 3 |" in texts["costs.md"]
    assert "| small | r2ec\\_untrained | 1 | 0 | 0 | 0 | 1 |" in texts["costs.md"]

    collected = [collect(results, dataset, SEEDS, less_information=REASON) for dataset in ("small", "other")]
    page, _ = document(collected, results)
    assert SAID in page["datasets"][0]["notes"]
    assert [row["less"] for row in page["datasets"][0]["rows"]] == ["", "", "", "trains nothing"]
    monkeypatch.setattr(sys, "argv", arguments_of(results, *PERMITTED, "--reference", "r2ec"))
    against_statistics.main()
    monkeypatch.setattr(sys, "argv", shown)
    against.main()
    text = (results / "tables/against.md").read_text(encoding="utf-8")
    assert f"small: {LISTS}" in text and "small and other: most rows learned from" in text
    assert "| users learned from | targets | settings tried |" in text
    assert re.search(r"^\| small \| sasrec .* \| 30 \| 200 \| 3 \|", text, flags=re.M)


def test_the_readmes_table_names_the_rows_with_less() -> None:
    columns = {
        "dataset": ["one", "one", "two", "two", "two"],
        "method": ["a_b", "r2ec", "a_b", "r2ec", "d3"],
        "less_information": ["no *teacher*", None, "no *teacher*", "no start", None],
    }
    frame = pd.DataFrame(columns)
    for metric in ("Hit@5", "NDCG@5", "Hit@10", "NDCG@10", "Hit@20", "NDCG@20"):
        frame[[metric, f"{metric}_sd", f"{metric}_low", f"{metric}_high", f"{metric}_p_holm"]] = 0.5
    said = r" Learned from less than the others: a\_b (no \*teacher\*); r2ec on two (no start)."
    assert summary(frame).endswith(said)
    assert summary(frame.drop(columns="less_information")).endswith("after Holm's correction.")


def rows(**columns: list[Any]) -> pd.DataFrame:
    n = len(columns["method"])
    usual: dict[str, Any] = {"n_items": 1000, "n_cases": 500, "less_information": [""] * n, "three_items_share": 0.02}
    return pd.DataFrame(usual | columns)


def test_rows_that_differ_are_named_with_their_own_numbers() -> None:
    frame = rows(
        method=["a", "b", "c", "d", "e"],
        learned_targets=[9000, 9000, 0, 500, 0],
        learned_users=[70, 70, 0, 60, 0],
        learned_positions=[9100, 9100, 0, 2000, 0],
        less_information=["", "", "untrained", "a sample", "untrained"],
    )
    assert what_they_learned(frame) == (
        "most rows learned from 9,000 targets of 70 users (9,100 positions); but c, e from nothing: untrained; "
        "but d from 500 targets of 60 users (2,000 positions): a sample"
    )


def test_rows_with_a_reason_are_the_exception_also_where_they_are_more() -> None:
    frame = rows(
        method=["a", "b", "c"],
        learned_targets=[0, 0, 9000],
        learned_users=[0, 0, 70],
        learned_positions=[0, 0, 9100],
        less_information=["untrained", "untrained", ""],
    )
    assert what_they_learned(frame) == (
        "most rows learned from 9,000 targets of 70 users (9,100 positions); but a, b from nothing: untrained"
    )


def test_few_items_are_few_of_what_the_lists_could_hold() -> None:
    """5 % of 1,000 items are 50; of 10 cases, whose lists hold 200 items at most, 10."""
    frame = rows(method=["a", "b"], distinct_items=[49, 50])
    three = ". The three most recommended items take 2.0 % of all places there"
    assert of_the_lists(frame).endswith(f"of all cases: 49 to 50 of 1,000; strikingly few (below 5 %): a 49{three}")
    assert of_the_lists(frame.assign(n_cases=10)).endswith(f"of all cases: 49 to 50 of 1,000{three}")
    assert of_the_lists(frame.assign(n_cases=10, distinct_items=9)).endswith(
        f": 9 of 1,000; strikingly few (below 5 %): a 9, b 9{three}"
    )
    assert of_the_lists(frame.assign(three_items_share=[0.0149, 0.15])).endswith(
        ". The three most recommended items take 1.5 % to 15.0 % of all places there"
    )


def test_the_three_most_recommended_items_by_hand(results: Path) -> None:
    """Items 7, 8 and 9 stand in four, three and one of the lists; of ten places the three commonest take eight."""
    for seed in (1, 2):
        path = results / f"runs/small/sasrec/seed{seed}/rankings.parquet"
        table = pq.read_table(path)
        lists = [[7, 8], [7, 8], [7, 8], [7, 9], [1, 2]] if seed == 1 else [[3], [3], [3], [3], [3]]
        lists += [[]] * (len(table) - 5)
        column = pa.array(lists, pa.list_(pa.int32()))
        pq.write_table(table.set_column(table.column_names.index("top_items"), "top_items", column), path)
        noted_again(path.parent)
    collected = collect(results, "small", {"sasrec": 2})
    assert repeated(collected, "sasrec").three_items_share == pytest.approx((0.8 + 1.0) / 2)
    assert repeated(collected, "sasrec").distinct_items == pytest.approx((5 + 1) / 2)


def test_lists_that_were_not_kept_are_one_sentence(results: Path) -> None:
    path = results / "runs/small/sasrec/seed2/rankings.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["top_items"]), path)
    noted_again(path.parent)
    with pytest.raises(InputError, match=r"sasrec/seed2/rankings\.parquet: column 'top_items' is missing; evaluate"):
        background(collect(results, "small", SEEDS, less_information=REASON))


# --- what is refused
# ---------------------------------------------------------------------------------------------------


def test_unequal_rows_are_refused(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (statistics, overall, report, against_statistics):
        monkeypatch.setattr(
            sys,
            "argv",
            arguments_of(results, *(["--reference", "r2ec"] if command in (report, against_statistics) else [])),
        )
        with pytest.raises(SystemExit):
            command.main()  # type: ignore[attr-defined]
        assert capsys.readouterr().err == (
            "error: small: r2ec_untrained learned from nothing, but popularity, sasrec and 1 more from 200 targets of "
            "30 users; let it learn from all of split.train, or give r2ec_untrained less_information in the config, "
            "with the reason\n"
        )
    assert not (results / "tables").exists()


def test_a_row_whose_seeds_draw_samples_shows_their_mean(results: Path) -> None:
    change(results, "sasrec", Learned(20, 50, 60), 1)
    change(results, "sasrec", Learned(22, 50, 75), 2)
    frame = background(collect(results, "small", SEEDS, less_information=REASON | {"sasrec": "a sample"}))
    row = frame.set_index("method").loc["sasrec"]
    assert (row.learned_users, row.learned_targets, row.learned_positions) == (21, 50, 68)


def test_an_ablations_values_may_have_less(results: Path) -> None:
    value = config()
    value["methods"]["r2ec"]["less_information"] = "of the base"
    values = {"base": {}, "none": {"training": {"max_steps": 0}}, "two": {"rollouts": {"group_size": 2}}}
    value["ablations"] = {"x": {"base": "r2ec", "values": values, "less_information": {"none": "untrained"}}}
    factor = ablations_of(read_config(value)).factors["x"]
    names = list(factor.runs.values())
    assert factor.less_information == {names[0]: "of the base", names[1]: "untrained", names[2]: "of the base"}
    value["ablations"]["x"]["less_information"] = {"non": "untrained"}
    with pytest.raises(InputError, match=r"ablations\.x\.less_information: no value 'non'; did you mean 'none'"):
        read_config(value)


def test_an_ablations_table_says_it_and_refuses_what_is_not_permitted(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {"base": "r2ec", "none": "r2ec_untrained"}
    factor_entry = {
        "name": "x",
        "title": "x",
        "datasets": ["small"],
        "seeds": 1,
        "base": "base",
        "runs": runs,
        "claims": [],
    }
    factor = Factor.model_validate(factor_entry)
    for variant in (factor, factor.model_copy(update={"less_information": REASON})):
        text = json.dumps([variant.model_dump(mode="json")])
        monkeypatch.setattr(sys, "argv", ["x", "--results", str(results), "--factors", text])
        if variant is factor:
            with pytest.raises(SystemExit):
                ablation_statistics.main()
            assert "small: r2ec_untrained learned from nothing, but r2ec from 200" in capsys.readouterr().err
            assert not (results / "statistics").exists()
        else:
            ablation_statistics.main()
            ablations.main()
    message = (
        "small: most rows learned from 200 targets of 30 users (230 positions); but none from nothing: trains nothing."
    )
    for ending in ("md", "tex"):
        assert message in (results / f"ablations/x.{ending}").read_text(encoding="utf-8")
    assert message in " ".join(ablations.notes(FactorStatistics.read(results / "statistics/ablations", "x").values))
