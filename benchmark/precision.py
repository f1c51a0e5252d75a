"""Whether this machine multiplies matrices in bfloat16, which decides what the dtype `auto` of a setting stands for.

A processor without instructions for it takes two to four times as long in bfloat16 as in float32. Those are x86
without AVX512_BF16 or AMX, which most laptops and many servers have, and Arm before its bf16 extension. With the rest
of AVX-512 oneDNN computes it by conversions and says that it is supported. A GPU that emulates it is slower, too.
"""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Literal

Dtype = Literal["auto", "bfloat16", "float32"]
# The flags of processors that multiply in it: x86's by vectors and by tiles, and Arm's.
FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
AVX512 = {"avx512f", "avx512bw", "avx512vl", "avx512dq"}
COMPUTE_CAPABILITY = 8.0  # of NVIDIA's GPUs, from which on they have instructions for it; torch asks for the same


def dtype_on(dtype: Dtype, device: str) -> Literal["bfloat16", "float32"]:
    """A setting's dtype, and for `auto` bfloat16 where this device of torch multiplies in it, float32 elsewhere."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if multiplies_in_bfloat16(device) else "float32"


@cache
def multiplies_in_bfloat16(device: str = "cpu") -> bool:
    """Whether a device of torch, which has to be loaded, multiplies in bfloat16 by instructions for it."""
    torch = sys.modules["torch"]  # no import: of a method that is without torch this file is a part, too
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    by_onednn = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bool(by_onednn and processor_has_bfloat16())


@cache
def processor_has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """The same of this machine's processor, without torch. True where no /proc/cpuinfo says it."""
    flags = _flags(cpuinfo)
    return not flags or not flags.isdisjoint(FLAGS)


@cache
def processor_has_avx512(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this machine's processor has AVX-512, which multiplies in float32 three times as fast as AVX2.

    False where no /proc/cpuinfo says it.
    """
    return _flags(cpuinfo) >= AVX512


def _flags(cpuinfo: Path) -> set[str]:
    """The instructions that a processor has by /proc/cpuinfo; none where there is no such file, or it says none."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split(":", 1)[1].split()}


@cache
def gpu_has_bfloat16() -> bool | None:
    """The same of the first GPU that this job sees, without torch; None where it sees none.

    True where nvidia-smi doesn't say it, as of a GPU of another maker or of a slice.
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "all").split(",")[0].strip()
    if first in ("", "-1", "NoDevFiles"):
        return None
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(query + ([] if first == "all" else [f"--id={first}"]), capture_output=True, text=True)
    except OSError:  # no driver of NVIDIA's: a GPU is there only if somebody names one
        return None if first == "all" else True
    try:
        return float(done.stdout.splitlines()[0]) >= COMPUTE_CAPABILITY
    except (IndexError, ValueError):
        return True


def dtype_of_auto(device: str | None) -> Literal["bfloat16", "float32"]:
    """What `dtype_on` says of `auto`, without torch. device: of torch; None: a GPU if there is one, else the processor.

    The key of a fit's checkpoints needs it of every method before torch is loaded.
    """
    if device is None or device.startswith("cuda"):
        gpu = gpu_has_bfloat16()
        if gpu is not None or device is not None:  # one that is named and missing is said where it is used
            return "float32" if gpu is False else "bfloat16"
    return "bfloat16" if processor_has_bfloat16() else "float32"
