"""Where a number comes from: seeds, commit, versions, hardware, time and memory."""

import hashlib
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
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


def derive_seed(*names: object) -> int:
    """A seed in [0, 2**31) from names, by sha256, so that no two uses share a random stream by accident.

    >>> derive_seed("ml-100k", "sasrec", 1) == derive_seed("ml-100k", "sasrec", 1)
    True
    >>> derive_seed("a", "bc") == derive_seed("ab", "c")
    False
    """
    text = "\x1f".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


@cache
def commit() -> str:
    """The git commit of the working tree, with `-dirty` where tracked files differ from it, or `unknown`."""
    try:
        head = _git("rev-parse", "HEAD")
        # results/ is what a run writes: committed tables that it rewrites do not make the code dirty.
        ours = (".", ":(exclude)results", ":(exclude)README.md")
        dirty = _git("status", "--porcelain", "--untracked-files=no", "--", *ours)
        return head + ("-dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def versions() -> dict[str, str]:
    """Version of Python and of every package that can move a number."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def hardware() -> dict[str, str | int]:
    """Processor, usable cores, memory (GiB) and GPUs (only asked where torch is already loaded)."""
    processor = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                processor = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass  # not Linux: platform's own word stands
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    torch = sys.modules.get("torch")
    gpus = torch.cuda.device_count() if torch is not None else 0
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1),
        "memory_gib": round(gib),
        "gpus": gpus,
        "gpu": torch.cuda.get_device_name(0) if torch is not None and gpus else "none",
    }


def peak_memory_mib() -> int:
    """Peak resident memory of this process so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
