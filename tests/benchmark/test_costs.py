"""The table of costs, by hand."""

from pathlib import Path

import numpy as np
import pytest

from benchmark.analysis.collect import collect
from benchmark.analysis.costs import costs
from benchmark.jobs.records import Phases, Trial, Tuning, read_run, write_run
from benchmark.output.costs import HEADINGS, NOTE, markdown
from benchmark.statistics.datasets import runs
from tests.support.results_tree import write_results


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two seeds of a method: fits of 10 and 30 s; repetition 1 tried two settings."""
    write_results(tmp_path, ["small"], {"popularity": 0.0, "r2ec_small": 0.8})
    trials = [Trial(params={}, value=0.1, seconds=12.0), Trial(params={}, value=0.2, seconds=15.5)]
    for seed, fit, tokens in ((1, 10.0, 100), (2, 30.0, 301)):
        path = tmp_path / f"runs/small/r2ec_small/seed{seed}/run.json"
        changes = {
            "seconds": Phases(fit=fit, score=2.0),
            "tokens_written": tokens,
            "latency_ms_alone": 1.5 * seed,
            "peak_memory_mib": 1000 * seed,
            "tuning": Tuning(criterion="valid NDCG@10", trials=trials, chosen=1) if seed == 1 else None,
        }
        write_run(path, read_run(path).model_copy(update=changes))
    return tmp_path


def test_costs_are_means_over_runs(results: Path) -> None:
    frame = costs(collect(results, "small", {"popularity": 2, "r2ec_small": 2}))
    assert frame.method.tolist() == ["popularity", "r2ec_small"] and frame.seeds.tolist() == [2, 2]
    row = frame.iloc[1]
    expected: dict[str, float] = {"users": 30, "targets": 200, "positions": 230, "settings": 2}
    expected |= {"fit_s": 20, "tuning_s": 27.5, "score_s": 2, "tokens": 200.5, "ms_alone": 2.25, "peak_mib": 1500}
    for name, value in expected.items():
        assert row[name] == pytest.approx(value), name
    assert frame.iloc[0].tuning_s == 0 and frame.iloc[0].settings == 1


def as_lines(results: Path) -> list[str]:
    """The lines of costs.md."""
    collected = collect(results, "small", {"popularity": 2, "r2ec_small": 2})
    return markdown(costs(collected), runs(collected).hardware).splitlines()


def test_one_line_per_method(results: Path) -> None:
    lines = as_lines(results)
    assert len(lines[0].split("|")) == 3 + len(HEADINGS) + 2
    assert lines[3].startswith("| small | r2ec\\_small | 2 | 30 | 200 | 230 | 2 | 20 | 27.5 | 2 | 200 |") and lines[
        3
    ].endswith("| 1,500 |")
    assert lines[-1] == NOTE and np.all([lines[i].count("|") == lines[0].count("|") for i in range(4)])


def test_rows_that_waited_for_a_core_are_named(results: Path) -> None:
    """Means of .4 and .1, and of one run that knows nothing; rows of runs that know nothing say nothing."""
    assert costs(collect(results, "small", {"popularity": 2, "r2ec_small": 2})).waited.isna().all()
    for name, shares in (("popularity", (0.05, None)), ("r2ec_small", (0.4, 0.1))):
        for seed, waited in enumerate(shares, 1):
            path = results / f"runs/small/{name}/seed{seed}/run.json"
            write_run(path, read_run(path).model_copy(update={"waited": waited}))
    assert costs(collect(results, "small", {"popularity": 2, "r2ec_small": 2})).waited.tolist() == [0.05, 0.25]
    said = "These rows waited for a core, so that their seconds are too long: r2ec_small on small 25 % of the time."
    assert as_lines(results)[-1] == f"{NOTE} {said}"


def with_hardware(results: Path, run: str, **changes: str | int) -> None:
    path = results / f"runs/small/{run}/run.json"
    record = read_run(path)
    write_run(path, record.model_copy(update={"hardware": record.hardware | changes}))


def test_runs_of_several_machines_are_named_below_the_table(results: Path) -> None:
    # A run that loads torch says more of the same machine.
    with_hardware(results, "r2ec_small/seed1", bfloat16="no", gpus=1, gpu="A100")
    assert as_lines(results)[-1] == NOTE
    with_hardware(results, "popularity/seed2", processor="other_one *", cores=64)
    assert as_lines(results)[-1] == (
        f"{NOTE} These runs are of 2 machines (made-up, 2 cores, 8 GiB of memory, A100; other_one \\*, 64 cores, 8 GiB "
        "of memory): seconds of different machines don't compare."
    )
    with_hardware(results, "r2ec_small/seed2", gpus=1, gpu="H200")
    assert "These runs are of 3 machines (made-up, 2 cores, 8 GiB of memory, A100; made-up" in as_lines(results)[-1]
