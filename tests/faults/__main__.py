"""The fault campaign: `python -m tests.faults [--scale 1]`, what `make faults` runs. It prints docs/reliability.md's
table.

--scale: a share of the counts, which are those of the page; 0.05 takes about a minute of two idle cores, 1 about 20.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmark.errors import command_line
from tests.faults import damage, hostile, kills, methods
from tests.faults.count import Outcome, table

FLIPS, CUTS, HOSTILE, RUNS_KILLED, WORKFLOWS_KILLED = 1000, 1000, 100_000, 40, 10
SEED = 28


def campaign(folder: Path, scale: float) -> Iterator[Outcome]:
    """Every kind of fault."""

    def share(count: float) -> int:
        return max(1, round(scale * count))

    kept = damage.keep_everything(folder / "kept")
    yield damage.damaged(kept, damage.flipped, "one bit flipped in a kept file", share(FLIPS), SEED)
    yield damage.damaged(kept, damage.cut, "a kept file cut short", share(CUTS), SEED)
    yield damage.wheels(folder, share(FLIPS), SEED)
    shares = sum(weight for _, weight in hostile.KINDS.values())
    for kind, (_, weight) in hostile.KINDS.items():
        yield hostile.hostile(kind, share(HOSTILE * weight / shares), folder / "hostile", SEED)
    names = list(methods.MISBEHAVE)
    yield methods.misbehave(folder / "methods", names[:: max(1, round(1 / scale))] if scale < 1 else names)
    yield kills.runs(folder / "runs", share(RUNS_KILLED), SEED)
    yield kills.workflows(folder / "workflows", share(WORKFLOWS_KILLED), SEED)


def main() -> None:
    parser = command_line("tests.faults", __doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the counts (default: 1)")
    args = parser.parse_args()
    done: list[Outcome] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        began = time.monotonic()
        for outcome in campaign(Path(scratch), args.scale):
            done.append(outcome)
            print(f"{outcome.row} {time.monotonic() - began:.0f} s", flush=True)
            began = time.monotonic()
    print(f"\n{table(done)}")
    if any(outcome.wrong for outcome in done):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
