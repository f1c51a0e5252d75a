"""LangPTune: an LLM writes a user profile, a sentence encoder ranks the catalogue by it; both are trained in turns.

Gao et al., "End-to-end Training for Recommendation with Language-based User Profiles" (arXiv 2410.18870;
github.com/ZhaolinGao/LangPTune). Kept: the writer is trained by reinforcement on the encoder's own NDCG, the encoder by
a contrastive loss between the profiles that the writer writes and the texts of the items that were taken next, round by
round. Different: GRPO with trl 1.16's default loss, which is DAPO's (arXiv 2503.14476), in the place of the paper's own
policy optimisation, LoRA, all-MiniLM-L6-v2 as the encoder, and the encoder begins, since one that has never seen a
profile rewards at random.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from baselines._writers.popularity import WithPopularity, popular, with_best_share
from baselines._writers.settings import WriterTraining, work
from benchmark.config.methods import ENCODER
from benchmark.contract import Split
from benchmark.provenance import derive_seed
from benchmark.storage.checksums import intact, write_sums
from benchmark.storage.io import atomic, read_json, write_json
from benchmark.storage.stages import Stage

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from baselines._writers.sentences import SentenceEncoder

FIT = Stage("langptune", 1, packages=("torch", "transformers", "peft", "tokenizers", "accelerate", "trl"))

__all__ = ["Params", "fit", "thinking", "work"]

REQUEST = (
    "These are the last {several} I chose, the newest at the end:\n{history}\n"
    "In one short sentence, describe the {category} that I will choose next."
)


class Params(WriterTraining):
    """rounds: of both trainings; encoder: folder of the sentence encoder, fetched if it is the default;
    contrastive_cases: whose profiles the encoder learns from in a round; contrastive_epochs, contrastive_batch,
    contrastive_rate, tau: of that training."""

    encoder: str = ENCODER
    rounds: int = Field(default=1, ge=1)
    contrastive_cases: int = Field(default=500, ge=2)
    contrastive_epochs: int = Field(default=2, ge=1)
    contrastive_batch: int = Field(default=32, ge=2)
    contrastive_rate: float = Field(default=2e-5, gt=0)
    tau: float = Field(default=0.05, gt=0)


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> WithPopularity:
    """Train encoder, writer, encoder, writer ..., and the encoder once more.

    A killed fit goes on after its last finished part.
    """
    settings = Params.model_validate(params)
    import torch

    from baselines._writers.grpo import rows_of, train_writer
    from baselines._writers.llm_texts import ByText
    from baselines._writers.sentences import item_texts, sentence_encoder
    from lm import backbone as backbones

    loaded = backbones.load(settings.backbone)
    encoder, texts = sentence_encoder(settings.encoder), item_texts(split.items, loaded.tokenizer)
    torch.manual_seed(derive_seed(seed, "adapters"))
    model = backbones.add_lora(loaded.model, settings.lora)
    report: dict[str, Any] = {"rewards": [], "contrastive_losses": []}
    rows: list[np.ndarray] = []
    for turn in range(settings.rounds + 1):
        part = derive_seed(seed, "round", turn)
        losses = _learn_profiles(
            split, settings, texts, encoder, model, loaded.tokenizer, part, workdir / f"encoder{turn}"
        )
        report["contrastive_losses"].append(losses)
        rows.append(profiled(split, settings, part))
        ranked = Ranking(encoder, texts)
        if turn < settings.rounds and settings.max_steps:
            report["rewards"] += train_writer(
                split,
                settings,
                REQUEST,
                ranked.scores,
                seed=part,
                model=model,
                tokenizer=loaded.tokenizer,
                folder=workdir / f"writer{turn}",
            )
            rows.append(rows_of(split, settings, part))
    recommender = ByText(
        split,
        model.eval(),
        loaded.tokenizer,
        request=REQUEST,
        scores_of=ranked.scores,
        max_items=settings.max_items,
        max_prompt_tokens=settings.max_prompt_tokens,
        max_new_tokens=settings.max_new_tokens,
        report=report,
    )
    return with_best_share(
        recommender, split, popular(split), settings.popularity, settings.valid_cases, trained=np.concatenate(rows)
    )


def thinking(p: dict[str, Any]) -> str:
    """What is computed before a recommendation: see `benchmark.config.methods.thinking_of`."""
    return "written"


class Ranking:
    """Cosines of texts and items by the encoder as it is now."""

    def __init__(self, encoder: "SentenceEncoder", items: Sequence[str]) -> None:
        self.encoder, self.items = encoder, encoder.encode(items, "encoding items")

    def scores(self, texts: list[str]) -> np.ndarray:
        """float32 [n, n_items]."""
        cosines: np.ndarray = (self.encoder.encode(texts, "encoding profiles") @ self.items.T).numpy()
        return cosines


def profiled(split: Split, settings: Params, seed: int) -> np.ndarray:
    """The rows of `split.llm_train` whose profiles the encoder learns from in one turn."""
    order = np.random.default_rng(derive_seed(seed, "profiles")).permutation(len(split.llm_train))
    return order[: settings.contrastive_cases]


def _learn_profiles(
    split: Split,
    settings: Params,
    items: list[str],
    encoder: "SentenceEncoder",
    model: "PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    seed: int,
    folder: Path,
) -> list[float]:
    """Let the writer write profiles of some training cases, and train the encoder on them.

    `folder` holds the finished result, which a later call loads. Returns the mean loss of each epoch.
    """
    from safetensors.torch import load_file, save_file

    if not intact(folder):
        from baselines._writers import llm_texts
        from lm.chat import prompt_ids

        cases = split.llm_train.take(profiled(split, settings, seed))
        assert cases.target is not None
        shown = (settings.max_items, settings.max_prompt_tokens, settings.max_new_tokens)
        messages = llm_texts.MessageBuilder(split, model, tokenizer, *shown).user_messages(REQUEST, cases)
        prompts = [prompt_ids(tokenizer, message) for message in messages]
        limits = llm_texts.greedy_as_trained(settings.max_new_tokens)
        profiles = [text.text for text in llm_texts.write_now(model, tokenizer, prompts, limits)]
        losses = contrast(encoder, profiles, cases.target, items, settings, seed)
        with atomic(folder) as temporary:
            temporary.mkdir(parents=True)
            save_file(dict(encoder.model.state_dict()), temporary / "encoder.safetensors")
            write_json(temporary / "losses.json", losses)
            write_sums(temporary)
    encoder.model.load_state_dict(load_file(folder / "encoder.safetensors"))
    losses = read_json(folder / "losses.json")
    return losses


def contrast(
    encoder: "SentenceEncoder",
    profiles: Sequence[str],
    targets: np.ndarray,
    items: Sequence[str],
    settings: Params,
    seed: int,
) -> list[float]:
    """Train the encoder by InfoNCE between profiles and the texts of their targets.

    Negatives are the batch's other targets, equal ones merged. targets: int [n], of each profile. Returns the mean loss
    of each epoch.
    """
    import torch
    import torch.nn.functional as F
    from tqdm import tqdm

    optimizer = torch.optim.AdamW(encoder.model.parameters(), lr=settings.contrastive_rate)
    generator = torch.Generator().manual_seed(derive_seed(seed, "contrast"))
    target_items = torch.from_numpy(np.asarray(targets, dtype=np.int64))
    losses = []
    for _ in tqdm(range(settings.contrastive_epochs), desc="training the encoder", unit="epoch", delay=5, leave=False):
        parts = torch.randperm(len(profiles), generator=generator).split(settings.contrastive_batch)
        total = 0.0
        for rows in parts:
            distinct, label = torch.unique(target_items[rows], return_inverse=True)
            users = encoder.embed([profiles[row] for row in rows.tolist()])
            candidates = encoder.embed([items[item] for item in distinct.tolist()])
            loss = F.cross_entropy(users @ candidates.T / settings.tau, label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(rows)
        losses.append(round(total / len(profiles), 5))
    return losses
