"""Methods that misbehave, each in the sandbox under its supervisor beside a run that must stay as it is."""

from pathlib import Path

from benchmark.errors import InputError
from benchmark.jobs.records import read_failed, read_run
from tests.faults import place
from tests.faults.count import Outcome

ROW = "a row that says why, the others as they were"
HEAD = """
import os, signal, sys, time, ctypes, subprocess
import numpy as np, pandas as pd
from benchmark.contract import Recommender
from baselines.item_knn import fit as honest
class Mine(Recommender):
    def __init__(self, n): self.n = n
    def score(self, cases): yield scores(cases, self.n)
    def report(self): return report()
def scores(cases, n): return np.zeros((len(cases), n))
def report(): return {}
"""
FIT = "def fit(split, *, seed, params, workdir):\n    {}\n    return Mine(split.n_items)\n"
SCORES = "def scores(cases, n):\n    return {}\n" + FIT.format("pass")
REPORT = "def report():\n    return {}\n" + FIT.format("pass")
RUN = "results/runs/planted/item_knn/seed1"
DENIED = "the sandbox lets a run write to results/work/planted/"
# By name, the code and a part of the sentence that the row has to say.
MISBEHAVE = {
    "raises": (FIT.format("raise ValueError('on purpose')"), "ValueError: on purpose"),
    "syntax": ("def fit(:\n", "SyntaxError"),
    "no_fit": ("x = 1\n", "defines no fit"),
    "gives_none": (
        "def fit(split, *, seed, params, workdir):\n    return None\n",
        "fit() gave NoneType; return a Recommender",
    ),
    "gives_text": (
        "def fit(split, *, seed, params, workdir):\n    return 'x'\n",
        "fit() gave str; return a Recommender",
    ),
    "nan": (SCORES.format("np.full((len(cases), n), np.nan)"), "a score in row 0 of a batch is nan"),
    "inf": (SCORES.format("np.full((len(cases), n), np.inf)"), "a score in row 0 of a batch is inf"),
    "objects": (SCORES.format("np.ones((len(cases), n), object)"), "scores are of type object"),
    "complex": (SCORES.format("np.ones((len(cases), n), complex)"), "scores are of type complex128"),
    "masked": (SCORES.format("np.ma.ones((len(cases), n))"), "score() gave MaskedArray"),
    "lists": (SCORES.format("[[0.0] * n] * len(cases)"), "score() gave list"),
    "too_few": (SCORES.format("np.zeros((1, n))"), "score() gave 1 rows for"),
    "too_many": (SCORES.format("np.zeros((len(cases) + 1, n))"), "rows for"),
    "too_narrow": (SCORES.format("np.zeros((len(cases), n - 1))"), "scores have shape"),
    "nan_in_report": (REPORT.format("{'loss': float('nan')}"), "report() holds 'loss', which run.json can't"),
    "set_in_report": (REPORT.format("{'epochs': {1, 2}}"), "report() holds 'epochs', which run.json can't"),
    "exits": (FIT.format("sys.exit(0)"), "its code ended the process by exit(0); let fit() return a Recommender"),
    "leaves": (FIT.format("os._exit(0)"), "ended with exit code 0 but without a result; its code must not end"),
    "fails_silently": (FIT.format("os._exit(7)"), "ended with exit code 7 without a word; its code"),
    "fails_behind_a_line": (
        FIT.format("print('epoch 2', flush=True); os._exit(7)"),
        "ended with exit code 7; the last line of its log: epoch 2",
    ),
    "fails_behind_what_it_caught": (
        FIT.format(
            "import traceback\n    try: 1 / 0\n    except ZeroDivisionError: traceback.print_exc()\n"
            "    print('epoch 2', flush=True); os._exit(7)"
        ),
        "ended with exit code 7; the last line of its log: epoch 2",
    ),
    "killed": (FIT.format("os.kill(os.getpid(), 9)"), "was ended by SIGKILL"),
    "crashes": (FIT.format("ctypes.string_at(0)"), "was ended by SIGSEGV"),
    "aborts": (FIT.format("os.abort()"), "was ended by SIGABRT"),
    "never_ends": (FIT.format("time.sleep(1000)"), "took longer than its limit"),
    "never_ends_scoring": (SCORES.format("time.sleep(1000)"), "took longer than its limit"),
    "deaf": (
        FIT.format("signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65)); time.sleep(1000)"),
        "took longer than its limit",
    ),
    "spins": (FIT.format("exec('while True: pass')"), "took longer than its limit"),
    "eats": (
        FIT.format("kept = [b'1' * 10**8 for _ in range(9)]; time.sleep(1000)"),
        "took more than its limit of 0.781 GiB",
    ),
    "eats_elsewhere": (
        FIT.format("subprocess.run([sys.executable, '-c', 'x = b\"1\" * 10**9; import time; time.sleep(99)'])"),
        "took more than its limit of 0.781 GiB",
    ),
    "shouts": (FIT.format("[print('x' * 10**6) for _ in range(300)]; sys.exit('loud')"), "loud"),
    "shouts_one_line": (
        FIT.format("[print('x' * 10**6, end='', flush=True) for _ in range(300)]; os._exit(3)"),
        "xxxx",
    ),
    "control_characters": (FIT.format("raise ValueError('\\x1b[2J\\x1b]0;x\\x07')"), "ValueError: \\u001b[2J"),
    "leaves_a_process": (
        FIT.format("subprocess.Popen(['sleep', '1000']); raise ValueError('behind me')"),
        "ValueError: behind me",
    ),
    "reads_targets": (FIT.format("pd.read_parquet('results/data/planted/test_targets.parquet')"), DENIED),
    "reads_anothers_rankings_while_imported": (f"kept = pd.read_parquet('{RUN}/rankings.parquet')\n{SCORES}", DENIED),
    "reads_anothers_rankings": (FIT.format(f"pd.read_parquet('{RUN}/rankings.parquet')"), DENIED),
    "empties_another": (FIT.format(f"open('{RUN}/rankings.parquet', 'w')"), DENIED),
    "removes_another": (FIT.format(f"os.remove('{RUN}/run.json')"), DENIED),
    "writes_to_the_dataset": (FIT.format("open('results/data/planted/train.parquet', 'ab')"), DENIED),
    "writes_to_the_code": (FIT.format("open('baselines/popularity.py', 'ab')"), DENIED),
}  # fmt: skip


def misbehave(folder: Path, names: list[str], rounds: int = 1) -> Outcome:
    """Let each of these methods run, so many times."""
    out = Outcome("a method that misbehaves", (ROW,))
    place.make(folder)
    place.prepare(folder)
    assert place.start(folder, place.run_line("item_knn")).wait() == 0
    others = {path: path.read_bytes() for path in (folder / RUN).iterdir()}
    for name in names * rounds:
        code, message = MISBEHAVE[name]
        (folder / "baselines" / f"{name}.py").write_text(HEAD + code)
        # Time to start on a busy machine, and memory for what the honest parts need.
        job = place.start(folder, place.run_line(name, seconds=25 if "took longer" in message else 200, mib=800))
        job.wait()
        out.add(*_verdict(folder, name, message, job.returncode, others))
    return out


def _verdict(folder: Path, name: str, message: str, code: int, others: dict[Path, bytes]) -> tuple[str, str]:
    record = folder / f"results/runs/planted/{name}/seed1/run.json"
    if {path: path.read_bytes() for path in others if path.exists()} != others:
        return "ANOTHER'S RESULTS CHANGED", name
    try:
        failed = read_failed(record)
        if failed is None:
            read_run(record)
            return "SILENT", name
    except InputError as problem:
        return "no row", f"{name}: {problem}"
    if message not in failed.failed or code != 3:
        return "another reason", f"{name}: {failed.failed} (exit code {code})"
    if (log := folder / failed.log).stat().st_size > 17 * 2**20:
        return "a log of everything", f"{name}: {log.stat().st_size} bytes"
    return ROW, ""
