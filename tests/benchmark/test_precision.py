"""Which dtype `auto` is on a machine: as torch says it of a device, and as /proc/cpuinfo says it without torch."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmark import precision
from benchmark.precision import (
    dtype_of_auto,
    dtype_on,
    gpu_has_bfloat16,
    multiplies_in_bfloat16,
    processor_has_avx512,
    processor_has_bfloat16,
)
from benchmark.provenance import hardware


def test_auto_is_what_the_device_multiplies_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for known, name in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(precision, "multiplies_in_bfloat16", lambda device, known=known: known)
        assert dtype_on("auto", "cpu") == name
        assert [dtype_on("bfloat16", "cpu"), dtype_on("float32", "cpu")] == ["bfloat16", "float32"]


def test_a_gpu_that_emulates_it_counts_as_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    multiplies_in_bfloat16.cache_clear()
    for known in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, known=known: known)
        assert multiplies_in_bfloat16(f"cuda:{int(known)}") is known
    multiplies_in_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("text", "bfloat16", "avx512"),
    [
        ("model name\t: Zen 1\nflags\t\t: fpu sse2 avx avx2 fma f16c\n", False, False),
        ("flags\t\t: avx2 avx512f avx512dq avx512bw avx512vl avx512_bf16\n", True, True),
        ("flags\t\t: avx2 avx512f avx512dq avx512bw avx512vl avx512_bf16 amx_bf16 amx_tile\n", True, True),
        ("flags\t\t: avx2 avx512f avx512dq avx512bw avx512vl avx512_vnni\n", False, True),  # Skylake to Ice Lake
        ("flags\t\t: avx2 avx512f avx512cd avx512er avx512pf\n", False, False),  # Knights Landing
        ("Features\t: fp asimd sve bf16\n", True, False),
        ("Features\t: fp asimd\n", False, False),
        ("processor\t: 0\n", True, False),  # says nothing
    ],
)
def test_a_processors_flags(text: str, bfloat16: bool, avx512: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert processor_has_bfloat16(tmp_path / "cpuinfo") is bfloat16
    assert processor_has_avx512(tmp_path / "cpuinfo") is avx512


def test_without_flags_nothing_is_taken_for_slow(tmp_path: Path) -> None:
    assert processor_has_bfloat16(tmp_path / "none")


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets nvidia-smi be this shell script, or be missing for an empty one."""

    def shows(script: str) -> None:
        gpu_has_bfloat16.cache_clear()
        (tmp_path / "bin").mkdir(exist_ok=True)
        program = tmp_path / "bin" / "nvidia-smi"
        program.unlink(missing_ok=True)
        if script:
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return shows


# Two GPUs, the second an older one; nvidia-smi takes --id=NUMBER.
TWO = 'case "$*" in *--id=1*) echo 7.5;; *) echo 8.0; echo 7.5;; esac'


@pytest.mark.parametrize(
    ("script", "visible", "expected"),
    [
        (TWO, None, True),
        (TWO, "1", False),
        (TWO, "1,0", False),
        (TWO, "0,1", True),
        (TWO, "", None),
        (TWO, "-1", None),
        ("echo No devices were found; exit 6", None, True),
        ("", None, None),
        ("", "0", True),  # of another maker
    ],
)
def test_a_gpus_compute_capability(
    script: str,
    visible: str | None,
    expected: bool | None,
    smi: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    smi(script)
    assert gpu_has_bfloat16() is expected
    gpu_has_bfloat16.cache_clear()


@pytest.mark.parametrize("processor", [True, False])
def test_auto_without_torch_is_that_of_its_device(processor: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "processor_has_bfloat16", lambda: processor)
    of_processor = "bfloat16" if processor else "float32"
    for gpu, name in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(precision, "gpu_has_bfloat16", lambda gpu=gpu: gpu)
        assert [dtype_of_auto(device) for device in ("cpu", "cuda", "cuda:1", None)] == [of_processor, name, name, name]
    monkeypatch.setattr(precision, "gpu_has_bfloat16", lambda: None)
    assert [dtype_of_auto(device) for device in ("cpu", "cuda", None)] == [of_processor, "bfloat16", of_processor]


def test_with_torch_and_without_auto_is_one_dtype() -> None:
    assert dtype_of_auto("cpu") == dtype_on("auto", "cpu")
    if torch.cuda.is_available():
        assert dtype_of_auto("cuda") == dtype_of_auto(None) == dtype_on("auto", "cuda")


def test_torch_and_the_flags_of_this_machine_agree_and_are_recorded() -> None:
    assert multiplies_in_bfloat16("cpu") == processor_has_bfloat16()
    if not torch.cuda.is_available():
        assert hardware()["bfloat16"] == ("yes" if multiplies_in_bfloat16("cpu") else "no")
