"""Publishing a finished run: what is copied, what is refused, that nothing of another run comes along."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.errors import InputError, in_a_sentence
from benchmark.jobs.stale import Job, write_record
from benchmark.output.publish import commits_of, copy_folder, publish
from benchmark.provenance import ROOT
from benchmark.storage.checksums import seal
from benchmark.storage.io import read_json, write_json
from tests.support.results_tree import write_results

RUN = "results/runs/one/{}/seed1/{}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs, a table and a plot of them with a page, and a stray table of an earlier config."""
    monkeypatch.chdir(tmp_path)
    methods = {"popularity": 0.1, "item_knn": 0.2}
    write_results(tmp_path / "results", ["one"], methods, seeds=1)
    read = [RUN.format(method, name) for method in methods for name in ("rankings.parquet", "run.json")]
    files = {
        "statistics/one": (["results/statistics/one.costs.csv"], read),
        "tables": (["results/tables/main.csv", "results/tables/main.md"], ["results/statistics/one.costs.csv"]),
        "plots": (["results/plots/one.cost.png"], ["results/statistics/one.costs.csv"]),
        # Like `thinking`: the page has a view of these numbers, and doesn't wait for this file.
        "beside": (["results/tables/beside.md"], ["results/statistics/one.costs.csv"]),
        "other": (["results/tables/other.md"], ["results/statistics/one.costs.csv", "results/statistics/old.csv"]),
        "page": (
            ["results/report/index.html"],
            ["results/tables/main.csv", "results/plots/one.cost.png", "results/statistics/one.costs.csv"],
        ),
        "factor_statistics/many/beta": (["results/statistics/many/beta.tests.csv"], read[:2]),
        "ablation/many/beta": (["results/many/beta.md"], ["results/statistics/many/beta.tests.csv"]),
        "ablation_plot/many/beta": (["results/plots/many/beta.png"], ["results/statistics/many/beta.tests.csv"]),
        "claims_statistics/many": (["results/statistics/many/claims.csv"], read[:2]),
        "claims/many": (["results/many/claims.md"], ["results/statistics/many/claims.csv"]),
    }
    for name, (outputs, inputs) in files.items():
        for file in [*outputs, "results/tables/stray.md", "results/statistics/old.csv"]:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).write_text(file)
        write_record(Job(name, tuple(outputs), tuple(inputs), "settings", "code"))
    return tmp_path


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_belongs_to_the_page_is_copied(place: Path) -> None:
    out = place / "published"
    out.mkdir()
    (out / "old.md").write_text("of an earlier run")
    about = publish(place, out)
    assert files_in(out) == [
        "about.json",
        "plots/one.cost.png",
        "report/index.html",
        "statistics/one.costs.csv",
        "tables/beside.md",
        "tables/main.csv",
        "tables/main.md",
    ]
    assert about["runs"] == 2 and sum(about["commits"].values()) == 2
    assert read_json(out / "about.json") == about | {"files": 6}


def test_a_job_that_no_longer_runs_has_shown_other_statistics(place: Path) -> None:
    """The config has lost what `beside` is made for: its statistics and its page are new, and it is as it was."""
    path = place / "results/made_from/beside.json"
    record = read_json(path)
    record["inputs"]["results/statistics/one.costs.csv"]["sha256"] = "0" * 64
    path.write_text(json.dumps(record))
    out = place / "published"
    publish(place, out)
    assert "tables/main.md" in files_in(out) and "tables/beside.md" not in files_in(out)


def test_ablations_are_copied_with_their_rankings(place: Path) -> None:
    about = publish(place, place / "published", factors="many")
    assert about["runs"] == 1
    assert files_in(place / "published") == [
        "about.json",
        "plots/beta.png",
        "runs/one/popularity/seed1/rankings.parquet",
        "runs/one/popularity/seed1/run.json",
        "statistics/beta.tests.csv",
        "statistics/claims.csv",
        "tables/beta.md",
        "tables/claims.md",
    ]


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("results/tables/main.csv", "other", "main.csv: has changed since page was made; run the workflow again"),
        (
            RUN.format("item_knn", "rankings.parquet"),
            None,
            "missing, but statistics/one was made with it; run the workflow",
        ),
        (
            "results/made_from/tables.json",
            '{"inputs": {"' + "x" * 300 + '": {"sha256": ""}}, "outputs": {"results/tables/main.csv": {"sha256": ""}}}',
            # From Python 3.14 on a name that no file can have is one that isn't there.
            "File name too long; give a shorter name|missing, but tables was made with it",
        ),
        ("results/made_from/tables.json", "[1]", "tables.json: no record of a job; run the workflow again"),
        (
            "results/made_from/tables.json",
            '{"inputs": {}, "outputs": {"x": 1}}',
            "tables.json: no record of a job; run",
        ),
        ("results/made_from/tables.json", '{"inputs": {}}', "tables.json: no record of a job; run the workflow again"),
        ("results/made_from/page.json", None, "page.json: missing; let the run come to its end before you publish it"),
    ],
)
def test_what_does_not_belong_together_is_refused(place: Path, file: str, text: str | None, sentence: str) -> None:
    if text is None:
        Path(file).unlink()
    else:
        Path(file).write_text(text)
    with pytest.raises(InputError, match=sentence), in_a_sentence():
        publish(place, place / "published")
    assert not (place / "published").exists()


def test_code_that_no_commit_holds_is_refused(place: Path) -> None:
    run = Path(RUN.format("popularity", "run.json"))
    commit = read_json(run)["commit"]
    write_json(run, seal(json.loads(run.read_text().replace(commit, "0123abc-dirty"))))
    with pytest.raises(InputError, match=r"run\.json: commit is '0123abc-dirty', so that nobody can have its code"):
        commits_of([run.parent], dirty=False)
    assert commits_of([run.parent], dirty=True) == {"0123abc-dirty": 1}


def test_a_plain_folder_is_copied_whole(place: Path) -> None:
    copy_folder(place / "results/tables", place / "published")
    assert files_in(place / "published") == ["beside.md", "main.csv", "main.md", "other.md", "stray.md"]
    with pytest.raises(InputError, match="speed: no such folder"):
        copy_folder(place / "results/speed", place / "published")


def test_the_command_writes_below_results_published_and_refuses_odd_names(place: Path) -> None:
    def publish_here(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "benchmark.output.publish", *arguments]
        return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)

    done = publish_here("default")
    assert done.returncode == 0 and done.stdout.startswith("results/published/default: 2 runs of commit "), done.stderr
    for name in ("", "../x", ".hidden"):
        refused = publish_here(name)
        assert refused.returncode == 2 and "is no name of a folder; give one such as default" in refused.stderr
