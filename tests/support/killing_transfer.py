"""Exports and imports that kill themselves, each at another change of a file, for test_export.py.

`python -m tests.support.killing_transfer export|import CONFIG EVERY`, in a folder with results/ (whose runs are
exported) or exported/ (from which they are imported). A child ends by SIGKILL at its first change of a file, at its
EVERY-th after that, and so on. What it has left is looked at, and the command given again.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.jobs.stale import why_stale
from benchmark.storage import io
from benchmark.transfer import import_runs
from benchmark.transfer.export_runs import every_run, export, place_of, plan_in

EXPORTED = Path("exported").resolve()
TAKEN = (Path("results/runs"), Path("results/made_from/run"))  # what an import writes
CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "shutil.copyfile")


def content(*folders: Path) -> dict[str, bytes]:
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {str(path.resolve().relative_to(Path.cwd())): path.read_bytes() for path in files}


def child(act: Callable[[], Any], die_at: int = 0) -> int:
    """Do it in a forked process, which dies at this change of a file; its wait status."""
    if (pid := os.fork()) != 0:
        return os.waitpid(pid, 0)[1]
    changes = 0

    def count(event: str, args: tuple[Any, ...]) -> None:
        nonlocal changes
        writes = event == "open" and isinstance(args[1], str) and bool({"w", "x"} & set(args[1]))
        if (event in CHANGES or writes) and any(part in str(args[0]) for part in ("exported", "results")):
            changes += 1
            if changes == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.addaudithook(count)
        act()
    except BaseException as error:
        print(f"change {die_at}: {error!r}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def main() -> None:
    what, config, every = sys.argv[1], Path(sys.argv[2]).resolve(), int(sys.argv[3])
    plan = plan_in(config, Path("."), Path("nowhere").resolve())
    runs = {run: plan.run(*run) for run in every_run(plan)}
    # The workflow has prepared the data, and made none of these runs here.
    import_runs.forget_here = lambda jobs, config: None
    io._flush = lambda path: None  # only a power cut would tell, and a busy disk takes a second for each
    written = (EXPORTED,) if what == "export" else TAKEN

    def act() -> None:
        if what == "export":
            export(plan, EXPORTED, texts=True, dirty=True)
        else:
            import_runs.take(EXPORTED, runs, config)

    def begin() -> None:
        for folder in written:
            shutil.rmtree(folder, ignore_errors=True)

    def taken_for_runs() -> list[str]:
        """The folders of runs that the next command would take for whole ones."""
        if what == "import":
            return [str("results" / place_of(run)) for run, job in runs.items() if why_stale(job, {}) is None]
        there = [run for run in runs if (EXPORTED / place_of(run) / "run.json").exists()]
        whole = [run for run in there if not isinstance(import_runs.checked(run, runs[run], EXPORTED), str)]
        return [str("exported" / place_of(run)) for run in whole]

    begin()
    if child(act) != 0 or not (whole := content(*written)):
        sys.exit("nothing was written")
    point = 1
    while True:
        begin()
        if (status := child(act, point)) == 0:
            break  # it has fewer changes
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            sys.exit(f"change {point}: ended with wait status {status}")
        left = content(*written)
        for folder in taken_for_runs():
            for name in ("rankings.parquet", "run.json"):
                if left.get(f"{folder}/{name}") != whole[f"{folder}/{name}"]:
                    sys.exit(f"change {point}: {folder}/{name} is not whole and would be taken")
        if child(act) != 0 or content(*written) != whole:
            sys.exit(f"change {point}: the same command ended with something else")
        point += every
    print(f"killed at {len(range(1, point, every))} changes")


if __name__ == "__main__":
    main()
