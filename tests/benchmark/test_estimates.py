"""Estimates of a config's jobs: by hand, against measured runs, and for every config of the project."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.config.factors import ablations_of
from benchmark.config.methods import ROOT, load_method
from benchmark.config.read import read_config, read_config_file
from benchmark.config.schema import Config
from benchmark.jobs import lm_cost
from benchmark.jobs.estimates import (
    ANY,
    GIB,
    GPU_CONTEXT,
    GPU_SIZE,
    OUTPUTS,
    RULES,
    START,
    Estimate,
    estimate,
    in_words,
    of_job,
    of_rule,
    output_seconds,
    rows,
    table,
)
from benchmark.jobs.lm_cost import KNOWN, LM, THREAD, Machine, device_memory, lm_of, seconds_of
from benchmark.jobs.sizes import USUAL, sizes_of
from benchmark.storage.checksums import seal
from benchmark.workload import STATES, Sizes, Work

NOWHERE = Path("/nowhere")
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
    # Writing 40 tokens, 4 rows at once: 10 steps of 2 * 2800 * 4 operations at 250 a second; or of the least time.
    assert seconds_of(TOY, Work(written=40, rows=4), SLOW) == pytest.approx(896)
    assert seconds_of(TOY, Work(written=40, rows=4), replace(SLOW, step=100.0)) == pytest.approx(1000)
    assert seconds_of(TOY, Work(maps=600), replace(SLOW, maps=200.0)) == pytest.approx(3)


def test_memory_is_that_by_hand() -> None:
    work = [Work(rows=3), Work(rows=2, held=7)]
    assert device_memory(TOY, work, 50) == 4 * 2800 + 7 * 1360 + 3 * 50 * 40
    assert device_memory(TOY, [replace(part, twice=True) for part in work], 50) == 4 * 2800 + 7 * 720 + 3 * 50 * 40


def test_jobs_ask_for_a_reserve() -> None:
    asked_estimate = Estimate(seconds=3600, memory=2e9, gpu_memory=4e9)
    assert (asked_estimate.runtime, asked_estimate.mem_mb, asked_estimate.gpu_mem_mb) == (180, 3000, 4000)
    assert Estimate(seconds=1, memory=1e9).runtime == 15


SIZES = Sizes(items=100, train=1000, valid=200, test=50, line=10, item=20)


def filled(module: str, **params: Any) -> dict[str, Any]:
    from benchmark.config.methods import load_method

    params_filled: dict[str, Any] = load_method(module).Params.model_validate(params).model_dump(mode="json")
    return params_filled


def test_tokens_of_r2ec_by_hand() -> None:
    params = filled(
        "r2ec",
        backbone={"name": "x"},
        prompts={"max_items": 3},
        rollouts={"group_size": 4, "max_new_tokens": 8},
        recpo={"refresh_steps": 10},
        training={"max_steps": 25, "per_device_train_batch_size": 6, "eval_steps": 5, "eval_cases": 40},
        warm_start={"cases": 300, "valid_cases": 70},
    )
    items, encoded, maps, untrained_user, training = load_method("r2ec").work(SIZES, params, 2)
    # The frozen table, and 300 + 70 cases; a prompt: 30 + 3 lines of 10 tokens. The teacher learns from all 1,000
    # cases, 8 times: for each and each item 128 multiplications and additions, and twice that backward.
    assert plain(items) == Work(read=100 * 20, rows=64)
    assert plain(encoded) == Work(read=370 * 60, written=370 * 8, rows=64)
    assert plain(maps) == Work(maps=6 * 8 * 1000 * 100 * 128)
    # The table again: at steps 10 and 20, at five evaluations and at the end.
    cases = 50 + 5 * 40
    assert untrained_user == Work(read=cases * 60, again=8 * 100 * 20, written=cases * 8, rows=64)
    assert training == Work(
        read=25 * 6 * 60, written=25 * 6 * 4 * 8, rows=24, learned=25 * 6 * (60 + 32 + 20), held=6 * 112
    )
    # Two processes share an epoch; with activations computed twice each rollout reads the prompt again.
    epochs = params | {"training": params["training"] | {"max_steps": -1, "activation_checkpointing": True}}
    training = load_method("r2ec").work(SIZES, epochs, 2)[-1]
    assert training.learned == (3 * 1000 // 12) * 6 * (4 * 60 + 32 + 20) and training.twice
    own = params["warm_start"]["adapters"] | {"steps": 7, "batch_size": 5, "held_items": 3}
    parts = load_method("r2ec").work(SIZES, params | {"warm_start": params["warm_start"] | {"adapters": own}}, 2)
    assert [plain(part) for part in parts[3:5]] == [
        Work(read=7 * 5 * 60, written=7 * 5 * 8, rows=5, learned=7 * (5 * 68 + 3 * 20), held=5 * 68 + 3 * 20),
        Work(read=70 * 60, again=100 * 20, written=70 * 8, rows=64),
    ]
    assert parts[5:] == [untrained_user, parts[-1]] and bool(parts[3].kept and parts[4].kept)
    none = params | {"training": params["training"] | {"max_steps": 0}, "recpo": params["recpo"] | {"reasoning": False}}
    items, encoded, maps, untrained_user, training = load_method("r2ec").work(SIZES, none, 1)
    assert items.read == 100 * 20 and encoded.read == 370 * 60 and encoded.written == 0
    assert untrained_user == Work(read=50 * 60, written=0, rows=64) and training.learned == training.held == 0
    # From the bare backbone, RecPO encodes the table itself.
    bare = params | {"warm_start": params["warm_start"] | {"cases": 0}}
    untrained_user, training = load_method("r2ec").work(SIZES, bare, 2)
    assert untrained_user.read == 100 * 20 + cases * 60 and untrained_user.again == 8 * 100 * 20
    assert not untrained_user.kept


def test_what_a_long_training_takes_beside_recpo_by_hand() -> None:
    """25 steps of 6 users, 4 texts of 8 tokens; a prompt has 60 tokens, an item's 20."""
    base: dict[str, Any] = {"backbone": {"name": "x"}, "prompts": {"max_items": 3}}
    base |= {"rollouts": {"group_size": 4, "max_new_tokens": 8}, "warm_start": {"cases": 300, "valid_cases": 70}}

    def of(**changes: dict[str, Any]) -> tuple[Work, Work]:
        training = {"max_steps": 25, "per_device_train_batch_size": 6, "eval_cases": 40} | changes.pop("training", {})
        params = filled("r2ec", **base, training=training, recpo={"refresh_steps": 100} | changes.pop("recpo", {}))
        alone, learned = load_method("r2ec").work(SIZES, params, 1)[-2:]
        return alone, learned

    alone, learned = of()
    assert (alone.read, alone.again, alone.written) == (50 * 60, 100 * 20, 50 * 8)
    assert (learned.read, learned.learned) == (25 * 6 * 60, 25 * 6 * (60 + 32 + 20))
    # Measured at 0, 10 and 25, and not at 30: the table and 40 cases each time.
    alone, _ = of(training={"measured_steps": [0, 10, 25, 30]})
    assert (alone.read, alone.again, alone.written) == ((50 + 3 * 40) * 60, 4 * 100 * 20, (50 + 3 * 40) * 8)
    assert of(recpo={"candidates": "table"})[1].learned == 25 * 6 * (60 + 32)
    assert of(recpo={"kl": 0.1})[1].read == 25 * 6 * (60 + 60 + 32)
    # The control: a greedy text, and 16 held items a step.
    _, taught = of(training={"objective": "teacher"})
    assert (taught.written, taught.learned) == (25 * 6 * 8, pytest.approx(25 * (6 * (60 + 8) + 16 * 20)))


def plain(work: Work) -> Work:
    """The same work without the name under which it is kept, which says nothing of its size; it has to have one."""
    assert work.kept
    return replace(work, kept=())


def test_an_lm_reads_its_sample_and_what_counts_reads_all() -> None:
    """200 of the 1,000 training cases."""
    few = replace(SIZES, llm=200)
    warm = {"cases": 300, "valid_cases": 70}
    params = filled("r2ec", backbone={"name": "x"}, prompts={"max_items": 3}, warm_start=warm)
    _, encoded, maps, _, training = load_method("r2ec").work(few, params, 1)
    assert encoded.read == (200 + 70) * 60 and maps.maps == 6 * 8 * 1000 * 100 * 128
    assert training.learned == (3 * 200 // 24) * 24 * (60 + 4 * 512 + 20)
    kar = filled("kar", backbone={"name": "x"}, max_items=3, max_new_tokens=8, cases=500, item_knowledge="attributes")
    of_fit, scored = load_method("kar").work(few, kar, 1)
    assert (of_fit.read, scored.read) == ((200 + SIZES.valid) * 60, SIZES.test * 60)
    common = {"backbone": {"name": "x"}, "max_items": 3, "max_new_tokens": 8}
    assert (
        load_method("langptune").work(few, filled("langptune", **common, contrastive_cases=500), 1)[0].written
        == 450 * 8
    )
    assert load_method("frozen_llm").work(few, filled("frozen_llm", backbone={"name": "x"}, prompts={"max_items": 3},
                                             standardize=[500]), 1)[1].read == 200 * 60  # fmt: skip
    assert estimate("popularity", {}, few, gpus=0, threads=1, processes=1) == estimate(
        "popularity", {}, SIZES, gpus=0, threads=1, processes=1
    )


def test_tokens_of_the_pipelines_by_hand() -> None:
    common = {"backbone": {"name": "x"}, "max_items": 3, "max_new_tokens": 8}
    texts = Work(read=50 * 60, written=50 * 8, rows=64)
    assert load_method("profile_retrieval").work(SIZES, filled("profile_retrieval", **common), 1) == [texts]
    untrained_user, training = load_method("rec_r1").work(
        SIZES, filled("rec_r1", **common, users_per_step=6, max_steps=5), 1
    )
    assert untrained_user == texts
    assert training == Work(read=30 * 60, written=120 * 8, rows=24, learned=120 * 68, held=8 * 68)
    langptune = filled("langptune", **common, users_per_step=6, max_steps=5, rounds=2, contrastive_cases=30)
    untrained_user, training = load_method("langptune").work(SIZES, langptune, 1)
    assert untrained_user.written == (50 + 3 * 30) * 8 and training.learned == 240 * 68
    tuning, items, untrained_user = load_method("bigrec").work(
        SIZES, filled("bigrec", **common, users_per_step=6, max_steps=5, at_once=2), 1
    )
    assert tuning == Work(learned=30 * 70, held=2 * 70, kept=tuning.kept) and items == Work(read=100 * 10)
    # Where shares of popularity are compared, validation cases have a text, too; layers without adapters have no
    # backward.
    choice = {"popularity": [0, 1], "valid_cases": 20, "lora": {"layers_from": 2}}
    untrained_user, training = load_method("rec_r1").work(SIZES, filled("rec_r1", **common, **choice, max_steps=5), 1)
    assert untrained_user == Work(read=70 * 60, written=70 * 8, rows=64) and training.frozen == 2
    gammas = {"gamma": [0, 1], "valid_cases": 10**6, "lora": {"layers_from": 3}}
    tuning, _, untrained_user = load_method("bigrec").work(SIZES, filled("bigrec", **common, **gammas), 1)
    assert untrained_user.written == (50 + SIZES.valid) * 8 and tuning.frozen == 3


def test_a_title_tuning_counts_for_the_first_row_that_has_it() -> None:
    llm = {"backbone": {"name": "resources/smollm2-135m-instruct"}}
    config = toy_config(
        bigrec={"params": llm}, title_sft={"params": llm}, s_dpo={"params": llm | {"preference_steps": 0}}
    )
    jobs_of = {row.name: row.jobs for row in rows(config, NOWHERE)}
    whole = {name: of_job(config, ablations_of(config), "toy", name, 1, NOWHERE) for name in config.methods}
    (tuning,) = whole["title_sft"].kept.values()
    assert tuning > 0 and [*whole["bigrec"].kept] == [*whole["title_sft"].kept] == [*whole["s_dpo"].kept]
    # Once in each repetition.
    assert [job.seconds for job in jobs_of["run bigrec"]] == pytest.approx([whole["bigrec"].seconds] * 2)
    for name in ("title_sft", "s_dpo"):
        assert [job.seconds for job in jobs_of[f"run {name}"]] == pytest.approx([whole[name].seconds - tuning] * 2)


def test_tokens_of_preferences_and_self_play_by_hand() -> None:
    """Prompts of 30 + 3 * 10 tokens, titles of 10."""
    common = {"backbone": {"name": "x"}, "max_items": 3, "users_per_step": 4, "at_once": 2, "evaluation_rows": 5}
    method, beams = load_method("s_dpo"), 50 * 20 * 10 / 4
    s_dpo = filled("s_dpo", **common, preference_steps=5, negatives=2, lora={"layers_from": 1})
    _, second, ranking = method.work(SIZES, s_dpo, 1)
    assert second == Work(read=20 * 90, learned=20 * 90, held=2 * 90, frozen=1)
    assert ranking == Work(read=50 * 60, written=beams, rows=100)
    # Half an epoch of 1,000 cases, 4 a step.
    (tuning, _) = load_method("title_sft").work(SIZES, filled("title_sft", **common, max_steps=900, max_epochs=0.5), 1)
    assert tuning.learned == 125 * 4 * 70
    few = {"iterations": 2, "cases": 30, "tuning_steps": 2, "preference_steps": 3, "max_new_tokens": 8}
    _, answers, steps, texts = load_method("sp_rec").work(SIZES, filled("sp_rec", **common, **few), 1)
    # 30 cases are answered twice, and their pairs of titles read once for the reference.
    assert (answers.read, answers.written) == (2 * (60 * 60 + 30 * 80), 2 * 60 * 10 / 4)
    assert (steps.learned, steps.held) == (2 * (8 * 70 + 12 * 80), 2 * 80)
    assert texts == Work(read=50 * 60, written=50 * 8, rows=64)
    by_beams = filled("sp_rec", **common, **few, ranking="beams")
    made_alike = load_method("sp_rec").work(SIZES, by_beams, 1)
    assert made_alike[-1] == ranking and [part.kept for part in made_alike[1:3]] == [answers.kept, steps.kept]


def test_tokens_of_a_distillation_by_hand() -> None:
    """30 cases, two conversations of three answers each of 8 tokens; 24 tokens of a question and the template."""
    common = {"backbone": {"name": "x"}, "max_items": 3, "max_new_tokens": 8, "cases": 20}
    own = {"taught": 30, "step_tokens": 8, "users_per_step": 4, "at_once": 2, "writer_steps": 5}
    teacher, student, fitted, writing = load_method("slim").work(SIZES, filled("slim", **common, **own), 1)
    assert plain(teacher) == Work(read=30 * 60 + 60 * (2 * 60 + 3 * 32), written=60 * 24, rows=64)
    assert plain(student) == Work(learned=20 * (60 + 24), held=2 * (60 + 24))
    assert plain(fitted) == Work(read=(20 + SIZES.valid) * 60, written=(20 + SIZES.valid) * 8, rows=64)
    assert plain(writing) == Work(read=50 * 60, written=50 * 8, rows=64)
    again = load_method("slim").work(SIZES, filled("slim", **common, **own, learning_rate=0.01), 1)
    assert [part.kept for part in again] == [teacher.kept, student.kept, fitted.kept, writing.kept]
    undistilled = filled("slim", **common, distilled=False)
    assert load_method("slim").work(SIZES, undistilled, 1) == [plain(fitted), plain(writing)]


def test_a_larger_teacher_counts_by_its_own_size(tmp_path: Path) -> None:
    """30 cases of two conversations each, which read 2 * 60 + 3 * 32 tokens beside the first prompt and write 24."""
    shape = {"hidden_size": 10, "intermediate_size": 20, "num_attention_heads": 5, "vocab_size": 100}
    for name, layers in (("small", 2), ("large", 400)):
        (tmp_path / name).mkdir()
        about = shape | {"num_hidden_layers": layers, "num_key_value_heads": 1, "head_dim": 2}
        (tmp_path / name / "config.json").write_text(json.dumps(about))
    small, large = ({"name": str(tmp_path / name)} for name in ("small", "large"))
    # Of a layer, 10 * (2 * 10 + 2 * 2 + 3 * 20) weights; 100 words of width 10.
    student, teacher = LM(2, 10, 20, 10, 2, 100), LM(400, 10, 20, 10, 2, 100)
    assert (teacher.body, teacher.weights) == (336_000, 337_000)
    params = {"backbone": small, "max_items": 3, "max_new_tokens": 8, "taught": 30, "step_tokens": 8}

    def of(**more: Any) -> Estimate:
        return estimate("slim", params | more, SIZES, gpus=1, threads=1, processes=1)

    alike, taught = of(), of(teacher=large)
    read = 30 * 60 + 60 * (2 * 60 + 3 * 32)
    # Writing takes the least seconds of a step with both.
    assert taught.seconds - alike.seconds == pytest.approx(2 * (336_000 - 1_680) * read / 1e14, rel=1e-3)
    assert taught.memory - alike.memory == 3 * (teacher.weights - student.weights)
    # One after the other: the student's memory is less than the teacher's, 64 texts of 68 tokens.
    assert taught.gpu_memory == GPU_CONTEXT + 4 * 337_000 + 64 * 68 * 4 * 400 * 2 + 4 * 100 * 10
    assert of(teacher={"name": "some/lm", "revision": "1"}) == ANY


def test_texts_that_are_kept_count_once_for_a_grid_and_all_seeds() -> None:
    """KAR's second setting finds what the first has let write, and its second repetition all of it."""
    params = {"backbone": {"name": "resources/smollm2-135m-instruct"}, "cases": 40, "item_knowledge": "attributes"}
    config = toy_config(kar={"params": params, "grid": [{"learning_rate": 0.001}, {"learning_rate": 0.003}]})
    first, second = next(row.jobs for row in rows(config, NOWHERE) if row.name == "run kar")
    sizes, lm = sizes_of("toy", config.datasets["toy"], NOWHERE), KNOWN["resources/smollm2-135m-instruct"]
    training = START + load_method("kar").fit_cost(sizes, filled("kar", **params)).seconds

    def writing(cases: int) -> float:
        # A prompt of 30 + 6 lines of 17 tokens, and 16 tokens behind it.
        return seconds_of(lm, Work(read=cases * 132, written=cases * 16, rows=64), THREAD)

    def ranking(cases: int) -> float:
        return cases * sizes.items * 3e-8

    written = writing(40 + sizes.valid) + writing(sizes.valid) + writing(sizes.test)
    assert first.seconds == pytest.approx(2 * (training + ranking(sizes.valid)) + ranking(sizes.test) + written)
    assert second.seconds == pytest.approx(training + ranking(sizes.test))


def untuned() -> Config:
    """config.yaml with R2ec's params but without its grid, on two threads, as these runs were measured."""
    config = read_config_file(ROOT / "config" / "config.yaml")
    measured = config.method("r2ec").model_copy(update={"grid": [], "threads": 2})
    return config.model_copy(update={"methods": config.methods | {"r2ec": measured}})


@pytest.mark.parametrize(("seconds", "mib"), [(338 + 72, 8424), (489, 6390)], ids=["3b02528", "cc4e7f8"])
def test_within_a_third_of_measured_runs(seconds: float, mib: float) -> None:
    """R2ec of config.yaml on ml-100k at two commits: seconds and peak memory.

    Its warm start taught no adapters then.
    """
    config = untuned()
    params = config.method("r2ec").params
    params["warm_start"]["adapters"]["steps"] = params["lora"]["layers_from"] = 0
    estimated = of_job(config, ablations_of(config), "ml-100k", "r2ec", 1, NOWHERE)
    assert estimated.seconds == pytest.approx(seconds, rel=1 / 3) and estimated.memory / 2**20 == pytest.approx(
        mib, rel=1 / 3
    )


def test_within_a_third_of_a_measured_run_with_taught_adapters() -> None:
    """R2ec of config.yaml on movielens-2016 at commit 99ad0bc: 406 + 90 s, and some 230 for the states that it found
    encoded."""
    config = untuned()
    estimated = of_job(config, ablations_of(config), "movielens-2016", "r2ec", 1, NOWHERE)
    assert estimated.seconds == pytest.approx(726, rel=1 / 3) and estimated.memory / 2**20 == pytest.approx(
        5014, rel=1 / 3
    )


def test_memory_of_an_lm_that_only_reads_and_writes() -> None:
    """The untrained R2ec of config.yaml on complete-journey at commit cc4e7f8: 3,179 MiB at the peak."""
    config = read_config_file(ROOT / "config" / "config.yaml")
    estimated = of_job(config, ablations_of(config), "complete-journey", "r2ec_untrained", 1, NOWHERE)
    assert estimated.memory / 2**20 == pytest.approx(3179, rel=0.1)


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


def test_more_takes_more() -> None:
    def seconds(threads: int = 1, gpus: int = 0, processes: int = 1, **changes: Any) -> Estimate:
        params = {"backbone": {"name": next(iter(KNOWN))}, "training": {"max_steps": 10} | changes}
        return estimate("r2ec", params, USUAL["ml_100k"], gpus=gpus, threads=threads, processes=processes)

    assert seconds(2).seconds < seconds(1).seconds
    assert seconds(1, 1).seconds < seconds(2).seconds and seconds(1, 1).gpu_memory > GIB
    assert seconds(max_steps=20).seconds > seconds().seconds
    twice = seconds(activation_checkpointing=True)
    assert twice.memory < seconds().memory and twice.seconds > seconds().seconds
    assert seconds(2, processes=2).memory > 1.9 * seconds(1).memory
    assert THREAD.times(2) == Machine(4.2e11, 2.8e11, 2.3e11, 0.01, 5.2e10)


# Seconds of every job of smoke.yaml on a busy machine with 2 cores: an output's, or seed 1's and 2's.
SMOKE = {
    ("popularity", "planted"): (0.78, 0.81),
    ("popularity", "ml-100k"): (0.75, 0.85),
    ("item_knn", "planted"): (0.88, 0.81),
    ("item_knn", "ml-100k"): (1.15, 0.89),
    ("sasrec", "planted"): (7.77, 5.58),
    ("sasrec", "ml-100k"): (7.38, 5.43),
    ("r2ec", "planted"): (56.26,),
    ("r2ec", "ml-100k"): (123.42,),
}
SMOKE_OUTPUTS = {
    ("table", "planted"): 1.6,
    ("table", "ml-100k"): 1.6,
    ("tables", None): 1.6,
    ("against", None): 2,
    ("page", None): 2,
}
SMOKE_OUTPUTS |= {("plots", "planted"): 3.4, ("plots", "ml-100k"): 3.4}
SMOKE_COUNTS = {"planted": (60, 1558, 194, 196), "ml-100k": (906, 600, 200, 200)}


def test_small_jobs_are_within_a_factor_of_3_of_measured_ones(tmp_path: Path) -> None:
    config = read_config_file(ROOT / "config" / "smoke.yaml")
    ablations = ablations_of(config)
    for name, counts in SMOKE_COUNTS.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        about = {"counts": dict(zip(("items", "train", "valid", "test"), counts, strict=True))}
        (tmp_path / "data" / name / "dataset.json").write_text(json.dumps(seal(about)))
    measured, estimated = [], []
    for (method, dataset), seconds in SMOKE.items():
        for seed, measured_seconds in enumerate(seconds, start=1):
            measured.append(measured_seconds)
            estimated.append(of_job(config, ablations, dataset, method, seed, tmp_path).seconds)
    for rule, dataset, measured_seconds in (
        ("fetch", "planted", 1), ("fetch", "ml-100k", 2), ("prepare", "planted", 0.71), ("prepare", "ml-100k", 0.73)
    ):  # fmt: skip
        job = of_rule(config, ablations, rule, {"dataset": dataset}, tmp_path)
        measured.append(measured_seconds)
        estimated.append(job.seconds if job else 0)
    for (rule, of), measured_seconds in SMOKE_OUTPUTS.items():
        job = of_rule(config, ablations, rule, {"dataset": of} if of else {}, tmp_path)
        measured.append(measured_seconds)
        estimated.append(job.seconds if job else 0)
    wrong = [
        (measured_seconds, thought)
        for measured_seconds, thought in zip(measured, estimated, strict=True)
        if not 1 / 3 < thought / measured_seconds < 3
    ]
    assert not wrong and sum(estimated) == pytest.approx(sum(measured), rel=0.4)


@pytest.mark.parametrize(
    ("rule", "compared", "cases", "seconds"),
    [
        ("statistics", 3, [150], 1.8),
        ("statistics", 9, [1000] * 3, 3.3),
        ("statistics", 9, [6000], 2.6),
        ("overall_statistics", 9, [1000] * 3, 2.1),
        ("against_statistics", 3, [150], 1.6),
        ("against_statistics", 9, [1000] * 3, 2.2),
        ("against_statistics", 9, [6000], 2.0),
        ("table", 3, [150], 1.4),
        ("table", 9, [1000] * 3, 1.9),
        ("table", 9, [6000], 1.5),
        ("tables", 3, [150], 1.4),
        ("tables", 9, [1000] * 3, 2.0),
        ("tables", 9, [6000], 1.6),
        ("plots", 3, [150], 4.1),
        ("plots", 9, [1000] * 3, 11.8),
        ("plots", 9, [6000], 5.0),
        ("against", 3, [150], 2.5),
        ("against", 9, [1000] * 3, 3.2),
        ("against", 9, [6000], 2.8),
        ("page", 3, [150], 2.1),
        ("page", 9, [1000] * 3, 2.8),
        ("page", 9, [6000], 3.0),
    ],
)
def test_outputs_are_within_a_quarter_of_measured_ones(
    rule: str, compared: int, cases: list[int], seconds: float
) -> None:
    """Seconds of the processor, of made-up rankings, each command by itself."""
    assert output_seconds(rule, compared, cases) == pytest.approx(seconds, rel=0.25)


def test_only_planned_jobs_are_counted(tmp_path: Path) -> None:
    config = read_config_file(ROOT / "config" / "smoke.yaml")
    planned = [
        ("run", {"dataset": "ml-100k", "method": "sasrec", "seed": "2"}),
        ("fetch_backbone", {}),
        ("run", {"dataset": "ml-100k", "method": "sasrec", "seed": "1"}),
        ("page", {}),
        ("all", {}),
    ]
    counts = {row.name: len(row.jobs) for row in rows(config, tmp_path, planned)}
    assert counts == {"fetch_backbone": 1, "run sasrec": 2, "page": 1}
    text = table(config, tmp_path, planned, cores=2)
    total = sum(job.seconds * row.threads for row in rows(config, tmp_path, planned) for job in row.jobs)
    longest = max(job.seconds for row in rows(config, tmp_path, planned) for job in row.jobs)
    assert longest > total / 2
    assert f"In all {in_words(total)} of one core, about {in_words(longest)} on 2 cores: these jobs alone." in text
    assert "whatever of it is done already" in table(config, tmp_path) and "these jobs" not in table(config, tmp_path)
    assert [row.name for row in rows(config, tmp_path, [])] == []


def test_every_rule_that_runs_a_command_has_an_estimate() -> None:
    """A rule without one would be missing in the plan."""
    files = (ROOT / "workflow" / "rules").glob("*.smk")
    parts = [part for file in files for part in re.split(r"^(?=rule )", file.read_text(), flags=re.M)[1:]]
    ran = {part.split(":")[0].removeprefix("rule ") for part in parts if "\n    shell:\n" in part}
    assert ran == {*RULES, "run"} and set(OUTPUTS) < set(RULES)
    assert all("\n    message:\n" in part for part in parts if "\n    shell:\n" in part)


CONFIGS = sorted((ROOT / "config").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_job_of_every_config_has_an_estimate(path: Path) -> None:
    config = read_config_file(path)
    every_row = list(rows(config, NOWHERE))
    runs = sum(config.seeds_of(name) for name in config.methods) * len(config.datasets)
    assert sum(len(row.jobs) for row in every_row if row.name.startswith("run ")) == runs
    for row in every_row:
        for job in row.jobs:
            assert job.known and 0 < job.seconds < 14 * 86400 and 0 < job.memory < 256 * GIB, row.name
            assert (job.gpu_memory > 0) == (row.gpus > 0) and job.gpu_memory < GPU_SIZE, row.name


@pytest.mark.parametrize(("name", "thinks"), [("decoupled.yaml", True), ("config.yaml", False)])
def test_the_table_by_what_is_computed_is_counted_where_it_is_made(name: str, thinks: bool) -> None:
    config = read_config_file(ROOT / "config" / name)
    assert ("thinking" in {row.name for row in rows(config, NOWHERE)}) == thinks


def toy_config(**methods: Any) -> Config:
    return read_config(
        {"datasets": {"toy": {"source": "ml_100k", "category": "movie"}}, "methods": methods, "seeds": 2}
    )


def test_repetition_1_fits_the_grid() -> None:
    config = toy_config(sasrec={"grid": [{"learning_rate": 0.1}, {"learning_rate": 0.01}, {"epochs": 1}]})
    first, second = (of_job(config, ablations_of(config), "toy", "sasrec", seed, NOWHERE) for seed in (1, 2))
    assert 2 * second.seconds < first.seconds < 3 * second.seconds and first.memory == second.memory


R2EC: dict[str, Any] = {
    "backbone": {"name": "resources/smollm2-135m-instruct"},
    "rollouts": {"max_new_tokens": 8},
    "warm_start": {"cases": 100, "adapters": {"steps": 5}},
    "training": {"max_steps": 5},
}


def test_trials_share_states_and_warm_starts() -> None:
    """Two rates of RecPO begin from one warm start, and a third from another.

    A result on disk counts for the first trial.
    """
    grid = [
        {},
        {"training": {"learning_rate": 0.1}},
        {"training": {"max_steps": 5}, "warm_start": {"adapters": {"steps": 0}}},
    ]
    config = toy_config(r2ec={"params": R2EC, "grid": grid, "seeds": 1})
    sizes = USUAL["ml_100k"]

    def single_fit(scored: int, **changes: Any) -> Estimate:
        return estimate("r2ec", R2EC | changes, replace(sizes, test=scored), gpus=0, threads=1, processes=1)

    with_adapters, without = single_fit(sizes.valid), single_fit(sizes.valid, warm_start={"cases": 100})
    states = {name for name in with_adapters.kept if name[0] == STATES}
    assert states == {name for name in without.kept if name[0] == STATES} and len(states) == 2
    assert len(with_adapters.kept) == 5 and len(without.kept) == 3 and all(with_adapters.kept.values())
    expected = 2 * with_adapters.seconds - sum(with_adapters.kept.values())
    expected += without.seconds - sum(with_adapters.kept[name] for name in states)
    expected += single_fit(sizes.test).seconds - single_fit(0).seconds  # of the chosen one
    estimated = of_job(config, ablations_of(config), "toy", "r2ec", 1, NOWHERE)
    assert estimated.seconds == pytest.approx(expected) and len(estimated.kept) == 6


def test_jobs_share_states_and_a_repetition_s_warm_start() -> None:
    """An ablation of RecPO finds its base's warm start, the untrained row its table, another repetition the states
    alone."""
    untrained = {"backbone": R2EC["backbone"], "rollouts": R2EC["rollouts"], "training": {"max_steps": 0}}
    rows_of_it = {"r2ec": {"params": R2EC}, "r2ec_untrained": {"module": "r2ec", "params": untrained, "seeds": 1}}
    value = toy_config(**rows_of_it).model_dump(mode="json")
    value["ablations"] = {"beta": {"base": "r2ec", "seeds": 1, "values": {"0": {"recpo": {"beta": 0}}}}}
    config = read_config(value)
    ablations = ablations_of(config)
    jobs_of = {row.name: row.jobs for row in rows(config, NOWHERE)}
    first, second = (of_job(config, ablations, "toy", "r2ec", seed, NOWHERE) for seed in (1, 2))
    states = sum(seconds for name, seconds in first.kept.items() if name[1] == STATES)
    assert 0 < states < sum(first.kept.values()) < first.seconds == second.seconds
    assert [job.seconds for job in jobs_of["run r2ec"]] == pytest.approx([first.seconds, second.seconds - states])
    (run,) = ablations.variants
    variant = of_job(config, ablations, "toy", run, 1, NOWHERE)
    assert [job.seconds for job in jobs_of["ablations of r2ec"]] == pytest.approx(
        [variant.seconds - sum(first.kept.values())]
    )
    bare = of_job(config, ablations, "toy", "r2ec_untrained", 1, NOWHERE)
    (table_of_items,) = bare.kept.values()
    assert [job.seconds for job in jobs_of["run r2ec_untrained"]] == pytest.approx([bare.seconds - table_of_items])


@pytest.mark.parametrize("module", ["d3", "llm_rerank"])
def test_each_sasrec_within_a_pipeline_is_counted(module: str) -> None:
    def seconds(name: str, *sasrec: dict[str, Any]) -> float:
        llm = {"backbone": {"name": "resources/smollm2-135m-instruct"}, "sasrec": list(sasrec)}
        params = {"epochs": 5} if name == "sasrec" else llm
        return estimate(name, params, SIZES, gpus=0, threads=1, processes=1).seconds

    five_epochs, ten_epochs = {"epochs": 5}, {"epochs": 10}
    five = estimate("sasrec", ten_epochs, SIZES, gpus=0, threads=1, processes=1).seconds - seconds("sasrec")
    more = seconds(module, five_epochs, ten_epochs) - seconds(module, five_epochs)
    assert more == pytest.approx(2 * five) and five > 0
    assert seconds(module, five_epochs, ten_epochs) > seconds(module, ten_epochs)


def test_ablations_count_each_run_once() -> None:
    entry = {"grid": [{"learning_rate": 0.1}, {"learning_rate": 0.01}], "seeds": 1, "params": {"epochs": 15}}
    value: dict[str, Any] = toy_config(sasrec=entry).model_dump(mode="json")
    value["ablations"] = {
        "length": {"base": "sasrec", "values": {"15": {}, "10": {"epochs": 10}}},
        "both": {"base": "sasrec", "seeds": 2, "values": {"half": {"epochs": 10}, "quarter": {"epochs": 5}}},
    }
    config = read_config(value)
    jobs_of = {row.name: row.jobs for row in rows(config, NOWHERE)}
    # Two values with two seeds each, and a second seed of the base; each takes the tuned setting and fits once.
    assert len(jobs_of["run sasrec"]) == 1 and len(jobs_of["ablations of sasrec"]) == 5
    assert len(jobs_of["ablation"]) == len(jobs_of["ablation_plot"]) == 2 and len(jobs_of["claims"]) == 1
    jobs = {(run, seed): of_job(config, ablations_of(config), "toy", run, seed, NOWHERE) for run in
            ("sasrec", "sasrec--epochs=10", "sasrec--epochs=5") for seed in (1, 2)}  # fmt: skip
    assert sum(job.seconds for job in jobs_of["ablations of sasrec"]) == pytest.approx(
        sum(job.seconds for place, job in jobs.items() if place != ("sasrec", 1))
    )
    full, ten, five = (jobs[run, 2].seconds for run in ("sasrec", "sasrec--epochs=10", "sasrec--epochs=5"))
    assert full - ten == pytest.approx(ten - five) and ten > five
    assert jobs["sasrec", 1].seconds > full and jobs["sasrec--epochs=10", 1] == jobs["sasrec--epochs=10", 2]


@pytest.mark.parametrize(("items", "train", "seconds"), [(3496, 71_021, 1.3), (10_000, 88_000, 24.2)])
def test_ease_asks_for_its_dense_matrix(items: int, train: int, seconds: float) -> None:
    """Seconds of a fit on one thread: movielens-2016, and walks of 8,000 made-up users. 8 bytes for each pair of
    items."""
    sizes = Sizes(items=items, train=train, valid=500, test=1000)
    ease, knn = (estimate(name, {}, sizes, gpus=0, threads=1, processes=1) for name in ("ease", "item_knn"))
    assert ease.memory - knn.memory == 8 * items**2 and ease.known
    assert 1 / 3 < (ease.seconds - knn.seconds) / seconds < 3


def test_the_table_has_a_line_per_rule_and_method(tmp_path: Path) -> None:
    lm = {"backbone": {"name": "Qwen/Qwen2.5-3B-Instruct", "revision": "1", "device": "cuda"}}
    config = toy_config(popularity=None, r2ec={"gpus": 2, "threads": 4, "params": lm})
    text = table(config, tmp_path)
    lines = {line[:14].strip(): line.split() for line in text.splitlines()}
    assert lines["run popularity"][2] == "2" and lines["run popularity"][-2:] == ["-", "-"]
    assert lines["run r2ec"][2] == "2" and lines["run r2ec"][-2] == "2" and int(lines["run r2ec"][-1]) > 10
    assert "of one GPU" in text and "nothing here has run on a GPU" in text
    assert "GPU:" not in table(toy_config(popularity=None), tmp_path)
    assert "nothing here has run on a GPU" not in table(toy_config(popularity=None), tmp_path)
    lm["backbone"]["name"] = "some/lm"
    unknown = next(
        line for line in table(toy_config(r2ec={"gpus": 2, "params": lm}), tmp_path).splitlines() if "r2ec" in line
    )
    assert unknown.split() == ["run", "r2ec", "2", "?", "?", "?", "1", "2", "?"]


def test_the_command_prints_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmark.jobs.estimates", "--configfile", str(ROOT / "config" / "smoke.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "run sasrec" in done.stdout
    done = subprocess.run([*command[:-1], str(tmp_path / "gone.yaml")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "can't be read" in done.stderr
