"""An item table on disk, for catalogues whose states don't fit into memory: shards of rows that are memory-mapped.

    manifest.json        rows, width, dtype, rows of a shard, what encoded them, and the shards' names in order
    {name}.states.npy    [shard_rows, width]; numpy has no bfloat16, which lies there as uint16
    {name}.states.npy.sha256
    {name}.prompts.npy   uint8 [shard_rows, 16], the hash of each row's prompt

A shard's name is the hash of its encoder and of its prompts, and its states are written last. So what is there under
the right name is whole: a killed encoding goes on with the shard that it was at, and an unchanged shard is not written
again. The manifest changes in one rename when all of its shards are there; until then the table is the earlier one. One
process may write a table at a time.

A table compares a shard's checksum when it first reads from the shard, and so does each refresh. The hashes of the
prompts have no checksum of their own: the shard's name is computed from them.
"""

import errno
import tokenize
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from tqdm import tqdm

from benchmark.errors import InputError, checked
from benchmark.storage.checksums import damage, forget, intact, note_sum
from benchmark.storage.io import atomic, read_json, sha256_of_json, write_json
from r2ec.model.item_table import ItemTable, hash_of
from r2ec.model.network import R2ec

MANIFEST = "manifest.json"
SHARD_ROWS = 2**16  # what a killed encoding loses at most; 75 MB of 576 bfloat16
HASH_BYTES = 16
# What numpy raises for a damaged header, of a length that nothing has or that is no Python.
UNREADABLE = (OSError, ValueError, EOFError, OverflowError, MemoryError, tokenize.TokenError)
AGAIN = "encode the table again, what is whole is kept"
FORMAT: Literal[1] = 1
Dtype = Literal["bfloat16", "float16", "float32"]
DTYPES: dict[Dtype, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}
STORED: dict[Dtype, type[np.generic]] = {"bfloat16": np.uint16, "float16": np.float16, "float32": np.float32}

Prompts = Callable[[int, int], Sequence[Sequence[int]]]  # token ids of the prompts of items [start, stop)
Encode = Callable[[Sequence[Sequence[int]]], Tensor]  # n prompts -> states [n, width]


class Manifest(BaseModel):
    """What lies in a table's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    rows: int = Field(ge=1)
    width: int = Field(ge=1)
    dtype: Dtype
    shard_rows: int = Field(ge=1)
    encoder: str  # the hash of all that the states depend on besides the prompts
    shards: list[str]


class LargeTable:
    """A finished table, opened to read: V rows of `width`. Rows are read from disk when they are indexed.

    Raises InputError where the manifest is missing, and for a shard that is missing, cut or of another shape. Reading
    rows raises it for a damaged shard.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / MANIFEST
        if not path.is_file():
            raise InputError(
                f"{path}: missing; encode the table first (an encoding that was stopped goes on where it was)"
            )
        self.manifest = checked(Manifest, read_json(path), str(path))
        if len(self.manifest.shards) != -(-len(self) // self.manifest.shard_rows):
            raise InputError(
                f"{path}: {len(self.manifest.shards)} shards of {self.manifest.shard_rows} don't make {len(self)} "
                "rows; encode the table again"
            )
        self._checked: set[int] = set()  # shards whose checksum has been compared
        for number in range(len(self.manifest.shards)):
            self._map(number)

    def __len__(self) -> int:
        return self.manifest.rows

    @property
    def width(self) -> int:
        return self.manifest.width

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.manifest.dtype]

    @cached_property
    def hash(self) -> str:
        """Hex sha256 of prompts, encoder and form: equal where every row is."""
        return sha256_of_json(self.manifest.model_dump(mode="json"))

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:
        """States of these rows in the table's dtype, [n, width]: a slice in order, a view of the file where one shard
        has it all; or int64 [n] in their order, a copy. At most one shard is mapped at a time."""
        if isinstance(rows, Tensor):
            return self.rows(rows)
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise InputError(f"item rows {rows} leave some out; pass rows in order, or their numbers")
        size, parts = self.manifest.shard_rows, []
        for number in range(start // size, -(-stop // size)):
            begin = number * size
            parts.append(self._tensor(self._whole(number)[max(start - begin, 0) : stop - begin]))
        return parts[0] if len(parts) == 1 else torch.cat([torch.empty(0, self.width, dtype=self.dtype), *parts])

    def rows(self, numbers: Tensor | np.ndarray | Sequence[int]) -> Tensor:
        """States of these rows, int [M], in their order: a copy in the table's dtype, [M, width]."""
        wanted = numbers.detach().cpu().numpy() if isinstance(numbers, Tensor) else np.asarray(numbers)
        if wanted.ndim != 1 or len(wanted) == 0 or wanted.min() < 0 or wanted.max() >= len(self):
            raise InputError(f"item rows {wanted[:5].tolist()} do not fit a table of {len(self)} items; pass int [M]")
        states = torch.empty(len(wanted), self.width, dtype=self.dtype)
        order = np.argsort(wanted, kind="stable")
        shard_of = wanted[order] // self.manifest.shard_rows
        for where in np.split(order, np.flatnonzero(np.diff(shard_of)) + 1):
            number = int(wanted[where[0]] // self.manifest.shard_rows)
            inside = wanted[where] - number * self.manifest.shard_rows
            states[torch.from_numpy(where)] = self._tensor(self._whole(number)[inside])
        return states

    def prompt_hashes(self) -> np.ndarray:
        """The hash of every row's prompt, uint8 [V, 16]: 160 MB for 10 million rows."""
        return np.concatenate([self._hashes(name) for name in self.manifest.shards])

    def check(self) -> None:
        """Compare the checksum of every shard that hasn't been read yet. Raises InputError for one that is damaged."""
        for number in range(len(self.manifest.shards)):
            self._whole(number)

    def _hashes(self, name: str) -> np.ndarray:
        path, manifest = _prompts_file(self.folder, name), self.manifest
        try:
            hashes: np.ndarray = np.load(path)
            same = name == _name(hashes, manifest.width, manifest.dtype, manifest.encoder)
        except UNREADABLE:
            same = False
        if not same:
            raise InputError(f"{path}: missing or not what was written there; {AGAIN}")
        return hashes

    def _whole(self, number: int) -> np.ndarray:
        if number not in self._checked:
            if (why := damage(_states_file(self.folder, self.manifest.shards[number]))) is not None:
                raise InputError(f"{why}; {AGAIN}")
            self._checked.add(number)
        return self._map(number)

    def _map(self, number: int) -> np.ndarray:
        rows = min(self.manifest.shard_rows, len(self) - number * self.manifest.shard_rows)
        return _mapped(self.folder, self.manifest.shards[number], (rows, self.width), self.manifest.dtype)

    def _tensor(self, states: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(states)
        return tensor.view(torch.bfloat16) if self.manifest.dtype == "bfloat16" else tensor


# Encoding


@dataclass(frozen=True)
class Refreshed:
    """What one `refresh` did."""

    encoded: int  # prompts that were read by the encoder
    changed: np.ndarray  # int64, the rows that hold something else than before; all of a table that is new


def refresh(
    folder: str | Path,
    count: int,
    prompts: Prompts,
    encode: Encode,
    *,
    width: int,
    encoder: str,
    dtype: Dtype = "bfloat16",
    shard_rows: int = SHARD_ROWS,
) -> Refreshed:
    """Bring the table in `folder` up to date: encode the items whose prompt it doesn't hold, and only those.

    A row is known by the hash of its prompt, not by its number: an item put in front of the others moves their states
    and encodes its own. Another encoder, width or dtype encodes everything anew. While it runs the folder holds both
    the earlier shards and the new ones.

    Args:
        count: items, V. prompts: (start, stop) -> their token ids, none empty; called for each shard in order.
        encode: a shard's missing prompts -> their states [n, width], such as `encoding(model)`.
        encoder: the hash of all that states depend on besides prompts: weights, adapters, code.
    Raises InputError for a wrong number of prompts or states, states that are not finite in `dtype`, and a full disk;
    what has been written by then is kept for the next call.
    """
    if count < 1 or shard_rows < 1 or dtype not in DTYPES:
        raise InputError(
            f"{count} items in shards of {shard_rows} rows of {dtype}: give at least 1 of each, and a dtype of "
            f"{', '.join(DTYPES)}"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    known = _known(folder, width, dtype, encoder)
    names, changed, encoded = [], [], 0
    with tqdm(total=count, desc="item table on disk", unit="item", delay=5, leave=False) as bar:
        for start in range(0, count, shard_rows):
            stop = min(start + shard_rows, count)
            texts = prompts(start, stop)
            if len(texts) != stop - start:
                raise InputError(f"items {start} to {stop - 1}: {len(texts)} prompts; give one for each item")
            hashes = np.frombuffer(b"".join(_hash(text) for text in texts), np.uint8).reshape(-1, HASH_BYTES)
            name = _name(hashes, width, dtype, encoder)
            if not (known and name in known.names) and not _is_whole(
                folder, name, hashes, (stop - start, width), dtype
            ):
                states, new = _states_of(texts, hashes, known, encode, width, DTYPES[dtype], start)
                _write(folder, name, hashes, states, dtype)
                encoded += new
            names.append(name)
            changed.append(start + (np.arange(stop - start) if known is None else known.differing(start, hashes)))
            bar.update(stop - start)
    manifest = Manifest(rows=count, width=width, dtype=dtype, shard_rows=shard_rows, encoder=encoder, shards=names)
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    of_table = set(names)
    for file in [*folder.glob("*.npy*"), *folder.glob(".*.npy*.part*")]:
        if file.name.partition(".")[0] not in of_table:
            file.unlink(missing_ok=True)
    return Refreshed(encoded, np.concatenate(changed).astype(np.int64))


def encoding(model: R2ec) -> Encode:
    """How `model` encodes prompts: in evaluation mode, without gradients, their common beginning once."""

    def encode(prompts: Sequence[Sequence[int]]) -> Tensor:
        part = ItemTable(prompts, model.dim, device=model.causal_lm.device)
        part.refresh_rows(model, np.arange(len(part)))  # each part once: nothing of it is kept
        return part.states

    return encode


class _Known:
    """Finds rows of an earlier table by the hash of their prompt. Raises InputError for a damaged table."""

    def __init__(self, table: LargeTable) -> None:
        table.check()
        self.table, self.hashes, self.names = table, table.prompt_hashes(), frozenset(table.manifest.shards)

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """Half of each hash as a number, ascending, and the rows in that order."""
        keys = _keys(self.hashes)
        order = np.argsort(keys, kind="stable")
        return keys[order], order

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """A row with this prompt for each hash, uint8 [n, 16] -> int64 [n]; -1 where there is none."""
        keys, order = self._sorted
        place = np.searchsorted(keys, _keys(hashes)).clip(max=len(keys) - 1)
        rows = order[place]
        # The other half is compared too: two prompts that share one half count as unknown, and are encoded.
        return np.where((self.hashes[rows] == hashes).all(axis=1), rows, -1)

    def differing(self, start: int, hashes: np.ndarray) -> np.ndarray:
        """Which of the rows from `start` on have another prompt than before, int64 from 0."""
        before = self.hashes[start : start + len(hashes)]
        same = (hashes[: len(before)] == before).all(axis=1)
        return np.concatenate([np.flatnonzero(~same), np.arange(len(before), len(hashes))])


def _known(folder: Path, width: int, dtype: Dtype, encoder: str) -> _Known | None:
    """The earlier table, if there is a whole one whose states can be used."""
    if not (folder / MANIFEST).exists():
        return None
    try:
        table = LargeTable(folder)
        manifest = table.manifest
        return _Known(table) if (manifest.width, manifest.dtype, manifest.encoder) == (width, dtype, encoder) else None
    except InputError as error:
        print(f"{error}\nits other shards are kept", flush=True)
        return None


def _states_of(
    texts: Sequence[Sequence[int]],
    hashes: np.ndarray,
    known: _Known | None,
    encode: Encode,
    width: int,
    dtype: torch.dtype,
    start: int,
) -> tuple[Tensor, int]:
    """A shard's states [n, width] in `dtype`, and how many of them had to be encoded."""
    rows = np.full(len(texts), -1) if known is None else known.find(hashes)
    states = torch.empty(len(texts), width, dtype=dtype)
    missing, kept = np.flatnonzero(rows < 0), np.flatnonzero(rows >= 0)
    if known is not None and len(kept):
        states[torch.from_numpy(kept)] = known.table.rows(rows[kept])
    if len(missing):
        encoded = encode([texts[i] for i in missing.tolist()])
        if encoded.shape != (len(missing), width):
            raise InputError(
                f"items from {start} on: states {list(encoded.shape)} of {len(missing)} prompts, expected width "
                f"{width}; pass the encoder's width"
            )
        states[torch.from_numpy(missing)] = encoded.detach().cpu().to(dtype)
        bad = ~torch.isfinite(states).all(dim=1)
        if bool(bad.any()):
            item = start + int(bad.nonzero()[0, 0])
            raise InputError(
                f"item {item}: its state is not finite in {dtype}; use bfloat16 or float32, or mend the LM"
            )
    return states, len(missing)


def _hash(prompt: Sequence[int]) -> bytes:
    return bytes.fromhex(hash_of([prompt]))[:HASH_BYTES]


def _keys(hashes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(hashes).view(np.uint64)[:, 0]


def _name(hashes: np.ndarray, width: int, dtype: Dtype, encoder: str) -> str:
    about = {"format": FORMAT, "width": width, "dtype": dtype, "encoder": encoder, "prompts": hashes.tobytes().hex()}
    return sha256_of_json(about)[:32]


def _states_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.states.npy"


def _prompts_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.prompts.npy"


def _mapped(folder: Path, name: str, shape: tuple[int, int], dtype: Dtype) -> np.ndarray:
    """The states of one shard, mapped. Raises InputError where they aren't there, cut, or of another shape."""
    path = _states_file(folder, name)
    try:
        # Copy-on-write: torch wants memory that it may write to, and nothing done to a block reaches the file.
        states: np.ndarray = np.load(path, mmap_mode="c")
    except UNREADABLE as error:
        raise InputError(f"{path}: missing or cut ({error}); {AGAIN}") from None
    if states.shape != shape or states.dtype != STORED[dtype]:
        raise InputError(
            f"{path}: {states.dtype} {list(states.shape)}, expected {dtype} {list(shape)}; delete it and encode the "
            "table again, what is whole is kept"
        )
    return states


def _is_whole(folder: Path, name: str, hashes: np.ndarray, shape: tuple[int, int], dtype: Dtype) -> bool:
    """Return whether a shard is there as it was written; a damaged one is removed."""
    try:
        _mapped(folder, name, shape, dtype)
        same = np.array_equal(np.load(_prompts_file(folder, name)), hashes)
    except (InputError, *UNREADABLE):
        same = False
    if not same:
        forget(_states_file(folder, name))
    return same and intact(_states_file(folder, name))


def _write(folder: Path, name: str, hashes: np.ndarray, states: Tensor, dtype: Dtype) -> None:
    """Hashes first: a shard whose states are there is whole."""
    stored = states.view(torch.int16).numpy().view(np.uint16) if dtype == "bfloat16" else states.numpy()
    try:
        for path, array in ((_prompts_file(folder, name), hashes), (_states_file(folder, name), stored)):
            with atomic(path) as temporary:
                with temporary.open("wb") as file:
                    np.save(file, array)
                if array is stored:
                    note_sum(path, temporary)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise InputError(f"{folder}: the disk is full; make room and encode again, what is whole is kept") from None
