"""Say in one sentence, before anything runs, that a folder of a run can't be written.

Snakemake would say so in a traceback, or one of its jobs in the middle of a run. The Makefile calls
`python -m benchmark.storage.writable` for the folder that Snakemake makes in the user's home, which it wants before it
reads our Snakefile.
"""

import os
import tempfile
from pathlib import Path

from snakemake.common import get_appdirs

from benchmark.errors import InputError, command

# In a folder of a run, each with what lies in it.
PARTS = {
    ".snakemake": "auxiliary incomplete locks log metadata",
    "results": "ablations data fetched logs made_from plots report runs statistics tables usage work",
}
# What runs keep for others, often by links: a run may need only to read it.
SHARED = ("resources", "results/states", "results/texts", "results/tunings")
ADVICE = "make room, get the rights to it, or run elsewhere"


def check_writable(directory: Path) -> None:
    """Raise InputError where a run in this folder could not write. What isn't there yet is made in what is."""
    inner = (directory / part / name for part, names in PARTS.items() for name in ("", *names.split()))
    for shared in SHARED:
        _check_link(directory / shared)
    for folder in (directory, *inner):
        _check_link(folder)
        if os.path.exists(folder):  # where the rights to look are missing, Path.exists raises
            _check(folder, ADVICE)
        elif folder == directory:
            _check(next(parent for parent in folder.absolute().parents if os.path.exists(parent)), ADVICE)


def check_cache() -> None:
    """Raise InputError where Snakemake can't write to its cache in the user's home."""
    cache = Path(get_appdirs().user_cache_dir) / "snakemake/source-cache/snakemake-runtime-cache"
    present = next(path for path in (cache, *cache.parents) if os.path.exists(path))
    _check(present, "Snakemake keeps its cache there; set XDG_CACHE_HOME to a folder that can be written")


def _check_link(folder: Path) -> None:
    if folder.is_symlink() and not os.path.exists(folder):
        raise InputError(
            f"{folder}: is a link to {os.readlink(folder)}, which isn't there; make that folder, or remove the link"
        )


def _check(folder: Path, advice: str) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{folder.absolute()}: can't be written ({error.strerror}); {advice}") from None


@command
def main() -> None:
    check_cache()


if __name__ == "__main__":
    main()
