"""LatentR3: an LLM tuned to write the next title thinks one latent thought first, by RL that generates no text.

Zhang et al., "Reinforced Latent Reasoning for LLM-based Recommendation", ICLR 2026 (arXiv 2505.19092;
github.com/xuwenxinedu/R3). Kept: an attention layer over the LM's last states of the whole prompt gives the input
embedding of one token between prompt and title. Stage 1 tunes LLM and layer on titles. Stage 2 tunes the layer only, by
noised copies of each thought, of which one has no noise. The reward is minus the true title's perplexity; the advantage
is the reward minus the mean of the batch's copies without noise, divided by the norm of all; there is no KL term. (The
released code swaps the baselines of neighbouring groups and then takes the mean of them all, so that the swap does
nothing; it is left out. Its clipping of a ratio to itself never binds and is left out, too.)
Different: stage 1 begins with the title tuning of title_sft.py; the layer's values are scaled at the start so that
thoughts are as large as the vocabulary's tokens; the noise is a share of each thought's size, where the original's 1.5
fits Qwen's embeddings; beams over the trie of all titles. Controls: `rl_steps: 0`, stage 1 alone; `thought: token`, one
more position without content. As the baseline is that of all prompts of a step, titles that are harder than its mean
are made less likely, also by thoughts without noise: the perplexity that the fit reports may rise.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from baselines._writers.title_tuning import (
    REQUEST,
    STREAM,
    TITLES,
    TitleBeams,
    beams_work,
    learned_from,
    tuned,
    tuning_work,
)
from benchmark.contract import Split
from benchmark.provenance import derive_seed
from benchmark.storage.stages import Stage
from benchmark.workload import Sizes, Work, prompt_tokens

if TYPE_CHECKING:
    from baselines._writers.latent_thought import ByThought

FIT = Stage(
    "latent_r3",
    2,
    after=(TITLES,),
    packages=("torch", "transformers", "peft", "tokenizers", "accelerate"),
)

__all__ = ["FIT", "STREAM", "Params", "fit", "thinking", "work"]


class Params(TitleBeams):
    """thought: `latent`, or `token`: a placeholder's embedding, without stage 2; thought_steps, thought_rate,
    thinker_rate: of stage 1, of adapters and layer; rl_steps, rl_rate, rl_at_once: of stage 2, the last its cases in a
    micro-batch; both stages take as many cases a step as the tuning. thoughts: of a prompt, the one without noise among
    them; noise: its standard deviation, as a share of the thought's root mean square; placeholder: the special token
    that `token` embeds (null: one that SmolLM2, Qwen2.5 and Gemma 2 have for nothing)."""

    thought: Literal["latent", "token"] = "latent"
    thought_steps: int = Field(default=40, ge=0)
    thought_rate: float = Field(default=3e-4, gt=0)
    thinker_rate: float = Field(default=1e-3, gt=0)
    rl_steps: int = Field(default=20, ge=0)
    rl_rate: float = Field(default=1e-4, gt=0)
    rl_at_once: int = Field(default=16, ge=1)
    thoughts: int = Field(default=8, ge=2)
    noise: float = Field(default=0.5, gt=0)
    placeholder: str | None = None


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> "ByThought":
    """Tune the LLM's adapters to titles, then both stages; a killed fit goes on from its last checkpoint.

    The fit reports losses: of each step of the tuning; thoughts: of each step of stage 1; reinforced: of each of stage
    2, see `latent_thought.reinforce`.
    """
    settings = Params.model_validate(params)
    import torch

    from baselines._writers import llm_texts
    from baselines._writers.latent_thought import ByThought, Thinker, Thinking, learn_to_think, reinforce
    from baselines._writers.soft_tokens import SoftTokens, placeholder_of
    from baselines._writers.step_training import Steps
    from lm.writing.rollouts import pad_id

    model, tokenizer, losses = tuned(split, settings, request=REQUEST, seed=seed, folder=workdir / "tuning")
    causal_lm = llm_texts.causal_lm_of(model)
    token = placeholder_of(tokenizer, settings.placeholder)[1]
    torch.manual_seed(derive_seed(seed, "thinker"))
    thinker = Thinker(causal_lm.config.hidden_size).to(causal_lm.device) if settings.thought == "latent" else None
    first, second = rows_of_stages(split, settings, seed)
    report: dict[str, Any] = {"losses": losses, "thoughts": [], "reinforced": []}
    learned = learned_from(split, settings, seed, first, second)
    recommender = ByThought(split, settings, model, tokenizer, request=REQUEST, fit_report=report, learned_from=learned)
    recommender.thinking, recommender.soft = Thinking(model, thinker, token), SoftTokens(causal_lm, token)
    if thinker is not None:
        first_cases = split.llm_train.take(np.arange(min(settings.users_per_step, len(split.llm_train))))
        prompts = [
            ids[:-1]
            for ids in recommender.prompts(first_cases, recommender.builder.user_messages(REQUEST, first_cases))
        ]
        with torch.no_grad():
            thinker.resize(recommender.thinking.read(prompts, pad_id(tokenizer))[0], recommender.soft.size())
    if settings.thought_steps:
        cases = split.llm_train.take(first)
        steps = Steps(settings.thought_steps, settings.users_per_step, settings.at_once, settings.save_steps)
        rates = (settings.thought_rate, settings.thinker_rate)
        report["thoughts"] = learn_to_think(recommender, cases, steps, *rates, seed=seed, folder=workdir / "thoughts")
    if thinker is not None and settings.rl_steps:
        cases = split.llm_train.take(second)
        steps = Steps(settings.rl_steps, settings.users_per_step, settings.rl_at_once, settings.save_steps)
        report["reinforced"] = reinforce(
            recommender,
            cases,
            steps,
            settings.rl_rate,
            times=settings.thoughts,
            noise=settings.noise,
            seed=seed,
            folder=workdir / "reinforced",
        )
    return recommender


def rows_of_stages(split: Split, settings: Params, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of `split.llm_train` that each stage takes, int64: a seeded order, repeated where it ends."""
    order = np.random.default_rng(derive_seed(seed, "thoughts")).permutation(len(split.llm_train))
    second = settings.rl_steps if settings.thought == "latent" else 0
    count = settings.thought_steps * settings.users_per_step
    rows = np.resize(order, count + second * settings.users_per_step)
    return rows[:count], rows[count:]


def thinking(p: dict[str, Any]) -> str:
    """What is computed before a recommendation: see `benchmark.config.methods.thinking_of`."""
    return "latent, in the language model" if p["thought"] == "latent" else "nothing"


def work(s: Sizes, p: dict[str, Any], k: int) -> list[Work]:
    """The tuning; stage 1, as the tuning; stage 2, whose thoughts and titles pass all layers back; beams.

    Scoring reads each prompt once more, for its thought."""
    prompt, latent = prompt_tokens(s, p["max_items"]), p["thought"] == "latent"
    cases, reinforced = (p[steps] * p["users_per_step"] for steps in ("thought_steps", "rl_steps"))
    whole = prompt + 1 + s.line
    first = Work(
        learned=cases * whole,
        held=p["at_once"] * whole if cases else 0,
        frozen=p["lora"]["layers_from"],
        read=s.test * prompt if latent else 0,
    )
    behind, at_once = p["thoughts"] * (1 + s.line), p["rl_at_once"]
    second = Work(
        read=reinforced * (prompt if at_once >= p["users_per_step"] else 2 * prompt + behind),
        learned=reinforced * behind,
        held=min(p["rl_at_once"], p["users_per_step"]) * behind if reinforced else 0,
    )
    return [tuning_work(s, p), first, *([second] if latent else []), beams_work(s, p)]
