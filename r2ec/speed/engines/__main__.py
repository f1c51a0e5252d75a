"""`python -m r2ec.speed.engines`: how fast R2ec's engine writes beside vLLM, OpenVINO and transformers' own `generate`.

All read the same prompts and write texts of the same lengths with the same merged weights, one engine after the
other, in rounds. All compute in the dtype that R2ec's backbone has on this machine. `make peers` installs the engines,
each in an environment of its own. With nothing else running.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmark import provenance
from benchmark.errors import InputError, command
from benchmark.jobs.last_words import sentence_of
from benchmark.provenance import ROOT
from lm.backbone import merged_adapters
from r2ec.speed import limits
from r2ec.speed.engines import ours, report
from r2ec.speed.engines.generate import CACHE
from r2ec.speed.engines.work import Answer, Dtype, Task, answer, write_work
from r2ec.speed.engines.work import Work as EngineWork
from r2ec.speed.work import Work

# Name, users, texts per user, tokens per text, greedy. The first two are RecPO's rollouts, the others an evaluation.
TASKS = (
    ("16 x 4 x 64", 16, 4, 64, False),
    ("64 x 4 x 16", 64, 4, 16, False),
    ("64 x 16 greedy", 64, 1, 16, True),
    ("1 x 16 greedy", 1, 1, 16, True),
)
PEERS = ("openvino", "vllm")
ENGINES = ("ours", "generate", *PEERS)


def tasks(model: Work, turns: int) -> list[Task]:
    """The tasks, each turn with prompts of its own. Raises InputError where the dataset has too few cases."""
    cases = model.split.llm_train
    needed = sum(users for _, users, *_ in TASKS) * turns
    if len(cases) < needed:
        raise InputError(f"{model.split.name} has {len(cases)} training cases for prompts; {turns} turns need {needed}")
    prompts = iter(model.reader.prompts.user_prompts(cases.take(np.arange(len(cases) - needed, len(cases)))))
    top_k = model.params.rollouts.top_k
    return [
        Task(name, group, tokens, greedy, top_k, [[next(prompts) for _ in range(users)] for _ in range(turns)])
        for name, users, group, tokens, greedy in TASKS
    ]


def save_merged(model: Work, folder: Path) -> None:
    """The LM with its adapters folded in, as transformers and the other engines read it."""
    with merged_adapters(model.reader.model.backbone) as causal_lm:
        causal_lm.save_pretrained(folder)
    model.reader.prompts.tokenizer.save_pretrained(folder)


def by_module(python: str, module: str, folder: Path, log: Path, environment: dict[str, str]) -> Answer:
    """Run an engine's module in its environment. Raises InputError, which names the log, where it fails."""
    line = [python, "-m", f"r2ec.speed.engines.{module}", str(folder / "work.json"), str(folder / "answer.json")]
    with log.open("w", encoding="utf-8") as output:
        code = subprocess.run(
            line, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, stdout=output, stderr=subprocess.STDOUT
        ).returncode
    if code:
        raise InputError(f"{module}: {sentence_of([str(log)])} (exit code {code}; log: {log})")
    return Answer(**json.loads((folder / "answer.json").read_text(encoding="utf-8")))


def measure(
    model: Work,
    source: ours.Source,
    work: EngineWork,
    names: list[str],
    python: dict[str, str],
    folder: Path,
    out: Path,
) -> Iterator[Answer]:
    """One round: the answers of these ENGINES, one after the other; logs go to `out`.

    source: what `model` was made of. python: of each peer. folder: where the work and its model lie.
    """
    if "ours" in names:
        yield from (answer(*ours.by_threads(model, with_states), work) for with_states in (False, True))
        if work.threads > 1:
            with ours.by_processes(source, work.threads) as writers:
                yield from (answer(*writer, work) for writer in writers)
    if "generate" in names:
        for cache in ("dynamic", "static"):
            yield by_module(sys.executable, "generate", folder, out / f"engines.generate.{cache}.log", {CACHE: cache})
    for peer in PEERS:
        if peer in names:
            openmp = Path(python[peer]).parent.parent / "lib/libiomp5.so"  # vLLM asks for it, and brings it along
            preloaded = {"LD_PRELOAD": str(openmp)} if openmp.exists() else {}
            yield by_module(python[peer], peer, folder, out / f"engines.{peer}.log", preloaded)


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m r2ec.speed.engines", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("results/data/ml-100k"), help="a prepared dataset")
    parser.add_argument("--backbone", default="resources/smollm2-135m-instruct")
    parser.add_argument("--environments", type=Path, default=Path("build/peers"), help="folder that make peers fills")
    parser.add_argument("--out", type=Path, default=Path("results/speed"), help="folder of the table")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--turns", type=int, default=3, help="turns per task and round; the first isn't counted")
    parser.add_argument("--rounds", type=int, default=2, help="rounds through all engines")
    args = parser.parse_args()
    if args.turns < 2 or args.rounds < 1:
        raise InputError(f"--turns {args.turns} --rounds {args.rounds}: give at least 2 turns and 1 round")
    python = {peer: str(args.environments / peer / "bin" / "python") for peer in PEERS}
    if missing := [path for peer, path in python.items() if peer in args.engines and not Path(path).exists()]:
        raise InputError(f"{missing[0]}: no such file; install the engines by `make peers`")
    source = ours.Source(args.data, args.backbone)
    model = source.model()
    to_do = tasks(model, args.turns)
    args.out.mkdir(parents=True, exist_ok=True)
    dtype: Dtype = "bfloat16" if model.dtype == torch.bfloat16 else "float32"
    about = report.About(provenance.commit(), model.split.name, dtype, limits.measure())
    answers: list[Answer] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_merged(model, folder / "model")
        work = EngineWork(str(folder / "model"), dtype, torch.get_num_threads(), to_do)
        write_work(folder / "work.json", work)
        for number in range(args.rounds):
            for done in measure(model, source, work, args.engines, python, folder, args.out):
                answers.append(done)
                took = sum(sum(seconds) for seconds in done.seconds.values())
                print(f"round {number + 1} of {args.rounds}: {done.engine}, {took:.0f} s", file=sys.stderr, flush=True)
                # After each: a run that is stopped leaves what it has measured.
                report.write(about, report.speeds(to_do, answers), args.out)
    print(report.markdown(about, report.speeds(to_do, answers)))
    print(f"Table: {args.out / 'engines.md'}")


if __name__ == "__main__":
    main()
