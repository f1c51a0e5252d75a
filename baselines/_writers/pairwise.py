"""Trains an LLM by direct preference optimisation to prefer the title that was taken to one or several others.

With Delta(e) = log pi(e | x) - log pi_ref(e | x), both summed over the tokens of title e and its end, the loss of a
case is the cross-entropy of softmax(beta Delta) over the chosen title and the N rejected ones, at the chosen one. With
one that is DPO (Rafailov et al., arXiv 2305.18290); with several it is S-DPO (Chen et al., arXiv 2406.09215):

    -log sigma(-log sum_d exp(beta (Delta(d) - Delta(p)))) = log(1 + sum_d exp(beta (Delta(d) - Delta(p)))).

As a cross-entropy it can't overflow; S-DPO's released trainer computes the exponentials themselves. The reference is
the model as it is when the training begins, and not the backbone: its log-probabilities are read once before the first
step and kept. The titles of a case share its prompt, which is read once with gradients.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor
from torch.utils.data import Dataset, Sampler, SequentialSampler
from tqdm import tqdm
from transformers import PreTrainedModel, Trainer, TrainingArguments

from baselines._writers.llm_texts import causal_lm_of, micro_batch
from baselines._writers.title_ranking import ByTitle
from baselines._writers.title_search import title_tokens
from baselines._writers.title_tuning import TitleTuning
from benchmark.contract import Cases
from benchmark.errors import InputError
from benchmark.provenance import derive_seed
from benchmark.storage.checksums import intact, note_sum
from benchmark.storage.io import atomic
from lm.chat import prompt_ids
from lm.checkpoints import train
from lm.kernels.attention import use_grouped_attention
from lm.writing.rollouts import pack_rollouts, pad_id
from r2ec.model.network import WEIGHTS, R2ec

REFERENCE = "reference.npy"  # in the training's folder, beside its checkpoints
LOGGED = ("loss", "margin", "below", "chosen")


@dataclass(frozen=True)
class Preferences:
    """n cases, all with the same number of titles."""

    prompts: Sequence[Sequence[int]]  # token ids of each
    titles: Sequence[Sequence[Sequence[int]]]  # of each the chosen title and behind it the rejected ones, as token ids

    def __len__(self) -> int:
        return len(self.prompts)

    def take(self, rows: Sequence[int]) -> "Preferences":
        """The cases at these row numbers, in the order given."""
        return Preferences([self.prompts[row] for row in rows], [self.titles[row] for row in rows])


@dataclass(frozen=True)
class Training:
    """Settings of the training.

    beta: the larger it is, the less the LLM may leave the reference. A step has `users_per_step` cases, `at_once` of
    them in a micro-batch. The learning rate falls linearly to 0.
    """

    beta: float
    steps: int
    learning_rate: float
    users_per_step: int
    at_once: int
    save_steps: int


def prefer_titles(
    recommender: ByTitle,
    cases: Cases,
    items: Sequence[Sequence[int]],
    settings: TitleTuning,
    *,
    request: str,
    beta: float,
    steps: int,
    learning_rate: float,
    seed: int,
    folder: Path,
) -> list[dict[str, float]]:
    """`prefer` for a tuned LLM and the messages about these cases.

    items: of each case the chosen item and behind it the rejected ones. request: the message, see
    `llm_texts.MessageBuilder.user_messages`. settings: for the size of steps and micro-batches, and how often a
    checkpoint is kept. Returns what `prefer` returns.
    """
    messages, titles = (
        recommender.builder.user_messages(request, cases),
        title_tokens(recommender.tokenizer, recommender.builder.titles),
    )
    preferences = Preferences(
        [prompt_ids(recommender.tokenizer, message) for message in messages],
        [[titles[item] for item in ranked] for ranked in items],
    )
    training = Training(
        beta=beta,
        steps=steps,
        learning_rate=learning_rate,
        users_per_step=settings.users_per_step,
        at_once=settings.at_once,
        save_steps=settings.save_steps,
    )
    return prefer(recommender.model, preferences, training, pad=pad_id(recommender.tokenizer), seed=seed, folder=folder)


def prefer(
    model: PreTrainedModel | PeftModel,
    preferences: Preferences,
    settings: Training,
    *,
    pad: int,
    seed: int,
    folder: Path,
) -> list[dict[str, float]]:
    """Train the trainable weights of `model` on these cases in their order, from the start again where they end.

    pad: the pad token. Goes on from the last checkpoint in `folder`, against the same reference. Returns for each step
    `loss`, `margin` (Delta of the chosen title minus the mean Delta of the rejected ones), `below` (share of rejected
    titles whose Delta is lower) and `chosen` (mean log pi of the chosen title, which may fall if the rejected ones fall
    faster). Raises InputError for cases without a rejected title or with different numbers of them.
    """
    if len({len(titles) for titles in preferences.titles}) != 1 or len(preferences.titles[0]) < 2:
        raise InputError("each case needs one chosen title and the same number of rejected ones, at least one of them")
    if not torch.cuda.is_available():
        use_grouped_attention(causal_lm_of(model))
    net = R2ec(model)
    at_once = micro_batch(settings.users_per_step, settings.at_once)
    seen = preferences.take(range(min(len(preferences), settings.steps * settings.users_per_step)))
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=settings.users_per_step // at_once,
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        save_steps=settings.save_steps,
        save_total_limit=None,
        logging_steps=1,
        seed=derive_seed(seed, "preferences"),
        report_to=[],
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
    )
    reference = reference_logps(net, seen, pad, at_once, folder / REFERENCE)
    trainer = PreferenceTrainer(net, arguments, seen, reference, settings, pad)
    train(trainer)
    model.eval()
    logged = [entry for entry in trainer.state.log_history if "margin" in entry]
    return [{name: round(float(entry[name]), 4) for name in LOGGED} for entry in logged]


def preference_loss(logps: Tensor, reference: Tensor, beta: float) -> Tensor:
    """The mean loss of n cases; logps, reference: float32 [n, 1 + N], of the chosen title first.

    >>> all_equal = torch.zeros(1, 4)
    >>> round(float(preference_loss(all_equal, all_equal, 1.0)), 6)  # log 4
    1.386294
    """
    delta = beta * (logps - reference)
    return F.cross_entropy(delta, torch.zeros(len(delta), dtype=torch.long, device=delta.device))


def title_logps(net: R2ec, preferences: Preferences, pad: int) -> Tensor:
    """log pi of each title and its end behind its case's prompt, float32 [n, 1 + N]; gradients flow through."""
    titles = [title for case in preferences.titles for title in case]
    lengths = np.array([len(title) for title in titles])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, pad, dtype=np.int64)
    ids[mask] = np.concatenate([np.asarray(title, dtype=np.int64) for title in titles])
    logps = net(pack_rollouts(preferences.prompts, ids, mask, mask, pad, net.causal_lm.device)).token_logps
    return logps.sum(dim=1).reshape(len(preferences), -1)


def reference_logps(net: R2ec, preferences: Preferences, pad: int, at_once: int, path: Path) -> np.ndarray:
    """`title_logps` by the model as it is now, float32 [n, 1 + N], or those that a killed training has kept at `path`.

    They are read in the training's own first batches and by its kernels: in bf16 others round otherwise, and the first
    step would begin with differences that come from no learning.
    """
    if intact(path):
        return np.asarray(np.load(path))
    net.eval()
    starts = range(0, len(preferences), at_once)
    parts = [
        title_logps(net, preferences.take(range(start, min(start + at_once, len(preferences)))), pad).detach().cpu()
        for start in tqdm(starts, desc="reference", unit="batch", delay=5, leave=False)
    ]
    reference = torch.cat(parts).numpy()
    with atomic(path) as temporary:
        with temporary.open("wb") as file:
            np.save(file, reference)
        note_sum(path, temporary)
    return reference


class PreferenceTrainer(Trainer):
    """transformers' Trainer with `preference_loss`; its checkpoints hold the trained weights only."""

    def __init__(
        self,
        net: R2ec,
        arguments: TrainingArguments,
        preferences: Preferences,
        reference: np.ndarray,
        settings: Training,
        pad: int,
    ) -> None:
        self.preferences, self.reference, self.beta, self.pad = preferences, reference, settings.beta, pad
        self._gathered: dict[str, list[float]] = defaultdict(list)
        rows = _Rows(len(preferences), settings.steps * settings.users_per_step)
        super().__init__(model=net, args=arguments, train_dataset=rows, data_collator=lambda batch: {"rows": batch})

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """The loss of the rows `inputs["rows"]`. Raises InputError where it is not finite."""
        rows = inputs["rows"]
        logps = title_logps(model, self.preferences.take(rows), self.pad)
        reference = torch.from_numpy(self.reference[rows]).to(logps.device)
        loss = preference_loss(logps, reference, self.beta)
        if not bool(torch.isfinite(loss)):
            raise InputError(
                f"the preference loss is {float(loss.detach())} at step {self.state.global_step}; lower "
                "the rate or beta"
            )
        delta = (logps - reference).detach()
        ahead = delta[:, :1] - delta[:, 1:]
        self._gathered["margin"].append(float(ahead.mean()))
        self._gathered["below"].append(float((ahead > 0).float().mean()))
        self._gathered["chosen"].append(float(logps[:, 0].detach().mean()))
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of what the micro-batches since the last logging gathered."""
        if "loss" in logs:
            logs = logs | {name: float(np.mean(values)) for name, values in self._gathered.items()}
            self._gathered.clear()
        super().log(logs, start_time)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]

    @property
    def _net(self) -> R2ec:
        assert isinstance(self.model, R2ec)
        return self.model

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        self._net.save(folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._net.load(Path(resume_from_checkpoint) / WEIGHTS)


class _Rows(Dataset[int]):
    """`length` row numbers: those of the cases in order, from the start again where they end."""

    def __init__(self, cases: int, length: int) -> None:
        self.cases, self.length = cases, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> int:
        return i % self.cases
