"""A method in the sandbox reads no test targets and writes to its own folders alone.

Its ranks are the same as without.
"""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmark.config.methods import load_method
from benchmark.errors import InputError
from benchmark.jobs.records import read_failed, read_run
from benchmark.provenance import ROOT
from benchmark.sandbox import landlock
from benchmark.sandbox.explain import explained
from benchmark.sandbox.seal import SANDBOX
from tests.support.planted import planted, write_prepared

needs_landlock = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")

TARGETS = "results/data/planted/test_targets.parquet"
RUN = "results/runs/planted/item_knn"
# What would tell the test targets, and what would change something that isn't the method's own; each as a line of code.
ATTEMPTS = {
    "read the targets": f"pd.read_parquet({TARGETS!r})",
    "read them by a link": f"os.symlink(Path({TARGETS!r}).resolve(), workdir / 'l'); (workdir / 'l').read_bytes()",
    "read them by another process": f"subprocess.run(['cat', {TARGETS!r}], check=True, capture_output=True)",
    "read them in a thread": f"ThreadPoolExecutor().submit(open, {TARGETS!r}).result()",
    "read another's rankings": f"pd.read_parquet('{RUN}/seed1/rankings.parquet')",
    "read the source": "Path('resources/log.csv').read_bytes()",
    "write to the dataset": "open('results/data/planted/train.parquet', 'ab')",
    "write to the code": "open('baselines/item_knn.py', 'a')",
    "make a file beside the results": "open('results/mine', 'w')",
    "cut another's record": f"os.truncate('{RUN}/seed1/run.json', 0)",
    "empty another's rankings": f"open('{RUN}/seed1/rankings.parquet', 'w')",
    "remove another's record": f"os.remove('{RUN}/seed1/run.json')",
    "move another's folder": f"os.rename('{RUN}', workdir / 'x')",
}
TRIES = f"""
import os, subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import pandas as pd
from baselines.item_knn import fit as honest
done = []
try:
    pd.read_parquet({TARGETS!r})
    done.append("read the targets while imported")
except OSError:
    pass
def fit(split, *, seed, params, workdir):
    for name, code in {ATTEMPTS!r}.items():
        try:
            exec(code, globals() | {{"workdir": workdir}})
            done.append(name)
        except (OSError, subprocess.CalledProcessError):
            pass
    fitted = honest(split, seed=seed, params=params, workdir=workdir)
    fitted.report = lambda: {{"done": done}}
    return fitted
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the code, a prepared dataset, and a finished run of item_knn without a sandbox."""
    folder = tmp_path_factory.mktemp("place")
    for part in ("benchmark", "lm", "r2ec", "baselines"):
        (folder / part).mkdir()
        for file in (ROOT / part).rglob("*.py"):
            target = folder / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    write_prepared(folder / "results" / "data" / "planted", planted())
    (folder / "resources").mkdir()
    (folder / "resources" / "log.csv").write_text("everything")
    (folder / "results" / "fetched").mkdir()
    (folder / "results" / "fetched" / "planted.json").write_text('[{"path": "resources/log.csv"}]')
    (folder / "baselines" / "tries.py").write_text(TRIES)
    assert run(folder, "item_knn", SANDBOX_OFF).returncode == 0
    return folder


SANDBOX_OFF = {SANDBOX: "off"}


def run(
    folder: Path, method: str, more: dict[str, str] | None = None, module: str = ""
) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "benchmark.jobs.supervise", "--run", "planted", method, "1", "--max-seconds", "100"]
    line += [
        "--log",
        f"{method}.log",
        "--out",
        f"results/runs/planted/{method}/seed1",
        "benchmark.jobs.launch",
        "--seal",
    ]
    line += ["benchmark.jobs.run", "--data", "results/data/planted", "--method", method, "--module", module or method]
    line += ["--work", f"results/work/planted/{method}/seed1", "--out", f"results/runs/planted/{method}/seed1"]
    about = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"} | (more or {})
    return subprocess.run(line, cwd=folder, env=about, capture_output=True, text=True)


@needs_landlock
def test_ranks_are_the_same_in_the_sandbox(place: Path) -> None:
    done = run(place, "sealed", module="item_knn")
    assert done.returncode == 0, done.stderr
    plain, sealed = (place / f"results/runs/planted/{name}/seed1" for name in ("item_knn", "sealed"))
    assert pq.read_table(plain / "rankings.parquet").equals(pq.read_table(sealed / "rankings.parquet"))
    assert read_run(plain / "run.json").sandbox == "none"
    assert read_run(sealed / "run.json").sandbox == f"landlock {landlock.version()}"
    assert "no sandbox, as R2EC_BENCH_SANDBOX is off" in (place / "item_knn.log").read_text()


@needs_landlock
def test_what_is_not_a_methods_own_is_out_of_its_reach(place: Path) -> None:
    before = {path: path.read_bytes() for path in (place / RUN / "seed1").iterdir()}
    done = run(place, "sealed_tries", module="tries")
    assert done.returncode == 0, done.stderr
    assert read_run(place / "results/runs/planted/sealed_tries/seed1/run.json").report == {"done": []}
    assert {path: path.read_bytes() for path in before} == before
    # Without a sandbox all of it succeeds: it is there to be stolen and broken.
    assert run(place, "tries", SANDBOX_OFF).returncode == 0
    succeeded = read_run(place / "results/runs/planted/tries/seed1/run.json").report["done"]
    assert succeeded == ["read the targets while imported", *ATTEMPTS]


DENIED = """
import os
def fit(split, *, seed, params, workdir):
    (workdir / "mine").write_text("its own")
    {}
"""
MAY_WRITE = (
    "the sandbox lets a run write to results/work/planted/denied/seed1, results/runs/planted/denied, results/states, "
    "results/texts, results/tunings, a temporary folder and its user's caches alone, and hides test targets and other "
    "runs: let denied keep its files in workdir (baselines/denied.py:5)"
)


@needs_landlock
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("open('results/mine', 'w')", f"PermissionError: [Errno 13] Permission denied: 'results/mine'; {MAY_WRITE}"),
        (
            f"open({TARGETS!r}, 'rb')",
            "denied: reads test_targets.parquet, which no method may: what it says of the test cases would be no test "
            "(baselines/denied.py:5)",
        ),
    ],
)
def test_what_is_denied_says_what_a_run_may(line: str, said: str, place: Path) -> None:
    (place / "baselines" / "denied.py").write_text(DENIED.format(line))
    assert run(place, "denied").returncode == 3
    failed = read_failed(place / "results/runs/planted/denied/seed1/run.json")
    assert failed is not None and failed.failed == said
    assert f'baselines/denied.py", line 5, in fit\n    {line}' in (place / "denied.log").read_text()


def test_only_what_the_sandbox_denies_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    denied, full = PermissionError(13, "Permission denied", str(tmp_path)), OSError(28, "No space left on device", "x")
    monkeypatch.delenv(SANDBOX, raising=False)
    for error in (denied, full):
        with pytest.raises(OSError) as caught, explained("mine"):
            raise error
        assert caught.value is error
    monkeypatch.setenv(SANDBOX, "landlock 7")
    with pytest.raises(OSError, match="No space left"), explained("mine"):
        raise full
    with pytest.raises(InputError, match=r"Permission denied: .*; the sandbox lets a run"), explained("mine"):
        raise denied


def test_what_is_denied_while_a_method_is_imported_is_said_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: str) -> None:
        raise PermissionError(13, "Permission denied", "results/mine")

    monkeypatch.setattr("importlib.import_module", denied)
    monkeypatch.delenv(SANDBOX, raising=False)
    with pytest.raises(InputError, match=r"method 'popularity' can't be imported: .*Permission denied"):
        load_method("popularity")
    monkeypatch.setenv(SANDBOX, "landlock 7")
    with pytest.raises(InputError, match=r"Permission denied: 'results/mine'; the sandbox lets"), explained("mine"):
        load_method("popularity")


@pytest.mark.parametrize(("code", "words"), [("", "exit()"), ("0", "exit(0)"), ("'loud'", "exit('loud')")])
def test_a_method_that_ends_the_process_is_told_where_and_what_to_do(code: str, words: str) -> None:
    ends = compile(f"\nimport sys\nsys.exit({code})", f"{ROOT}/baselines/mine.py", "exec")
    with pytest.raises(InputError) as caught, explained("mine"):
        exec(ends, {})
    advice = "let fit() return a Recommender, or raise an error (baselines/mine.py:3)"
    assert str(caught.value) == f"mine: its code ended the process by {words}; {advice}"


HEAD = "import numpy as np, pandas as pd\nfrom baselines.item_knn import fit as honest\n"
HONEST = HEAD + "def fit(split, **about):\n    return honest(split, **about)\n"
CHEAT = (
    HEAD
    + """
from benchmark.contract import Recommender
class Cheat(Recommender):
    def __init__(self, n): self.n = n
    def score(self, cases):
        answers = pd.read_parquet("{}").set_index("case").target
        scores = np.zeros((len(cases), self.n))
        scores[np.arange(len(cases)), answers.loc[cases.case]] = 1
        yield scores
def fit(split, *, seed, params, workdir):
    return Cheat(split.n_items)
"""
)
VARIES = (
    HEAD
    + """
from benchmark.contract import Recommender
class Varies(Recommender):
    def __init__(self, n): self.n = n
    def score(self, cases):
        yield np.random.default_rng().uniform(size=(len(cases), self.n))
def fit(split, *, seed, params, workdir):
    return Varies(split.n_items)
"""
)


@pytest.mark.parametrize(
    ("name", "code", "verdict"),
    [
        ("cheat", CHEAT.replace("{}", TARGETS), "follows the test targets"),
        ("varies", VARIES, "varies by itself"),
        ("honest", HONEST, "does not follow the test targets"),
    ],
)
def test_the_canary_tells_methods_that_follow_the_targets(name: str, code: str, verdict: str, place: Path) -> None:
    (place / "baselines" / f"{name}.py").write_text(code)
    line = [sys.executable, "-m", "benchmark.sandbox.canary", "--data", "results/data/planted", "--method", name]
    about = os.environ | {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(line, cwd=place, env=about, capture_output=True, text=True)
    assert f"{name}: {verdict}" in done.stdout, done.stderr
    assert done.returncode == (0 if name == "honest" else 1)
