"""What an LM costs, by hand: its shape, seconds of reading, learning and writing, and memory."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.jobs import lm_cost
from benchmark.jobs.estimates import ANY, estimate
from benchmark.jobs.lm_cost import KNOWN, LM, THREAD, Machine, by_kept_layers, device_memory, lm_of, seconds_of
from benchmark.storage.checksums import seal
from benchmark.workload import Work
from tests.support.estimating import SIZES

# 2 layers, width 10, feed-forward 20, queries 10, keys 5, 100 words.
TOY = LM(layers=2, hidden=10, inner=20, queries=10, keys=5, vocabulary=100)
SLOW = Machine(reading=500, learning=400, writing=250, step=1.0)


@pytest.fixture(autouse=True)
def with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimates are of a processor that multiplies in bfloat16, whatever the tests run on."""
    monkeypatch.setattr(lm_cost, "processor_has_bfloat16", lambda: True)


def test_a_processor_without_bfloat16_takes_longer_and_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lm_cost.processor(2) == THREAD.times(2)
    assert [lm_cost.weight_bytes({"dtype": dtype}, 0) for dtype in ("auto", "bfloat16", "float32")] == [2, 2, 4]
    monkeypatch.setattr(lm_cost, "processor_has_bfloat16", lambda: False)
    monkeypatch.setattr(lm_cost, "processor_has_avx512", lambda: True)
    assert lm_cost.processor(2) == lm_cost.WIDE_THREAD.times(2)
    monkeypatch.setattr(lm_cost, "processor_has_avx512", lambda: False)
    assert lm_cost.processor(2) == lm_cost.PLAIN_THREAD.times(2)
    assert [lm_cost.weight_bytes({"dtype": dtype}, 0) for dtype in ("auto", "bfloat16", "float32")] == [4, 2, 4]
    assert lm_cost.weight_bytes({}, 1) == 2  # a GPU
    read = Work(read=1000)
    assert seconds_of(TOY, read, lm_cost.processor(1)) == pytest.approx(2 * 1800 * 1000 / lm_cost.PLAIN_THREAD.reading)
    assert device_memory(TOY, [read], 10, 4) == 2 * device_memory(TOY, [read], 10)


def test_the_shape_of_an_lm_by_hand() -> None:
    # A layer: q and o 10 x 10 each, k and v 10 x 5 each, gate, up and down 10 x 20 each: 200 + 100 + 600.
    assert TOY.body == 1800 and TOY.weights == 2800
    assert TOY.activations == 2 * (400 + 280) and TOY.cache == 2 * 2 * 2 * 5
    assert TOY.kept_twice == 2 * 2 * 10 + 680


def test_known_backbones_have_the_parameters_that_they_are_known_for() -> None:
    millions = {name: round(lm.weights / 1e6) for name, lm in KNOWN.items()}
    assert millions == {
        "resources/smollm2-135m-instruct": 134,
        "Qwen/Qwen2.5-3B-Instruct": 3086,
        "google/gemma-2-2b-it": 2614,
        "google/gemma-2-9b-it": 9241,
    }


def test_seconds_are_those_by_hand() -> None:
    # Reading: 2 * 1800 operations a token at 500 a second; learning: 4 * 1800 at 400, 6 * 1800 where done twice.
    assert seconds_of(TOY, Work(read=10), SLOW) == pytest.approx(72)
    assert seconds_of(TOY, Work(learned=10), SLOW) == pytest.approx(180)
    assert seconds_of(TOY, Work(learned=10, twice=True), SLOW) == pytest.approx(270)
    # A layer of the two has a backward pass: 2 + 1 of 4, and 2 + 2 of 6, operations.
    assert seconds_of(TOY, Work(learned=10, frozen=1), SLOW) == pytest.approx(180 * 3 / 4)
    assert seconds_of(TOY, Work(learned=10, twice=True, frozen=1), SLOW) == pytest.approx(270 * 4 / 6)
    # The upper layer of the two reads them, and what the lower one says of them is known.
    assert seconds_of(TOY, Work(again=10, frozen=1), SLOW) == seconds_of(TOY, Work(read=5), SLOW)
    assert seconds_of(TOY, Work(again=10), SLOW) == seconds_of(TOY, Work(read=10), SLOW)
    assert seconds_of(TOY, Work(lower=10, frozen=1), SLOW) == seconds_of(TOY, Work(read=5), SLOW)
    assert seconds_of(TOY, Work(lower=10), SLOW) == 0
    # Writing 40 tokens, 4 rows at once: 10 steps of 2 * 2800 * 4 operations at 250 a second; or of the least time.
    assert seconds_of(TOY, Work(written=40, rows=4), SLOW) == pytest.approx(896)
    assert seconds_of(TOY, Work(written=40, rows=4), replace(SLOW, step=100.0)) == pytest.approx(1000)
    assert seconds_of(TOY, Work(maps=600), replace(SLOW, maps=200.0)) == pytest.approx(3)


def test_memory_is_that_by_hand() -> None:
    work = [Work(rows=3), Work(rows=2, held=7)]
    assert device_memory(TOY, work, 50) == 4 * 2800 + 7 * 1360 + 3 * 50 * 40
    assert device_memory(TOY, [replace(part, twice=True) for part in work], 50) == 4 * 2800 + 7 * 720 + 3 * 50 * 40


def test_a_folder_tells_its_shape(tmp_path: Path) -> None:
    about = {
        "num_hidden_layers": 2,
        "hidden_size": 10,
        "intermediate_size": 20,
        "num_attention_heads": 5,
        "vocab_size": 100,
    }
    assert lm_of({"name": str(tmp_path)}) is None
    (tmp_path / "config.json").write_text(json.dumps(about | {"num_key_value_heads": 1, "head_dim": 2}))
    assert lm_of({"name": str(tmp_path)}) == LM(2, 10, 20, 10, 2, 100)
    (tmp_path / "config.json").write_text(json.dumps(seal(about)))
    assert lm_of({"name": str(tmp_path)}) == LM(2, 10, 20, 10, 10, 100)
    (tmp_path / "config.json").write_text(json.dumps({"state_size": 3}))
    assert lm_of({"name": str(tmp_path)}) is None
    estimated = estimate(
        "r2ec", {"backbone": {"name": "some/lm", "revision": "1"}}, SIZES, gpus=0, threads=1, processes=1
    )
    assert estimated == ANY and not estimated.known


def test_nothing_of_the_lower_layers_is_kept_on_a_gpu_or_of_a_large_catalogue() -> None:
    work = {TOY: [Work(lower=100, frozen=1), Work(read=5, again=200, frozen=1)]}
    assert by_kept_layers(work, 100, 4, gpus=0) == (work, 100 * 10 * 4)
    whole = {TOY: [Work(frozen=1), Work(read=205, frozen=1)]}
    assert by_kept_layers(work, 100, 2, gpus=1) == (whole, 0)
    assert by_kept_layers(work, 2**30 / 20 + 1, 2, gpus=0) == (whole, 0)
    assert by_kept_layers({TOY: [Work(read=5)]}, 100, 4, gpus=0)[1] == 0
