"""The table on disk: it gives the states that were encoded, encodes changed items only, and survives a kill."""

import errno
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmark.errors import InputError
from benchmark.storage.io import read_json, write_json
from r2ec.catalogue import large_table as module
from r2ec.catalogue.large_table import DTYPES, LargeTable, Refreshed, encoding, refresh
from r2ec.model import ranking
from r2ec.model.item_table import ItemTable
from r2ec.model.network import R2ec
from r2ec.model.ranking import blocks_of
from tests.r2ec.test_item_table import item_prompts
from tests.support.tiny_models import WIDTH, relative, tiny_model

WIDE = 5


def state_of(prompt: Sequence[int]) -> list[float]:
    """A random state that depends on the prompt alone."""
    random = np.random.default_rng(list(prompt))
    values: list[float] = random.normal(size=WIDE).tolist()
    return values


class Encoder:
    """Counts what it encodes."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        self.seen += [tuple(prompt) for prompt in prompts]
        return torch.tensor([state_of(prompt) for prompt in prompts])


def bring(folder: Path, prompts: Sequence[Sequence[int]], encode: Any, **changes: Any) -> Refreshed:
    arguments: dict[str, Any] = {"width": WIDE, "encoder": "e", "dtype": "float32", "shard_rows": 4} | changes
    return refresh(folder, len(prompts), lambda start, stop: prompts[start:stop], encode, **arguments)


def whole(folder: Path) -> Tensor:
    return torch.cat([block.clone() for _, block in blocks_of(LargeTable(folder))])


def expected(prompts: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor([state_of(prompt) for prompt in prompts])


def prompts_of(count: int) -> list[list[int]]:
    return [[v, v % 3] for v in range(count)]


# Reading


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("shard_rows", [1, 4, 11, 100])
def test_what_is_read_is_what_was_encoded(dtype: Any, shard_rows: int, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(ranking, "BLOCK_ROWS", 3)
    prompts = prompts_of(11)
    refreshed = bring(tmp_path, prompts, encode := Encoder(), dtype=dtype, shard_rows=shard_rows)
    assert refreshed.encoded == 11 and refreshed.changed.tolist() == list(range(11))
    assert encode.seen == [tuple(prompt) for prompt in prompts]
    table = LargeTable(tmp_path)
    assert (len(table), table.width, table.dtype) == (11, WIDE, DTYPES[dtype])
    states = expected(prompts).to(DTYPES[dtype])
    blocks = list(blocks_of(table))
    assert [start for start, _ in blocks] == np.cumsum([0, *(len(block) for _, block in blocks)]).tolist()[:-1]
    assert max(len(block) for _, block in blocks) <= 3
    assert torch.equal(torch.cat([block for _, block in blocks]), states)
    wanted = torch.tensor([10, 0, 3, 3, 7])
    assert torch.equal(table.rows(wanted), states[wanted])
    assert torch.equal(table[wanted], states[wanted])
    for (start, block), (at, plain) in zip(blocks, blocks_of(states), strict=True):
        assert start == at and torch.equal(block, plain)
    for rows in (slice(0, 0), slice(2, 9), slice(-3, None), slice(5, 6), slice(4, 100), slice(7, 2)):
        assert torch.equal(table[rows], states[rows])
    with pytest.raises(InputError, match="leave some out"):
        table[::2]


def test_nothing_done_to_a_block_reaches_the_file(tmp_path: Path) -> None:
    bring(tmp_path, prompts_of(6), Encoder())
    for _, block in blocks_of(LargeTable(tmp_path)):
        block.zero_()
    assert torch.equal(whole(tmp_path), expected(prompts_of(6)))


def test_shards_of_the_lm_equal_the_table_in_memory(tmp_path: Path) -> None:
    model, prompts = R2ec(tiny_model("llama")).train(), item_prompts()
    plain = ItemTable(prompts, WIDTH)
    plain.refresh(model)
    bring(tmp_path, prompts, encoding(model), width=WIDTH, shard_rows=9)
    assert model.training and relative(whole(tmp_path), plain.states) < 1e-5


# Only what changed


def test_only_what_changed_is_encoded(tmp_path: Path) -> None:
    prompts = prompts_of(11)
    bring(tmp_path, prompts, Encoder())
    files = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    refreshed = bring(tmp_path, prompts, encode := Encoder())
    assert refreshed.encoded == 0 and refreshed.changed.tolist() == [] and encode.seen == []
    prompts[5] = [99]
    prompts.append([100])
    refreshed = bring(tmp_path, prompts, encode := Encoder())
    assert refreshed.encoded == 2 and refreshed.changed.tolist() == [5, 11] and encode.seen == [(99,), (100,)]
    assert torch.equal(whole(tmp_path), expected(prompts))
    # The first shard, rows 0 to 3, was not touched; those that are no longer of the table are gone.
    first = LargeTable(tmp_path).manifest.shards[0]
    assert (tmp_path / f"{first}.states.npy").stat().st_mtime_ns == files[f"{first}.states.npy"]
    assert len(list(tmp_path.iterdir())) == 1 + 3 * 3


def test_items_that_move_keep_their_states(tmp_path: Path) -> None:
    prompts = prompts_of(11)
    bring(tmp_path, prompts, Encoder())
    moved = [[50], *prompts[::-1]]  # a new first item, all others in reverse order
    refreshed = bring(tmp_path, moved, encode := Encoder())
    assert encode.seen == [(50,)] and refreshed.encoded == 1
    # [50], 10, 9, ..., 0: none stands where it stood but, were there one, item v at row 11 - v.
    assert refreshed.changed.tolist() == [row for row in range(12) if row != 11 - row]
    assert torch.equal(whole(tmp_path), expected(moved))


@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=9), min_size=2, max_size=4), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_any_sequence_of_catalogues_equals_a_fresh_encoding(catalogues: list[list[int]], shard_rows: int) -> None:
    """Each catalogue has its own encoding's states, and encodes only the items that the one before it didn't have."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        before: list[int] = []
        for catalogue in catalogues:
            prompts = [[v] for v in catalogue]
            refreshed = bring(Path(name), prompts, encode := Encoder(), shard_rows=shard_rows)
            assert torch.equal(whole(Path(name)), expected(prompts))
            assert not {prompt[0] for prompt in encode.seen} & set(before)
            unchanged = [v if row < len(before) and before[row] == v else None for row, v in enumerate(catalogue)]
            assert refreshed.changed.tolist() == [row for row, v in enumerate(unchanged) if v is None]
            before = catalogue


@pytest.mark.parametrize("change", [{"encoder": "other"}, {"dtype": "bfloat16"}])
def test_another_encoder_or_dtype_encodes_everything(change: dict[str, str], tmp_path: Path) -> None:
    bring(tmp_path, prompts_of(6), Encoder())
    hash_before = LargeTable(tmp_path).hash
    refreshed = bring(tmp_path, prompts_of(6), Encoder(), **change)
    assert refreshed.encoded == 6 and refreshed.changed.tolist() == list(range(6))
    assert LargeTable(tmp_path).hash != hash_before


def test_shards_of_another_size_are_copied(tmp_path: Path) -> None:
    bring(tmp_path, prompts_of(11), Encoder())
    refreshed = bring(tmp_path, prompts_of(11), encode := Encoder(), shard_rows=3)
    assert encode.seen == [] and refreshed.changed.tolist() == []
    assert torch.equal(whole(tmp_path), expected(prompts_of(11)))


# Killed, damaged, wrong


def killed_at(folder: Path, prompts: Sequence[Sequence[int]], arm: Callable[[], None]) -> None:
    """A refresh in a forked process that `arm` lets die by SIGKILL."""
    if (pid := os.fork()) == 0:
        try:
            arm()
            bring(folder, prompts, Encoder())
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after(owner: Any, name: str, calls: int) -> Callable[[], None]:
    """Die in place of the call number `calls` of `owner.name`."""

    def arm() -> None:
        original, left = getattr(owner, name), [calls]

        def counted(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            return die() if left[0] == 0 else original(*args, **kwargs)

        setattr(owner, name, counted)

    return arm


@pytest.mark.parametrize("calls", range(1, 7))  # three shards, two files each
def test_an_encoding_killed_anywhere_ends_with_the_same_bytes(calls: int, tmp_path: Path) -> None:
    prompts = prompts_of(11)
    bring(tmp_path / "whole", prompts, Encoder())
    folder = tmp_path / "killed"
    killed_at(folder, prompts, after(np, "save", calls))
    with pytest.raises(InputError, match="encode the table first"):
        LargeTable(folder)
    refreshed = bring(folder, prompts, Encoder())
    shards = (calls - 1) // 2  # whole by then
    assert refreshed.encoded == 11 - 4 * shards and refreshed.changed.tolist() == list(range(11))
    assert same(folder, tmp_path / "whole")


@pytest.mark.parametrize("calls", range(1, 5))
def test_a_refresh_that_is_killed_leaves_the_earlier_table(calls: int, tmp_path: Path) -> None:
    prompts, changed = prompts_of(11), prompts_of(11)
    changed[1], changed[9] = [70], [71]  # in the first and the last shard
    folder = tmp_path / "killed"
    bring(folder, prompts, Encoder())
    killed_at(folder, changed, after(np, "save", calls))
    assert torch.equal(whole(folder), expected(prompts))
    refreshed = bring(folder, changed, Encoder())
    assert refreshed.changed.tolist() == [1, 9]
    bring(tmp_path / "whole", changed, Encoder())
    assert same(folder, tmp_path / "whole")


def test_an_encoding_killed_before_the_manifest_encodes_nothing_again(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    killed_at(folder, prompts_of(11), after(module, "write_json", 1))
    assert bring(folder, prompts_of(11), Encoder()).encoded == 0
    assert torch.equal(whole(folder), expected(prompts_of(11)))


def same(a: Path, b: Path) -> bool:
    """Two folders with the same files, byte for byte."""
    files = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in (a, b)]
    return files[0] == files[1]


def damaged(folder: Path) -> Path:
    bring(folder, prompts_of(11), Encoder())
    return folder / f"{LargeTable(folder).manifest.shards[1]}.states.npy"


@pytest.mark.parametrize("file", ["states", "prompts", "states.npy.sha256"])
def test_a_flipped_bit_is_named_and_encoded_again(file: str, tmp_path: Path, capsys: Any) -> None:
    path = damaged(tmp_path)
    before = LargeTable(tmp_path)  # opened while all was well, and not read yet
    path = path.with_name(path.name.replace("states.npy", file if file.endswith("256") else f"{file}.npy"))
    content = bytearray(path.read_bytes())
    content[-2] ^= 4  # a mantissa's bit, a hash's, a name's
    path.write_bytes(content)
    for table in (before, LargeTable(tmp_path)):
        assert (
            table.rows([3, 8]).tolist() == expected([prompts_of(11)[3], prompts_of(11)[8]]).tolist()
        )  # of the other shards
        with pytest.raises(
            InputError, match=f"{path.name.partition('.sha')[0]}.* not what was .*encode the table again"
        ):
            table.prompt_hashes() if file == "prompts" else table.rows([5])
    refreshed = bring(tmp_path, prompts_of(11), encode := Encoder())
    assert refreshed.encoded == 4 and encode.seen == [tuple(prompt) for prompt in prompts_of(11)[4:8]]
    assert "its other shards are kept" in capsys.readouterr().out
    assert torch.equal(whole(tmp_path), expected(prompts_of(11)))


@pytest.mark.parametrize("how", ["missing", "cut", "another shape"])
def test_a_damaged_shard_is_named_and_encoded_again(how: str, tmp_path: Path, capsys: Any) -> None:
    path = damaged(tmp_path)
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-3])
    else:
        np.save(path, np.zeros((4, WIDE + 1), np.float32))
    with pytest.raises(InputError, match=f"{path.name}: .*encode the table again"):
        LargeTable(tmp_path)
    refreshed = bring(tmp_path, prompts_of(11), encode := Encoder())
    assert refreshed.encoded == 4 and encode.seen == [tuple(prompt) for prompt in prompts_of(11)[4:8]]
    assert "its other shards are kept" in capsys.readouterr().out
    assert torch.equal(whole(tmp_path), expected(prompts_of(11)))


def test_a_full_disk_is_reported_and_whole_shards_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, left = np.save, [3]

    def full(*args: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(*args)

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(InputError, match="the disk is full"):
        bring(tmp_path, prompts_of(11), Encoder())
    assert bring(tmp_path, prompts_of(11), Encoder()).encoded == 7
    assert not list(tmp_path.glob(".*"))


def test_states_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    def encode(prompts: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor([[1e6 if prompt[0] == 5 else 1.0] * WIDE for prompt in prompts])

    bring(tmp_path / "a", prompts_of(11), encode)
    with pytest.raises(InputError, match=r"item 5: its state is not finite in torch\.float16"):
        bring(tmp_path / "b", prompts_of(11), encode, dtype="float16")


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 items"):
        bring(tmp_path, [], Encoder())
    with pytest.raises(InputError, match="shards of 0 rows"):
        bring(tmp_path, prompts_of(3), Encoder(), shard_rows=0)
    with pytest.raises(InputError, match="a dtype of bfloat16"):
        bring(tmp_path, prompts_of(3), Encoder(), dtype="int8")
    with pytest.raises(InputError, match=r"items from 0 on: states \[3, 5\] of 3 prompts, expected width 6"):
        bring(tmp_path, prompts_of(3), Encoder(), width=6)
    with pytest.raises(InputError, match="items 0 to 3: 1 prompts"):
        refresh(tmp_path, 4, lambda start, stop: [[1]], Encoder(), width=WIDE, encoder="e")
    bring(tmp_path, prompts_of(3), Encoder())
    for rows in ([3], [-1], [], [[1]]):
        with pytest.raises(InputError, match="do not fit a table of 3 items"):
            LargeTable(tmp_path).rows(rows)
    manifest = read_json(tmp_path / "manifest.json")
    write_json(tmp_path / "manifest.json", manifest | {"rows": 9})
    with pytest.raises(InputError, match="1 shards of 4 don't make 9 rows"):
        LargeTable(tmp_path)
    write_json(tmp_path / "manifest.json", manifest | {"dtype": "int8"})
    with pytest.raises(InputError, match=r"manifest\.json: dtype"):
        LargeTable(tmp_path)
