"""The command line: what it hands over, its exit codes, what Ctrl-C does, and that its help comes at once."""

import contextlib
import errno
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from benchmark import cli, errors
from benchmark.errors import InputError
from benchmark.provenance import OWN, ROOT
from benchmark.shipped import shipped
from benchmark.storage import writable
from tests.support.planted import planted, write_files
from tests.support.terminal import interruptible

COMMAND = [sys.executable, "-m", "benchmark.cli"]
COMMANDS = ("run", "quick", "recommend", "check-data", "check-table", "publish", "export", "import")


def call(folder: Path, *arguments: str, site: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the command in any folder and return both streams together. site: the folder of the packages."""
    environment = dict(os.environ) | {"PYTHONPATH": str(site)}
    line = [*COMMAND, *arguments]
    return subprocess.run(
        line, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The command lines that this process would have become, in an empty folder."""
    calls: list[list[str]] = []

    def execve(program: str, line: list[str], environment: dict[str, str]) -> None:
        assert environment.items() >= os.environ.items()
        assert program == line[0] == sys.executable and line[1] == "-m"
        calls.append(line[2:])
        raise SystemExit(0)

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.chdir(tmp_path)
    return calls


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    assert isinstance(ended.value.code, int)
    return ended.value.code


def snakemake(config: Path, directory: str = ".", cores: str = "all") -> list[str]:
    files = ["--snakefile", str(shipped("workflow/Snakefile")), "--configfile", str(config.resolve())]
    return ["snakemake", *files, "--directory", directory, "--cores", cores]


def test_run_takes_the_projects_config_or_ones_own(handed: list[list[str]]) -> None:
    (Path("mine.yaml")).write_text("seeds: 1\n")
    run("run")
    run("run", "config/smoke.yaml", "--cores", "3")
    run("run", "mine.yaml", "--directory", "there", "--dry-run")
    run("run", "mine.yaml", "--", "--keep-going", "--forceall")
    run("run", "mine.yaml", "--dry-run", "--", "ablations")  # a target, and no word of what is to be quiet
    assert handed == [
        snakemake(shipped("config/config.yaml")),
        snakemake(shipped("config/smoke.yaml"), cores="3"),
        [*snakemake(Path("mine.yaml"), "there"), "--dry-run", "--quiet=rules"],
        [*snakemake(Path("mine.yaml")), "--keep-going", "--forceall"],
        [*snakemake(Path("mine.yaml")), "--dry-run", "--quiet=rules", "ablations"],
    ]


def test_a_fresh_start_is_a_word_to_snakemake(handed: list[list[str]]) -> None:
    run("run", "config/smoke.yaml", "--fresh", "--", "ablations")
    run("quick", "--fresh", "--", "--config", "seeds=2", "--keep-going")
    assert handed[0] == [*snakemake(shipped("config/smoke.yaml")), "ablations", "--config", "fresh=true"]
    assert handed[1][-4:] == ["--config", "fresh=true", "seeds=2", "--keep-going"]


def test_quick_runs_in_a_folder_of_its_own_with_the_downloads_of_all(handed: list[list[str]]) -> None:
    for _ in range(2):  # as it stands, and again
        run("quick", "--cores", "2", "--", "--keep-going")
        assert handed.pop() == [*snakemake(shipped("config/quick.yaml"), "results/quick", "2"), "--keep-going"]
        assert Path("results/quick/resources").resolve() == Path("resources").resolve() and Path("resources").is_dir()
    assert Path(os.readlink("results/quick/resources")) == Path("../../resources")  # the tree may be moved
    run("run", "config/smoke.yaml", "--directory", "elsewhere")
    assert not Path("elsewhere").exists()


def test_the_others_get_all_that_follows(handed: list[list[str]]) -> None:
    run("recommend", "--run", "somewhere", "--history", "--help")
    run("check-data", "shop", "--min-user-count", "2")
    run("check-table", "t.csv")
    run("publish", "default", "--", "x")
    assert handed == [
        ["r2ec.recommend", "--run", "somewhere", "--history", "--help"],
        ["benchmark.data.check_data", "shop", "--min-user-count", "2"],
        ["benchmark.statistics.check_table", "t.csv"],
        ["benchmark.output.publish", "default", "--", "x"],
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "mine.yaml"],
            "error: mine.yaml: no such file; give a config of your own, or one of config/ablations.yaml,",
        ),
        (
            ["run", "shop.yml"],
            "shop.yml: no such file; did you mean 'shop.yaml'? Give a config of your own, or one of ",
        ),
        (
            ["run", "config/quik.yaml"],
            "error: config/quik.yaml: no such file; did you mean 'config/quick.yaml'? Give a",
        ),
        (["run", "--cores", "0"], "expected a number from 1 or 'all', found '0'"),
        (["run", "--cores", "many"], "expected a number from 1 or 'all', found 'many'"),
        (["run", "config/smoke.yaml", "--keep-going"], "unrecognized arguments: --keep-going"),
        (["rum"], "'rum' (choose from "),
        ([], "required: COMMAND"),
    ],
)
def test_what_it_refuses_hands_nothing_over(
    arguments: list[str], message: str, handed: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("shop.yaml").touch()
    assert run(*arguments) == 2 and not handed
    assert message in capsys.readouterr().err


def test_a_config_that_is_no_yaml_is_refused_with_its_line(
    handed: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.yaml").write_text("datasets:\n  shop: {start: 2016-13-01}\n")
    assert run("run", "mine.yaml") == 2 and not handed
    message = capsys.readouterr().err
    assert (
        message.startswith("error: ")
        and "mine.yaml: can't be read as YAML (no such date" in message
        and "line 2" in message
    )


def test_the_help_names_every_command_and_comes_at_once(tmp_path: Path) -> None:
    took = []
    for _ in range(3):  # the fastest counts: the machine may be busy with something else
        start = time.monotonic()
        done = call(tmp_path, "--help")
        took.append(time.monotonic() - start)
        assert done.returncode == 0 and all(f"\n    {name} " in done.stdout for name in COMMANDS)
    assert min(took) < 0.5


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_of_its_own(command: str, tmp_path: Path) -> None:
    done = call(tmp_path, command, "--help")
    assert done.returncode == 0 and done.stdout.startswith(f"usage: r2ec-bench {command} ")
    assert "python -m" not in done.stdout and "README" not in done.stdout
    assert not re.search(r"--(\w+) \1\b", done.stdout, flags=re.I)  # such as --data DATA, which says nothing
    assert "Traceback" not in done.stdout
    assert not list(tmp_path.iterdir())


MODULES = (
    "data.fetch",
    "data.prepare",
    "transfer.export_runs",
    "transfer.import_runs",
    "jobs.run",
    "output.ablation_plots",
    "output.ablations",
    "output.against",
    "statistics.check_table",
    "output.claims",
    "output.page",
    "output.plots",
    "output.publish",
    "output.tables",
    "statistics.ablations",
    "statistics.against",
    "statistics.claims",
    "statistics.datasets",
    "statistics.overall",
)


@pytest.mark.parametrize("module", MODULES)
def test_the_help_of_a_module_names_the_command(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has the usage, what the command does, and a word on every option."""
    main = importlib.import_module(f"benchmark.{'output.page.__main__' if module == 'output.page' else module}").main
    monkeypatch.setattr(sys, "argv", [f"{module}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    help_text = capsys.readouterr().out
    assert ended.value.code == 0 and help_text.startswith(f"usage: python -m benchmark.{module} ")
    assert f"python -m benchmark.{module}" in help_text.partition("\n\n")[2].splitlines()[0]
    entries = re.split(r"\n  (?=\S)", help_text.partition("options:\n")[2])
    bare = [entry for entry in entries if len(entry.split()) < 3]
    assert not bare, f"no word on {bare}"


def test_from_a_wheels_layout_a_small_run_ends_in_tables(tmp_path: Path) -> None:
    """As installed from a wheel: no checkout, workflow and configs beside the packages, in any folder."""
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    without = shutil.ignore_patterns("__pycache__")
    for package in OWN:
        shutil.copytree(ROOT / package, site / package, ignore=without)
    for part in ("workflow", "config"):
        shutil.copytree(ROOT / part, site / "benchmark/_project" / part, ignore=without)
    shutil.copy(ROOT / "environment.yml", site / "benchmark/_project")
    elsewhere.mkdir()
    small(elsewhere)
    done = call(elsewhere, "run", "own.yaml", "--cores", "1", site=site)
    assert done.returncode == 0, done.stdout[-3000:]
    assert (elsewhere / "results/tables/main.md").is_file() and (elsewhere / "results/report/index.html").is_file()
    assert str(ROOT) + os.sep not in done.stdout
    again = call(elsewhere, "run", "own.yaml", "--cores", "1", site=site)
    assert again.returncode == 0 and "Nothing to be done" in again.stdout


def small(folder: Path, **sasrec: object) -> None:
    """A config `own.yaml` with one dataset, planted beside it."""
    write_files(folder / "planted", planted())
    dataset = {"source": "files", "options": {"folder": "planted"}, "category": "thing"}
    methods = {"popularity": None, "sasrec": {"params": sasrec}} if sasrec else {"popularity": None}
    config = {"seeds": 1, "datasets": {"planted": dataset}, "methods": methods}
    (folder / "own.yaml").write_text(yaml.safe_dump(config))


def test_a_dry_run_works_in_any_folder(tmp_path: Path) -> None:
    small(tmp_path)
    done = call(tmp_path, "run", "own.yaml", "--dry-run")
    assert done.returncode == 0, done.stdout
    assert "total" in done.stdout and not (tmp_path / "results").exists()


def test_a_config_that_cannot_run_ends_with_exit_code_2(tmp_path: Path) -> None:
    """As every command that refuses what it was given; a run with a failed row ends with 1 (test_failures.py)."""
    small(tmp_path)
    whole = yaml.safe_load((tmp_path / "own.yaml").read_text())
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(whole | {"methods": {"popp": None}}))
    done = call(tmp_path, "run", "own.yaml", "--cores", "1")
    assert done.returncode == 2 and "Traceback" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"error: {tmp_path}/own.yaml: no method 'popp'")


def training(command: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """All processes of a command, once one of them has been fitting SASRec for two seconds."""
    for _ in range(1200):
        jobs = psutil.Process(command.pid).children(recursive=True)
        for job in jobs:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended while we looked
                if "sasrec" in job.cmdline() and job.cpu_times().user > 2:
                    return jobs
        assert command.poll() is None, "it ended by itself"
        time.sleep(0.1)
    raise AssertionError("no job of SASRec in two minutes")


def test_ctrl_c_leaves_no_job_running(tmp_path: Path) -> None:
    """The signal goes to the whole group, as from a terminal. The jobs of a thousand epochs would take minutes."""
    small(tmp_path, epochs=1000, train_batch_size=8)
    environment = dict(os.environ) | {"PYTHONPATH": str(ROOT)}
    line = [*COMMAND, "run", "own.yaml", "--cores", "1"]
    with open(tmp_path / "said", "w", encoding="utf-8") as output:
        command = subprocess.Popen(
            line,
            cwd=tmp_path,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=interruptible,
        )
        try:
            jobs = training(command)
            os.killpg(command.pid, signal.SIGINT)
            assert command.wait(60) != 0
            _, alive = psutil.wait_procs(jobs, timeout=10)
            assert not alive
        finally:
            if command.poll() is None:
                os.killpg(command.pid, signal.SIGKILL)
                command.wait()
    assert not (tmp_path / "results/runs/planted/sasrec").exists()


@pytest.mark.parametrize("where", [".", "results", "results/runs", ".snakemake", ".snakemake/log"])
@pytest.mark.parametrize("words", [["run", str(ROOT / "config/quick.yaml")], ["quick"]])
def test_a_folder_that_cannot_be_written_is_said_before_anything_runs(
    where: str,
    words: list[str],
    handed: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of another user, or of a file system that is mounted to be read."""
    place = tmp_path / where if words[0] == "run" else tmp_path / "results/quick" / where
    place.mkdir(parents=True, exist_ok=True)
    temporary = writable.tempfile.TemporaryFile

    def refused(dir: Path) -> object:
        if dir.resolve() == place.resolve():
            raise OSError(errno.EROFS, "Read-only file system", str(dir))
        return temporary(dir=dir)

    monkeypatch.setattr(writable.tempfile, "TemporaryFile", refused)
    assert run(*words) == 2 and handed == []
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{place.name or tmp_path}: can't be written (Read-only file system); make" in said


def test_what_snakemake_could_not_write_is_said_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that leads nowhere, a file where a folder belongs, a folder still to be made, and the user's cache."""
    writable.check_writable(tmp_path / "new" / "place")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"/file: can't be written \(Not a directory\); make room"):
        writable.check_writable(tmp_path / "file" / "place")
    (tmp_path / "results").mkdir()
    for link in ("results/runs", "results/states", "resources"):
        (tmp_path / link).symlink_to("/nowhere/at/all")
        with pytest.raises(InputError, match=f"{link}: is a link to /nowhere/at/all, which isn't there; make that"):
            writable.check_writable(tmp_path)
        (tmp_path / link).unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"/file: can't be written .*; Snakemake keeps its cache there; set XDG_CACHE"):
        writable.check_cache()


def test_the_workflow_says_so_where_snakemake_is_called_by_itself(tmp_path: Path) -> None:
    (tmp_path / "results").symlink_to("nowhere")
    line = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile"), "--cores", "1"]
    line += ["--configfile", str(ROOT / "config/smoke.yaml"), "--directory", str(tmp_path)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 2 and "results: is a link to nowhere, which isn't there" in said
    assert "Traceback" not in said and "Error:" not in said


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO, errno.ENAMETOOLONG, errno.EPERM]
)
def test_what_a_disk_or_its_rights_refuse_is_one_sentence(
    number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "end_with_workflow", lambda: None)

    def main() -> None:
        raise OSError(number, os.strerror(number), "results/x.csv")

    with pytest.raises(SystemExit) as ended:
        errors.command(main)()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: results/x.csv: {os.strerror(number)}; ")
    monkeypatch.setenv("R2EC_BENCH_SANDBOX", "landlock 5")  # the line of a method that has no right to it
    with pytest.raises(PermissionError if number in errors.RIGHTS else SystemExit):
        errors.command(main)()


def test_another_error_of_the_system_stays_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "end_with_workflow", lambda: None)
    with pytest.raises(FileNotFoundError):
        errors.command(lambda: open("nowhere/at/all").close())()
