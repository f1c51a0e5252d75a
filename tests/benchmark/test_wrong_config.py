"""A wrong configuration is one sentence: what is refused, and in which words."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.config.read import read_config, read_config_file, read_yaml
from benchmark.config.schema import Config, MethodConfig
from benchmark.data.settings import DatasetConfig
from benchmark.errors import InputError
from tests.support.configs import config, dataset, method, r2ec

SENTENCES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown method": (
        config(methods={"sasrek": {}}),
        "c: no method 'sasrek'; did you mean 'sasrec'? Known: bert4rec, ",
    ),
    "part of a method": (
        config(methods={"popp": {}}),
        "c: no method 'popp'; did you mean 'popularity'? Known: bert4rec, ",
    ),
    "a method that is none": (config(methods={"zzz": {}}), "c: no method 'zzz'. Known: bert4rec, "),
    "unknown module": (
        config(methods={"mine": {"module": "sasrek"}}),
        "c: no method 'sasrek'; did you mean 'sasrec'? Known: ",
    ),
    "an adapter": (config(methods={"mine": {"module": "base"}}), "c: no method 'base'; did you mean 'ease'? Known: "),
    "unknown source": (
        dataset(source="ml_1m"),
        "c: datasets.toy: no source 'ml_1m'; did you mean 'ml_100k'? Known: amazon_2023, complete_journey, files, ml_",
    ),
    "typo at the top": (config(seed=3), "c: unknown setting 'seed'; did you mean 'seeds'? Known: datasets, "),
    "typo in a dataset": (
        dataset(min_user_cout=3),
        "c: datasets.toy: unknown setting 'min_user_cout'; did you mean 'min_user_count'? Known: source, ",
    ),
    "typo in a method": (
        method(parms={}),
        "c: methods.sasrec: unknown setting 'parms'; did you mean 'params'? Known: module, ",
    ),
    "typo in params": (
        method(params={"hiden_size": 3}),
        "c: methods.sasrec: unknown setting 'hiden_size'; did you mean 'hidden_size'? Known: ",
    ),
    "typo in the grid": (
        method(grid=[{}, {"epoch": 1}]),
        "c: methods.sasrec: unknown setting 'epoch'; did you mean 'epochs'? Known: ",
    ),
    "typo in a section of the grid": (
        config(methods={"r2ec": {"params": {"backbone": {"name": "x"}}, "grid": [{}, {"lora": {"rank": 2}}]}}),
        "c: methods.r2ec: lora: unknown setting 'rank'. Known: r, alpha, ",
    ),
    "wrong param": (
        method(params={"epochs": -1}),
        "c: methods.sasrec: epochs: expected at least 1",
    ),
    "typo in options": (dataset(options={"a": 1}), "c: datasets.toy.options: unknown setting 'a'; none is known here"),
    "missing option": (dataset(source="files"), "c: datasets.toy.options: setting 'folder' is missing; add it"),
    "no datasets": (config(datasets={}), "c: datasets: expected at least one entry, found {}"),
    "no methods": (config(methods={}), "c: methods: expected at least one entry, found {}"),
    "missing section": ({"datasets": dataset()["datasets"]}, "c: setting 'methods' is missing; add it"),
    "missing category": (
        config(datasets={"toy": {"source": "ml_100k"}}),
        "c: setting 'datasets.toy.category' is missing",
    ),
    "an empty plural": (
        dataset(category_plural=""),
        "c: datasets.toy.category_plural: expected text that isn't empty, found ''",
    ),
    "other deltas": (
        config(methods={"r2ec": {"params": {"backbone": {"name": "x"}, "prompts": {"deltas": "short"}}}}),
        "c: methods.r2ec: prompts.deltas: expected 'words' or 'released', found 'short'",
    ),
    "other wording": (
        config(methods={"r2ec": {"params": {"backbone": {"name": "x"}, "prompts": {"wording": "mine"}}}}),
        "c: methods.r2ec: prompts.wording: expected 'paper' or 'released', found 'mine'",
    ),
    "a repetition that is rewarded": (
        config(methods={"r2ec": {"params": {"backbone": {"name": "x"}, "rollouts": {"repetition_penalty": 0.9}}}}),
        "c: methods.r2ec: rollouts.repetition_penalty: expected at least 1, found 0.9",
    ),
    "no seeds": (config(seeds=0), "c: seeds: expected at least 1, found 0"),
    "text for a number": (
        dataset(history_length="long"),
        "c: datasets.toy.history_length: expected a whole number, found 'long'",
    ),
    "no such split": (
        dataset(split="random"),
        "c: datasets.toy.split: expected 'global-temporal' or 'leave-one-out', found 'random'",
    ),
    "no date": (dataset(start="soon"), "c: datasets.toy.start: expected a date such as 2023-01-31, found 'soon'"),
    "empty window": (
        dataset(start="2020-01-02", end="2020-01-02"),
        "c: datasets.toy: start 2020-01-02 is not before end 2020-01-02",
    ),
    "name of the table": (
        config(datasets={"main": dataset()["datasets"]["toy"]}),
        "c: datasets: 'main' is the name of the table of all datasets; rename this dataset",
    ),
    "name of the table by what is computed": (
        config(datasets={"thinking": dataset()["datasets"]["toy"]}),
        "c: datasets: 'thinking' is the name of the table of all datasets; rename this dataset",
    ),
    "a table named as another's tests": (
        config(datasets={name: dataset()["datasets"]["toy"] for name in ("a.tests", "b", "a")}),
        "c: datasets: the table of 'a.tests' and the tests of 'a' are one file; rename one of them",
    ),
    "a reference that is no row": (
        config(reference="r2c"),
        "c: reference: no row 'r2c' in methods. Known: popularity",
    ),
    "a reference alone": (
        config(reference="popularity"),
        "c: reference: there is no other row in methods to hold it against; add one or drop it",
    ),
    "a note of two lines": (config(note="a\nb"), "c: note: expected text of one line, found 'a\\nb'"),
    "a folder of something else": (
        config(ablations_folder="tables"),
        "c: ablations_folder: results/tables holds something else; name another folder, such as ablations",
    ),
    "name with a slash": (
        config(datasets={"a/b": dataset()["datasets"]["toy"]}),
        "c: datasets: expected a name of letters, digits, '_', '.' and '-', beginning with a letter or a digit, at "
        "most 50, found 'a/b'",
    ),
    "name of 51 letters": (
        config(datasets={"a" * 51: dataset()["datasets"]["toy"]}),
        "c: datasets: expected a name of letters, digits, '_', '.' and '-', beginning with a letter or a digit, at "
        "most 50, found 'aaaa",
    ),
    "no seeds of a method": (
        method(seeds=0),
        "c: methods.sasrec.seeds: expected at least 1, found 0",
    ),
    "no cores": (method(threads=0), "c: methods.sasrec.threads: expected at least 1, found 0"),
    "no such GPUs": (method(gpus=-1), "c: methods.sasrec.gpus: expected at least 0, found -1"),
    "no process": (method(processes=0), "c: methods.sasrec.processes: expected at least 1"),
    "several processes for one that has one": (
        method(gpus=2),
        "c: methods.sasrec: sasrec trains in one process alone, not in 2; set gpus or processes to 1",
    ),
    "GPUs for other processes": (
        r2ec(gpus=4, processes=2),
        "c: methods.r2ec: processes 2 do not fit gpus 4; each process has one GPU, or all have none",
    ),
    "an LM on no GPU": (
        r2ec("cuda"),
        "c: methods.r2ec: backbone.device is 'cuda', but gpus is 0, so that its jobs see",
    ),
    "a GPU for no LM": (r2ec(gpus=1), "c: methods.r2ec: gpus is 1, but backbone.device is 'cpu'; set it to 'cuda'"),
    "one GPU for two processes": (
        r2ec("cuda:0", gpus=2),
        "c: methods.r2ec: backbone.device 'cuda:0' is that of all processes; set 'cuda', each has its own GPU",
    ),
    "clean or not": (config(require_clean="maybe"), "c: require_clean: expected true or false, found 'maybe'"),
    "a list": ({"datasets": [1], "methods": {}}, "c: datasets: expected settings by name, found [1]"),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_a_wrong_config_is_one_sentence(name: str) -> None:
    value, message = SENTENCES[name]
    with pytest.raises(InputError) as caught:
        read_config(value, "c")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


WORDS = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)


@given(WORDS)
def test_no_unknown_setting_is_ever_accepted(word: str) -> None:
    for model, change in ((Config, config), (DatasetConfig, dataset), (MethodConfig, method)):
        if word not in model.model_fields:
            with pytest.raises(InputError, match=f"unknown setting '.*{word}'"):
                read_config(change(**{word: 1}), "c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", r"c.yaml: can't be read as YAML"),
        ("a: 1\n- b", r"c.yaml: can't be read as YAML \(.* in line 2, column 1: "),
        ("methods:\n  sasrec:\n  sasrec: {seeds: 1}", r"\('sasrec' stands there twice in line 3, column 3: "),
        ("start: 2016-13-01", r"\(no such date as '2016-13-01': month must be in 1..12 in line 1, column 8: "),
        ("", r"c.yaml: holds no settings; see config/README.md"),
        ("- 1", r"c.yaml: holds no settings"),
        (None, r"c.yaml: no such file; give the path of a config"),
        ("datasets: {toy: {source: x, category: y}}\nmethods: {popularity: }", r"c.yaml: datasets.toy: no source 'x'"),
        # What plain YAML reads without a word: the last of two values, 8, 90, and anchors of any size.
        ("values: {0.1: {x: 1}, 0.10: {x: 2}}", r"\('0\.10' is the same name as '0\.1' in line 1, column 23"),
        ("values: {16: {}, 0x10: {}}", r"\('0x10' is the same name as '16' in line 1, column 18"),
        ("values: {yes: {}, true: {}}", r"\('true' is the same name as 'yes' in line 1, column 19"),
        ("threads: 010", r"\('010' is read as 8; write that, or put it in quotes in line 1, column 10"),
        ("threads: 1:30", r"\('1:30' is read as 90; write that, or put it in quotes in line 1"),
        ("share: 1:30.5", r"\('1:30.5' is read as 90.5; write that, or"),
        ("threads: 0x_", r"\('0x_' is no number; put it in quotes if it is none in line 1"),
        (f"threads: {'9' * 5000}", r"\('9{30}' is no number; "),
        ("a: &a {b: *a}", "c.yaml: nested more than 50 deep, or an anchor holds itself; write it flatter"),
        (f"a: {'[' * 60}{']' * 60}", "c.yaml: nested more than 50 deep, or an anchor holds itself"),
        (f"a: {'[' * 1000}{']' * 1000}", "c.yaml: nested too deeply to be read; write it flatter"),
        (
            "\n".join(["a0: &a0 [1]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]),
            r"c.yaml: its anchors stand for \d\d,\d{3},\d{3},\d{3} values, of at most 200,000; use fewer",
        ),
    ],
)
def test_files_that_hold_no_config_are_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_config_file(tmp_path / "c.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("methods.popularity.threads: true", "methods.popularity.threads: expected a whole number, found True"),
        ("methods.popularity.max_hours: false", "methods.popularity.max_hours: expected a number, found False"),
        ("datasets.toy.rating_scale: true", "datasets.toy.rating_scale: expected a number, found True"),
        ("seeds: 100000", "seeds: expected at most 1000, found 100000"),
        (
            f"datasets.toy.history_length: 1{'0' * 30}",
            "history_length: expected a number of at most 19 digits, found 1",
        ),
        ("methods.popularity.params: {half_life_days: true}", "half_life_days: expected a number, found True"),
        ("methods.popularity.params: {half_life_days: 2021-01-01}", "expected text, a number, a list or settings by "),
        ("methods.popularity.params: {half_life_days: !!set {a}}", "found {'a'}; quote a date"),
        ("methods.popularity.params: {x: {1: 2}}", "params|x: expected text as a setting's name, found 1; put it in"),
    ],
)
def test_values_that_only_look_like_numbers_are_refused(tmp_path: Path, more: str, message: str) -> None:
    place, _, text = more.partition(": ")
    value: dict[str, Any] = dataset() | {"methods": {"popularity": {}}}
    *sections, name = place.split(".")
    section = value
    for key in sections:
        section = section[key]
    (tmp_path / "c.yaml").write_text(f"x: {text}")
    section[name] = read_yaml(tmp_path / "c.yaml")["x"]
    with pytest.raises(InputError, match=message):
        read_config(value, "c")
