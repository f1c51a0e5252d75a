"""What a method computes before it recommends: its own declaration, and the table and plot by it."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from benchmark.config.factors import ablations_of
from benchmark.config.methods import THINKING, load_method, thinking_of
from benchmark.config.read import read_config_file
from benchmark.errors import InputError
from benchmark.jobs.outputs import Outputs
from benchmark.jobs.plan import Plan
from benchmark.output import thinking
from benchmark.output.page import __main__ as page
from benchmark.output.page.thinking import part_of
from benchmark.provenance import ROOT
from benchmark.statistics.files import OVERALL_METHODS, DatasetStatistics, read_csv
from benchmark.statistics.thinking import left_out
from benchmark.statistics.thinking import thinking as frame_of
from tests.support.page import Opened, axe, browser, document_of
from tests.support.results_tree import write_results
from tests.support.statistics import write_statistics

SKILL = {"r2ec": 0.8, "popularity": 0.0, "rearec": 0.6, "latent_r3": 0.7, "sasrec": 0.75}
DECLARED = dict(zip(SKILL, ("written", "nothing", THINKING[1], THINKING[2], "nothing"), strict=True))


def outputs(name: str) -> Outputs:
    config = read_config_file(ROOT / "config" / name)
    return Outputs(Plan(config, ablations_of(config), {dataset: [] for dataset in config.datasets}))


def test_every_row_of_the_pipelines_says_what_it_computes() -> None:
    by_kind: dict[str, set[str]] = {}
    for name, kind in outputs("decoupled.yaml").thinking().items():
        by_kind.setdefault(kind, set()).add(name)
    assert by_kind.pop("nothing") == {
        *("popularity", "item_knn", "ease", "sasrec", "tiger", "frozen_llm", "bigrec", "d3", "title_sft"),
        *("s_dpo", "sp_rec", "sp_rec_beams", "llara"),
    }
    assert by_kind == {
        "latent, in a model of items": {"rearec"},
        "latent, in the language model": {"latent_r3"},
        "written": {"frozen_llm_reasoning", "profile_retrieval", "langptune", "rec_r1", "kar", "slim", "llm_rerank"}
        | {"r2ec"},
    }


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("rearec", {"steps": 0}),
        ("latent_r3", {"backbone": {"name": "x"}, "thought": "token"}),
        ("r2ec", {"backbone": {"name": "x"}, "recpo": {"reasoning": False}}),
        ("frozen_llm", {"backbone": {"name": "x"}}),
    ],
)
def test_a_setting_decides(name: str, params: dict[str, object]) -> None:
    assert thinking_of(load_method(name), dict(params)) == "nothing"


def test_a_file_of_ones_own_says_nothing_or_a_known_word() -> None:
    module = ModuleType("mine")
    module.__file__ = "baselines/mine.py"
    assert thinking_of(module, {}) == "nothing"
    vars(module)["thinking"] = lambda params: "deeply"
    with pytest.raises(
        InputError, match=r"^baselines/mine\.py: thinking\(\) gave 'deeply'; expected one of 'nothing', "
    ):
        thinking_of(module, {})


def test_it_is_made_where_a_row_thinks_without_text() -> None:
    assert outputs("config.yaml").thinking_files() == [] and outputs("config.yaml").thinking_on_page() == ""
    files = outputs("decoupled.yaml").thinking_files()
    assert files == [
        *("results/tables/thinking.csv", "results/tables/thinking.md"),
        *("results/plots/thinking.png", "results/plots/thinking.pdf"),
    ]
    assert '"rearec": "latent, in a model of items"' in outputs("decoupled.yaml").thinking_on_page()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("thinking") / "results"
    write_results(folder, ["small", "other"], SKILL, seeds=dict.fromkeys(SKILL, 1), n_cases=120)
    write_statistics(folder, ["small", "other"], dict.fromkeys(SKILL, 1))
    return folder


def test_rows_stand_by_what_they_compute_with_means_of_cost(results: Path) -> None:
    parts = [DatasetStatistics.read(results / "statistics", name) for name in ("small", "other")]
    overall = read_csv(results / "statistics" / OVERALL_METHODS)
    frame = frame_of(parts, overall, DECLARED)
    assert frame.method.tolist() == ["popularity", "sasrec", "rearec", "latent_r3", "r2ec"]
    assert frame.thinking.tolist() == ["nothing", "nothing", *THINKING[1:]]
    row = frame.set_index("method").loc["r2ec"]
    of_each = [part.methods.set_index("method").loc["r2ec", "NDCG@10"] for part in parts]
    assert [row["small"], row["other"]] == of_each and row["mean"] == pytest.approx(sum(of_each) / 2, abs=1e-6)
    assert row.low < row["mean"] < row.high
    costs = [part.costs.set_index("method").loc["r2ec"] for part in parts]
    assert row.seconds_alone == pytest.approx((costs[0].ms_alone + costs[1].ms_alone) / 2000)
    cases = [part.methods.n_cases.iloc[0] for part in parts]
    assert row.tokens == pytest.approx((costs[0].tokens / cases[0] + costs[1].tokens / cases[1]) / 2)
    alone = frame_of(parts[:1], None, DECLARED).set_index("method")
    assert alone.loc["r2ec", "mean"] == pytest.approx(of_each[0], abs=1e-6) and "other" not in alone.columns


def test_what_isnt_declared_or_known_is_refused(results: Path) -> None:
    parts = [DatasetStatistics.read(results / "statistics", "small")]
    with pytest.raises(InputError, match=r"^--thinking: says nothing of sasrec; name all methods$"):
        frame_of(parts, None, {name: word for name, word in DECLARED.items() if name != "sasrec"})
    with pytest.raises(InputError, match=r"^--thinking: found 'deep'; expected one of nothing, latent"):
        frame_of(parts, None, DECLARED | {"sasrec": "deep"})


def test_the_command_writes_table_and_plot(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = ["x", "--results", str(results), "--datasets", "small", "other", "--thinking", json.dumps(DECLARED)]
    monkeypatch.setattr(sys, "argv", told)
    thinking.main()
    text = (results / "tables" / "thinking.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert (
        len(rows) == 2 + 5 and rows[0][0] == "| before it recommends" and rows[4][0] == "| latent, in a model of items"
    )
    assert pd.read_csv(results / "tables" / "thinking.csv").method.tolist()[-1] == "r2ec"
    assert all((results / "plots" / f"thinking.{ending}").stat().st_size > 5000 for ending in ("png", "pdf"))


def test_seconds_of_several_machines_are_said_not_to_compare(results: Path) -> None:
    parts = [DatasetStatistics.read(results / "statistics", "small")]
    numbers = {name: number for number, name in enumerate(DECLARED)}

    def page_notes(part: DatasetStatistics) -> str:
        view = part_of([part], None, DECLARED, numbers)
        assert view is not None
        return " ".join(view["notes"])

    assert "machines" not in page_notes(parts[0])
    runs = parts[0].runs.copy()
    runs.loc[0, "hardware"] = json.dumps(json.loads(runs.hardware[0]) | {"processor": "another one"})
    said = page_notes(DatasetStatistics(**{**vars(parts[0]), "runs": runs}))
    assert "These runs are of 2 machines (" in said and "another one" in said


def test_the_legend_covers_nothing(results: Path) -> None:
    parts = [DatasetStatistics.read(results / "statistics", "small")]
    figure = thinking.plot(frame_of(parts, None, DECLARED))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["nothing", *THINKING[1:]]
    box = legend.get_window_extent()
    assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)
    assert figure.bbox.x1 >= box.x1 and box.y0 >= 0 and figure.bbox.y1 >= box.y1


def test_a_failed_row_is_left_out_with_a_word(results: Path) -> None:
    part = DatasetStatistics.read(results / "statistics", "small")
    failed = pd.DataFrame([("small", "slim", "it ran out of memory")], columns=["dataset", "method", "why"])
    broken = DatasetStatistics(**{**vars(part), "failed": failed})
    assert left_out([broken]) == ["Left out, as a run has failed: slim on small."]
    assert left_out([part]) == []


def page_of(results: Path, out: Path, *more: str) -> Path:
    """The page of all rows, written to `out`."""
    told = ["page", "--results", str(results), "--datasets", "small", "other", "--methods", *SKILL, "--seeds", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*told, "--out", str(out), *more])
        page.main()
    return out / "index.html"


def test_the_page_has_the_tables_numbers_of_each_dataset_and_over_all(results: Path, tmp_path: Path) -> None:
    path = page_of(results, tmp_path, "--thinking", json.dumps(DECLARED))
    about = document_of(path)
    shown = about["thinking"]["rows"]
    assert list(shown) == ["small", "other", "all datasets"] and about["thinking"]["kinds"] == list(THINKING)
    parts = [DatasetStatistics.read(results / "statistics", name) for name in ("small", "other")]
    frame = frame_of(parts, read_csv(results / "statistics" / OVERALL_METHODS), DECLARED)
    assert [about["methods"][row["method"]]["name"] for row in shown["all datasets"]] == frame.method.tolist()
    assert [row["kind"] for row in shown["all datasets"]] == [0, 0, 1, 2, 3]
    for name in ("mean", "low", "high", "seconds_alone", "seconds_batched", "tokens"):
        assert [row[name] for row in shown["all datasets"]] == pytest.approx(frame[name].tolist(), rel=1e-3), name
    with browser() as started:
        opened = Opened(started, path, "#view=thinking", width=400)
        said = opened.tab.locator("main .said li").all_inner_texts()
        assert [text.partition(":")[0] for text in said] == list(THINKING)
        assert "of 2 methods" in said[0] and "Minus" not in said[0] and "Minus sasrec: +" in said[3]
        assert opened.cells("By what is computed", 2) == [THINKING[kind] for kind in (0, 0, 1, 2, 3)]
        assert opened.tab.locator("figure .panels svg").count() == 1  # nobody wrote a token: no panel of them
        opened.tab.get_by_label("Dataset").select_option(label="small")
        assert opened.tab.locator("main caption").inner_text().startswith("small: 120 test cases")
        opened.tab.evaluate(axe())
        assert [one["id"] for one in opened.tab.evaluate("axe.run()")["violations"]] == []
        opened.close()


def test_a_page_that_is_told_nothing_has_no_view_of_it(results: Path, tmp_path: Path) -> None:
    path = page_of(results, tmp_path)
    assert document_of(path)["thinking"] is None
    with browser() as started:
        opened = Opened(started, path, "#view=thinking")
        assert "Thinking" not in opened.tab.locator("nav a").all_inner_texts()
        assert opened.tab.inner_text("h2") == "Leaderboard"
        opened.close()
