"""Soft tokens: ids beyond the vocabulary whose input embeddings are vectors that are computed or trained elsewhere.

Prompts stay lists of token ids, so that code that reads, shares and packs them needs no other path. The output head
never sees such an id.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmark.errors import InputError

# Tokens that their LMs' instruction tuning has hardly used: of SmolLM2, Qwen2.5 and Gemma 2.
PLACEHOLDERS = ("<empty_output>", "<|box_start|>", "<unused0>")

Vectors = Callable[[Tensor], Tensor]  # rows, int64 [n] -> their embeddings, [n, d]


def placeholder_of(tokenizer: PreTrainedTokenizerBase, wanted: str | None) -> tuple[str, int]:
    """The special token that stands in the place of a vector, as text and id; no title holds it.

    wanted: the token, or None for the first of PLACEHOLDERS that the tokenizer has. Raises InputError for one that the
    tokenizer doesn't have.
    """
    special = {str(token): id for id, token in tokenizer.added_tokens_decoder.items()}
    for token in PLACEHOLDERS if wanted is None else (wanted,):
        if token in special:
            return token, special[token]
    known = ", ".join(sorted(special)[:5])
    raise InputError(
        f"placeholder {wanted!r}: {tokenizer.name_or_path} has no such special token; set placeholder to one that its "
        f"chat template doesn't use, such as one of {known}"
    )


class SoftTokens:
    """Lets an LM read ids V + row, V its vocabulary's size, as the vectors of the rows.

    Inside `reading(vectors)` row r is embedded by `vectors`, with gradients; inside `reading(None)` every row is
    embedded as the placeholder. Outside the LM is as it was.
    """

    def __init__(self, causal_lm: PreTrainedModel, placeholder: int) -> None:
        """placeholder: a token's id."""
        embedding = causal_lm.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding)
        self.embedding, self.placeholder = embedding, placeholder
        self.first = embedding.num_embeddings  # the id of row 0
        self._ids: Tensor | None = None

    @contextmanager
    def reading(self, vectors: Vectors | None) -> Iterator[None]:
        """See the class. Vectors take the place of the embedding module's output, which Gemma 2's scales by sqrt(d)."""

        def before(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            self._ids = inputs[0]
            return (inputs[0].masked_fill(inputs[0] >= self.first, self.placeholder), *inputs[1:])

        def behind(_: nn.Module, inputs: tuple[Any, ...], embedded: Tensor) -> Tensor:
            ids, self._ids = self._ids, None
            assert ids is not None
            soft = ids >= self.first
            if vectors is None or not bool(soft.any()):
                return embedded
            return embedded.masked_scatter(soft[..., None], vectors(ids[soft] - self.first).to(embedded.dtype))

        hooks = (self.embedding.register_forward_pre_hook(before), self.embedding.register_forward_hook(behind))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @torch.no_grad()
    def size(self) -> float:
        """Root mean square of the embedding module's output for the vocabulary's tokens."""
        total = 0.0
        for ids in torch.arange(self.first, device=self.embedding.weight.device).split(2**14):
            total += float(self.embedding(ids).float().square().sum())
        return (total / (self.first * self.embedding.embedding_dim)) ** 0.5
