"""The item table H_V: one state per item, the last token's under the present LLM, re-encoded as the LLM changes."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from benchmark.errors import InputError
from benchmark.storage.io import atomic
from benchmark.storage.stages import Stage
from r2ec.model.lower_layers import LowerLayers
from r2ec.model.network import ItemPrompts, R2ec

# The states of items' prompts.
ENCODING = Stage("encoding", 1)
TABLE = "item_table.safetensors"  # its name in a model's folder

# Tokens per forward: enough rows for the matrix products, few enough that activations stay in the caches.
TOKENS_AT_ONCE = 2048


class ItemTable:
    """Prompts of all V items and their states.

    Args:
        prompts: token ids of each item's prompt, chat template and opened `<answer>` included; V >= 1, none empty.
        dim: width of the LLM's states. dtype: of the table; bf16 halves its memory. device: where it lies.

    `states` [V, d] are as the LLM gives them; the rec head's maps are applied by `R2ec.catalogue`, so that a step that
    changes only the maps leaves the table valid. Rows never encoded are NaN, which rewards and scores refuse.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        dim: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(prompts) == 0:
            raise InputError("no item prompts; an item table needs at least one")
        shortest = min(range(len(prompts)), key=lambda v: len(prompts[v]))
        if len(prompts[shortest]) == 0:
            raise InputError(f"the prompt of item {shortest} is empty; give it at least its instruction")
        first = np.asarray(prompts[0])
        common = len(prompts[shortest]) - 1  # every item keeps at least one token of its own
        for prompt in prompts:
            differs = np.flatnonzero(np.asarray(prompt[:common]) != first[:common])
            common = int(differs[0]) if differs.size else common
        self.beginning = torch.tensor(prompts[0][:common], dtype=torch.int64, device=device)
        self._endings = [torch.tensor(prompt[common:], dtype=torch.int64) for prompt in prompts]
        self._lengths = np.array([len(ending) for ending in self._endings])
        self.prompts_hash = hash_of(prompts)
        self.states = torch.full((len(prompts), dim), torch.nan, dtype=dtype, device=device)

    def __len__(self) -> int:
        return len(self.states)

    @property
    def encoded(self) -> bool:
        """Whether every row has been encoded, under whatever LM."""
        return not bool(self.states.isnan().any())

    @property
    def tokens(self) -> int:
        """Tokens that one encoding of the whole table reads; the prompts' common beginning is read once."""
        return len(self.beginning) + int(self._lengths.sum())

    def batch(self, rows: Tensor | np.ndarray | Sequence[int]) -> ItemPrompts:
        """The prompts of these items, int [M], in this order, for `R2ec.forward(items=...)`."""
        numbers = self._numbers(rows)
        width = int(self._lengths[numbers].max())
        ids = torch.zeros(len(numbers), width, dtype=torch.int64)
        for i, v in enumerate(numbers):
            ids[i, : self._lengths[v]] = self._endings[v]
        mask = torch.arange(width)[None] < torch.from_numpy(self._lengths[numbers])[:, None]
        return ItemPrompts(self.beginning, ids.to(self.beginning.device), mask.to(self.beginning.device))

    def refresh(self, model: R2ec) -> None:
        """Re-encode every item (Algorithm 1, every T_refresh steps). Shows its progress where that takes over 5 s.

        Layers below all adapters read them at the first time only (`LowerLayers`).
        """
        lower = None
        if len(self.beginning):
            lower = LowerLayers.of(model.causal_lm, self.prompts_hash, self._lengths, TOKENS_AT_ONCE)
        self._encode(model, np.arange(len(self)), lower)
        if lower is not None:
            lower.filled()

    def refresh_rows(self, model: R2ec, rows: Tensor | np.ndarray | Sequence[int]) -> None:
        """Re-encode these items, each once, in evaluation mode and without gradients. rows: int [M]."""
        self._encode(model, np.unique(self._numbers(rows)), None)

    @torch.no_grad()
    def _encode(self, model: R2ec, numbers: np.ndarray, lower: LowerLayers | None) -> None:
        was_training = model.training
        model.eval()
        try:
            cache = model.read_beginning(self.beginning) if len(self.beginning) else None
            with tqdm(total=len(numbers), desc="item table", unit="item", delay=5, leave=False) as bar:
                for part in self._batches(numbers):
                    batch = self.batch(part)
                    with lower.reading(model.causal_lm, part, batch.mask) if lower else nullcontext():
                        states = model.encode_items(batch, cache)
                    self.write(part, states)
                    bar.update(len(part))
        finally:
            model.train(was_training)

    def write(self, rows: Tensor | np.ndarray | Sequence[int], states: Tensor) -> None:
        """Put states [M, d], such as a batch's targets just encoded with gradients, into the table, detached."""
        where = torch.from_numpy(self._numbers(rows)).to(self.states.device)
        self.states[where] = states.detach().to(self.states)

    def _batches(self, numbers: np.ndarray) -> Iterator[np.ndarray]:
        """Items in batches of similar length and about TOKENS_AT_ONCE padded tokens, longest first."""
        numbers = numbers[np.argsort(-self._lengths[numbers], kind="stable")]
        start = 0
        while start < len(numbers):
            size = max(1, TOKENS_AT_ONCE // int(self._lengths[numbers[start]]))
            yield numbers[start : start + size]
            start += size

    def _numbers(self, rows: Tensor | np.ndarray | Sequence[int]) -> np.ndarray:
        numbers = rows.detach().cpu().numpy() if isinstance(rows, Tensor) else np.asarray(rows)
        if numbers.ndim != 1 or len(numbers) == 0 or numbers.min() < 0 or numbers.max() >= len(self):
            raise InputError(f"item rows {numbers[:5].tolist()} do not fit a table of {len(self)} items; pass int [M]")
        return numbers.astype(np.int64)

    def save(self, path: str | Path) -> None:
        """Write the states as safetensors, atomically, with the hash of the prompts."""
        with atomic(path) as temporary:
            save_file({"states": self.states.contiguous()}, temporary, metadata={"prompts": self.prompts_hash})

    def load(self, path: str | Path) -> None:
        """Read what `save` wrote. Raises InputError for another catalogue's or another prompt's table."""
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("prompts") != self.prompts_hash:
                raise InputError(f"{path}: this table was encoded from other item prompts; refresh it instead")
            states = file.get_tensor("states")
        if states.shape != self.states.shape:
            raise InputError(
                f"{path}: states {list(states.shape)}, expected {list(self.states.shape)}; refresh instead"
            )
        self.states.copy_(states)


def hash_of(prompts: Sequence[Sequence[int]]) -> str:
    """Hex sha256 of all prompts (token ids), their boundaries included."""
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(len(prompt).to_bytes(8, "big") + np.asarray(prompt, dtype=np.int64).tobytes())
    return digest.hexdigest()
