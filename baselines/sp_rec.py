"""SPRec: an LLM tuned to write the next title plays against itself: it learns to prefer true titles to its own answers.

Gao et al., "SPRec: Self-Play to Debias LLM-based Recommendation", WWW 2025 (arXiv 2412.09243;
github.com/RegionCh/SPRec). Kept: after the tuning several iterations, in each of which the LLM as it is answers some
training cases greedily, is tuned on their true titles, and then learns by DPO to prefer the true title to its own
answer, with itself before that step as the reference; beta .1; and the ranking, by the sentence embedding nearest to a
greedy free text. Different: answers are held to the trie of all titles and leave the history out, so that none is
unusable; right answers are left out, which the released code keeps, though they teach nothing; the tuning's loss is on
the title only, in one prompt for all three uses; 2 iterations of 320 cases where the original has up to 5 of
2,048; one epoch of preferences but half of one of tuning, at 1e-4; all-MiniLM-L6-v2 and cosines of its vectors, where
the original has L2 distances of paraphrase-MiniLM-L3-v2. `ranking: beams` ranks as title_sft.py does: grounding costs
much by itself, so that only this setting is to be compared with that row.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from baselines._writers.title_tuning import (
    READ_OF_TITLES,
    REQUEST,
    STREAM,
    TITLES,
    TitleBeams,
    beams_work,
    examples,
    learned_from,
    tune,
    tuned,
    tuned_rows,
    tuning_work,
)
from benchmark.config.methods import ENCODER
from benchmark.contract import Cases, Recommender, Split
from benchmark.provenance import derive_seed
from benchmark.storage.checksums import intact, note_sum
from benchmark.storage.io import atomic, sha256_of_json
from benchmark.storage.kept import key
from benchmark.storage.stages import Stage
from benchmark.workload import TUNING, Sizes, Work, named, prompt_tokens, texts_of

if TYPE_CHECKING:
    from baselines._writers.title_ranking import ByTitle

__all__ = ["STREAM", "Params", "fit", "work"]

# The adapters after all iterations, and the ranking by them.
SELF_PLAY = Stage(
    "self-play", 2, after=(TITLES,), packages=("torch", "transformers", "peft", "tokenizers", "accelerate", "trl")
)
FIT = Stage("sp_rec", 2, after=(SELF_PLAY,))
ANSWERED_AGAIN = 64  # cases of an iteration, to see how many answers it has changed
OF_RANKING = {"ranking", "beams", "encoder", "max_new_tokens", "backbone", "save_steps", "tunings"}


class Params(TitleBeams):
    """iterations: of self-play; cases: answered in each; tuning_steps, tuning_rate: of its tuning; preference_steps,
    preference_rate, beta: of its preferences, all steps of `users_per_step` cases; ranking: by the sentence `encoder`'s
    nearest item to a text of `max_new_tokens` (`grounding`) or by `beams`."""

    iterations: int = Field(default=2, ge=0)
    cases: int = Field(default=320, ge=1)
    tuning_steps: int = Field(default=10, ge=1)
    tuning_rate: float = Field(default=1e-4, gt=0)
    preference_steps: int = Field(default=20, ge=1)
    preference_rate: float = Field(default=1e-4, gt=0)
    beta: float = Field(default=0.1, gt=0)
    ranking: Literal["grounding", "beams"] = "grounding"
    encoder: str = ENCODER
    max_new_tokens: int = Field(default=16, ge=1)


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> Recommender:
    """Tune the LLM's adapters to titles, then run self-play. A killed fit goes on after its last finished part.

    The fit reports losses: of each step of the tuning; iterations: of each, see `_iteration`.
    """
    settings = Params.model_validate(params)
    from baselines._writers.kept_adapters import kept_adapters
    from baselines._writers.title_ranking import ByTitle

    model, tokenizer, losses = tuned(split, settings, request=REQUEST, seed=seed, folder=workdir / "tuning")
    drawn = [_drawn(split, settings, seed, i) for i in range(settings.iterations)]
    recommender = ByTitle(
        split,
        settings,
        model,
        tokenizer,
        request=REQUEST,
        fit_report={"losses": losses, "iterations": []},
        learned_from=learned_from(split, settings, seed, *drawn),
    )
    if drawn:
        about = _depends_on(split, settings, recommender, seed, np.concatenate(drawn))
        playing = partial(play, split, settings, recommender, seed, drawn, workdir)
        recommender.fit_report["iterations"] = kept_adapters(Path(settings.tunings), about, model, playing)
    model.eval()
    return recommender if settings.ranking == "beams" else _grounded(split, settings, recommender)


def _grounded(split: Split, settings: Params, recommender: "ByTitle") -> Recommender:
    """A greedy text of each case, and the cosines of its sentence embedding to those of the titles."""
    from baselines._writers.llm_texts import ByText
    from baselines._writers.sentences import sentence_encoder

    encoder = sentence_encoder(settings.encoder)
    items = encoder.encode(recommender.builder.titles, "encoding titles")
    return ByText(
        split,
        recommender.model,
        recommender.tokenizer,
        request=REQUEST,
        scores_of=lambda texts: (encoder.encode(texts, "encoding texts") @ items.T).numpy(),
        max_items=settings.max_items,
        max_prompt_tokens=settings.max_prompt_tokens,
        max_new_tokens=settings.max_new_tokens,
        report=recommender.fit_report,
        learned_from=recommender.learned_from,
    )


def _drawn(split: Split, settings: Params, seed: int, iteration: int) -> np.ndarray:
    """The rows of `split.llm_train` that an iteration answers."""
    order = np.random.default_rng(derive_seed(seed, "self-play", iteration)).permutation(len(split.llm_train))
    return order[: settings.cases]


def _depends_on(split: Split, settings: Params, recommender: "ByTitle", seed: int, drawn: np.ndarray) -> dict[str, Any]:
    """All that the adapters depend on: stages, packages, weights, texts, cases, seed, and the settings of both
    trainings."""
    from lm import backbone as backbones

    cases = split.llm_train.take(np.concatenate([tuned_rows(split, settings, seed), drawn]))
    histories = [cases.history(i).tolist() for i in range(len(cases))]  # whose items no answer may be
    learned = [recommender.builder.titles, examples(recommender.builder, REQUEST, cases), histories]
    inputs = {
        "backbone": [*backbones.identity(settings.backbone), settings.backbone.device],
        "training": settings.model_dump(mode="json", exclude=OF_RANKING),
        "seed": seed,
        "cases": sha256_of_json(learned),
    }
    return key(SELF_PLAY, inputs)


def play(
    split: Split, settings: Params, recommender: "ByTitle", seed: int, drawn: list[np.ndarray], workdir: Path
) -> list[dict[str, Any]]:
    """All iterations, on the cases at these rows of `split.llm_train`; what each reports."""
    reports = []
    for number, rows in enumerate(drawn):
        part = derive_seed(seed, "iteration", number)
        reports.append(
            _iteration(settings, recommender, split.llm_train.take(rows), part, workdir / f"iteration{number}")
        )
    return reports


def _iteration(settings: Params, recommender: "ByTitle", cases: Cases, seed: int, folder: Path) -> dict[str, Any]:
    """Answer, tune, prefer.

    Reports answers: number of cases with one; right: how many of them were the true title, and so were left out; losses
    and preferences: of each step; changed: share of the first cases whose answer is another one afterwards.
    """
    assert cases.target is not None
    answers = _kept_answers(recommender, cases, folder / "answers.npy")
    own = settings.model_copy(update={"max_steps": settings.tuning_steps, "learning_rate": settings.tuning_rate})
    taught = cases.take(np.resize(np.arange(len(cases)), settings.tuning_steps * settings.users_per_step))
    learned = examples(recommender.builder, REQUEST, taught)
    losses = tune(recommender.model, recommender.tokenizer, learned, own, seed=seed, folder=folder / "tuning")
    recommender.model.eval()
    titles = np.array(recommender.builder.titles, dtype=object)
    answered = answers >= 0
    wrong = answered & (titles[answers] != titles[cases.target])
    preferences = list[dict[str, float]]()
    if wrong.any():
        rows = np.flatnonzero(wrong)
        preferences = _prefer(settings, recommender, cases.take(rows), answers[rows], seed, folder / "preferences")
    first_rows = np.arange(min(ANSWERED_AGAIN, len(cases)))
    return {
        "answers": int(answered.sum()),
        "right": int((answered & ~wrong).sum()),
        "losses": losses,
        "preferences": preferences,
        "changed": round(float((own_answers(recommender, cases.take(first_rows)) != answers[first_rows]).mean()), 4),
    }


def _prefer(
    settings: Params, recommender: "ByTitle", cases: Cases, answers: np.ndarray, seed: int, folder: Path
) -> list[dict[str, float]]:
    """Train by DPO on the true title of each case against the LLM's own answer."""
    from baselines._writers.pairwise import prefer_titles

    assert cases.target is not None
    return prefer_titles(
        recommender,
        cases,
        list(zip(cases.target.tolist(), answers.tolist(), strict=True)),
        settings,
        request=REQUEST,
        beta=settings.beta,
        steps=settings.preference_steps,
        learning_rate=settings.preference_rate,
        seed=seed,
        folder=folder,
    )


def _kept_answers(recommender: "ByTitle", cases: Cases, path: Path) -> np.ndarray:
    """`own_answers`, or those that a killed fit has kept at `path`: its LLM has learned since."""
    if not intact(path):
        answers = own_answers(recommender, cases)
        with atomic(path) as temporary:
            with temporary.open("wb") as file:
                np.save(file, answers)
            note_sum(path, temporary)
    return np.asarray(np.load(path))


def own_answers(recommender: "ByTitle", cases: Cases) -> np.ndarray:
    """The item that the present LLM answers for each case, greedily along the trie, int64 [n]; -1: no item is open."""
    answers = list[int]()
    for batch in cases.batches(recommender.settings.evaluation_rows):
        best = recommender.search(batch, recommender.builder.user_messages(REQUEST, batch), 1).best
        answers += [int(recommender.trie.items[user_best[0][1]]) if user_best else -1 for user_best in best]
    return np.array(answers, dtype=np.int64)


def work(s: Sizes, p: dict[str, Any], k: int) -> list[Work]:
    """The tuning; in each iteration answers, a tuning, and the preferences; then the ranking."""
    prompt = prompt_tokens(s, p["max_items"])
    cases, pair = min(p["cases"], s.train_llm), prompt + 2 * s.line
    tuned_on, preferred = p["tuning_steps"] * p["users_per_step"], p["preference_steps"] * p["users_per_step"]
    name = named(
        TUNING, "self-play", {name: value for name, value in p.items() if name not in OF_RANKING}, p["backbone"]
    )
    playing = [
        Work(
            read=p["iterations"] * ((cases + min(ANSWERED_AGAIN, cases)) * prompt + cases * pair),
            written=p["iterations"] * (cases + min(ANSWERED_AGAIN, cases)) * s.line * READ_OF_TITLES,
            rows=p["evaluation_rows"],
            kept=(*name, "answers"),
        ),
        Work(
            learned=p["iterations"] * (tuned_on * (prompt + s.line) + preferred * pair),
            held=p["at_once"] * pair if p["iterations"] else 0,
            frozen=p["lora"]["layers_from"],
            kept=(*name, "steps"),
        ),
    ]
    return [tuning_work(s, p), *playing, beams_work(s, p) if p["ranking"] == "beams" else texts_of(s, p, s.test)]
