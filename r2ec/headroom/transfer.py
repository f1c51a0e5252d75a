"""Whether the reasoning that is best for a case is best for the same user's other cases, too.

If it is, what makes a reasoning good is something about the user, which a policy can learn.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.contract import Cases
from benchmark.metrics import statistic
from benchmark.provenance import derive_seed
from lm.writing.rollouts import pack_rollouts, pad_id
from r2ec.headroom.pickers import gain
from r2ec.headroom.sampled import CASES, Sampled, kept_parts, ranked
from r2ec.scoring.reader import Reader

OTHERS = 15  # reasonings beside the best one, which a case is read with


@dataclass(frozen=True)
class Lent:
    """Ranks of p cases' targets, each read with reasonings that were sampled for another case of the same user."""

    user: np.ndarray  # int [p]
    rank: np.ndarray  # int32 [p, 1 + OTHERS]: with the other case's best reasoning, then with others of that case


def pairs_of(users: np.ndarray) -> np.ndarray:
    """For each case of a user but the first, the case that lends to it: int64 [p, 2], places in `users`, in time order.

    A case borrows from the user's case before it, whose prompt can't hold its target. The first one borrows nothing.

    >>> pairs_of(np.array([7, 5, 7, 7])).tolist()
    [[2, 0], [3, 2]]
    """
    pairs = []
    for user in np.unique(users):
        places = np.flatnonzero(users == user)
        pairs += list(zip(places[1:], places[:-1], strict=True))
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)


def lending(rank: np.ndarray, case: int, others: int = OTHERS) -> np.ndarray:
    """Which samples of a case are lent: the best by its own target's rank [G], then others, drawn by the case's number.

    The first of equally good ones is the best.
    """
    best = int(rank.argmin())
    left = np.delete(np.arange(len(rank)), best)
    drawn = np.random.default_rng(derive_seed("lent to another case", case)).permutation(left)
    return np.array([best, *drawn[:others]], dtype=np.int64)


def lent(reader: Reader, cases: Cases, reasonings: Sampled, folder: Path) -> Lent:
    """Read each case with reasonings of the same user's case before it, and rank its target.

    cases: with targets, those of `reasonings`, in their order. folder: gets a file per CASES pairs; a file
    that it holds already is read.
    """
    pairs = pairs_of(reasonings.user)
    if not len(pairs):
        return Lent(pairs[:, 0], pairs[:, :1].astype(np.int32))
    reader.model.eval()

    def make(start: int) -> dict[str, np.ndarray]:
        return {"rank": _read(reader, cases, reasonings, pairs[start : start + CASES])}

    parts = kept_parts(folder, "before-", range(0, len(pairs), CASES), make, "lending")
    return Lent(reasonings.user[pairs[:, 0]], np.concatenate([part["rank"] for part in parts]))


@torch.no_grad()
def _read(reader: Reader, cases: Cases, reasonings: Sampled, pairs: np.ndarray) -> np.ndarray:
    borrowing, device = cases.take(pairs[:, 0]), reader.engine.model.device
    ids = np.concatenate(
        [reasonings.ids[case][lending(reasonings.rank[case], int(reasonings.case[case]))] for case in pairs[:, 1]]
    ).astype(np.int64)
    pad, real = pad_id(reader.prompts.tokenizer), ids >= 0
    prompts = reader.prompts.user_prompts(borrowing)
    rollouts = pack_rollouts(prompts, np.where(real, ids, pad), real, real, pad, device)
    states = reader.model(replace(rollouts, action_mask=None)).states
    return ranked(reader, borrowing, states.reshape(len(pairs), -1, states.shape[-1]))[0]


def of_lenders(pairs: Lent, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """How much better a case ranks with the other case's best reasoning than with the others: a row per statistic.

    Keys: statistic, random, picked, gain, low, high, p, cases, users. The interval is over users, of one trained model.
    """
    rows: list[dict[str, Any]] = []
    counts = {"cases": len(pairs.rank), "users": len(np.unique(pairs.user))}
    for name in names if counts["users"] > 1 else ():  # no interval over users without two
        values = statistic(name, pairs.rank)
        best, others = values[:, 0], values[:, 1:].mean(axis=1)
        rows.append({"statistic": name, **gain(best, others, pairs.user), **counts})
    return rows
