"""Chooses one of the sampled reasonings of each case: by an oracle, by fixed rules, by learned pickers."""

import zlib

import numpy as np
import pandas as pd
from scipy.special import gammaln

from benchmark.analysis.trainings import components, judge
from benchmark.errors import InputError
from benchmark.metrics import log_rank, statistic
from benchmark.provenance import derive_seed
from r2ec.headroom.sampled import LEAST_USERS, Sampled

STATISTICS = ("NDCG@10", "NDCG@100", "NDCG@1000", "log rank")
WORDS = 512  # places that words are hashed to
RIDGES = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
HELD_OUT = 0.2  # of the training users, by which the ridge is chosen


def within(values: np.ndarray) -> float:
    """The share of the variance of values [n, G] that lies within a case, by the moments of a one-way layout.

    >>> within(np.array([[1.0, 1.0], [5.0, 5.0]])), within(np.array([[1.0, 5.0], [5.0, 1.0]]))
    (0.0, 1.0)
    """
    inside = float(values.var(axis=1, ddof=1).mean())
    between = max(0.0, float(values.mean(axis=1).var(ddof=1)) - inside / values.shape[1])
    return inside / (inside + between) if inside + between else 0.0


def oracle(reasonings: Sampled) -> pd.DataFrame:
    """The best of G for G = 1, 2, 4 ... : the exact mean over all subsets of that size.

    Columns: picker, samples, each of STATISTICS, and gain, low, high: of the log rank over one reasoning's, with its
    interval over users. An oracle picks luck, too: this bounds what can be gained.
    """
    rows, size = [], 1
    while size <= reasonings.rank.shape[1]:
        values = {name: float(best_of(reasonings.rank, size, name).mean()) for name in STATISTICS}
        best, one = (best_of(reasonings.rank, count, "log rank") for count in (size, 1))
        gained = gain(best, one, reasonings.user)
        of_log_rank = {name: gained[name] for name in ("gain", "low", "high")}
        rows.append({"picker": "oracle", "samples": size, **values, **of_log_rank})
        size *= 2
    return pd.DataFrame(rows)


def best_of(rank: np.ndarray, size: int, name: str) -> np.ndarray:
    """Per case, the statistic of the best of `size` samples, the mean over all subsets: float64 [n] of rank [n, G]."""
    count = rank.shape[1]
    # P(the i-th best of `count` is the best of a subset) = C(count - i, size - 1) / C(count, size), i from 1.
    left = count - 1 - np.arange(count)
    chance = np.where(left >= size - 1, np.exp(_log_choose(left, size - 1) - _log_choose(count, size)), 0.0)
    means: np.ndarray = statistic(name, np.sort(rank, axis=1)) @ chance
    return means


def _log_choose(n: np.ndarray | int, k: int) -> np.ndarray:
    out: np.ndarray = gammaln(np.asarray(n) + 1.0) - gammaln(k + 1.0) - gammaln(np.maximum(np.asarray(n) - k, 0) + 1.0)
    return out


def pickers(reasonings: Sampled, dataset: str) -> pd.DataFrame:
    """How much better each picker's choice ranks than a random one: a row per picker and statistic.

    Rules read the model's own values: the likeliest text, the state with the highest score, the surest ranking, the
    longest text. Learned pickers predict the log rank of a text minus its case's mean, by ridge regression from h_T or
    from the text's words. They learn from one half of the users and choose for the other half, and the other way round.

    Columns: picker, statistic, random, picked, gain, low, high, p. The interval is over users, of pickers that are
    learned once. Raises InputError for fewer than 8 users.
    """
    scores: dict[str, np.ndarray] = {
        "likeliest": reasonings.log_prob,
        "highest score": reasonings.top_score,
        "surest": -reasonings.entropy,
        "longest": reasonings.length.astype(float),
    }
    for name, features in (("learned from h_T", _states), ("learned from the words", _words)):
        scores[name] = -learned(features(reasonings), log_rank(reasonings.rank), reasonings.user, dataset)
    rows = []
    for name, score in scores.items():
        best = score.argmax(axis=1)
        for measure in STATISTICS:
            values = statistic(measure, reasonings.rank)
            gained = gain(values[np.arange(len(best)), best], values.mean(axis=1), reasonings.user)
            rows.append({"picker": name, "statistic": measure, **gained})
    return pd.DataFrame(rows)


def gain(picked: np.ndarray, random: np.ndarray, users: np.ndarray) -> dict[str, float]:
    """Both means, their difference, its interval over users and p, of values [n] of n cases.

    Keys: random, picked, gain, low, high, p. users: int [n].
    """
    judged = judge([components(picked[None], random[None], users, seedless=(True, True))])
    means = {"random": float(random.mean()), "picked": float(picked.mean())}
    return means | {"gain": judged.difference, "low": judged.low, "high": judged.high, "p": judged.p}


def learned(features: np.ndarray, target: np.ndarray, users: np.ndarray, dataset: str) -> np.ndarray:
    """Predictions [n, G] of target [n, G] minus its case's mean, from features [n, G, k].

    No user is predicted by weights that learned from it. users: int [n]. Raises InputError for fewer than 8 users.
    """
    distinct = np.unique(users)
    if len(distinct) < LEAST_USERS:
        raise InputError(f"{len(distinct)} users can't be halved for learning and picking; sample more cases")
    order = np.random.default_rng(derive_seed(dataset, "headroom halves")).permutation(distinct)
    inside = features - features.mean(axis=1, keepdims=True)
    wanted = target - target.mean(axis=1, keepdims=True)
    out = np.empty_like(wanted)
    for teach in (order[: len(order) // 2], order[len(order) // 2 :]):
        rows = np.isin(users, teach)
        held = np.isin(users, teach[: max(1, round(HELD_OUT * len(teach)))])
        weights = {ridge: _ridge(inside[rows & ~held], wanted[rows & ~held], ridge) for ridge in RIDGES}
        errors = {ridge: float(((wanted[held] - inside[held] @ w) ** 2).mean()) for ridge, w in weights.items()}
        ridge = min(errors, key=lambda r: errors[r])
        out[~rows] = inside[~rows] @ _ridge(inside[rows], wanted[rows], ridge)
    return out


def _ridge(features: np.ndarray, target: np.ndarray, ridge: float) -> np.ndarray:
    """Weights [k] of features [n, G, k] in units of their spread."""
    x, y = features.reshape(-1, features.shape[-1]), target.ravel()
    spread = x.std(axis=0)
    scale = np.where(spread > 0, 1 / np.where(spread > 0, spread, 1.0), 0.0)
    x = x * scale
    weights: np.ndarray = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y)
    return weights * scale


def _states(reasonings: Sampled) -> np.ndarray:
    return reasonings.state.astype(np.float64)


def _words(reasonings: Sampled) -> np.ndarray:
    """Counts of hashed words, and length, log-probability and `cut`: float64 [n, G, WORDS + 3]."""
    n, count = reasonings.text.shape
    out = np.zeros((n, count, WORDS + 3))
    for i in range(n):
        for j in range(count):
            for word in str(reasonings.text[i, j]).lower().split():
                out[i, j, zlib.crc32(word.encode()) % WORDS] += 1
    out[..., WORDS], out[..., WORDS + 1], out[..., WORDS + 2] = reasonings.length, reasonings.log_prob, reasonings.cut
    return out
