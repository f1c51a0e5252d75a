"""Amazon Reviews 2023: its options and what config/README.md says of them, and made-up files of any size."""

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from benchmark.config.methods import ROOT
from benchmark.config.read import read_config
from benchmark.datasets import amazon_2023
from benchmark.errors import InputError
from benchmark.output.page.labels import OF_SOURCES
from benchmark.speed import __main__ as speed
from benchmark.speed import raw_amazon
from tests.support.amazon_2023 import ITEMS, load, write_mirror
from tests.support.config_readme import readme_rows
from tests.support.preparing import command


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mirror(tmp_path_factory.mktemp("mirror"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"category": "Videogames"},
            "category: no category 'Videogames'; did you mean 'Video_Games'? Known: All_Beauty, Amazon_Fashion, ",
        ),
        ({"preset": "mine"}, "preset: expected 'paper' or 'released', found 'mine'"),
        ({"mirror": "ftp://a/b"}, "mirror: 'ftp://a/b' is neither an http(s) address nor a folder"),
        ({"core": "3core"}, "core: expected '0core' or '5core', found '3core'"),
        (
            {"category": "Appliances", "preset": "released"},
            "category Appliances has no 5core file; take preset paper or",
        ),
        ({"start": "2023-10-01"}, "start 2023-10-01 is not before end 2023-10-01"),
        ({"end": "soon"}, "end: expected a date such as 2023-01-31, found 'soon'"),
        ({"min_items": -1}, "min_items: expected at least 0, found -1"),
        ({"widen_months": 0}, "widen_months: expected at least 1, found 0"),
        ({"k_core": 0}, "k_core: expected at least 1, found 0"),
        ({"title_words": 0}, "title_words: expected at least 1, found 0"),
        ({"attributes": ["colour"]}, "attributes.0: expected 'description', 'features', "),
        ({"attribute_words": 0}, "attribute_words: expected at least 1, found 0"),
        ({"broken_lines": -1}, "broken_lines: expected at least 0, found -1"),
        (
            {"sha256": {"x": "0" * 64}},
            "sha256 of 'x', which is not read; the files are benchmark/0core/rating_only/Video_",
        ),
        ({"sha256": {"x": "abc"}}, "sha256: 'abc' of x is no sha256 (64 digits of 0-9 and a-f)"),
        ({"rate": 1}, "unknown setting 'rate'. Known: category, preset, "),
    ],
)
def test_wrong_options_end_before_any_job(changes: dict[str, Any], message: str) -> None:
    entry = {"source": "amazon_2023", "category": "game", "options": {"category": "Video_Games"} | changes}
    with pytest.raises(InputError) as caught:
        read_config({"datasets": {"games": entry}, "methods": {"popularity": None}})
    assert f"datasets.games.options: {message}" in str(caught.value)


def test_config_readme_explains_every_option() -> None:
    rows = readme_rows("## Amazon Reviews 2023")
    fields = amazon_2023.Options.model_fields
    assert [name for name in rows if name in fields] == list(fields)
    for name, field in fields.items():
        default = "required" if field.is_required() else field.default
        as_written = default if isinstance(default, str) else json.dumps(default, default=str).strip('"')
        assert rows[name] == as_written, name


def test_config_readme_explains_every_count(mirror: Path) -> None:
    text = (ROOT / "config" / "README.md").read_text().partition("## Amazon Reviews 2023")[2].partition("\n## ")[0]
    for name in load(mirror).about["counts"]:
        assert f"`{name}`" in text, name
        assert name in OF_SOURCES, name  # its words on the page


def test_the_presets_files_are_those_of_paper_and_code() -> None:
    checked_options = amazon_2023.Options(category="CDs_and_Vinyl")
    assert checked_options.names == (
        "benchmark/0core/rating_only/CDs_and_Vinyl.csv.gz",
        "raw/meta_categories/meta_CDs_and_Vinyl.jsonl.gz",
    )
    assert checked_options.mirror + checked_options.names[0] == (
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/benchmark/0core/rating_only/CDs_and_Vinyl.csv.gz"
    )
    assert "5core" in amazon_2023.Options(category="CDs_and_Vinyl", preset="released").names[0]
    assert "5core" in amazon_2023.Options(category="CDs_and_Vinyl", core="5core").names[0]
    with pytest.raises(ValidationError):
        amazon_2023.Options.model_validate({})


# Made-up files of any size


def test_made_up_files_have_the_raw_form(tmp_path: Path) -> None:
    items, n = raw_amazon.write_category(tmp_path, "Video_Games", "0core", 200_000)
    with gzip.open(tmp_path / "raw/meta_categories/meta_Video_Games.jsonl.gz", "rt") as file:
        lines = [json.loads(line) for line in file]
    assert len(lines) == len({line["parent_asin"] for line in lines}) == items >= 500
    assert all(line.keys() == ITEMS[0].keys() for line in lines)
    with gzip.open(tmp_path / "benchmark/0core/rating_only/Video_Games.csv.gz", "rt") as file:
        rows = file.read().splitlines()
    assert rows[0] == "user_id,parent_asin,rating,timestamp" and len(rows) == n + 1
    user, name, rating, time = rows[1].split(",")
    assert len(user) == 28 and len(name) == 10 and rating in "12345" and len(time) in (12, 13)
    raw = load(tmp_path, start="2022-10-01")
    counts = raw.about["counts"]
    assert counts["items_read"] == items and counts["interactions_read"] == n and counts["interactions"] > 0
    assert min(counts["items_without_title"], counts["items_title_too_long"], counts["items_without_interaction"]) > 0
    assert (
        load(tmp_path, start="2022-10-01", preset="released", core="0core").about["counts"]["items_without_price"] > 0
    )
    again = tmp_path / "again"
    raw_amazon.write_category(again, "Video_Games", "0core", 200_000)
    for path in again.rglob("*.gz"):
        assert gzip.decompress(path.read_bytes()) == gzip.decompress((tmp_path / path.relative_to(again)).read_bytes())


def test_each_part_of_raw_speed_runs_in_a_process_of_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part runs alone: a process's peak counts for those that it starts, and making files up takes memory too."""
    run_alone, started = speed.run_alone, []
    monkeypatch.setattr(speed, "run_alone", lambda *command: started.append(command[1]) or run_alone(*command))
    speed.raw_files(0.0002)
    assert started == ["benchmark.speed.raw_amazon", "benchmark.data.fetch", "benchmark.data.prepare"]
    out = capsys.readouterr().out
    assert "raw: 500 items and 2,500 interactions in 0.00 GB packed" in out and "prepared to" in out and "peak" in out


@pytest.mark.parametrize("main", [speed.main, raw_amazon.main])
def test_a_size_of_nothing_is_refused(
    main: Callable[[], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    where = [tmp_path] if main is raw_amazon.main else ["raw"]
    assert command(monkeypatch, main, *where, "--gigabytes", 0) == 2
    assert not list(tmp_path.iterdir()) and sys.argv[0] == "command"
