"""The work that our way and the plain way both do: one model, the same users, prompts, rollouts and items."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from tqdm import tqdm

from benchmark.contract import Cases, Split
from lm.writing.engine import TransformersEngine
from lm.writing.rollouts import Rollouts
from r2ec.model.network import ItemPrompts
from r2ec.model.prompts import end_of_reasoning
from r2ec.scoring.reader import Reader
from r2ec.settings import Params


@dataclass(frozen=True)
class Size:
    """One RecPO step: 16 users with prompts of some 300 tokens, G = 4, 64 new tokens."""

    users: int = 16
    group: int = 4
    items_in_prompt: int = 15
    new_tokens: int = 64
    repeats: int = 3


class Pair(BaseModel):
    """One part, ours beside the plain way, run in turns. Rates are per second; a ratio is the median of its pairs'."""

    model_config = ConfigDict(frozen=True)

    part: str
    plain_way: str
    unit: str  # what is counted: tokens, items, steps, users
    ours: float
    plain: float
    ratio: float
    lowest: float  # of the pairs' ratios
    highest: float
    target: float | None
    share_of_matmul: float | None  # of the matrix products' limit, ours
    check: str  # what was compared between the two ways, and how far it was apart


class Work:
    """A model with adapters that are not zero, and one step's users of a prepared dataset.

    layers_from: the lowest layer that has adapters.
    """

    def __init__(self, split: Split, backbone: str, size: Size, dtype: str = "auto", layers_from: int = 0) -> None:
        self.split, self.size = split, size
        self.params = Params.model_validate(
            {
                "backbone": {"name": backbone, "dtype": dtype},
                "lora": {"r": 8, "alpha": 16, "layers_from": layers_from},
                "prompts": {"max_items": size.items_in_prompt},
                "rollouts": {
                    "group_size": size.group,
                    "max_new_tokens": size.new_tokens,
                    "temperature": 1.0,
                    "top_k": 50,
                    "rows_at_once": size.users * size.group,
                },
                # A group of one has nobody to be compared with; advantages are made up here anyway.
                "recpo": {"tau": 0.1, "refresh_steps": 10**6, "advantage": "batch" if size.group == 1 else "grpo"},
                "training": {
                    "max_steps": 2,
                    "per_device_train_batch_size": size.users,
                    "save_steps": 10**6,
                    "warmup_steps": 0,
                    "split_grad_norms": 0,
                },
            }
        )
        torch.manual_seed(0)
        self.reader = Reader.build(split, self.params)
        with torch.no_grad():
            for name, value in self.reader.model.named_parameters():
                if "lora_B" in name:
                    nn.init.normal_(value, std=0.01)
        tokenizer = self.reader.prompts.tokenizer
        self.engine = TransformersEngine(
            self.reader.model.backbone, tokenizer, self.params.rollouts, end_of_reasoning(tokenizer)
        )
        cases = split.llm_train
        self.cases: Cases = cases.take(np.arange(len(cases) - size.users, len(cases)))
        self.prompts = self.reader.prompts.user_prompts(self.cases)

    @property
    def dtype(self) -> torch.dtype:
        return self.reader.model.causal_lm.dtype

    @cached_property
    def rollouts(self) -> Rollouts:
        """Written once, for the updates."""
        return self.engine.generate(self.prompts, cases=self.cases.case, seed=0).rollouts

    @cached_property
    def targets(self) -> Tensor:
        assert self.cases.target is not None
        return torch.from_numpy(self.cases.target.astype("int64"))

    @cached_property
    def items(self) -> tuple[Tensor, ItemPrompts]:
        """The batch's distinct targets and their prompts."""
        distinct = torch.unique(self.targets)
        return distinct, self.reader.table.batch(distinct)

    @cached_property
    def advantages(self) -> Tensor:
        """Random advantages, float32 [B, G]: their values don't change the time."""
        return torch.randn(self.size.users, self.size.group, generator=torch.Generator().manual_seed(0))

    def gflop_per_token(self) -> float:
        """Of one forward without lm_head, attention to earlier tokens left out: 2 per weight."""
        decoder = self.reader.model.causal_lm.get_decoder()
        linear = [m for m in decoder.modules() if isinstance(m, nn.Linear) and m.weight.dtype == self.dtype]
        return 2 * sum(m.weight.numel() for m in linear) / 1e9

    def gflop_of_logits(self) -> float:
        """Of the logits at one position."""
        return 2 * self.reader.model.causal_lm.get_output_embeddings().weight.numel() / 1e9


def in_turns(
    name: str, ours: Callable[[int], float], plain: Callable[[int], float], repeats: int
) -> tuple[list[float], list[float]]:
    """Rates per second of both, run alternately `repeats` times, after one run of each that isn't counted.

    ours, plain: take the turn's number, do the work and return how much it was.
    """
    rates: tuple[list[float], list[float]] = ([], [])
    for turn in tqdm(range(repeats + 1), desc=f"{name}, ours and plain in turns", unit="pair"):
        for work, rates_of_one in zip((ours, plain), rates, strict=True):
            started = time.perf_counter()
            amount = work(turn)
            if turn:
                rates_of_one.append(amount / (time.perf_counter() - started))
    return rates


def paired(rates: tuple[list[float], list[float]], **about: Any) -> Pair:
    """The record of what `in_turns` measured."""
    ratios = [a / b for a, b in zip(*rates, strict=True)]
    return Pair(
        ours=statistics.median(rates[0]),
        plain=statistics.median(rates[1]),
        ratio=statistics.median(ratios),
        lowest=min(ratios),
        highest=max(ratios),
        **about,
    )


def relative(value: Tensor, expected: Tensor) -> float:
    """|value - expected| / |expected|."""
    return float((value.float() - expected.float()).norm() / expected.float().norm())


def scratch(folder: Path, name: str) -> Path:
    """A folder for a trainer's files below `folder`."""
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    return path
