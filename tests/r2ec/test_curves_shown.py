"""What long trainings gained, from made-up runs whose answer is known; and the config whose runs they are."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark.config.factors import Factor, ablations_of
from benchmark.config.read import read_config_file
from benchmark.errors import InputError
from benchmark.provenance import ROOT
from benchmark.storage.checksums import seal
from benchmark.storage.io import read_json, write_json
from r2ec.curves import __main__ as program
from r2ec.curves.runs import gains, on_test, read_factor, start_of
from tests.support.results_tree import write_results

CONFIG = ROOT / "config" / "curves.yaml"
USERS = [0, 0, 1, 1, 2, 2, 3, 3]


def factors() -> dict[str, Factor]:
    return ablations_of(read_config_file(CONFIG), str(CONFIG)).factors


def note(path: Path, points: dict[int, list[int]]) -> None:
    """Put a curve and a log into a run's report."""
    curve = {
        "users": USERS,
        "points": [{"step": step, "seconds": 10.0 * step, "ranks": ranks} for step, ranks in points.items()],
    }
    log = [{"step": float(step), "entropy": 3.0 if step <= 10 else 2.0} for step in range(1, 21)]
    record = read_json(path)
    record.pop("sha256", None)
    write_json(path, seal(record | {"report": {"curve": curve, "recpo_log": log}}))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """On ml-100k the start, RecPO and one value of the six others; nothing on the other datasets."""
    runs = factors()["held_back"].runs
    levels = {runs["start"]: 0.3, runs["RecPO"]: 0.9, runs["KL term .04"]: 0.3}
    write_results(tmp_path, ["ml-100k"], levels, seeds=1)
    folder = tmp_path / "runs/ml-100k"
    worse = [8, 80, 8, 80, 8, 80, 8, 80]
    note(folder / runs["RecPO"] / "seed1/run.json", {0: worse, 12: [4, 40, 8, 80, 4, 40, 8, 80], 800: [2, 20] * 4})
    note(folder / runs["KL term .04"] / "seed1/run.json", {0: worse, 12: worse})
    return tmp_path


def test_gains_by_hand(results: Path) -> None:
    factor = factors()["held_back"]
    runs, missing = read_factor(factor, results)
    assert [run.value for run in runs] == ["start", "RecPO", "KL term .04"]
    assert len(missing) == 3
    assert missing[0] == "of ml-100k whole table held fixed, table refreshed every 50, 64 tokens, warm start goes on"
    frame = gains(runs).set_index(["value", "statistic", "step"])
    first = frame.loc[("RecPO", "log rank", 12)]
    # Two of four users have half of their ranks: -log 2 / 2, and the users' means differ.
    assert first.difference == pytest.approx(-np.log(2) / 2)
    assert first.low < -np.log(2) / 2 < first.high and first.seconds == 120 and first.covers == "users alone"
    last = frame.loc[("RecPO", "log rank", 800)]
    assert (last.difference, last.low, last.high) == pytest.approx((-np.log(4),) * 3)  # the same of all users
    better = np.mean([1 / np.log2(3) - 1 / np.log2(9), 1 / np.log2(21) - 1 / np.log2(81)])
    assert frame.loc[("RecPO", "NDCG@100", 800)].difference == pytest.approx(better)
    assert frame.loc[("KL term .04", "log rank", 12)].difference == 0
    assert runs[1].entropy == (3.0, 2.0) and runs[0].entropy is None


def test_the_end_of_a_training_against_the_start(results: Path) -> None:
    factor = factors()["held_back"]
    assert start_of(factor) == "start"
    frame = on_test(read_factor(factor, results)[0], "start").set_index(["value", "statistic"])
    assert frame.loc[("RecPO", "NDCG@100")].p < 0.01 and frame.loc[("RecPO", "NDCG@100")].low > 0
    assert frame.loc[("RecPO", "log rank")].high < 0  # better is lower
    assert "start" not in frame.index.get_level_values("value")


def test_the_command_shows_what_is_there(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["curves", "--config", str(CONFIG), "--results", str(results), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", words)
    program.main()
    text = (tmp_path / "out/held_back.md").read_text()
    assert "| ml-100k | RecPO | 1 | 800 | 2.22 | -1.3863 [-1.3863, -1.3863] |" in text
    assert (
        "3.00 to 2.00" in text
        and "Not here: of ml-100k whole table" in text
        and "; of movielens-2016 start, RecPO," in text
    )
    frame = pd.read_csv(tmp_path / "out/held_back.gains.csv")
    assert frame.step.tolist().count(12) == 4  # two values, two statistics
    assert (tmp_path / "out/held_back.png").stat().st_size > 10_000
    assert (tmp_path / "out/rate_and_group.md").exists()  # its base is the same run
    monkeypatch.setattr(sys, "argv", [*words[:4], str(tmp_path / "nothing"), *words[5:]])
    with pytest.raises(SystemExit):
        program.main()
    assert "holds no run of" in capsys.readouterr().err


def test_the_plot_has_the_last_interval_of_each_value_and_one_scale_a_row(results: Path) -> None:
    factor = factors()["held_back"]
    gained = gains(read_factor(factor, results)[0])
    figure = program.plot(factor, pd.concat([gained, gained.assign(dataset="movielens-2016", high=gained.high + 1)]))
    first, second = figure.axes[:2]
    assert first.get_ylim() == second.get_ylim() and first.get_xlim() == second.get_xlim()
    ends = [line.get_segments()[0] for line in first.collections]
    last = gained[gained.statistic == "log rank"].groupby("value", sort=False).last()
    np.testing.assert_allclose([end[:, 1] for end in ends], last[["low", "high"]])
    assert [end[0, 0] for end in ends] == pytest.approx([800 + 12, 12 + 24])  # beside the last step, a place a value


def test_trainings_of_other_cases_are_refused(results: Path) -> None:
    factor = factors()["held_back"].model_copy(update={"seeds": 2})
    write_results(results / "other", ["ml-100k"], {factor.runs["RecPO"]: 0.9}, seeds=2)
    folder = results / "other/runs/ml-100k" / factor.runs["RecPO"]
    note(folder / "seed1/run.json", {0: [1] * 8})
    with pytest.raises(InputError, match="ranked other cases"):
        read_factor(factor, results / "other")


def test_the_config_asks_for_what_its_page_says() -> None:
    rates = factors()["rate_and_group"]
    settings = [rates.settings[run][0] for run in rates.runs.values()]
    trained = [one for one in settings if one["training"]["max_steps"]]
    pairs = {(one["training"]["learning_rate"], one["rollouts"]["group_size"]) for one in trained}
    assert pairs == {(rate, group) for rate in (1e-4, 3e-4, 1e-3) for group in (4, 8)}
    for one in trained:
        measured = one["training"]["measured_steps"]
        assert {0, 12, 50, 100, 200, 400, 800} <= set(measured) and max(np.diff(measured)) == 50
        assert one["training"].get("lr_scheduler_type", "constant_with_warmup") == "constant_with_warmup"
    assert len(factors()["held_back"].runs) == 7
