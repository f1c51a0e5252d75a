"""Amazon Reviews 2023, prepared: the same from any form, by the commands, and the paper's counts beside ours."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmark.data import fetch, prepare, protocol
from benchmark.data.settings import DatasetConfig
from benchmark.datasets import Raw, amazon_2023
from benchmark.storage.io import read_json
from tests.support.amazon_2023 import LOG, WINDOW, load, load_as_it_is, rows_of, write_mirror
from tests.support.preparing import command


def test_prepared_from_text_on_disk_from_arrows_and_from_pythons_is_the_same(enough: Path, tmp_path: Path) -> None:
    raw = load(enough, min_items=6)
    settings = DatasetConfig(source="amazon_2023", category="game", min_user_count=2, min_item_count=2)
    as_python = []
    for frame in (raw.interactions, raw.items):
        arrows = [name for name, dtype in frame.dtypes.items() if isinstance(dtype, pd.ArrowDtype)]
        assert {"item_id"} <= set(arrows)
        as_python.append(frame.astype(dict.fromkeys(arrows, object)))
    all_prepared = [
        protocol.prepare(source, settings, "x") for source in (load_as_it_is(enough, min_items=6), raw, Raw(*as_python))
    ]
    assert len({prepare.split_hash(source) for source in all_prepared}) == 1
    # The attributes go from disk to disk, without those of the items that the minimum counts drop.
    on_disk, in_memory = all_prepared[:2]
    assert on_disk.texts is not None and "description" not in on_disk.items and len(on_disk.items) < len(raw.items)
    for name, prepared in (("on disk", on_disk), ("in memory", in_memory)):
        prepare.write_dataset(prepared, {"dataset": name, "split_hash": prepare.split_hash(prepared)}, tmp_path / name)
    first, second = (pd.read_parquet(tmp_path / name / "items.parquet") for name in ("on disk", "in memory"))
    assert first["description"].str.len().max() > 0
    pd.testing.assert_frame_equal(first, second)


def run_commands(monkeypatch: pytest.MonkeyPatch, root: Path, mirror: Path, **changes: Any) -> dict[str, Any]:
    entry = {"source": "amazon_2023", "category": "game", "min_user_count": 1, "min_item_count": 1} | changes
    entry["max_unknown_items"] = 0.06  # one of 18 names X
    text = json.dumps(entry | {"options": {"category": "Video_Games", "mirror": str(mirror)} | WINDOW})
    manifest = root / "fetched.json"
    assert not command(
        monkeypatch, fetch.main, "--settings", text, "--resources", root / "resources", "--out", manifest
    )
    arguments = ("--dataset", "games", "--settings", text, "--manifest", manifest, "--out", root / "data" / "games")
    assert not command(monkeypatch, prepare.main, *arguments)
    return read_json(root / "data" / "games" / "dataset.json")


@pytest.fixture
def enough(tmp_path: Path) -> Path:
    """The log of above ten times over, with other users each time: 40 users, 5 items, 40 cases."""
    log = [(f"{user}{copy}", name, rating, time) for copy in range(10) for user, name, rating, time in LOG]
    return write_mirror(tmp_path / "mirror", rows_of(log))


def test_the_papers_counts_are_printed_beside_ours(
    enough: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    about = run_commands(monkeypatch, tmp_path, enough, same_time="order")
    assert about["source"]["counts"]["interactions"] == about["counts"]["interactions_read"] == 80
    assert about["expected"]["counts"]["users"] == 29_230 and not about["expected"]["equal"]
    out = capsys.readouterr().out
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert "users items cases cases_train cases_valid cases_test" in rows
    assert "arXiv 2505.16994v3 29,230 10,144 63,502 50,801 6,350 6,351" in rows
    # u1 has two cases, u2 and u3 one, u5 none.
    assert "ours 40 5 40 32 4 4" in rows
    assert (
        "OUR COUNTS DIFFER from arXiv 2505.16994v3 in users, items, cases, cases_train, cases_valid, cases_test. The"
        in out
    )
    assert "preset released is the other reading; the preset's own start, min_items would be nearer." in out


def test_settings_that_the_papers_counts_need_are_named(
    enough: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_commands(monkeypatch, tmp_path, enough, min_user_count=2)
    out = capsys.readouterr().out
    assert (
        "They need min_user_count 1, min_item_count 1, split global-temporal, same_time order; the config has " in out
    )
    assert "the config has min_user_count 2, same_time exclude." in out


def test_equal_counts_are_said_too(
    enough: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(amazon_2023.PAPER, "Video_Games", (40, 5, 40, 32, 4, 4))
    assert run_commands(monkeypatch, tmp_path, enough, same_time="order")["expected"]["equal"]
    assert "Our counts are those of arXiv 2505.16994v3." in capsys.readouterr().out


def test_the_papers_counts_are_those_of_its_split() -> None:
    for users, items, cases, *parts in amazon_2023.PAPER.values():
        assert parts == [cases * 8 // 10, cases // 10, cases - cases * 8 // 10 - cases // 10] and min(users, items) > 0


def test_other_categories_have_no_expected_counts() -> None:
    assert amazon_2023.expected(amazon_2023.Options(category="Books")) is None
    expected = amazon_2023.expected(amazon_2023.Options(category="CDs_and_Vinyl", preset="released"))
    assert expected is not None and "would be nearer" not in expected.advice
