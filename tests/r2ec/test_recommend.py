"""`python -m r2ec.recommend` gives the evaluator's top items for a history, and refuses bad ones in one sentence."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.config.methods import ROOT
from benchmark.contract import Cases
from benchmark.data.store import read_cases, read_split
from benchmark.errors import InputError
from benchmark.evaluate import rank
from benchmark.jobs.run import texts_with_ranks
from benchmark.storage.checksums import seal
from benchmark.storage.io import read_json, write_json
from r2ec import recommend
from r2ec.recommend import Catalogue, as_case, from_file, from_words
from r2ec.scoring.recommender import R2ecRecommender
from tests.support.planted import planted, write_prepared
from tests.support.results_tree import record
from tests.support.tiny_fits import fit_one_step

TWINS = ("Thing, number 7", "Thing, number 8")  # i7 and i8 get one title
DAY = 86_400


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset of 60 items; two have one title, one holds an equals sign."""
    raw = planted(n_users=60)
    raw.items["title"] = raw.items["title"].replace(dict.fromkeys(TWINS, "The Twin") | {"Thing, number 9": "E=5"})
    return write_prepared(tmp_path_factory.mktemp("data") / "toy", raw, test_cases=60, valid_cases=40, history_length=6)


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder of a fit of one step."""
    return fit_one_step(data, tmp_path_factory.mktemp("fit"))


@pytest.fixture
def ask(
    data: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """The command in this process; returns what it printed."""

    def call(*words: str, source: tuple[str, str] = ("--model", str(model))) -> str:
        monkeypatch.setattr(sys, "argv", ["recommend", "--data", str(data), *source, *words])
        recommend.main()
        printed = capsys.readouterr()
        assert printed.err == ""
        return printed.out

    return call


@pytest.fixture(scope="module")
def catalogue(data: Path) -> Catalogue:
    return Catalogue(read_split(data))


def numbers(catalogue: Catalogue, answer: dict[str, Any]) -> list[int]:
    return [catalogue.ids.index(entry["item_id"]) for entry in answer["recommendations"]]


def evaluators(model: Path, data: Path, case: Cases) -> list[int]:
    """The top items of one case, as the evaluator finds them."""
    split = read_split(data)
    fitted = R2ecRecommender.load(model, split)
    table = rank(fitted.score(case), case, np.zeros(1, np.int64), split.n_items, "r2ec")
    top: list[int] = table.column("top_items").to_pylist()[0]
    return top


# Answers


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_a_case_gets_the_evaluators_top_items(
    part: str, ask: Callable[..., str], data: Path, model: Path, catalogue: Catalogue
) -> None:
    cases = read_cases(data / f"{part}.parquet", targets=part != "test")
    case = replace(cases.take(np.array([len(cases) - 1])), target=None)
    answer = json.loads(ask("--case", str(case.case[0]), "--json"))
    assert [entry["item_id"] for entry in answer["history"]] == [catalogue.ids[item] for item in case.items]
    assert numbers(catalogue, answer) == evaluators(model, data, case)
    assert [entry["rank"] for entry in answer["recommendations"]] == list(range(1, 21))
    item_scores = [entry["score"] for entry in answer["recommendations"]]
    assert item_scores == sorted(item_scores, reverse=True)


def test_marks_of_turns_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    items = pd.DataFrame({"title": ["Alien", "Aliens"]})
    for reasoning, shown in (("Likes space.<|im_end|><answer>", "Likes space."), ("<|im_end|>", "(no reasoning was")):
        recommend.show(recommend.Answer("", reasoning, [1], [0.5]), items, show_prompt=False)
        printed = capsys.readouterr().out
        assert printed.startswith(shown) and "<" not in printed and "Aliens" in printed


def test_a_history_in_words_gets_the_evaluators_top_items(
    ask: Callable[..., str], data: Path, model: Path, catalogue: Catalogue
) -> None:
    words = ["thing, NUMBER  3=4.5", "i12", "E=5", "I40=2"]
    answer = json.loads(ask("--history", *words, "--json", "--top", "7"))
    assert [(entry["item_id"], entry["rating"]) for entry in answer["history"]] == [
        ("i3", 4.5),
        ("i12", None),
        ("i9", None),
        ("i40", 2),
    ]
    assert set(answer) == {"history", "reasoning", "recommendations"}
    assert answer["reasoning"].endswith("<answer>")
    top = numbers(catalogue, answer)
    case = as_case(from_words(words, catalogue), read_split(data))
    assert top == evaluators(model, data, case)[:7]
    assert not set(top) & set(case.items.tolist())
    assert case.times.tolist() == [0, DAY, 2 * DAY, 3 * DAY] and case.time.tolist() == [4 * DAY]


def test_the_prompt_shows_what_was_given(ask: Callable[..., str]) -> None:
    words = ["--history", "i3=4.5", "i12"]
    answer = json.loads(ask(*words, "--json", "--show-prompt"))
    assert "1 day ago: [Thing, number 3] (4.5)\nmoments ago: [Thing, number 12]<" in answer["prompt"]
    printed = ask(*words, "--show-prompt")
    assert answer["prompt"] in printed
    titles = [entry["title"] for entry in answer["recommendations"]]
    places = [printed.index(f" {title} ") for title in titles if title != "The Twin"]
    assert places == sorted(places) and len(places) >= 18
    assert answer["prompt"] not in ask(*words)


def test_a_file_is_sorted_by_time(ask: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "history.csv"
    file.write_text(
        'time,title,rating,item_id\n2001-09-12,"Thing, number 3",4,\n1000166400,,,i12\n'
        "2001-09-10T00:00:00+02:00,,3,i8\n"
    )
    answer = json.loads(ask("--history-file", str(file), "--json", "--show-prompt"))
    assert [(entry["item_id"], entry["rating"]) for entry in answer["history"]] == [("i8", 3), ("i12", None), ("i3", 4)]
    assert (
        "2 days ago: [The Twin] (3)\n1 day ago: [Thing, number 12]\nmoments ago: [Thing, number 3] (4)"
        in (answer["prompt"])
    )


def test_a_file_without_times_is_in_order(tmp_path: Path, catalogue: Catalogue, data: Path) -> None:
    file = tmp_path / "history.csv"
    file.write_text("\ufeffitem_id\ni5\ni2\n", encoding="utf-8")
    case = as_case(from_file(file, catalogue), read_split(data))
    assert case.items.tolist() == [catalogue.ids.index("i5"), catalogue.ids.index("i2")]
    assert case.times.tolist() == [0, DAY] and np.isnan(case.ratings).all()


def test_of_a_long_history_the_newest_are_shown_and_all_masked(
    ask: Callable[..., str], data: Path, model: Path, catalogue: Catalogue
) -> None:
    words = [f"i{n}" for n in range(20, 32)]
    ranked = numbers(catalogue, json.loads(ask("--history", *words, "--json", "--top", "60")))
    newest = as_case(from_words(words[-6:], catalogue), read_split(data))
    own = {catalogue.ids.index(word) for word in words}
    assert set(ranked) == set(range(60)) - own
    expected = [item for item in evaluators(model, data, newest) if item not in own]
    assert ranked[: len(expected)] == expected


def test_the_model_of_a_run_is_found_from_any_folder(
    ask: Callable[..., str], data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ask("--history", "i3", "--json")
    data_hash = read_json(data / "dataset.json")["split_hash"]
    for name, folder in (("absolute", model), ("relative", Path(model.name))):
        write_run_json(tmp_path / name, data_hash, {"model": str(folder)})
    assert ask("--history", "i3", "--json", source=("--run", str(tmp_path / "absolute"))) == expected
    # A run that the workflow made in another folder than the current one, which has another model of that name.
    run = tmp_path / "results" / "runs" / "toy" / "r2ec" / "seed1"
    run.mkdir(parents=True)
    write_run_json(run, data_hash, {"model": "results/work/model"})
    shutil.copytree(model, tmp_path / "results" / "work" / "model")
    (tmp_path / "elsewhere" / "results" / "work" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert ask("--history", "i3", "--json", source=("--run", str(run))) == expected
    monkeypatch.chdir(model.parent)
    assert ask("--history", "i3", "--json", source=("--run", str(tmp_path / "relative"))) == expected


def test_what_loading_says_does_not_break_the_json(
    ask: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = ask("--history", "i3", "--json")  # leaves its words in sys.argv
    load = R2ecRecommender.load

    def loaded(*arguments: Any) -> R2ecRecommender:
        print("the backbone is in float32", flush=True)
        return load(*arguments)

    monkeypatch.setattr(R2ecRecommender, "load", loaded)
    recommend.main()
    printed = capsys.readouterr()
    assert printed.out == expected and printed.err == "the backbone is in float32\n"


def test_config_readme_explains_what_is_written(data: Path, model: Path) -> None:
    split = read_split(data)
    fitted, case = R2ecRecommender.load(model, split), split.valid.take(np.arange(1))
    table = rank(fitted.score(case), case, np.zeros(1, np.int64), split.n_items, "r2ec")
    kept = texts_with_ranks(fitted.texts(), table, "r2ec").column_names
    section = (ROOT / "config" / "README.md").read_text().partition("`texts.parquet`\n")[2].partition("\n#")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, flags=re.M) == kept


def write_run_json(folder: Path, data_hash: str, report: dict[str, Any]) -> None:
    run = record("toy", "r2ec", 1, 60).model_dump(mode="json")
    write_json(folder / "run.json", seal(run | {"data_hash": data_hash, "report": report}))


# Refusals


def refused(ask: Callable[..., str], capsys: pytest.CaptureFixture[str], *words: str, **options: Any) -> str:
    with pytest.raises(SystemExit) as end:
        ask(*words, **options)
    assert end.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error
    return error.removeprefix("error: ")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["Thing number 33"], "no item 'Thing number 33' in toy; closest: 'Thing, number 33', "),
        (["number 33"], "no item 'number 33' in toy; closest: 'Thing, number 33', "),
        (["qqq"], "no item 'qqq' in toy; see its items.parquet"),
        (["i3=high"], "no item 'i3=high' in toy"),
        (["i3=nan"], "no item 'i3=nan' in toy"),
        (["the twin=5"], "'the twin' could be one of 2 items, such as i7 (The Twin), i8 (The Twin); give its item_id"),
        (["i3", "Thing, number 3=4"], "'Thing, number 3' is given twice; a history holds an item once"),
        ([""], "no item '' in toy; see its items.parquet"),
        ([], "the history is empty; give at least one item"),
    ],
)
def test_bad_words_are_refused_in_one_sentence(
    words: list[str], sentence: str, ask: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(ask, capsys, "--history", *words).startswith(sentence)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "can't be read as csv ("),
        ("", "the history is empty; give at least one item"),
        ("title,time\n", "the history is empty; give at least one item"),
        ("title,ratings\nE=5,3\n", "unknown column 'ratings'; the columns are title, item_id, rating, time"),
        ("title\nE=5\nThing, number 3\n", "row 2: more values than columns; quote what holds a comma"),
        ("title,rating\nE=5,4\n,3\n", "row 2: neither a title nor an item_id; give one"),
        ("title\nThin\n", "row 1: no item 'Thin' in toy; closest: 'Thing, number"),
        ("item_id\nE=5\n", "row 1: no item 'E=5' in toy; closest: 'E=5'"),
        ("item_id,rating\ni3,inf\n", "row 1: rating is 'inf'; give a finite number"),
        ("item_id,rating\ni3,1e39\n", "row 1: rating is '1e39'; give a finite number"),
        ("item_id,time\ni3,1e30\n", "row 1: time '1e30' is after the year 9999; give Unix seconds"),
        ("item_id,rating,rating\ni3,4,5\n", "column 'rating' occurs twice; keep one"),
        ("item_id,time\ni3,soon\n", "row 1: time is 'soon'; give Unix seconds or an ISO date"),
        ("item_id,time\ni3,5\ni4,\n", "1 of 2 rows have no time; give all or none"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(
    text: str | None, sentence: str, ask: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "history.csv"
    if text is not None:
        file.write_text(text)
    where = "" if sentence.startswith("the history") else f"{file}: "
    assert refused(ask, capsys, "--history-file", str(file)).startswith(where + sentence)


def test_bad_arguments_are_refused_in_one_sentence(
    ask: Callable[..., str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: Path
) -> None:
    assert refused(ask, capsys, "--history", "i3", "--top", "0") == "--top is 0; give at least 1"
    assert f"{data}: no case 999999; the numbers are in" in refused(ask, capsys, "--case", "999999")

    def error_of(folder: Path, option: str = "--run") -> str:
        return refused(ask, capsys, "--history", "i3", source=(option, str(folder)))

    assert "holds no model; fit again, or give the folder by --model" in error_of(tmp_path, "--model")
    assert "run.json: missing; give the folder of a finished run" in error_of(tmp_path)
    data_hash = read_json(data / "dataset.json")["split_hash"]
    write_run_json(tmp_path, data_hash, {})
    assert "its report names no model; give a run of r2ec" in error_of(tmp_path)
    write_run_json(tmp_path, "other", {"model": str(model)})
    assert "fitted on toy as it was then; give the --data of that run, or fit again" in error_of(tmp_path)
    write_run_json(tmp_path, data_hash, {"model": str(tmp_path / "gone")})
    assert "gone: holds no model" in error_of(tmp_path)


def test_ratings_are_refused_where_the_dataset_has_none(data: Path, catalogue: Catalogue) -> None:
    split = read_split(data)
    unrated = replace(split, train=replace(split.train, ratings=np.full_like(split.train.ratings, np.nan)))
    assert len(as_case(from_words(["i3"], catalogue), unrated)) == 1
    with pytest.raises(InputError, match=r"^rating 4 is given, but toy has no ratings; leave them out$"):
        as_case(from_words(["i3=4"], catalogue), unrated)


def test_a_title_that_is_anothers_id_is_not_guessed(data: Path) -> None:
    split = read_split(data)
    items = pd.DataFrame({"item_id": ["1917", "2"], "title": ["Toy Story", "1917"]})
    two = Catalogue(replace(split, items=items))
    with pytest.raises(InputError, match=r"^'1917' could be one of 2 items, such as 1917 \(Toy Story\), 2 \(1917\);"):
        two.find("1917")
    assert (two.find("1917", "title"), two.find("1917", "item_id"), two.find("2")) == (1, 0, 1)
