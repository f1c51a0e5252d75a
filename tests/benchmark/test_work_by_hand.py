"""The work of each method by hand: tokens that its LMs read, write and learn from, and what is counted once."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.config.factors import ablations_of
from benchmark.config.methods import load_method
from benchmark.jobs import lm_cost
from benchmark.jobs.estimates import ANY, GPU_CONTEXT, START, Estimate, estimate, of_job, rows
from benchmark.jobs.lm_cost import KNOWN, LM, THREAD, seconds_of
from benchmark.jobs.sizes import sizes_of
from benchmark.workload import PROCESS, STATES, Work
from tests.support.estimating import NOWHERE, SIZES, filled, toy_config


@pytest.fixture(autouse=True)
def with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimates are of a processor that multiplies in bfloat16, whatever the tests run on."""
    monkeypatch.setattr(lm_cost, "processor_has_bfloat16", lambda: True)


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
    assert untrained_user.read == cases * 60 and untrained_user.again == 9 * 100 * 20
    # No prompt is longer than the settings let it be.
    short = params | {"prompts": params["prompts"] | {"max_prompt_tokens": 15}}
    assert load_method("r2ec").work(SIZES, short, 2)[0].read == 100 * 15
    # Layers below all adapters read the table once in a process, those above at each encoding.
    upper = params | {"lora": params["lora"] | {"layers_from": 5}}
    below, items, _, _, untrained_user, training = load_method("r2ec").work(SIZES, upper, 2)
    assert plain(below) == Work(lower=100 * 20, frozen=5) and below.kept[0] == PROCESS
    assert plain(items) == Work(again=100 * 20, rows=64, frozen=5) and items.kept[0] == STATES
    assert untrained_user.again == 8 * 100 * 20 and untrained_user.frozen == training.frozen == 5
    nothing = upper | {"training": params["training"] | {"max_steps": 0}}
    assert plain(load_method("r2ec").work(SIZES, nothing, 2)[0]) == Work(read=100 * 20, rows=64)
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
