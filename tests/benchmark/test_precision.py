"""Which dtype `auto` is on a machine: as torch says it of a device, and as /proc/cpuinfo says it without torch."""

from pathlib import Path

import pytest
import torch

from benchmark import precision
from benchmark.precision import dtype_on, multiplies_in_bfloat16, processor_has_bfloat16
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
    ("text", "expected"),
    [
        ("model name\t: Zen 1\nflags\t\t: fpu sse2 avx avx2 fma f16c\n", False),
        ("flags\t\t: avx2 avx512f avx512dq avx512bw avx512vl\n", True),
        ("flags\t\t: avx2 avx512f avx512dq\n", False),  # Knights Landing has some of AVX-512
        ("Features\t: fp asimd sve bf16\n", True),
        ("Features\t: fp asimd\n", False),
        ("processor\t: 0\n", True),  # says nothing
    ],
)
def test_a_processors_flags(text: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert processor_has_bfloat16(tmp_path / "cpuinfo") is expected


def test_without_flags_nothing_is_taken_for_slow(tmp_path: Path) -> None:
    assert processor_has_bfloat16(tmp_path / "none")


def test_torch_and_the_flags_of_this_machine_agree_and_are_recorded() -> None:
    assert multiplies_in_bfloat16("cpu") == processor_has_bfloat16()
    if not torch.cuda.is_available():
        assert hardware()["bfloat16"] == ("yes" if multiplies_in_bfloat16("cpu") else "no")
