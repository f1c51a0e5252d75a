"""R2ec's engine beside others: what an engine is given, what counts, and the table."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmark.errors import InputError
from benchmark.provenance import ROOT
from r2ec.speed.engines import __main__ as script
from r2ec.speed.engines import generate, openvino, ours, report, vllm
from r2ec.speed.engines.work import Answer, Task, answer, read_work, write_work
from r2ec.speed.engines.work import Work as EngineWork
from r2ec.speed.limits import Limits
from r2ec.speed.work import Size, Work
from tests.support.tiny_fits import split, write_backbone

LIMITS = Limits(threads=2, float32_gflops=1, bfloat16_gflops=400, copy_gbytes=1)
TASKS = (("2 x 2 x 4", 2, 2, 4, False), ("1 x 5 greedy", 1, 1, 5, True))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Work:
    backbone = str(write_backbone(tmp_path_factory.mktemp("backbone")))
    return Work(split(), backbone, Size(users=2, group=2, items_in_prompt=4, new_tokens=4), dtype="float32")


@pytest.fixture
def work(model: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineWork:
    monkeypatch.setattr(script, "TASKS", TASKS)
    script.save_merged(model, tmp_path / "model")
    write_work(tmp_path / "work.json", EngineWork(str(tmp_path / "model"), "float32", 1, script.tasks(model, turns=3)))
    return read_work(tmp_path / "work.json")


def test_each_turn_has_prompts_of_its_own(work: EngineWork, model: Work) -> None:
    shapes = [(task.name, task.users, task.group, task.new_tokens, len(task.turns)) for task in work.tasks]
    assert shapes == [("2 x 2 x 4", 2, 2, 4, 3), ("1 x 5 greedy", 1, 1, 5, 3)]
    cases = model.split.llm_train
    expected = model.reader.prompts.user_prompts(cases.take(np.arange(len(cases) - 9, len(cases))))
    assert [prompt for task in work.tasks for turn in task.turns for prompt in turn] == expected
    with pytest.raises(InputError, match="training cases for prompts; 100000 turns need 300000"):
        script.tasks(model, turns=100_000)


def test_all_of_our_environment_write_the_same_greedy_tokens(work: EngineWork, monkeypatch: pytest.MonkeyPatch) -> None:
    # In float32, as rounding decides between tokens of a random LM in bf16.
    monkeypatch.setenv(generate.CACHE, "static")
    answers = [answer(*writer, work) for writer in (ours_of(work, False), ours_of(work, True), generate.load(work))]
    greedy = [done.texts["1 x 5 greedy"] for done in answers]
    assert greedy[0] == greedy[1] == greedy[2] and len(greedy[0][0]) == 5
    assert all(len(done.texts["2 x 2 x 4"]) == 4 for done in answers)
    assert [len(done.seconds[name]) for done in answers for name in done.seconds] == [2] * 6
    assert answers[2].engine == "transformers generate, static cache"


def test_processes_have_shares_of_the_users_in_their_order(work: EngineWork, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []

    class Pool:
        def __init__(self, processes: int, **settings: object) -> None: ...
        def __enter__(self) -> "Pool":
            return self

        def __exit__(self, *error: object) -> None: ...
        def submit(self, call: Callable[..., object], states: bool, task: Task, prompts: list) -> SimpleNamespace:
            shares.append((states, prompts))
            return SimpleNamespace(result=lambda: [[number] * task.new_tokens for (number,) in prompts])

    monkeypatch.setattr(ours, "ProcessPoolExecutor", Pool)
    task = Task("x", 1, 3, True, 50, [])
    with ours.by_processes(ours.Source(Path("data"), "lm"), 2) as writers:
        (merged, _, write), (with_states, _, write_states) = writers
        assert write(task, [[4], [5], [6]]) == [[4] * 3, [5] * 3, [6] * 3]
        assert write_states(task, [[7]]) == [[7] * 3]
    assert (merged, with_states) == (f"{ours.MERGED}, 2 processes", f"{ours.WITH_STATES}, 2 processes")
    assert shares == [(False, [[4], [5]]), (False, [[6]]), (True, [[7]])]


def ours_of(work: EngineWork, with_states: bool) -> tuple[str, str, ours.Write]:
    model = Work(split(), work.model, Size(users=2, group=2, items_in_prompt=4, new_tokens=4), dtype="float32")
    with torch.no_grad():
        for name, value in model.reader.model.named_parameters():
            if "lora_B" in name:  # merged already
                value.zero_()
    return ours.by_threads(model, with_states)


def test_a_text_of_another_length_is_refused(work: EngineWork) -> None:
    with pytest.raises(ValueError, match=r"x: 4 texts of \[3, 4\] tokens for 2 x 2 x 4, which asks for 4 of 4"):
        answer("x", "1", lambda task, prompts: [[0] * 4, [0] * 4, [0] * 3, [0] * 4], work)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_vllm_is_asked_for_full_lengths(work: EngineWork, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    work = replace(work, dtype=dtype)
    asked = []

    class LLM:
        def __init__(self, **settings: object) -> None:
            asked.append(settings)

        def generate(self, prompts: list[dict[str, list[int]]], settings: SimpleNamespace, use_tqdm: bool) -> list:
            asked.append(settings)
            outputs = [SimpleNamespace(token_ids=(7,) * settings.max_tokens)] * settings.n
            return [SimpleNamespace(outputs=outputs) for _ in prompts]

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=LLM, SamplingParams=SimpleNamespace))
    monkeypatch.setitem(sys.modules, "vllm.inputs", SimpleNamespace(TokensPrompt=dict))
    monkeypatch.setattr(vllm, "version", lambda name: "1")
    for name in ("VLLM_CPU_KVCACHE_SPACE", "VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_CPU_OMP_THREADS_BIND"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = answer(*vllm.load(work), work)
    assert found.texts == {"2 x 2 x 4": [[7] * 4] * 4, "1 x 5 greedy": [[7] * 5]}
    longest = max(len(prompt) + task.new_tokens for task in work.tasks for turn in task.turns for prompt in turn)
    assert found.engine == f"vLLM, {dtype}" and asked[0]["dtype"] == dtype
    assert asked[0]["max_model_len"] == longest + 1
    drawn, greedy = asked[1], asked[-1]
    assert (drawn.n, drawn.temperature, drawn.top_k, drawn.ignore_eos) == (2, 1.0, 50, True)
    assert (greedy.n, greedy.temperature, greedy.max_tokens, greedy.ignore_eos) == (1, 0.0, 5, True)


@pytest.mark.parametrize(("dtype", "products", "weights"), [("bfloat16", "bf16", "fp16"), ("float32", "f32", "fp32")])
def test_openvino_is_asked_for_full_lengths(
    work: EngineWork, monkeypatch: pytest.MonkeyPatch, dtype: str, products: str, weights: str
) -> None:
    work = replace(work, dtype=dtype)
    asked = []

    class Pipeline:
        def __init__(self, folder: str, scheduler: SimpleNamespace, device: str, properties: dict[str, object]) -> None:
            asked.append(properties)

        def generate(self, ids: list[np.ndarray], settings: list[SimpleNamespace]) -> list[SimpleNamespace]:
            asked.append(settings[0])
            assert len(settings) == len(ids) and ids[0].shape[0] == 1
            text = [np.int64(7)] * settings[0].max_new_tokens
            return [SimpleNamespace(m_generation_ids=[text] * settings[0].num_return_sequences) for _ in ids]

    genai = SimpleNamespace(
        ContinuousBatchingPipeline=Pipeline, SchedulerConfig=SimpleNamespace, GenerationConfig=SimpleNamespace
    )
    monkeypatch.setitem(sys.modules, "openvino_genai", genai)
    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(Tensor=lambda array: array))
    monkeypatch.setattr(openvino, "version", lambda name: "1")
    lines = []
    monkeypatch.setattr(subprocess, "run", lambda line, check: lines.append([str(part) for part in line]))
    found = answer(*openvino.load(work), work)
    assert found.texts == {"2 x 2 x 4": [[7] * 4] * 4, "1 x 5 greedy": [[7] * 5]}
    assert asked[0]["INFERENCE_PRECISION_HINT"] == asked[0]["KV_CACHE_PRECISION"] == products
    assert found.engine == f"OpenVINO GenAI, {dtype}" and asked[0]["INFERENCE_NUM_THREADS"] == 1
    assert (asked[1].num_return_sequences, asked[1].do_sample, asked[1].top_k, asked[1].ignore_eos) == (
        2,
        True,
        50,
        True,
    )
    assert asked[-1].num_return_sequences == 1 and not hasattr(asked[-1], "do_sample")
    assert lines[0][0].endswith("optimum-cli") and work.model in lines[0] and weights in lines[0]


def test_engines_modules_import_nothing_of_ours_but_the_work_file() -> None:
    # In an engine's environment there is neither torch's build of ours nor any of our packages.
    code = (
        "import sys; sys.path.insert(0, '.'); import r2ec.speed.engines.vllm, r2ec.speed.engines.openvino\n"
        "ours = {m for m in sys.modules if m.split('.')[0] in ('benchmark', 'lm', 'r2ec', 'torch', 'numpy')}\n"
        "print(sorted(ours))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    modules = [
        "r2ec",
        "r2ec.speed",
        "r2ec.speed.engines",
        *(f"r2ec.speed.engines.{m}" for m in ("openvino", "vllm", "work")),
    ]
    assert done.stdout.strip() == str(modules)


def test_an_engine_that_fails_says_so_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "work.json").write_text("{}")
    log = tmp_path / "engines.vllm.log"
    with pytest.raises(InputError) as raised:
        script.by_module(sys.executable, "vllm", tmp_path, log, {})
    assert str(raised.value) == f"vllm: KeyError: 'model' (exit code 1; log: {log})"


def test_speeds_are_medians_over_rounds() -> None:
    tasks = [Task("a", 2, 4, False, 50, [[[1], [2]]]), Task("b", 1, 3, True, 50, [[[1]]])]
    texts = {"a": [[1, 2, 3, 4]] * 4, "b": [[5, 6, 7]]}
    answers = [
        Answer(ours.MERGED, "1", {"a": [2.0, 4.0], "b": [1.0, 1.0]}, texts),
        Answer("other", "2", {"a": [1.0, 9.0], "b": [4.0, 4.0]}, texts | {"b": [[5, 6, 8]]}),
        Answer(ours.MERGED, "1", {"a": [3.0, 5.0], "b": [1.0, 3.0]}, texts),
        Answer("other", "2", {"a": [1.0, 2.0], "b": [4.0, 4.0]}, texts),
    ]
    measured = report.speeds(tasks, answers)
    assert [(row.engine, row.task, row.seconds, row.fastest, row.slowest) for row in measured] == [
        (ours.MERGED, "a", 3.5, 2.0, 5.0),
        (ours.MERGED, "b", 1.0, 1.0, 3.0),
        ("other", "a", 1.5, 1.0, 9.0),
        ("other", "b", 4.0, 4.0, 4.0),
    ]
    assert [row.tokens_per_second for row in measured] == [16 / 3.5, 3.0, 16 / 1.5, 0.75]
    assert [row.equal for row in measured] == [None, 1.0, None, pytest.approx(2 / 3)]
    text = report.markdown(report.About("c", "shop", "bfloat16", LIMITS), measured)
    assert (
        "| other | 2 | 1.5 (2.33) | 4 (0.25) | 67% |" in text
        and "2 threads, all engines in bfloat16, in which this machine multiplies at 400 GFLOP/s" in text
    )
    assert "all engines in float32, in which this machine multiplies at 1 GFLOP/s" in report.markdown(
        report.About("c", "shop", "float32", LIMITS), measured
    )


def test_a_run_that_ends_early_leaves_what_it_has_measured(
    model: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(*arguments: object) -> Iterator[Answer]:
        yield Answer(ours.MERGED, "1", {"a": [2.0]}, {})
        raise InputError("vllm: gone")

    monkeypatch.setattr(script, "measure", measure)
    monkeypatch.setattr(ours.Source, "model", lambda source: model)
    monkeypatch.setattr(script, "tasks", lambda model, turns: [Task("a", 1, 4, False, 50, [[[1]]])])
    monkeypatch.setattr(script.limits, "measure", lambda: LIMITS)
    monkeypatch.setattr(sys, "argv", ["engines", "--engines", "ours", "--out", str(tmp_path / "speed")])
    with pytest.raises(SystemExit):
        script.main()
    assert "| ours, adapters merged | 1 | 2 (1.00) |" in (tmp_path / "speed/engines.md").read_text()
    said = capsys.readouterr().err
    assert "round 1 of 2: ours, adapters merged, 2 s\n" in said and "error: vllm: gone" in said


def test_what_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["engines", "--environments", str(tmp_path)])
    with pytest.raises(SystemExit):
        script.main()
    python = tmp_path / "openvino/bin/python"
    assert capsys.readouterr().err == f"error: {python}: no such file; install the engines by `make peers`\n"


def test_the_table_is_written_as_a_file(tmp_path: Path) -> None:
    row = report.Speed(ours.MERGED, "1", "a", 1.0, 1.0, 1.0, 8.0, None)
    about = report.About("c", "shop", "float32", LIMITS)
    report.write(about, [row], tmp_path / "speed")
    lines = (tmp_path / "speed/engines.csv").read_text().splitlines()
    assert lines == [
        "engine,version,task,seconds,fastest,slowest,tokens_per_second,equal",
        f'"{ours.MERGED}",1,a,1.0,1.0,1.0,8.0,',
    ]
    assert (tmp_path / "speed/engines.md").read_text() == report.markdown(about, [row])
