"""The best items of a large table: exact, by one pass over its blocks, or from an index of faiss.

    hnsw     a graph over vectors in 16 bits (Malkov and Yashunin, TPAMI 2020): the fastest, and the most memory
    ivf      vectors in 16 bits, in lists by their nearest centroid; the lists next to the user are searched
    ivf_pq   the same lists, a vector in a byte per 8 dimensions (Jegou, Douze and Schmid, TPAMI 2011)

An index finds candidates. Their scores are computed from the table again, so that order and scores are exact among the
candidates. Its recall, the share of the best items that it finds, is measured by `python -m r2ec.catalogue.speed`.
"""

from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from tqdm import tqdm

from benchmark.errors import InputError, checked
from benchmark.evaluate import top_items
from benchmark.provenance import derive_seed
from benchmark.storage.checksums import check_kept, write_sums
from benchmark.storage.io import atomic, read_json, write_json
from r2ec.catalogue.large_table import LargeTable
from r2ec.model.ranking import (
    BLOCK_ROWS,
    SCORES_AT_ONCE,
    ItemMap,
    Items,
    blocks_of,
    check_item_numbers,
    mapped,
    scores,
)

Kind = Literal["hnsw", "ivf", "ivf_pq"]
KINDS: tuple[Kind, ...] = ("hnsw", "ivf", "ivf_pq")
LINKS = 32  # of a node of hnsw; twice as many in its lowest layer
SUBVECTOR = 8  # dimensions that ivf_pq writes in one byte
TRAINED_ON = 64  # vectors per centroid, more than the 39 below which faiss warns
CODEBOOK_VECTORS = 2**14  # at least this many to train ivf_pq's codebooks of 256 entries
EFFORT: dict[Kind, int] = {"hnsw": 128, "ivf": 32, "ivf_pq": 32}
# Candidates per item of the answer; vectors in bytes need more of them than vectors in 16 bits do.
CANDIDATES: dict[Kind, int] = {"hnsw": 2, "ivf": 2, "ivf_pq": 10}
PROBED = 16  # rows by which a loaded index is compared with the table
INDEX, ABOUT, PROBE = "index.faiss", "about.json", "probe.npy"


@torch.no_grad()
def top_k(
    users: Tensor,
    items: Items,
    history: Tensor,
    k: int = 20,
    *,
    tau: float = 1.0,
    normalize: bool = True,
    prior: Tensor | None = None,
    item_map: ItemMap | None = None,
    scores_at_once: int = SCORES_AT_ONCE,
) -> tuple[Tensor, Tensor]:
    """The k best items of each user outside their history, exact, in one pass; memory grows with one block, not with V.

    Args:
        users: [n, d], h_T after the rec head's map. items: states [V, d] before it, on disk or in memory; item_map: the
            rec head's, None: none. history: int64 [n, L], item numbers, -1 for none.
        tau, normalize, prior [V]: as in `ranking.scores`. scores_at_once: at most max(this, a block's rows).
    Returns item numbers, int64 [n, k], best first, the lower number first among equals, -1 where there are no more, and
    their scores over tau, float32 [n, k], -inf there. Raises InputError for scores that are not finite and k below 1.
    """
    _check(users, items, history, k)
    best = np.full((len(users), k), -np.inf, np.float32)
    numbers = np.full((len(users), k), -1, np.int64)
    with tqdm(total=len(items), desc="exact search", unit="item", delay=5, leave=False) as bar:
        for start, block in blocks_of(items):
            columns = mapped(block, item_map, users.device)
            bias = None if prior is None else prior[start : start + len(block)]
            step = max(1, scores_at_once // len(block))
            for first in range(0, len(users), step):
                part = slice(first, first + step)
                block_scores = scores(users[part], columns, tau=tau, normalize=normalize, prior=bias)
                _keep_best(best[part], numbers[part], block_scores, history[part], start)
            bar.update(len(block))
    return torch.from_numpy(numbers).to(users.device), torch.from_numpy(best).to(users.device)


def _keep_best(best: np.ndarray, numbers: np.ndarray, block_scores: Tensor, history: Tensor, start: int) -> None:
    """Put a block's scores [n, b] in with the best so far, in place. Blocks come in order of their items."""
    inside = (history >= start) & (history < start + block_scores.shape[1])
    user, place = inside.nonzero(as_tuple=True)
    block_scores[user, history[user, place] - start] = -torch.inf
    values = block_scores.numpy(force=True)
    peaks = values.max(axis=1)
    if np.isnan(peaks).any() or (peaks == np.inf).any():
        raise InputError(f"a score of items {start} to {start + values.shape[1] - 1} is not finite; encode them again")
    better = np.flatnonzero(peaks > best[:, -1])  # an equal score of a higher number doesn't enter
    if len(better) == 0:
        return
    top_of_block = top_items(values[better], min(best.shape[1], values.shape[1]))
    top_scores = np.where(
        top_of_block < 0, -np.inf, np.take_along_axis(values[better], top_of_block.clip(min=0), axis=1)
    )
    candidates = np.concatenate([best[better], top_scores], axis=1, dtype=np.float32)
    candidate_numbers = np.concatenate([numbers[better], np.where(top_of_block < 0, -1, top_of_block + start)], axis=1)
    best[better], numbers[better] = _sorted(candidates, candidate_numbers, best.shape[1])


def _sorted(values: np.ndarray, numbers: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of each row and their numbers, of equals the one further left first; -inf and -1 for none."""
    chosen = top_items(values, k)
    empty, chosen = chosen < 0, chosen.clip(min=0)
    return (
        np.where(empty, -np.inf, np.take_along_axis(values, chosen, axis=1)).astype(np.float32),
        np.where(empty, -1, np.take_along_axis(numbers, chosen, axis=1)),
    )


class About(BaseModel):
    """What an index was built from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    rows: int
    table: str | None  # LargeTable.hash; None for a tensor


class NearestIndex:
    """An index of faiss over a table, and the table itself.

    Its vectors are those after the rec head's map, of length 1 for the cosine, with tau * prior as one more dimension,
    in which every user has 1. So the inner product of a user and an item is tau times the score.

    items, tau, normalize, prior, item_map: as in `top_k`.
    """

    def __init__(
        self,
        index: Any,
        kind: Kind,
        items: Items,
        *,
        tau: float = 1.0,
        normalize: bool = True,
        prior: Tensor | None = None,
        item_map: ItemMap | None = None,
    ) -> None:
        self.index, self.kind, self.items = index, kind, items
        self.tau, self.normalize, self.prior, self.item_map = tau, normalize, prior, item_map

    @classmethod
    def build(
        cls,
        items: Items,
        kind: Kind,
        *,
        tau: float = 1.0,
        normalize: bool = True,
        prior: Tensor | None = None,
        item_map: ItemMap | None = None,
        memory_gib: float | None = None,
    ) -> "NearestIndex":
        """Train an index on a seeded sample and add every row, block by block.

        Raises InputError for an unknown kind, and, before anything is read, where `planned_bytes` exceeds `memory_gib`.
        """
        if kind not in KINDS:
            raise InputError(f"no index {kind!r}; known: {', '.join(KINDS)}")
        nearest = cls(None, kind, items, tau=tau, normalize=normalize, prior=prior, item_map=item_map)
        width = nearest._vectors(0, items[torch.tensor([0])]).shape[1]
        planned = planned_bytes(kind, len(items), width)
        if memory_gib is not None and planned > memory_gib * 2**30:
            raise InputError(
                f"{kind} of {len(items):,} x {width} takes up to {planned / 2**30:.1f} GiB to build, more than "
                f"{memory_gib:g}; take {'ivf_pq' if kind != 'ivf_pq' else 'more memory'}"
            )
        nearest.index = faiss.index_factory(width, _factory(kind, len(items), width), faiss.METRIC_INNER_PRODUCT)
        nearest._train()
        with tqdm(total=len(items), desc=f"building {kind}", unit="item", delay=5, leave=False) as bar:
            for start, block in blocks_of(items):
                nearest._add(np.arange(start, start + len(block)), nearest._vectors(start, block))
                bar.update(len(block))
        return nearest

    def search(
        self, users: Tensor, history: Tensor, k: int = 20, *, effort: int | None = None, candidates: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """The k best items among those that the index finds, as `top_k` returns them.

        Args:
            users [n, d], history [n, L]: as in `top_k`. effort: lists that are searched (ivf, ivf_pq) or the length of
                the queue (hnsw); None: EFFORT. candidates: how many items of the index, besides those of the history,
                are scored from the table again; None: k times CANDIDATES. 0: none, order and scores are the index's
                own.
        """
        _check(users, self.items, history, k)
        wanted = max(k, CANDIDATES[self.kind] * k if candidates is None else candidates) + history.shape[1]
        near, products = self._nearest(
            users, min(wanted, len(self.items)), EFFORT[self.kind] if effort is None else effort
        )
        near[(near[:, :, None] == history.numpy(force=True)[:, None, :]).any(axis=2)] = -1
        order = np.argsort(near, axis=1, kind="stable")  # by number, so that the lower one is first among equals
        near, products = np.take_along_axis(near, order, axis=1), np.take_along_axis(products, order, axis=1)
        values = products / self.tau if candidates == 0 else self._scores(users, near)
        best, numbers = _sorted(np.where(near < 0, -np.inf, values).astype(np.float32), near, min(k, near.shape[1]))
        lacking = ((0, 0), (0, k - numbers.shape[1]))
        best, numbers = np.pad(best, lacking, constant_values=-np.inf), np.pad(numbers, lacking, constant_values=-1)
        return torch.from_numpy(numbers).to(users.device), torch.from_numpy(best).to(users.device)

    def update(self, items: Items, rows: np.ndarray) -> None:
        """Follow a refreshed table: `rows`, int64 [M], are those that changed (`large_table.Refreshed.changed`).

        The centroids and codebooks stay; after much has changed an index is better built again. Raises InputError for
        hnsw, from which nothing can be taken out, and for a table with fewer rows than before.
        """
        if self.kind == "hnsw" or len(items) < self.index.ntotal:
            reason = (
                "hnsw can't take items out" if self.kind == "hnsw" else f"the table lost items, it has {len(items)}"
            )
            raise InputError(f"{reason}; build the index again")
        self.items, rows = items, np.unique(np.asarray(rows, dtype=np.int64))
        self.index.remove_ids(rows)
        for part in np.array_split(rows, max(1, len(rows) // BLOCK_ROWS)):
            if len(part):
                self._add(part, self._vectors_at(torch.from_numpy(part)))
        if self.index.ntotal != len(items):
            raise InputError(
                f"the index holds {self.index.ntotal} items of a table of {len(items)}; pass all rows that changed, or "
                "build it again"
            )

    def save(self, folder: str | Path) -> None:
        """Write the index, the hash of its table, and a few of its vectors, whole or not at all."""
        with atomic(folder) as temporary:
            temporary.mkdir()
            faiss.write_index(self.index, str(temporary / INDEX))
            np.save(temporary / PROBE, self._vectors_at(self._probed()))
            about = About(kind=self.kind, rows=len(self.items), table=_hash(self.items))
            write_json(temporary / ABOUT, about.model_dump(mode="json"))
            write_sums(temporary)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        items: Items,
        *,
        tau: float = 1.0,
        normalize: bool = True,
        prior: Tensor | None = None,
        item_map: ItemMap | None = None,
    ) -> "NearestIndex":
        """Return the index that `save` wrote.

        Raises InputError for a damaged index, and for one of another table or of other scores (map, cosine, prior).
        """
        folder = Path(folder)
        if not (folder / ABOUT).is_file():
            raise InputError(f"{folder}: holds no index; build one")
        check_kept(folder)
        about = checked(About, read_json(folder / ABOUT), str(folder / ABOUT))
        if about.rows != len(items) or about.table != _hash(items):
            raise InputError(f"{folder}: built from another table; update the index or build it again")
        index = faiss.read_index(str(folder / INDEX))
        nearest = cls(index, about.kind, items, tau=tau, normalize=normalize, prior=prior, item_map=item_map)
        probe, present = np.load(folder / PROBE), nearest._vectors_at(nearest._probed())
        if probe.shape != present.shape or not np.allclose(probe, present, rtol=1e-3, atol=1e-4):
            raise InputError(f"{folder}: built for other scores (rec head, cosine or prior); build it again")
        return nearest

    # Vectors

    def _vectors(self, start: int, block: Tensor) -> np.ndarray:
        """The index's vectors of the rows from `start` on."""
        return self._as_vectors(block, None if self.prior is None else self.prior[start : start + len(block)])

    @torch.no_grad()
    def _as_vectors(self, states: Tensor, prior: Tensor | None) -> np.ndarray:
        """float32 [n, m], m a multiple of SUBVECTOR, of states [n, d] and their prior [n]."""
        device = states.device if prior is None else prior.device
        vectors = mapped(states, self.item_map, device)
        if self.normalize:
            vectors = F.normalize(vectors, dim=-1)
        if prior is not None:
            vectors = torch.cat([vectors, self.tau * prior[:, None].float()], dim=1)
        return _padded(vectors)

    def _vectors_at(self, rows: Tensor) -> np.ndarray:
        return self._as_vectors(self.items[rows], None if self.prior is None else self.prior[rows])

    @torch.no_grad()
    def _queries(self, users: Tensor) -> np.ndarray:
        vectors = F.normalize(users.float(), dim=-1) if self.normalize else users.float()
        if self.prior is not None:
            vectors = torch.cat([vectors, vectors.new_ones(len(vectors), 1)], dim=1)
        return _padded(vectors)

    def _probed(self) -> Tensor:
        return torch.linspace(0, len(self.items) - 1, min(PROBED, len(self.items)), dtype=torch.float64).long()

    # faiss

    def _train(self) -> None:
        if self.kind == "hnsw":
            self.index.is_trained = True  # 16 bits of a float need no training
            return
        wanted = max(TRAINED_ON * self.index.nlist, CODEBOOK_VECTORS if self.kind == "ivf_pq" else 0)
        count = len(self.items)
        seed = derive_seed("index", self.kind, count)
        chosen = np.sort(np.random.default_rng(seed).choice(count, min(wanted, count), replace=False))
        self.index.train(self._vectors_at(torch.from_numpy(chosen)))

    def _add(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        if self.kind == "hnsw":
            self.index.add(vectors)
        else:
            self.index.add_with_ids(vectors, rows)

    def _nearest(self, users: Tensor, count: int, effort: int) -> tuple[np.ndarray, np.ndarray]:
        """Item numbers int64 [n, count], -1 for none, and the index's own inner products."""
        if effort < 1:
            raise InputError(f"effort is {effort}; give at least 1")
        if self.kind == "hnsw":
            chosen = faiss.SearchParametersHNSW()  # type: ignore[attr-defined]
            chosen.efSearch = max(effort, count)
        else:
            chosen = faiss.SearchParametersIVF()
            chosen.nprobe = min(effort, self.index.nlist)
        products, near = self.index.search(self._queries(users), count, params=chosen)
        return near, products

    @torch.no_grad()
    def _scores(self, users: Tensor, near: np.ndarray) -> np.ndarray:
        """Exact scores of the candidates `near`, int64 [n, c] -> float32 [n, c]; each row of the table is read once."""
        numbers, place = np.unique(near.clip(min=0), return_inverse=True)
        rows = torch.from_numpy(numbers)
        columns = mapped(self.items[rows], self.item_map, users.device)
        prior = None if self.prior is None else self.prior[rows]
        every = scores(users, columns, tau=self.tau, normalize=self.normalize, prior=prior).numpy(force=True)
        near_scores: np.ndarray = np.take_along_axis(every, place.reshape(near.shape), axis=1)
        return near_scores


def planned_bytes(kind: Kind, rows: int, width: int) -> int:
    """Bytes that building an index holds at most: its vectors twice, as its arrays grow by doubling, and the sample.

    A search holds about half: rows * bytes_per_item.
    """
    sample = 0 if kind == "hnsw" else min(rows, TRAINED_ON * lists(rows)) * width * 4
    return 2 * rows * bytes_per_item(kind, width) + sample


def bytes_per_item(kind: Kind, width: int) -> int:
    """Vector, its number and, for hnsw, its links: 2 * LINKS in the lowest layer, a tenth more above."""
    if kind == "ivf_pq":
        return -(-width // SUBVECTOR) + 8
    return 2 * width + (8 if kind == "ivf" else round(2.2 * LINKS) * 4)


def lists(rows: int) -> int:
    """Lists of an inverted file: about the root of the number of items, a power of two."""
    return int(2 ** round(np.log2(rows) / 2))


def _factory(kind: Kind, rows: int, width: int) -> str:
    if kind == "hnsw":
        return f"HNSW{LINKS}_SQfp16"
    # np: without the reordering of codes for Hamming distances, which takes seconds and nothing here uses.
    return f"IVF{lists(rows)}," + ("SQfp16" if kind == "ivf" else f"PQ{width // SUBVECTOR}np")


def _padded(vectors: Tensor) -> np.ndarray:
    """float32, with columns of 0 up to a multiple of SUBVECTOR: inner products stay."""
    padded: np.ndarray = F.pad(vectors, (0, -vectors.shape[1] % SUBVECTOR)).float().contiguous().numpy(force=True)
    return padded


def _hash(items: Items) -> str | None:
    return items.hash if isinstance(items, LargeTable) else None


def _check(users: Tensor, items: Items, history: Tensor, k: int) -> None:
    if k < 1:
        raise InputError(f"k is {k}; give at least 1")
    if history.dim() != 2 or len(history) != len(users):
        raise InputError(f"{len(users)} users need history [n, L], got {list(history.shape)}; pad with -1")
    check_item_numbers(history, len(items), lowest=-1)
