"""The whole workflow, run as a user runs it, in a copy of the project: finished, repeated, changed, killed."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmark.config.methods import known_methods
from benchmark.jobs.records import read_run
from benchmark.provenance import ROOT
from tests.support.page import browser, document_of
from tests.support.planted import planted, write_files
from tests.support.project import SNAKEMAKE, changed_config, copy_of_project, edited, planned, snakemake, yaml_entry

# To Snakemake all files are then what those of real data are: above the size of which it takes checksums by itself.
ALL_ARE_LARGE = ("--max-checksum-file-size", "100")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the project in which the smoke config has run to its end."""
    project = copy_of_project(tmp_path_factory.mktemp("project"))
    done = snakemake(project, *ALL_ARE_LARGE)
    assert done.returncode == 0, done.stdout[-4000:]
    yield project


def test_the_whole_workflow_ends_in_tables_plots_and_page(finished: Path) -> None:
    main = pd.read_csv(finished / "results/tables/main.csv")
    assert set(main["dataset"]) == {"planted", "ml-100k"}
    assert set(main["method"]) == {"popularity", "item_knn", "sasrec", "r2ec"}
    for dataset in ("planted", "ml-100k"):
        for name in ("csv", "md", "tex", "tests.csv"):
            assert (finished / f"results/tables/{dataset}.{name}").stat().st_size > 100
        for name in ("metrics", "slices", "cost"):
            for ending in ("png", "pdf"):
                assert (finished / f"results/plots/{dataset}.{name}.{ending}").stat().st_size > 1000
    page = (finished / "results/report/index.html").read_text()
    assert "sasrec" in page and "r2ec against each of the others" in page
    against = pd.read_csv(finished / "results/tables/against.csv")
    assert against.dataset.unique().tolist() == ["planted", "ml-100k", "all datasets"]
    assert (against.groupby("dataset").size() == 3).all() and (finished / "results/plots/against.png").exists()


def test_snakemakes_report_shows_the_page(finished: Path) -> None:
    with browser() as started:
        done = snakemake(finished, "--report", "report.html")
        assert done.returncode == 0, done.stdout[-3000:]
        tab = started.new_page()
        tab.set_default_timeout(120_000)  # the report holds all plots; beside other work it loads for over 30 s
        tab.goto((finished / "report.html").resolve().as_uri())
        for step in ("text=Results", "text=/^Page$/", "table a"):
            tab.locator(step).first.click()
        page = tab.frame_locator("iframe")
        page.locator("h1").wait_for()
        assert page.locator("h1").inner_text() == document_of(finished / "results/report/index.html")["answer"]["title"]
        page.locator('nav a[data-view="reasonings"]').click()  # what is chosen has no address there
        page.locator("article.case").first.wait_for()


def test_what_was_planted_is_found(finished: Path) -> None:
    ndcg = pd.read_csv(finished / "results/tables/planted.csv").set_index("method")["NDCG@10"]
    assert ndcg["item_knn"] > ndcg["popularity"] + 0.1


def test_tuning_is_recorded_and_taken_over_by_later_seeds(finished: Path) -> None:
    first, second = (read_run(finished / f"results/runs/planted/sasrec/seed{n}/run.json") for n in (1, 2))
    assert first.tuning is not None and first.tuning == second.tuning and first.params == second.params
    assert len(first.tuning.trials) == 2 and first.seed_value != second.seed_value
    assert first.params["learning_rate"] == 0.01  # two epochs at 0.001 learn less
    assert not list((finished / "results/work").glob("*/sasrec/*/*/*"))  # RecBole's files are gone


def test_a_second_run_has_nothing_to_do(finished: Path) -> None:
    """Whatever the dates of the files, and however large they are: Snakemake by itself compares those of a megabyte."""
    for file in (finished / "results/data").rglob("*.*"):
        file.touch()
    done = snakemake(finished, *ALL_ARE_LARGE)
    assert done.returncode == 0 and "Nothing to be done" in done.stdout


# What comes after the runs of two datasets and a reference.
OUTPUTS = {"statistics": 2, "overall_statistics": 1, "against_statistics": 1}
OUTPUTS |= {"table": 2, "tables": 1, "plots": 2, "against": 1, "page": 1}


def test_an_edited_comment_or_docstring_makes_nothing_run(finished: Path) -> None:
    files = (
        "baselines/item_knn.py",
        "benchmark/jobs/run.py",
        "benchmark/data/protocol.py",
        "benchmark/output/tables.py",
    )
    with contextlib.ExitStack() as stack:
        for file in files:
            stack.enter_context(edited(finished / file, "\n# edited\n"))
        done = snakemake(finished, "--dry-run")
    assert done.returncode == 0 and planned(done.stdout) == {}, done.stdout


def test_a_raised_version_runs_only_that_method_again(finished: Path) -> None:
    file = finished / "baselines" / "item_knn.py"
    with edited(file, "\nEDITED = 1\n"):  # its version says that no number has changed
        assert planned(snakemake(finished, "--dry-run").stdout) == {}
    text = file.read_text()
    raised = text.replace('FIT = Stage("item_knn", 1', 'FIT = Stage("item_knn", 2')
    assert raised != text
    file.write_text(raised)
    try:
        jobs = planned(snakemake(finished, "--dry-run").stdout)
    finally:
        file.write_text(text)
    assert jobs == {"run": 4, **OUTPUTS, "all": 1}
    # Back as it was: the contents decide, not the time of writing.
    assert planned(snakemake(finished, "--dry-run").stdout) == {}


def test_editing_the_statistics_trains_nothing(finished: Path) -> None:
    with edited(finished / "benchmark" / "analysis" / "significance.py", "\nEDITED = 1\n"):
        jobs = planned(snakemake(finished, "--dry-run").stdout)
    assert "run" not in jobs and jobs == {**OUTPUTS, "all": 1}


def test_editing_a_table_tests_nothing_again(finished: Path) -> None:
    with edited(finished / "benchmark" / "output" / "tables.py", "\nEDITED = 1\n"):
        jobs = planned(snakemake(finished, "--dry-run").stdout)
    assert jobs == {"table": 2, "tables": 1, "page": 1, "all": 1}


def test_editing_the_configs_code_trains_nothing(finished: Path) -> None:
    with edited(finished / "benchmark" / "config" / "schema.py", "\nEDITED = 1\n"):
        jobs = planned(snakemake(finished, "--dry-run").stdout)
    assert jobs and not {"fetch", "prepare", "run"} & jobs.keys()


def test_editing_the_pages_template_makes_the_page_alone(finished: Path) -> None:
    with edited(finished / "benchmark" / "output" / "page" / "assets" / "page.html.jinja", "\n"):
        jobs = planned(snakemake(finished, "--dry-run").stdout)
    assert jobs == {"page": 1, "all": 1}


def test_r2ec_keeps_what_it_wrote_and_answers_for_one_user(finished: Path) -> None:
    run = finished / "results/runs/ml-100k/r2ec/seed1"
    texts, rankings = pd.read_parquet(run / "texts.parquet"), pd.read_parquet(run / "rankings.parquet")
    assert texts["case"].tolist() == rankings["case"].tolist() and texts["rank"].tolist() == rankings["rank"].tolist()
    assert texts["reasoning"].str.endswith("<answer>").all() and texts["prompt"].str.contains("Analyze in depth").all()
    record = read_run(run / "run.json")
    assert record.tokens_written > len(texts) and record.report["recpo_steps"] == 1
    command = [sys.executable, "-m", "r2ec.recommend", "--run", str(run.relative_to(finished)), "--json"]
    items = pd.read_parquet(finished / "results/data/ml-100k/items.parquet")
    # A case alone and a case among others differ by rounding, which may swap neighbours. Where two tokens are a near
    # tie in bf16, it decides what is written, too. Of a few cases one at least is written as it was.
    for row, case in enumerate(rankings["case"][:5]):
        output = subprocess.run(
            [*command, "--data", "results/data/ml-100k", "--case", str(case)],
            cwd=finished,
            capture_output=True,
            text=True,
        )
        assert output.returncode == 0, output.stderr
        answer = json.loads(output.stdout)
        if answer["reasoning"] == texts["reasoning"][row]:
            break
    assert answer["reasoning"] == texts["reasoning"][row]
    expected = items["title"].iloc[rankings["top_items"][row][:3]].tolist()
    titles = [entry["title"] for entry in answer["recommendations"]]
    assert len(titles) == 20 and set(expected) <= set(titles)


def test_the_readmes_baseline_appears_in_the_table(finished: Path) -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    assert code is not None and len(code[1].splitlines()) < 20
    (finished / "baselines" / "latest.py").write_text(code[1])
    config = changed_config(finished, "with_latest.yaml", latest=None)
    jobs = planned(snakemake(finished, "--dry-run", config=config).stdout)
    assert jobs == {"run": 4, **OUTPUTS, "all": 1}
    done = snakemake(finished, config=config)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "latest" in set(pd.read_csv(finished / "results/tables/main.csv")["method"])


def test_a_method_may_have_seeds_of_its_own(finished: Path) -> None:
    own = {
        "popularity": {"seeds": 1},
        "item_knn": yaml_entry("item_knn") | {"seeds": 3},
        "sasrec": yaml_entry("sasrec"),
    }
    config = changed_config(finished, "own_seeds.yaml", only=True, **own)
    output = snakemake(finished, "--dry-run", "--printshellcmds", config=config).stdout
    assert planned(output) == {
        "run": 1,
        "statistics": 1,
        "table": 1,
        "tables": 1,
        "plots": 1,
        "page": 1,
        "all": 1,
    }  # of 1 + 3 + 2 runs one is new
    assert "--tuned results/runs/planted/item_knn/seed1/run.json" in output
    modules = re.findall(r"-m benchmark\.([\w.]+) .* --methods item_knn popularity sasrec --seeds 3 1 2 ", output)
    assert sorted(modules) == ["output.page", "statistics.datasets"]  # all others read what the statistics say
    assert planned(snakemake(finished, "--dry-run", "--forceall", config=config).stdout)["run"] == 6
    done = snakemake(finished, config=config)
    assert done.returncode == 0, done.stdout[-3000:]
    table = pd.read_csv(finished / "results/tables/main.csv")
    assert table.set_index("method")["seeds"].to_dict() == {"item_knn": 3, "popularity": 1, "sasrec": 2}
    assert (
        "1 training of popularity, 2 of sasrec, 3 of item_knn;" in (finished / "results/report/index.html").read_text()
    )


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        # The first few: an earlier test may have put README's method among them.
        ({"popp": None}, f"no method 'popp'; did you mean 'popularity'? Known: {', '.join(known_methods()[:4])}, "),
        ({"sasrec": {"params": {"hiden_size": 2}}}, "methods.sasrec: unknown setting 'hiden_size'"),
    ],
)
def test_a_wrong_config_is_one_sentence_before_anything_runs(
    finished: Path, methods: dict[str, Any], sentence: str
) -> None:
    done = snakemake(finished, config=changed_config(finished, "wrong.yaml", **methods))
    last = done.stdout.splitlines()[-1]
    assert done.returncode == 2 and last.startswith("error: config/wrong.yaml: ") and sentence in last
    assert "Traceback" not in done.stdout and "Job stats" not in done.stdout and "common.smk" not in done.stdout


def test_a_config_of_ones_own_is_not_laid_over_the_default(finished: Path) -> None:
    (finished / "config" / "alone.yaml").write_text("methods: {popularity: }\nseeds: 1\n")
    done = snakemake(finished, "--dry-run", config="config/alone.yaml")
    assert done.returncode != 0 and "setting 'datasets' is missing; add it" in done.stdout


def test_missing_files_are_one_sentence_before_anything_runs(finished: Path, tmp_path: Path) -> None:
    done = snakemake(finished, "--directory", str(tmp_path))  # where there is no folder `planted`
    assert done.returncode != 0 and "Traceback" not in done.stdout
    assert "planted: need interactions.parquet or interactions.csv, neither exists" in done.stdout
    assert not (tmp_path / "results").exists()


def test_a_bad_file_is_named_and_nothing_is_half_written(finished: Path, tmp_path: Path) -> None:
    """Started in another folder than the project's: results and one's own files belong to that folder."""
    write_files(tmp_path / "planted", planted(n_users=20))
    file = tmp_path / "planted" / "interactions.csv"
    lines = file.read_text().splitlines()
    lines[5] = lines[5].rsplit(",", 1)[0] + ",nan"
    file.write_text("\n".join(lines))
    config = changed_config(finished, "bad_file.yaml", only=True, popularity=None)
    done = snakemake(finished, "--directory", str(tmp_path), config=config)
    assert done.returncode != 0
    assert "error: planted/interactions.csv: row 5: rating is missing; give a finite number" in done.stdout
    data = tmp_path / "results" / "data"
    assert not [path for path in data.rglob("*") if path.is_file()]
    # What may not be meant is said on the screen, too, not in a log alone.
    raw = planted(n_users=20)
    write_files(tmp_path / "planted", raw)
    raw.items.to_csv(tmp_path / "planted" / "items.csv")
    done = snakemake(finished, "--directory", str(tmp_path), "results/data/planted/dataset.json", config=config)
    assert done.returncode == 0, done.stdout
    assert "\nplanted: warning: items.csv: column '' holds row numbers and is ignored\n" in done.stdout


def test_a_killed_run_resumes_to_the_same_rankings(finished: Path, tmp_path: Path) -> None:
    """Snakemake and its jobs die by SIGKILL in the middle of a fit."""
    project = copy_of_project(tmp_path)
    config = changed_config(project, "killed.yaml", only=True, sasrec=yaml_entry("sasrec"))
    run = "results/runs/planted/sasrec/seed1"
    target = f"{run}/rankings.parquet"
    command = [*SNAKEMAKE, target, "--cores", "1", "--configfile", config]
    process = subprocess.Popen(
        command, cwd=project, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    # The ledger of a fit that has begun.
    while not list(project.glob("results/work/planted/sasrec/seed1/*.seconds.json")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (project / run / "run.json").exists()
    assert snakemake(project, "--unlock", config=config).returncode == 0
    done = snakemake(project, target, "--printshellcmds", config=config)
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.findall(r"^(?:local)?rule (\w+):", done.stdout, flags=re.M) == ["run"]  # what was done stays done
    pd.testing.assert_frame_equal(pd.read_parquet(project / target), pd.read_parquet(finished / target))


def test_the_workflow_is_lint_clean_and_formatted() -> None:
    lint = subprocess.run([*SNAKEMAKE, "--lint"], cwd=ROOT, capture_output=True, text=True)
    assert lint.returncode == 0, lint.stderr
    snakefmt = Path(sys.executable).with_name("snakefmt")
    formatted = subprocess.run([snakefmt, "--check", "workflow"], cwd=ROOT, capture_output=True, text=True)
    assert formatted.returncode == 0, formatted.stderr
