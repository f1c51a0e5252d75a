"""Samples many reasonings per case and ranks the target by each, part by part, so that a stopped run goes on."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmark.contract import Cases
from benchmark.errors import InputError
from benchmark.evaluate import rank_batch
from benchmark.provenance import derive_seed
from benchmark.storage.checksums import intact, note_sum
from benchmark.storage.io import atomic, sha256_of, sha256_of_json
from lm.writing.engine import TransformersEngine
from r2ec.model.network import WEIGHTS
from r2ec.model.prompts import end_of_reasoning
from r2ec.model.ranking import scores
from r2ec.scoring.reader import Reader

NOTHING_TO_CHOOSE = "the model was trained without a reasoning, so that there is none to choose; give another run"
CASES = 8  # of a part, which is written whole or not at all
LEAST_USERS = 8  # whose cases make a measure: pickers learn from half of them
COLUMNS = ("case", "user", "rank", "log_prob", "length", "cut", "top_score", "entropy", "state", "ids", "text")


@dataclass(frozen=True)
class Sampled:
    """n cases with G sampled reasonings each."""

    case: np.ndarray  # int64 [n]
    user: np.ndarray  # int [n]
    rank: np.ndarray  # int32 [n, G], of the target, 1-based
    log_prob: np.ndarray  # float32 [n, G], of all sampled tokens
    length: np.ndarray  # int32 [n, G], tokens
    cut: np.ndarray  # bool [n, G], `<answer>` had to be appended
    top_score: np.ndarray  # float32 [n, G], of the best item that the history doesn't hold
    entropy: np.ndarray  # float32 [n, G], nats, of the softmax over those items
    state: np.ndarray  # float16 [n, G, d], h_T
    # int32 [n, G, T], its tokens and those of `<answer>`, -1 behind them. The text's own tokens may be others.
    ids: np.ndarray
    text: np.ndarray  # str [n, G]


def sampled(reader: Reader, cases: Cases, samples: int, folder: Path) -> Sampled:
    """Sample and rank `samples` reasonings of each case, at the temperature and top-k of training.

    cases: with targets. folder: gets a file per CASES cases; a file that it holds already is read (see `folder_of`).
    Raises InputError for a model that was trained without a reasoning, which writes none.
    """
    if not reader.params.recpo.reasoning:
        raise InputError(NOTHING_TO_CHOOSE)
    assert cases.target is not None
    reader.model.eval()
    starts = range(0, len(cases), CASES)
    parts = list(kept_parts(folder, "", starts, lambda start: _sample_part(reader, cases, start, samples), "sampling"))
    longest = max(part["ids"].shape[2] for part in parts)
    for part in parts:
        missing = longest - part["ids"].shape[2]
        part["ids"] = np.pad(part["ids"], ((0, 0), (0, 0), (0, missing)), constant_values=-1)
    return Sampled(**{name: np.concatenate([part[name] for part in parts]) for name in COLUMNS})


def next_part(reader: Reader, cases: Cases, samples: int, folder: Path) -> tuple[float, int]:
    """Sample the first part that isn't in the folder, and give its seconds and the number of parts that are left.

    0 seconds where nothing was left. The arguments, and what is raised: as in `sampled`.
    """
    if not reader.params.recpo.reasoning:
        raise InputError(NOTHING_TO_CHOOSE)
    reader.model.eval()
    left = [start for start in range(0, len(cases), CASES) if not intact(part_path(folder, "", start))]
    started = time.monotonic()
    if left:
        write_part(part_path(folder, "", left[0]), _sample_part(reader, cases, left[0], samples))
    return time.monotonic() - started if left else 0.0, max(0, len(left) - 1)


def _sample_part(reader: Reader, cases: Cases, start: int, samples: int) -> dict[str, np.ndarray]:
    return _sample(reader, cases.take(np.arange(start, min(start + CASES, len(cases)))), samples)


def kept_parts(
    folder: Path, name: str, starts: Iterable[int], make: Callable[[int], dict[str, np.ndarray]], doing: str
) -> Iterator[dict[str, np.ndarray]]:
    """The part that begins at each of `starts`: read where the folder holds it whole, else made and written first.

    name: what the files' names begin with. doing: what the progress bar says.
    """
    for start in tqdm(starts, desc=doing, unit="part", mininterval=5, delay=5):
        path = part_path(folder, name, start)
        if not intact(path):
            write_part(path, make(start))
        with np.load(path, allow_pickle=False) as file:
            yield dict(file)


def part_path(folder: Path, name: str, start: int) -> Path:
    """The file of the part that begins there."""
    return folder / f"{name}{start:06d}.npz"


def write_part(path: Path, part: dict[str, np.ndarray]) -> None:
    """Write these arrays with their checksum, whole or not at all."""
    with atomic(path) as temporary:
        with open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **part)
        note_sum(path, temporary)


def folder_of(out: Path, model: Path, split_hash: str, cases: Cases, samples: int) -> Path:
    """The folder of the parts, named by the hash of model, data, cases and number of samples."""
    return parts_folder(
        out, "parts", model, COLUMNS, split_hash, hashlib.sha256(cases.case.tobytes()).hexdigest(), samples
    )


def parts_folder(out: Path, kind: str, model: Path, *about: Any) -> Path:
    """The folder of the parts of one kind, named by the hash of the model and of all else that they depend on."""
    files = [sha256_of(model / name) for name in ("settings.json", WEIGHTS)]
    return out / f"{kind}-{sha256_of_json([*files, *about])[:12]}"


def chosen_cases(cases: Cases, size: int, dataset: str) -> Cases:
    """A seeded sample of cases, in their order; all of them where there are no more.

    Raises InputError where they are of too few users for what is asked of them after hours of sampling.
    """
    order = np.random.default_rng(derive_seed(dataset, "headroom")).permutation(len(cases))
    chosen = cases.take(np.sort(order[:size]))
    if (users := len(np.unique(chosen.user))) < LEAST_USERS:
        raise InputError(
            f"{dataset}: {len(chosen)} validation cases are of {users} users, and pickers need {LEAST_USERS}, half of "
            "them to learn from; raise --cases, or valid_cases in the config"
        )
    return chosen


@torch.no_grad()
def _sample(reader: Reader, cases: Cases, samples: int) -> dict[str, np.ndarray]:
    params, tokenizer = reader.params, reader.prompts.tokenizer
    # As in training, but with adapters that are not folded: what is read afterwards must be what wrote.
    settings = params.rollouts.model_copy(
        update={"group_size": samples, "merge_adapters": False, "backend": "transformers", "greedy": False}
    )
    engine = TransformersEngine(reader.model.backbone, tokenizer, settings, end_of_reasoning(tokenizer))
    hidden = replace(cases, target=None)
    last = params.recpo.pooling == "last"
    prompts = reader.prompts.user_prompts(hidden)
    result = engine.generate(prompts, cases=cases.case, seed=0, final_states=last)
    states = result.states if last else reader.model(replace(result.rollouts, action_mask=None)).states
    assert states is not None and result.log_probs is not None
    shape = len(cases), samples
    ranks, top, entropy = ranked(reader, cases, states.reshape(*shape, -1))
    texts, written = np.array(result.texts(tokenizer), dtype=np.str_), result.rollouts
    return {
        "case": cases.case,
        "user": cases.user,
        "rank": ranks,
        "log_prob": result.log_probs.sum(dim=1).numpy(force=True).reshape(shape),
        "length": result.lengths.numpy(force=True).astype(np.int32).reshape(shape),
        "cut": result.cut.numpy(force=True).reshape(shape),
        "top_score": top,
        "entropy": entropy,
        "ids": np.where(written.completion_mask.cpu(), written.completion_ids.cpu(), -1)
        .astype(np.int32)
        .reshape(*shape, -1),
        "state": states.numpy(force=True).astype(np.float16).reshape(*shape, -1),
        "text": texts.reshape(shape),
    }


def ranked(reader: Reader, cases: Cases, states: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ranks int32, best scores and entropies float32, [n, G] each, of states float32 [n, G, d]."""
    model, recpo = reader.model, reader.params.recpo
    catalogue = model.catalogue(reader.table.states)
    assert cases.target is not None
    ranks, top, entropy = (np.empty(states.shape[:2], dtype) for dtype in (np.int32, np.float32, np.float32))
    for i in range(len(cases)):
        users = model.head.user(states[i])
        item_scores = scores(users, catalogue, tau=recpo.tau, normalize=recpo.normalize, prior=model.item_prior)
        masked_scores = item_scores.numpy(force=True).copy()
        repeated = cases.take(np.full(len(masked_scores), i))
        ranks[i], _, _ = rank_batch(
            masked_scores, repeated, np.full(len(masked_scores), cases.target[i])
        )  # masks the history in `own`
        masked = torch.from_numpy(masked_scores)
        log_p = masked.log_softmax(dim=1)
        top[i] = masked.max(dim=1).values.numpy()
        entropy[i] = -(log_p.exp() * log_p.nan_to_num(neginf=0.0)).sum(dim=1).numpy()
    return ranks, top, entropy
