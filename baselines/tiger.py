"""TIGER: generative retrieval. An item has a semantic id of a few codes; a seq2seq transformer writes the next item's.

Rajput et al., "Recommender Systems with Generative Retrieval", NeurIPS 2023 (arXiv 2305.05065; no code by the authors).
Kept: ids by residual quantisation of the embeddings of the items' texts, one more code where items would share an id,
an encoder-decoder of T5's kind with a hashed user token in front of the history's codes, beams for retrieval.
Different: residual k-means in the place of an RQ-VAE, all-MiniLM-L6-v2 in the place of Sentence-T5, beams that a trie
holds to real ids, so that none is lost to an id that no item has, and by default a smaller network and fewer codes (the
paper's 256 codes, 4 layers, 6 heads and d_ff of 1024 are in config/paper.yaml).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from benchmark.config.methods import ENCODER
from benchmark.contract import Cases, Recommender, Split
from benchmark.precision import Dtype, dtype_on
from benchmark.provenance import derive_seed
from benchmark.storage.stages import Stage
from benchmark.workload import FitCost, Sizes, trained

if TYPE_CHECKING:
    import torch
    from transformers import T5ForConditionalGeneration

FIT = Stage("tiger", 1, packages=("torch", "transformers", "tokenizers", "accelerate", "scikit-learn"))

PAD, END = 0, 1  # T5's own; the decoder begins with PAD
USER_BUCKETS = 2000  # as in the paper


class Params(BaseModel):
    """encoder: folder of the sentence encoder, fetched if it is the default and isn't there; codes: per level; levels:
    before the one that tells equal ids apart; max_history: newest items that are read, null for all of the dataset's;
    d_model .. dropout_rate: T5's names; dtype: of matrix products in training, auto: bfloat16 where the device
    multiplies in it, float32 elsewhere; beams: how many items are retrieved."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str = ENCODER
    codes: int = Field(default=64, ge=2)
    levels: int = Field(default=3, ge=1)
    max_history: int | None = Field(default=None, ge=1)
    d_model: int = Field(default=128, ge=1)
    d_kv: int = Field(default=64, ge=1)
    d_ff: int = Field(default=512, ge=1)
    num_layers: int = Field(default=2, ge=1)
    num_heads: int = Field(default=4, ge=1)
    dropout_rate: float = Field(default=0.1, ge=0, lt=1)
    dtype: Dtype = "auto"
    learning_rate: float = Field(default=1e-3, gt=0)
    batch_size: int = Field(default=64, ge=1)
    epochs: int = Field(default=30, ge=1)
    patience: int = Field(default=3, ge=1)
    beams: int = Field(default=50, ge=1)
    evaluation_rows: int = Field(default=32, ge=1)


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> "Tiger":
    """Quantise the items, train the transformer; the best epoch on validation loss is kept. A killed fit resumes."""
    settings = Params.model_validate(params)
    import torch

    from baselines._recbole.dropout import use_byte_dropout
    from baselines._writers.sentences import item_texts, sentence_encoder

    encoder = sentence_encoder(settings.encoder)
    items = encoder.encode(item_texts(split.items, encoder.tokenizer), "encoding items").numpy()
    ids = semantic_ids(items, settings.codes, settings.levels, derive_seed(seed, "codes") % 2**31)
    tokens = Tokens(ids, settings.codes)
    torch.manual_seed(derive_seed(seed, "model"))
    model = _model(settings, tokens)
    if not torch.cuda.is_available():
        use_byte_dropout(model)
    losses = _train(split, settings, tokens, model, seed, workdir / "training")
    report = {"valid_losses": losses, "shared_codes": int(ids[:, -1].max()) + 1}
    return Tiger(model.eval(), tokens, settings, report)


def semantic_ids(vectors: np.ndarray, codes: int, levels: int, seed: int) -> np.ndarray:
    """Semantic ids, int64 [V, levels + 1], by k-means of the residuals of the levels before.

    vectors: float [V, d]. The last code numbers the items whose other codes are equal.
    """
    from sklearn.cluster import KMeans

    residual, labels = np.asarray(vectors, dtype=np.float64), []
    for level in range(levels):
        count = min(codes, len(np.unique(residual, axis=0)))
        means = KMeans(count, n_init=4, random_state=seed + level).fit(residual)
        labels.append(means.labels_.astype(np.int64))
        residual = residual - means.cluster_centers_[means.labels_]
    shared = np.stack(labels, axis=1)
    seen: dict[tuple[int, ...], int] = {}
    last = []
    for row in map(tuple, shared.tolist()):
        last.append(seen.get(row, 0))
        seen[row] = last[-1] + 1
    return np.concatenate([shared, np.array(last, dtype=np.int64)[:, None]], axis=1)


class Tokens:
    """The vocabulary: pad, end, each level's codes in a range of its own, user buckets; and the trie of all ids."""

    def __init__(self, ids: np.ndarray, codes: int) -> None:
        length = ids.shape[1]
        widths = [codes] * (length - 1) + [int(ids[:, -1].max()) + 1]
        starts = 2 + np.concatenate([[0], np.cumsum(widths)])
        self.items = ids + starts[:-1]  # int64 [V, length]
        self.length, self.first_user = length, int(starts[-1])
        self.size = self.first_user + USER_BUCKETS
        self.item_of = {tuple(row): v for v, row in enumerate(self.items.tolist())}
        self.next: dict[tuple[int, ...], list[int]] = {}
        for row in self.items.tolist():
            for at in range(length):
                allowed = self.next.setdefault(tuple(row[:at]), [])
                if row[at] not in allowed:
                    allowed.append(row[at])

    def encode(self, cases: Cases, longest: int) -> tuple[np.ndarray, np.ndarray]:
        """Input ids and mask, int64 [n, 2 + longest * length]: user, history, end (as T5's inputs have it), padding."""
        ids = np.full((len(cases), 2 + longest * self.length), PAD, dtype=np.int64)
        for i in range(len(cases)):
            codes = self.items[cases.history(i)[-longest:]].reshape(-1)
            ids[i, 0] = self.first_user + int(cases.user[i]) % USER_BUCKETS
            ids[i, 1 : 2 + len(codes)] = [*codes, END]
        return ids, (ids != PAD).astype(np.int64)


def _model(settings: Params, tokens: Tokens) -> "T5ForConditionalGeneration":
    from transformers import T5Config, T5ForConditionalGeneration

    names = ("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "dropout_rate")
    sizes: dict[str, Any] = {name: getattr(settings, name) for name in names} | {"vocab_size": tokens.size}
    special: dict[str, Any] = {"pad_token_id": PAD, "eos_token_id": END, "decoder_start_token_id": PAD}
    return T5ForConditionalGeneration(T5Config(**sizes, **special))


def _train(
    split: Split, settings: Params, tokens: Tokens, model: "T5ForConditionalGeneration", seed: int, folder: Path
) -> list[float]:
    """Cross-entropy of the target's codes. Returns the validation loss of each epoch; the best epoch's weights stay."""
    import torch
    from datasets import Dataset
    from transformers import EarlyStoppingCallback, TrainingArguments

    from lm.checkpoints import CheckedTrainer, train

    def rows(cases: Cases) -> Dataset:
        assert cases.target is not None
        ids, mask = tokens.encode(cases, settings.max_history or split.history_length)
        labels = tokens.items[cases.target]
        columns = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        return Dataset.from_dict({name: values.tolist() for name, values in columns.items()}).with_format("torch")

    on_gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=4 * settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=50,
        num_train_epochs=settings.epochs,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=None,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,  # how many epochs were not better
        logging_strategy="epoch",
        seed=derive_seed(seed, "training") % 2**31,
        report_to=[],
        bf16=dtype_on(settings.dtype, "cuda" if on_gpu else "cpu") == "bfloat16",  # weights stay float32
        use_cpu=not on_gpu,
    )
    trainer = CheckedTrainer(
        model=model,
        args=arguments,
        train_dataset=rows(split.train),
        eval_dataset=rows(split.valid),
        callbacks=[EarlyStoppingCallback(settings.patience)],
    )
    train(trainer)
    # Without this the model would score in `dtype`, and a case's scores would depend on the other cases of its batch.
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    return [round(float(entry["eval_loss"]), 5) for entry in trainer.state.log_history if "eval_loss" in entry]


def _generate(model: Any, **arguments: Any) -> Any:
    # Untyped on purpose: transformers' own types of `generate` don't fit its encoder-decoders.
    return model.generate(**arguments)


class Tiger(Recommender):
    """Log-probability of an item's id for the items that the beams find, -inf for the others."""

    def __init__(
        self, model: "T5ForConditionalGeneration", tokens: Tokens, settings: Params, report: dict[str, Any]
    ) -> None:
        self.model, self.tokens, self.settings, self._report = model, tokens, settings, report

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        import torch

        tokens, device = self.tokens, self.model.device
        beams = min(self.settings.beams, len(tokens.items))
        for batch in cases.batches(self.settings.evaluation_rows):
            longest = int(np.diff(batch.offsets).max())
            longest = min(longest, self.settings.max_history or longest)
            ids, mask = (torch.from_numpy(part).to(device) for part in tokens.encode(batch, longest))
            with torch.no_grad():
                generated = _generate(
                    self.model,
                    input_ids=ids,
                    attention_mask=mask,
                    do_sample=False,
                    num_beams=beams,
                    num_return_sequences=beams,
                    max_new_tokens=tokens.length,
                    length_penalty=0.0,  # the sum of log-probabilities, not their mean
                    early_stopping=False,
                    prefix_allowed_tokens_fn=self._allowed,
                    return_dict_in_generate=True,
                    output_scores=True,
                )
            scores = np.full((len(batch), len(tokens.items)), -np.inf)
            values = generated.sequences_scores.reshape(len(batch), beams).double().numpy(force=True)
            written = generated.sequences[:, 1 : 1 + tokens.length].reshape(len(batch), beams, -1).tolist()
            for row, (sequences, worth) in enumerate(zip(written, values, strict=True)):
                for sequence, value in zip(sequences, worth, strict=True):
                    item = tokens.item_of.get(tuple(sequence))
                    if item is not None:  # a beam may be left over where fewer ids than beams are open
                        scores[row, item] = max(scores[row, item], value)
            yield scores

    def report(self) -> dict[str, Any]:
        """valid_losses: of each epoch; shared_codes: the most items that share all but their last code."""
        return self._report

    def _allowed(self, row: int, written: "torch.Tensor") -> list[int]:
        """The codes that continue what a beam has written (behind the decoder's start) to a real id."""
        return self.tokens.next.get(tuple(written[1:].tolist()), [END])


def fit_cost(s: Sizes, p: dict[str, Any]) -> FitCost:
    """See `benchmark.workload`."""
    return trained(s, [p], 1.5e-3)
