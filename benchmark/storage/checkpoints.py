"""Checkpoints within a training, as transformers' Trainer writes them; a half-written or damaged one is never used."""

import shutil
from pathlib import Path

from benchmark.errors import InputError
from benchmark.storage.checksums import SUMS, damage, intact, write_sums
from benchmark.storage.io import flush_to_disk, read_json

STATE = "trainer_state.json"  # the Trainer writes it last


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in a Trainer's folder, None without one.

    Whole: all files are as they were written, those of the best step too, which the training ends with. One that a
    killed run has left half-written is passed over, which transformers' own `get_last_checkpoint` takes. What is
    damaged is said and removed: the training goes on from an older one, or begins anew.
    """
    return next((path for path in _newest_first(folder) if _is_whole(path)), None)


def finish_checkpoint(folder: Path, step: int, best: str | None) -> None:
    """Give the checkpoint of `step` its checksums, once all of it is on the disk, and remove others only then.

    One stays to go back to: that of the best step, `best`, or else the one before. Those of later steps are of a
    training that began anew before them. Steps say what is older, and not dates: a clock may be set back.
    """
    path = folder / f"checkpoint-{step}"
    flush_to_disk(path)
    write_sums(path)
    others = [other for other in _newest_first(folder) if other != path]
    before = next((other.name for other in others if _step(other) < step), None)
    stays = Path(best).name if best and Path(best).name != path.name else before
    for other in others:
        if other.name != stays:
            shutil.rmtree(other, ignore_errors=True)


def check_checkpoint(path: Path) -> None:
    """Raise InputError unless a checkpoint of this training is there as it was written."""
    why = damage(path) if path.is_dir() else f"{path} is missing"
    if why is not None:
        raise InputError(f"{why}; run again: the training goes on from another checkpoint, or begins anew")


def _newest_first(folder: Path) -> list[Path]:
    checkpoints = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(checkpoints, key=_step, reverse=True)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _is_whole(checkpoint: Path) -> bool:
    if not (checkpoint / SUMS).exists() and _best(checkpoint) is None:
        return False  # killed while it was written
    if not intact(checkpoint):
        return False
    best = checkpoint.parent / (_best(checkpoint) or checkpoint.name)
    if best == checkpoint or (best.exists() and intact(best)):
        return True
    print(f"{best}: the best step of {checkpoint} is not there any more, which is removed, too", flush=True)
    shutil.rmtree(checkpoint)
    return False


def _best(checkpoint: Path) -> str | None:
    """The name of its best step's checkpoint, empty where it has none; None where its state can't be read."""
    try:
        state = read_json(checkpoint / STATE)
    except (OSError, InputError):
        return None
    return Path(state.get("best_model_checkpoint") or "").name if isinstance(state, dict) else None
