"""SLIM: an LLM distilled from its own rationales writes about each user, and SASRec fuses the texts with its vectors.

Wang et al., "Can Small Language Models be Good Reasoners for Sequential Recommendation?", WWW 2024 (arXiv 2403.04260;
no code of its authors was found). Kept: a teacher answers three questions in one conversation (what the user likes,
which kinds to recommend, which items of these); a student with adapters learns the three answers, the rationale, from
a shorter prompt, by likelihood; it then writes of all users; a frozen text encoder; linear fusions of its vectors with
those of ids, g_f([g_l(text); id]), on the side of items and of users. `ids: false` is its form without ids.

**What the teacher is, and isn't.** The original's is ChatGPT, which knows more than its student. Ours is the student's
own backbone before its adapters, with the longer prompt: there is no larger LM in the default. Of several sampled
rationales of a training case the student learns the one whose vector ranks the case's target best. So the distillation
adds a selection by training targets and the three questions, and no knowledge. A gain of this row says nothing of what
a strong teacher would give. `teacher` names another LM, such as a larger one of the same chat, where there is one.

Different, too: SASRec over the whole catalogue by cross-entropy, where the original samples negatives; each side has
linear layers of its own, and g_f begins as its ids' half, so that the network begins as SASRec; all-MiniLM-L6-v2,
standardised vectors, a text for each case of a sample and a learned vector for the other training cases, as in kar.py;
the student's short prompt is that of kar.py. SASRec reads ids alone, and items' texts come in where they are scored.
Controls: `distilled: false`, the texts of the LLM as it is (kar.py's, where they are as long, with this network in the
place of its experts); `whose: others`, the text about another user.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from baselines._knowledge.users import (
    USER_REQUEST,
    Knowledge,
    KnowledgeParams,
    considering,
    frozen_writer,
    sampled,
    trained_with,
)
from baselines._writers.title_tuning import TitleTuning, tune
from benchmark.contract import Cases, Split
from benchmark.errors import InputError
from benchmark.provenance import derive_seed
from benchmark.storage.io import read_json, sha256_of_json, write_json
from benchmark.storage.kept import kept, key, place
from benchmark.storage.stages import Stage
from benchmark.workload import TUNING, FitCost, Sizes, Work, named, prompt_tokens, texts_of, trained
from lm.settings import BackboneSettings, LoraSettings

if TYPE_CHECKING:
    from torch import Tensor

    from baselines._knowledge.rationales import Student
    from baselines._knowledge.users import ByKnowledge
    from baselines._recbole.training import Maker
    from baselines._writers.sentences import SentenceEncoder

FIT = Stage("slim", 1, packages=("torch", "transformers", "peft", "tokenizers", "accelerate", "trl", "recbole"))

# The teacher's three questions; the history is in the first.
QUESTIONS = (
    "These are the last {several} I chose, the newest at the end:\n{history}\n"
    "In one short sentence, sum up which {several} I like.",
    "In one short sentence, say which kinds of {several} I should choose next.",
    "Name some {several} of these kinds.",
)
QUESTION = 24  # tokens, about, of each that follows, with the template around it and the answer


class Params(KnowledgeParams):
    """max_new_tokens: of the student's text; distilled: whether the LLM learns rationales first; whose: a control,
    `others` reads the text about another user; ids: whether there are ids beside texts; teacher: another LM than
    `backbone` that writes the rationales; taught: training cases of which it does; rationales: of each; step_tokens: of
    each of its three answers; temperature: of its writing; lora, users_per_step, at_once, writer_steps, writer_rate,
    save_steps: of the student's tuning; tunings: folder of tuned adapters; the others: see KnowledgeParams."""

    max_new_tokens: int = Field(default=48, ge=1)
    distilled: bool = True
    whose: Literal["own", "others"] = "own"
    ids: bool = True
    teacher: BackboneSettings | None = None
    taught: int = Field(default=320, ge=1)
    rationales: int = Field(default=2, ge=1)
    step_tokens: int = Field(default=16, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    lora: LoraSettings = LoraSettings()
    users_per_step: int = Field(default=16, ge=1)
    at_once: int = Field(default=8, ge=1)
    writer_steps: int = Field(default=40, ge=1)
    writer_rate: float = Field(default=3e-4, gt=0)
    save_steps: int = Field(default=20, ge=1)
    tunings: str = "results/tunings"


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> "ByKnowledge":
    """Let the teacher write, tune the student, let it write, train SASRec with its texts. A killed fit keeps all texts
    and goes on with the tuning from its last checkpoint.

    The fit reports, beside what kar.py does, losses: of each step of the student's tuning; ndcg_of_taught,
    ndcg_of_all: of the targets, ranked by the rationales that were chosen and by all, without a cut-off.
    """
    settings = Params.model_validate(params)
    # Imported first: it sets what RecBole needs.
    from baselines._recbole.fused_texts import FusedSASRec, fused_loss
    from baselines._writers.sentences import sentence_encoder

    encoder, report = sentence_encoder(settings.encoder), dict[str, Any]()
    writer = frozen_writer(settings)
    if settings.distilled:
        writer, report = distilled(split, settings, encoder, seed, workdir / "tuning")

    def make(items: "Tensor") -> "Maker":
        return lambda config, dataset: FusedSASRec(config, dataset, items, settings.ids)

    knowledge = (OfOthers if settings.whose == "others" else Knowledge)(split, settings, writer, encoder)
    recommender = trained_with(knowledge, written_items=False, make=make, loss=fused_loss, seed=seed, name="SLIM")
    recommender.writers_report = report
    return recommender


class OfOthers(Knowledge):
    """A control: each case reads the text about another user, drawn from the training cases with a text."""

    def of_cases(self, cases: Cases) -> "Tensor":
        return super().of_cases(self.others(cases))

    def others(self, cases: Cases) -> Cases:
        """Draw a training case of another user for each case, seeded by case. Raises InputError where there is none."""
        texts = self.split.train.take(sampled(self.split, self.settings.cases))
        rows = np.empty(len(cases), dtype=np.int64)
        for i, user in enumerate(cases.user.tolist()):
            of_others = np.flatnonzero(texts.user != user)
            if not len(of_others):
                raise InputError(f"case {cases.case[i]}: all {len(texts)} texts are about its own user; raise cases")
            drawn = np.random.default_rng(derive_seed(self.split.name, "others", int(cases.case[i])))
            rows[i] = drawn.choice(of_others)
        return texts.take(rows)


def distilled(
    split: Split, settings: Params, encoder: "SentenceEncoder", seed: int, folder: Path
) -> tuple["Student", dict[str, Any]]:
    """Tune the student on the chosen rationales; return it and its part of the fit's report.

    Rationales and adapters are kept for fits with the same settings.
    """
    import torch

    from baselines._knowledge.rationales import DISTILLED, Student
    from baselines._writers.kept_adapters import kept_adapters
    from baselines._writers.llm_texts import MessageBuilder, causal_lm_of
    from lm import backbone as backbones
    from lm.kernels.attention import use_grouped_attention

    rows = np.random.default_rng(derive_seed(seed, "taught")).permutation(len(split.llm_train))[: settings.taught]
    cases = split.llm_train.take(rows)
    chosen, report = chosen_rationales(split, settings, cases, encoder, seed)
    loaded = backbones.load(settings.backbone)
    torch.manual_seed(derive_seed(seed, "adapters"))
    model = backbones.add_lora(loaded.model, settings.lora)
    limits = (settings.max_items, settings.max_prompt_tokens, settings.max_new_tokens)
    builder = MessageBuilder(split, model, loaded.tokenizer, *limits)
    messages = builder.user_messages(considering(USER_REQUEST, settings), cases)
    order = np.resize(np.arange(len(cases)), settings.writer_steps * settings.users_per_step).tolist()
    learned = {"prompt": [messages[i] for i in order], "completion": [chosen[i] for i in order]}
    tuning = TitleTuning(
        max_steps=settings.writer_steps,
        learning_rate=settings.writer_rate,
        **settings.model_dump(include={"backbone", "lora", "users_per_step", "at_once", "save_steps"}),
    )
    about = key(
        DISTILLED,
        {
            "backbone": [*backbones.identity(settings.backbone), settings.backbone.device],
            "lora": settings.lora.model_dump(mode="json"),
            "training": [tuning.max_steps, tuning.learning_rate, tuning.users_per_step, tuning.at_once],
            "seed": seed,
            "examples": sha256_of_json(learned),
        },
    )
    losses = kept_adapters(
        Path(settings.tunings),
        about,
        model,
        lambda: tune(model, loaded.tokenizer, learned, tuning, seed=seed, folder=folder),
    )
    if not torch.cuda.is_available():  # as `tune` leaves it, for those who find the adapters
        use_grouped_attention(causal_lm_of(model))
    written = (settings.max_new_tokens, Path(settings.texts))
    student = Student(settings.backbone, *written, model.eval(), loaded.tokenizer, about)
    return student, {"losses": losses, **report}


def chosen_rationales(
    split: Split, settings: Params, cases: Cases, encoder: "SentenceEncoder", seed: int
) -> tuple[list[str], dict[str, float]]:
    """Return the teacher's rationale that ranks the target best, for each training case, and the report's NDCGs."""
    from baselines._knowledge.rationales import target_ranks
    from baselines._writers.sentences import item_texts

    by_case = teachers(split, settings, cases, seed)
    flat = [rationale for rationales in by_case for rationale in rationales]
    vectors = encoder.encode(flat, "encoding rationales").view(len(cases), settings.rationales, -1)
    items = encoder.encode(item_texts(split.items, encoder.tokenizer), "encoding items")
    ranks = target_ranks(vectors, items, cases)
    best = ranks.argmin(axis=1)  # the first among equals
    gains = 1 / np.log2(1 + ranks)
    report = {
        "ndcg_of_taught": round(float(gains[np.arange(len(cases)), best].mean()), 4),
        "ndcg_of_all": round(float(gains.mean()), 4),
    }
    return [rationales[at] for rationales, at in zip(by_case, best.tolist(), strict=True)], report


def teachers(split: Split, settings: Params, cases: Cases, seed: int) -> list[list[str]]:
    """Return the teacher's rationales of each case, each the three answers of a conversation joined; kept on disk."""
    from baselines._knowledge.rationales import RATIONALES, conversations, sampled_rollouts
    from baselines._writers.llm_texts import MessageBuilder
    from lm import backbone as backbones

    loaded = backbones.load(settings.teacher or settings.backbone)
    behind = len(QUESTIONS) * (settings.step_tokens + QUESTION)
    builder = MessageBuilder(
        split, loaded.model, loaded.tokenizer, settings.max_items, settings.max_prompt_tokens, behind
    )
    messages = builder.user_messages(QUESTIONS[0], cases)
    questions = [question.format(several=split.several) for question in QUESTIONS[1:]]
    writing = sampled_rollouts(settings.rationales, settings.step_tokens, settings.temperature)
    about = key(
        RATIONALES,
        {
            "backbone": backbones.identity(settings.teacher or settings.backbone),
            "writing": writing.model_dump(mode="json"),
            "seed": seed,
            "messages": sha256_of_json([messages, questions]),
        },
    )
    path = place(settings.texts, about, ".rationales.json")

    def make(temporary: Path) -> None:
        seed_of_writing = derive_seed(seed, "rationales")
        answers = conversations(loaded.model, loaded.tokenizer, messages, questions, writing, seed=seed_of_writing)
        joined = [" ".join(answers_of_one) for answers_of_one in answers]
        count = settings.rationales
        write_json(temporary, [joined[start : start + count] for start in range(0, len(joined), count)])

    kept(path, make)
    rationales: list[list[str]] = read_json(path)
    return rationales


def thinking(p: dict[str, Any]) -> str:
    """What is computed before a recommendation: see `benchmark.config.methods.thinking_of`."""
    return "written"


def work(s: Sizes, p: dict[str, Any], k: int) -> list[Work]:
    """Three questions in conversations that share the first prompt alone; the tuning; a text per case that has one.

    What both settings of a grid share is kept. A `teacher` counts by its own size.
    """
    fit_texts = texts_of(s, p, min(p["cases"], s.train_llm) + s.valid)
    if not p["distilled"]:
        return [fit_texts, texts_of(s, p, s.test)]
    cases = min(p["taught"], s.train_llm)
    prompt, talks, turn = prompt_tokens(s, p["max_items"]), cases * p["rationales"], p["step_tokens"] + QUESTION
    whole, steps = prompt + 3 * p["step_tokens"], p["writer_steps"] * p["users_per_step"]
    name = named(
        TUNING,
        "slim",
        {setting: value for setting, value in p.items() if setting not in ("learning_rate", "ids")},
    )
    return [
        Work(
            read=cases * prompt + talks * (2 * prompt + 3 * turn),
            written=3 * talks * p["step_tokens"],
            rows=64,
            kept=(*name, "teacher"),
            backbone=p["teacher"],
        ),
        Work(
            learned=steps * whole, held=p["at_once"] * whole, frozen=p["lora"]["layers_from"], kept=(*name, "student")
        ),
        replace(fit_texts, kept=(*name, "texts")),
        replace(texts_of(s, p, s.test), kept=(*name, "scored")),
    ]


def fit_cost(s: Sizes, p: dict[str, Any]) -> FitCost:
    """See `benchmark.workload`."""
    return trained(s, [p], 2.5e-5)
