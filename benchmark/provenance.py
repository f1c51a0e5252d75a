"""Seeds, and the facts that a run records of itself: commit, versions, hardware and memory."""

import hashlib
import importlib.metadata
import os
import platform
import random
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path

from benchmark.errors import InputError
from benchmark.precision import multiplies_in_bfloat16

ROOT = Path(__file__).resolve().parents[1]  # of a checkout, or where a wheel's packages are installed
OWN = ("benchmark", "lm", "r2ec", "baselines")  # the packages of this project
PACKAGES = (
    "numpy",
    "pandas",
    "pyarrow",
    "scipy",
    "statsmodels",
    "torch",
    "recbole",
    "transformers",
    "peft",
    "trl",
    "snakemake",
)

# Changes of these don't make the code dirty: a run writes results/, and `make readme` writes tables into the pages.
OURS = (".", ":(exclude)results", ":(exclude)README.md", ":(exclude)docs")
CODE = (*OWN, "workflow", "config")  # where a new file is part of what runs
REQUIRE_CLEAN = "R2EC_REQUIRE_CLEAN"  # in the environment of the jobs of a config with require_clean
NAMED = 5  # files that a refusal names


def derive_seed(*names: object) -> int:
    """A seed in [0, 2**31) from names, by sha256, so that no two uses share a random stream by accident.

    >>> derive_seed("ml-100k", "sasrec", 1) == derive_seed("ml-100k", "sasrec", 1)
    True
    >>> derive_seed("a", "bc") == derive_seed("ab", "c")
    False
    """
    text = "\x1f".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def seed_generators(seed: int) -> None:
    """Seed the shared generators of Python, and of NumPy and torch where they are loaded, for code without its own."""
    seed = derive_seed(seed, "shared generators")
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _changed() -> list[str]:
    """Lines of `git status`: files that differ from the commit, and code that isn't in it.

    Raises CalledProcessError where the project is no git checkout: a copy of it in another one has that one's commits.
    """
    if Path(_git("rev-parse", "--show-toplevel")).resolve() != ROOT:
        raise subprocess.CalledProcessError(1, "git rev-parse --show-toplevel")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *OURS).splitlines()
    return changed + _git("status", "--porcelain", "--untracked-files=all", "--", *CODE).splitlines()


@cache
def commit() -> str:
    """The git commit of the working tree, with `-dirty` where files of it differ or code was added to it, or `unknown`.

    It is kept from the first call on, so that a job that asks at its start isn't told of commits made while it runs.
    """
    try:
        head, changed = _git("rev-parse", "HEAD"), _changed()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("-dirty" if changed else "")


def require_clean() -> None:
    """Raise InputError, naming the files, unless the code is that of a commit, without changed or new files."""
    try:
        changed = _changed()
    except (OSError, subprocess.CalledProcessError):
        raise InputError(
            f"require_clean: {ROOT} is no git checkout, so that no commit says what runs; clone the project with git"
        ) from None
    # A line is how the file differs, then its name; of a renamed one the new name comes last.
    files = sorted({line.strip().partition(" ")[2].strip().rpartition(" -> ")[2] for line in changed})
    if files:
        named = ", ".join(files[:NAMED]) + (f" and {len(files) - NAMED} more" if len(files) > NAMED else "")
        raise InputError(f"require_clean: not as in the last commit: {named}; commit what is to run, or undo it")


def versions() -> dict[str, str]:
    """Version of Python and of every package that can move a number."""
    version_of = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            version_of[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            version_of[package] = "not installed"
    return version_of


def memory_bytes() -> int:
    """Main memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def hardware() -> dict[str, str | int]:
    """Processor, usable cores, memory (GiB) and GPUs of this job; and its processes, if several have trained together.

    GPUs are counted only where torch is loaded, and only then is said whether the device has instructions for bfloat16.
    """
    processor = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                processor = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass  # not Linux: platform's own word stands
    torch = sys.modules.get("torch")
    gpus = torch.cuda.device_count() if torch is not None else 0
    facts: dict[str, str | int] = {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1),
        "memory_gib": round(memory_bytes() / 2**30),
        "gpus": gpus,
        "gpu": torch.cuda.get_device_name(0) if torch is not None and gpus else "none",
    }
    if torch is not None:
        facts["bfloat16"] = "yes" if multiplies_in_bfloat16("cuda" if gpus else "cpu") else "no"
    if "WORLD_SIZE" in os.environ:
        facts["processes"] = int(os.environ["WORLD_SIZE"])  # that trained together, as torchrun says
    return facts


def peak_memory_mib() -> int:
    """Peak resident memory of this process so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


def waited_for_cores(threads: Path = Path("/proc/self/task")) -> float | None:
    """Share of the time in which this process's threads could have run and had no core, from its start on.

    Other work on the machine raises it, or more threads than the process has cores, and with it all seconds. Threads
    that have ended don't count, nor does what a hypervisor gives to other guests. None where the system doesn't say
    (other systems than Linux).
    threads: the folder of the process's threads in /proc.
    """
    ran = waited = 0
    for file in threads.glob("*/schedstat"):
        try:
            own, other, _ = map(int, file.read_text().split())  # nanoseconds on a core and without one; times on a core
        except (OSError, ValueError):  # it has ended meanwhile
            continue
        ran, waited = ran + own, waited + other
    return waited / (ran + waited) if ran else None
