"""When a job has to run again, by its settings, code and files, and the command that records these."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.errors import InputError
from benchmark.jobs.stale import (
    Job,
    expect_as_before,
    forget,
    only_its_code,
    put_back,
    set_aside,
    take_fresh,
    why_stale,
    write_record,
)
from benchmark.provenance import ROOT
from benchmark.storage.io import read_json, sha256_of

JOB = Job("tables", ("results/main.csv",), ("in/a", "in/b"), "settings", "code", frozenset({"in/b"}))


@pytest.fixture(autouse=True)
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JOB has run in the current folder."""
    monkeypatch.chdir(tmp_path)
    for file in (*JOB.inputs, *JOB.outputs):
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).write_text(file)
    write_record(JOB)


def why(job: Job = JOB) -> str | None:
    return why_stale(job, {})


def test_a_job_of_which_nothing_has_changed_is_not_stale() -> None:
    assert why() is None
    record = read_json("results/made_from/tables.json")
    assert record["inputs"]["in/a"]["sha256"] == sha256_of("in/a")


def test_a_job_with_other_settings_code_or_files_is_stale() -> None:
    assert why(replace(JOB, settings="others")) == "its settings have changed"
    assert why(replace(JOB, code="others")) == "its code has changed"
    assert why(replace(JOB, inputs=("in/a",))) == "it has other inputs now"
    assert why(replace(JOB, outputs=("results/main.csv", "in/a"))) == "it has other outputs now"
    assert why(replace(JOB, name="plots")) == "nothing says what it was made from"


def test_dates_decide_nothing() -> None:
    os.utime("in/a", (0, 0))
    os.utime("results/main.csv")
    assert why() is None
    # Another content of the same length, with the dates of the old one.
    dates = os.stat("in/a")
    Path("other").write_text("IN/A")
    os.utime("other", ns=(dates.st_atime_ns, dates.st_mtime_ns))
    os.replace("other", "in/a")
    assert why() == "in/a has changed"
    Path("in/a").write_text("in/a")
    assert why() is None


def test_a_job_whose_output_was_replaced_is_stale() -> None:
    shutil.copy2("in/a", "results/main.csv")
    assert why() == "results/main.csv has changed"
    Path("results/main.csv").unlink()
    assert why() == "results/main.csv is missing"


def test_only_a_temporary_input_may_be_gone() -> None:
    Path("in/b").unlink()
    assert why() is None
    Path("in/b").write_text("another")
    assert why() == "in/b has changed"
    Path("in/b").unlink()
    Path("in/a").unlink()
    assert why() == "in/a is missing"


def test_whether_only_the_code_of_a_job_has_changed() -> None:
    edited = replace(JOB, code="others")
    assert only_its_code(edited, {}) and not only_its_code(JOB, {})
    assert not only_its_code(replace(edited, settings="others"), {})
    Path("in/a").write_text("another")
    assert not only_its_code(edited, {})
    Path("in/a").write_text("in/a")
    Path("results/main.csv").write_text("another")
    assert not only_its_code(edited, {})
    JOB.record.unlink()
    assert not only_its_code(edited, {})


def test_other_outputs_are_refused_where_the_plan_counts_on_the_same() -> None:
    edited = replace(JOB, code="others")
    expect_as_before(edited, True)
    write_record(edited)
    assert why(edited) is None and not edited.expected.exists()
    expect_as_before(JOB, True)
    Path("results/main.csv").write_text("another")
    Path("in/a").write_text("a file of the user's that was replaced after the plan")
    for _ in range(2):  # a second attempt is refused as the first one
        with pytest.raises(InputError, match=r"results/main\.csv: comes out otherwise since the code that makes it"):
            write_record(JOB)
    assert not only_its_code(JOB, {})  # so that what follows is planned the next time
    expect_as_before(JOB, False)
    write_record(JOB)
    assert why() is None


def test_code_by_which_other_outputs_came_out_is_known_and_its_edit_can_be_undone() -> None:
    edited, output = replace(JOB, code="others"), Path("results/main.csv")
    before = output.read_bytes()
    expect_as_before(edited, only_its_code(edited, {}))
    set_aside(edited)
    output.unlink()  # as Snakemake does where a job runs
    output.write_text("another")
    with pytest.raises(InputError, match="comes out otherwise"):
        write_record(edited)
    output.unlink()  # and where it fails
    put_back(edited)
    assert output.read_bytes() == before and why() is None  # as if nothing had been edited
    assert not edited.aside.exists() and not edited.expected.exists()
    assert not only_its_code(edited, {})  # else the same would happen again and again
    assert only_its_code(replace(JOB, code="mended"), {})
    expect_as_before(edited, False)
    output.write_text("another")
    write_record(edited)
    assert why(edited) is None and not edited.otherwise.exists() and not edited.aside.exists()


def test_only_what_is_whole_is_set_aside_and_put_back() -> None:
    output = Path("results/main.csv")
    before = output.read_bytes()
    set_aside(JOB)
    output.unlink()
    output.write_text("of a job that was killed")
    set_aside(JOB)  # keeps what is aside
    put_back(JOB)
    assert output.read_text() == "of a job that was killed"
    output.unlink()
    put_back(JOB)
    assert output.read_bytes() == before
    set_aside(JOB)
    output.unlink()
    (JOB.aside / "main.csv").write_text("damaged")
    put_back(JOB)
    assert not output.exists()
    JOB.record.write_text("{")
    put_back(JOB)
    set_aside(JOB)
    assert not output.exists()


def test_what_was_put_back_in_part_is_put_back_in_full() -> None:
    """As where the disk was full in between."""
    paths = ("results/main.csv", "results/main.md")
    Path(paths[1]).write_text("a table")
    job = replace(JOB, outputs=paths)
    write_record(job)
    before = [Path(path).read_bytes() for path in paths]
    set_aside(job)
    Path(paths[1]).unlink()
    put_back(job)
    assert [Path(path).read_bytes() for path in paths] == before and why(job) is None


def test_a_job_without_a_readable_record_is_stale() -> None:
    record = Path("results/made_from/tables.json")
    for damaged in ("{", "[]", '{"settings": 1}', '{"inputs": 1, "outputs": 2, "settings": 3, "code": 4}'):
        record.write_text(damaged)
        assert why() == f"{record} can't be read"
    record.unlink()
    assert why() == "nothing says what it was made from"


def test_the_command_writes_the_record() -> None:
    options = ["--job", "run/x", "--settings", "s", "--code", "c", "--inputs", "in/a", "--outputs"]
    command = [sys.executable, "-m", "benchmark.jobs.stale", "record", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([*command, "results/main.csv"], env=environment, check=True)
    assert why(Job("run/x", ("results/main.csv",), ("in/a",), "s", "c")) is None
    failed = subprocess.run([*command, "gone"], env=environment, capture_output=True, text=True)
    assert failed.returncode == 2 and failed.stderr.startswith("error: gone: ")


def test_what_is_forgotten_is_made_anew_and_nothing_else_is_lost() -> None:
    other = replace(JOB, name="plots")
    write_record(other)
    Path("shared").mkdir()
    Path("results/states").symlink_to("../shared", target_is_directory=True)  # as the makefile links it
    work = "results/work"
    for file in ("shared/a.safetensors", "shared/b/model", "results/texts/c", f"{work}/x/seed1/model/weights"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()
    Path(work, "x/seed2").mkdir()
    forget(["tables", "never/made"], [f"{work}/x/seed1", f"{work}/never/made"])
    assert why() == "nothing says what it was made from" and why(other) is None
    assert not list(Path("shared").iterdir()) and not list(Path("results/texts").iterdir())
    assert Path("results/states").is_symlink() and os.listdir(Path(work, "x")) == ["seed2"]
    assert all(Path(file).exists() for file in (*JOB.inputs, *JOB.outputs))


@pytest.mark.parametrize(("value", "fresh"), [(True, True), ("true", True), ("False", False), (False, False)])
def test_a_wish_for_a_fresh_start_is_no_setting(value: object, fresh: bool) -> None:
    config = {"seeds": 1, "fresh": value}
    assert take_fresh(config) == fresh and config == {"seeds": 1}
    assert not take_fresh(config)
    with pytest.raises(InputError, match=r"^--config fresh is 3; say fresh=true, or leave it out$"):
        take_fresh({"fresh": 3})
