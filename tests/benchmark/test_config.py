"""The configuration: entries like others, shared files, defaults, notes, seeds, processes, names and dates."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from benchmark.config import read
from benchmark.config.factors import ablations_of
from benchmark.config.methods import kind_of, load_method
from benchmark.config.read import composed, read_config, read_config_file, read_yaml
from benchmark.config.schema import MethodConfig
from benchmark.errors import InputError
from benchmark.jobs.outputs import Outputs
from benchmark.jobs.plan import Plan
from tests.support.configs import config, dataset, method, r2ec


def test_an_entry_like_another_is_that_one_with_the_rest_laid_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared_file(
        tmp_path,
        monkeypatch,
        """
datasets: {toy: {source: ml_100k, category: movie, min_user_count: 3, test_cases: 9}}
methods: {sasrec: {params: {epochs: 4, hidden_size: 8}, grid: [{epochs: 1}, {epochs: 2}]}}
""",
    )
    value = {
        "datasets": {"a": {"like": "toy", "test_cases": None}},
        "methods": {
            "mine": {"like": "sasrec", "module": "sasrec", "grid": [], "params": {"epochs": 5}},
            "popularity": None,
        },
    }
    written = {
        "datasets": {"a": {"source": "ml_100k", "category": "movie", "min_user_count": 3, "test_cases": None}},
        "methods": {
            "mine": {"params": {"epochs": 5, "hidden_size": 8}, "grid": [], "module": "sasrec"},
            "popularity": None,
        },
    }
    assert composed(value) == written and read_config(value) == read_config(written)
    # What the jobs are told is the whole: their hashes know nothing of `like`.
    plans = [
        Plan(config_read, ablations_of(config_read), {"a": []})
        for config_read in (read_config(value), read_config(written))
    ]
    assert plans[0].run("a", "mine", 1) == plans[1].run("a", "mine", 1) and plans[0].prepare("a") == plans[1].prepare(
        "a"
    )
    composed(value)["methods"]["mine"]["params"]["epochs"] = 6  # the shared entry is nobody's to change
    assert composed(value) == written


def shared_file(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Put this text in the place of config/shared.yaml."""
    (folder / "config").mkdir()
    (folder / "config" / "shared.yaml").write_text(text)
    monkeypatch.setattr(read, "shipped", lambda name: folder / name)
    read.shared.cache_clear()
    monkeypatch.setattr(read, "shared", read.shared.__wrapped__)


@pytest.mark.parametrize(
    ("shared", "value", "message"),
    [
        # The config's own mistakes.
        (
            "",
            method(like="sasrek"),
            "c: methods.sasrec.like: no entry 'sasrek' in methods of config/shared.yaml; did you mean 'sasrec'? "
            "Known: ",
        ),
        ("", method(like=["sasrec"]), "c: methods.sasrec.like: no entry ['sasrec'] in methods of config/shared.yaml"),
        ("", dataset(like="sasrec"), "c: datasets.toy.like: no entry 'sasrec' in datasets of config/shared.yaml"),
        (
            "",
            method(like="sasrec", params={"hiden_size": 3}),
            "c: methods.sasrec: unknown setting 'hiden_size'; did you mean 'hidden_size'? Known: ",
        ),
        ("", method(like="sasrec", parms={}), "c: methods.sasrec: unknown setting 'parms'; did you mean 'params'?"),
        # Those of the shared file, which is named.
        (
            "{epoch: 3}",
            method(like="sasrec"),
            "config/shared.yaml: methods.sasrec: unknown setting 'epoch'; did you mean",
        ),
        # Of a value of several types pydantic names the one that it tried.
        ("", dataset(rating_scale=-3), "c: datasets.toy.rating_scale: expected more than 0, found -3"),
        ("{epochs: -1}", dataset(like="toy"), "config/shared.yaml: methods.sasrec: epochs: expected at least 1"),
        ("{}, like: sasrec", method(like="sasrec"), "config/shared.yaml: methods.sasrec: unknown setting 'like'"),
        (
            "{}, params: {}",
            method(like="sasrec"),
            "config/shared.yaml: can't be read as YAML ('params' stands there twice",
        ),
    ],
)
def test_a_mistake_is_told_with_the_file_that_has_it(
    shared: str, value: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        f"datasets: {{toy: {{source: ml_100k, category: movie}}}}\nmethods: {{sasrec: {{params: {shared or '{}'}}}}}\n"
    )
    shared_file(tmp_path, monkeypatch, text)
    with pytest.raises(InputError) as caught:
        read_config(value, "c")
    assert str(caught.value).replace(f"{tmp_path}/", "").startswith(message)


def test_what_is_left_out_has_a_default() -> None:
    defaults = read_config(config())
    toy = defaults.datasets["toy"]
    assert (toy.min_user_count, toy.min_item_count, toy.history_length) == (5, 5, 20)
    assert (toy.split, toy.same_time, toy.start, toy.test_cases) == ("global-temporal", "exclude", None, None)
    assert defaults.seeds == 3 and defaults.method("popularity") == MethodConfig()
    assert defaults.module_of("popularity") == "popularity"


def test_a_note_is_told_where_there_is_one() -> None:
    plain, noted = read_config(config()), read_config(config(note="it's small"))
    outputs = [Outputs(Plan(config_read, ablations_of(config_read), {"toy": []})) for config_read in (plain, noted)]
    commands = [config_read.shown() for config_read in outputs]
    assert plain.note == "" and commands[1] == f"""{commands[0]} --note 'it'"'"'s small'"""
    # It changes no statistic.
    assert outputs[0].statistics("toy") == outputs[1].statistics("toy")
    assert outputs[0].tables() != outputs[1].tables() and outputs[0].page() != outputs[1].page()


def test_a_method_may_have_seeds_of_its_own() -> None:
    config_read = read_config(
        config(seeds=5, methods={"popularity": None, "sasrec": {"seeds": 1}, "caser": {"seeds": None}})
    )
    assert [config_read.seeds_of(name) for name in config_read.methods] == [5, 1, 5]


def test_a_process_per_gpu_or_processes_without_any() -> None:
    entry = read_config(r2ec("cuda", gpus=4)).method("r2ec")
    assert entry.process_count() == 4
    assert read_config(r2ec("cuda", gpus=4, processes=4)).method("r2ec").process_count() == 4
    assert read_config(r2ec("cuda:1", gpus=1)).method("r2ec").process_count() == 1
    assert read_config(r2ec(processes=3)).method("r2ec").process_count() == 3
    assert MethodConfig().process_count() == 1
    assert read_config(method(gpus=1)).method("sasrec").gpus == 1  # RecBole finds its GPU itself
    assert not read_config(config()).require_clean


def test_one_module_may_have_two_rows() -> None:
    rows = {"sasrec-small": {"module": "sasrec", "params": {"hidden_size": 32}}, "sasrec": {}}
    config_read = read_config(config(methods=rows))
    assert [config_read.module_of(name) for name in config_read.methods] == ["sasrec", "sasrec"]


def test_a_grid_is_laid_over_sections_too() -> None:
    params = {"backbone": {"name": "somewhere"}, "lora": {"r": 2, "alpha": 4}}
    entry = {"params": params, "grid": [{"lora": {"r": 16}}, {"backbone": {"name": "elsewhere"}}]}
    first, second = read_config(config(methods={"r2ec": entry})).method("r2ec").settings()
    assert first == {"backbone": {"name": "somewhere"}, "lora": {"r": 16, "alpha": 4}}
    assert second == params | {"backbone": {"name": "elsewhere"}}
    # What every setting of the grid gives, params need not.
    grid_alone = {"grid": [{"backbone": {"name": "somewhere"}}]}
    assert read_config(config(methods={"r2ec": grid_alone})).method("r2ec").settings() == grid_alone["grid"]


def test_a_dataset_may_be_named_tests() -> None:
    entry = dataset()["datasets"]["toy"]
    assert set(read_config(config(datasets={"a.tests": entry, "b": entry})).datasets) == {"a.tests", "b"}


def test_a_row_may_have_any_name() -> None:
    """The method's file says whether it is a baseline, and not the row's name."""
    rows = {"qwen": {"module": "r2ec", "params": {"backbone": {"name": "x"}}}, "r2ec_pop": {"module": "popularity"}}
    config_read = read_config(config(methods=rows))
    kinds = {name: kind_of(load_method(config_read.module_of(name))) for name in config_read.methods}
    assert kinds == {"qwen": "reference", "r2ec_pop": "baseline"}
    wrong = ModuleType("wrong")
    vars(wrong).update(KIND="winner", __file__="wrong.py")
    with pytest.raises(InputError, match=r"^wrong\.py: KIND is 'winner'; say 'baseline' or 'reference'$"):
        kind_of(wrong)


def test_dates_are_read_as_yaml_writes_them(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(dataset()).replace("category:", "start: 2018-01-31\n    category:"))
    assert str(read_config_file(tmp_path / "c.yaml").datasets["toy"].start) == "2018-01-31"


def test_a_merged_mapping_may_say_a_name_anew(tmp_path: Path) -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n"
    (tmp_path / "c.yaml").write_text(text)
    assert read_yaml(tmp_path / "c.yaml")["b"] == {"x": 3, "y": 2}
