"""Behaviours: rules on texts whose answer is plain, a blind sample, and nothing said without two raters who agree."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from benchmark.behaviours import __main__ as program
from benchmark.behaviours.ratings import KEY, SHEET, agreement, draw, kappa, read_ratings, read_texts, shares
from benchmark.behaviours.rules import BEHAVIOURS
from benchmark.errors import InputError

NAMES = [one.name for one in BEHAVIOURS]


def tags(text: str) -> set[str]:
    return {one.name for one in BEHAVIOURS if one.in_text(text)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The user enjoyed this genre.", {"states a preference", "speaks of a kind"}),
        ('Next comes "Toy Story" for them', {"names an item", "follows the order"}),
        ("It was seen with The Lion King twice", {"names an item"}),
        ("rated 5 stars, better than others", {"weighs ratings", "compares"}),
        ("so I recommend it", {"concludes"}),
        ("unlikely to unlike", {"compares"}),  # whole words alone
        ("Words.", set()),
    ],
)
def test_rules_by_example(text: str, expected: set[str]) -> None:
    assert tags(text) == expected


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """300 texts of 100 users: a third states a preference, a third concludes, a third does neither; 30 are empty."""
    folder = tmp_path / "run"
    folder.mkdir()
    cases = np.arange(300)
    kinds = ["a user who likes it", "so I recommend that", "nothing at all"]
    words = ["" if case % 10 == 9 else f"{kinds[case % 3]} {case}" for case in cases]
    pd.DataFrame({"case": cases, "prompt": "secret prompt", "reasoning": words}).to_parquet(folder / "texts.parquet")
    pd.DataFrame({"case": cases, "user": cases // 3, "rank": 1}).to_parquet(folder / "rankings.parquet")
    return folder


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["behaviours", *map(str, words)])
    program.main()


def fill(out: Path, path: Path, wrong: dict[str, int]) -> Path:
    """A rater who answers as the rule does, but for so many texts of a behaviour."""
    sheet = pd.read_csv(out / SHEET, dtype=str, keep_default_na=False)
    for one in BEHAVIOURS:
        answers = np.array([one.in_text(text) for text in sheet.reasoning])
        answers[: wrong.get(one.name, 0)] ^= True
        sheet[one.name] = answers.astype(int).astype(str)
    sheet.to_csv(path, index=False)
    return path


def test_the_sample_is_blind_and_seeded(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, "--runs", run, "--out", tmp_path / "out", "--sample")
    sheet = pd.read_csv(tmp_path / "out" / SHEET, keep_default_na=False)
    assert list(sheet.columns) == ["id", "reasoning", *NAMES] and len(sheet) == 100
    assert (sheet[NAMES] == "").all(axis=None) and (sheet.reasoning.str.strip() != "").all()
    text = (tmp_path / "out" / SHEET).read_text()
    assert "run" not in text and "secret" not in text  # nor its folder, prompt or rank
    key = pd.read_csv(tmp_path / "out" / KEY)
    assert key.case.is_unique and not key.case.is_monotonic_increasing
    again = draw(read_texts([run]))
    assert again.case.tolist() == key.case.tolist()
    with pytest.raises(InputError, match="270 texts, but 400 are to be rated"):
        draw(read_texts([run]), 400)


def test_nothing_is_said_without_two_raters(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    call(monkeypatch, "--runs", run, "--out", out, "--sample")
    one = fill(out, tmp_path / "one.csv", {})
    for more in ([], ["--ratings", one]):
        with pytest.raises(SystemExit):
            call(monkeypatch, "--runs", run, "--out", out, *more)
        assert "no behaviour is reported without two raters" in capsys.readouterr().err
    assert not (out / "behaviours.md").exists() and not (out / "agreement.csv").exists()
    ids = list(range(1, 101))
    with pytest.raises(InputError, match="given for both raters"):
        read_ratings([one, one], ids)
    with pytest.raises(InputError, match="text 1, names an item: ''; put 0 or 1 there"):
        read_ratings([one, out / SHEET], ids)
    twice = (out / SHEET).read_text().replace(NAMES[0], f"{NAMES[1]},{NAMES[0]}", 1)  # of which pandas takes the first
    (tmp_path / "twice.csv").write_text(twice)
    with pytest.raises(InputError, match=f"column '{NAMES[1]}' occurs twice; keep the one that was filled in"):
        read_ratings([one, tmp_path / "twice.csv"], ids)
    with pytest.raises(InputError, match="rates other texts"):
        read_ratings([one, fill(out, tmp_path / "two.csv", {})], ids[:50])


def test_what_two_raters_agree_on_is_reported_and_nothing_else(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    call(monkeypatch, "--runs", run, "--out", out, "--sample")
    first = fill(out, tmp_path / "one.csv", {"concludes": 50})
    second = fill(out, tmp_path / "two.csv", {"states a preference": 4})
    call(monkeypatch, "--runs", run, "--out", out, "--ratings", first, second)
    found = pd.read_csv(out / "agreement.csv").set_index("behaviour")
    assert found.reported[found.reported].index.tolist() == ["states a preference"]
    assert found.loc["states a preference"].agree == 0.96 and found.loc["concludes"].agree == 0.5
    assert np.isnan(found.loc["compares"].kappa)  # no text does
    counted = pd.read_csv(out / "behaviours.csv")
    assert counted.behaviour.tolist() == ["states a preference"]
    row = counted.iloc[0]
    # Of the 270 texts that aren't empty: cases 0, 3, 6 ... without those that end in 9.
    texts = [case for case in range(300) if case % 10 != 9]
    assert row.share == pytest.approx(sum(case % 3 == 0 for case in texts) / 270, abs=1e-4)
    assert row.low < row.share < row.high
    text = (out / "behaviours.md").read_text()
    assert "| states a preference |" in text and "not the paper's categories" in text


def test_kappa_is_scikit_learns_and_none_where_there_is_one_answer() -> None:
    random = np.random.default_rng(1)
    first, second = random.random(60) < 0.5, random.random(60) < 0.4
    assert kappa(first, second) == pytest.approx(cohen_kappa_score(first, second))
    assert np.isnan(kappa(np.zeros(5, bool), np.zeros(5, bool)))
    frame = pd.DataFrame(dict.fromkeys(NAMES, np.zeros(5, bool)))
    assert not agreement([frame, frame], ["Words."] * 5).reported.any()


def test_shares_of_texts_are_of_their_runs(run: Path) -> None:
    frame = shares(read_texts([run]), ["concludes", "compares"])
    assert frame.set_index("behaviour").share.round(4).to_dict() == {"compares": 0.0, "concludes": round(90 / 270, 4)}
    with pytest.raises(InputError, match="has no readable texts"):
        read_texts([run / "nowhere"])
