"""The configuration: what is refused, in which words, and that its documentation and schema are complete."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

import r2ec.method as r2ec_method
from benchmark.config import read
from benchmark.config.factors import ablations_of
from benchmark.config.methods import ROOT, kind_of, load_method
from benchmark.config.overlay import overlaid
from benchmark.config.read import composed, json_schema, read_config, read_config_file, read_yaml
from benchmark.config.schema import AblationConfig, ClaimConfig, Config, MethodConfig
from benchmark.data.settings import DatasetConfig
from benchmark.errors import InputError
from benchmark.jobs.outputs import Outputs
from benchmark.jobs.plan import Plan
from r2ec.settings import AdapterSettings


def r2ec_sections() -> dict[str, type[BaseModel]]:
    """The sections of R2ec's params."""
    fields = r2ec_method.Params.model_fields.items()
    sections = {name: field.annotation for name, field in fields}
    return {name: kind for name, kind in sections.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}


FILES = sorted((ROOT / "config").glob("*.yaml"))


def config(**changes: Any) -> dict[str, Any]:
    return {
        "datasets": {"toy": {"source": "ml_100k", "category": "movie"}},
        "methods": {"popularity": None},
    } | changes


def dataset(**changes: Any) -> dict[str, Any]:
    return config(datasets={"toy": {"source": "ml_100k", "category": "movie"} | changes})


def method(**changes: Any) -> dict[str, Any]:
    return config(methods={"sasrec": changes})


def r2ec(device: str = "cpu", **changes: Any) -> dict[str, Any]:
    """R2ec with its LM on this device."""
    return config(methods={"r2ec": {"params": {"backbone": {"name": "x", "device": device}}} | changes})


def test_there_are_config_files() -> None:
    assert {"config.yaml", "smoke.yaml"} <= {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_config_file_loads(path: Path) -> None:
    config_read = read_config_file(path)
    assert config_read.datasets and config_read.methods and config_read.seeds >= 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_config_survives_the_way_to_a_job(path: Path) -> None:
    """Datasets go to the jobs as JSON."""
    for entry in read_config_file(path).datasets.values():
        assert DatasetConfig.model_validate(json.loads(entry.model_dump_json())) == entry


def test_the_embedded_default_gives_every_baseline_the_same_budget() -> None:
    default = read_config_file(ROOT / "config" / "config.yaml")
    assert set(default.datasets) == {"ml-100k", "movielens-2016", "complete-journey"} and default.seeds == 3
    baselines = [name for name in default.methods if default.module_of(name) != "r2ec"]
    assert {len(default.method(name).grid) for name in baselines} == {6}
    assert {"popularity", "item_knn", "ease", "markov", "gru4rec", "caser", "sasrec", "bert4rec"} == set(baselines)
    # R2ec tries six, each with RecPO, which the row is named after; the untrained one has nothing to try.
    for name in ("r2ec", "r2ec_no_reasoning"):
        tried = default.method(name).settings()
        assert len(tried) == len({json.dumps(tuned) for tuned in tried}) == 6
        assert all(tuned["training"]["max_steps"] > 0 for tuned in tried)
    assert default.method("r2ec_no_reasoning").grid == default.method("r2ec").grid
    assert default.method("r2ec_untrained").grid == []
    # The control of the project's question differs from it in nothing else.
    without, params = default.method("r2ec_no_reasoning").params, default.method("r2ec").params
    assert without == overlaid(params, {"recpo": {"reasoning": False}}) != params


def test_the_slices_are_measured_as_the_default_is() -> None:
    """The methods and settings are the default's, the files are the user's, and no path of a machine is named."""
    default, slices = (read_config_file(ROOT / "config" / name) for name in ("config.yaml", "slices.yaml"))
    shorter = {
        "r2ec": {"prompts": {"max_prompt_tokens": 200}},
        "r2ec_no_reasoning": {"prompts": {"max_prompt_tokens": 200}},
        "r2ec_untrained": {"prompts": {"max_prompt_tokens": 200}},
    }
    for name, method in default.methods.items():
        expected = method.model_copy(update={"params": overlaid(method.params, shorter.get(name, {}))})
        assert slices.methods[name] == expected
    assert set(slices.methods) == set(default.methods) and slices.seeds == default.seeds
    for name, entry in slices.datasets.items():
        assert entry.source == "files" and entry.same_time == "exclude" and entry.train_cases is None
        folder = Path(entry.options["folder"])
        assert not folder.is_absolute() and folder.parts[0] == "slices" and folder.name.startswith(name)


def test_what_stands_in_the_shared_file_stands_in_no_config() -> None:
    """Datasets and grids once; d3 and llm_rerank of decoupled.yaml name the row sasrec's grid, which is no row."""
    shared = read_yaml(ROOT / "config" / "shared.yaml")
    sources = {entry["source"] for entry in shared["datasets"].values()}
    copies = set()
    for path in FILES:
        value = read_yaml(path)
        if path.name not in (
            "shared.yaml",
            "smoke.yaml",
        ):  # of which the latter has a sliver of ml-100k, a copy of none
            copies |= {
                (path.name, name) for name, settings in value["datasets"].items() if settings.get("source") in sources
            }
            grids = [entry["grid"] for entry in shared["methods"].values() if "grid" in entry]
            copies |= {
                (path.name, name)
                for name, settings in value["methods"].items()
                if settings and settings.get("grid") in grids
            }
    assert copies == set() and len(sources) == 3
    decoupled = read_config_file(ROOT / "config" / "decoupled.yaml")
    for name in ("d3", "llm_rerank"):
        assert decoupled.method(name).params["sasrec"] == decoupled.method("sasrec").grid


def test_the_configs_agree_where_they_are_compared() -> None:
    """Datasets differ only in the number of cases. R2ec is the same wherever runs of two configs are compared."""
    configs = {path.stem: read_config_file(path) for path in FILES}
    default = configs["config"]
    changes = {
        ("r2ec", "ml-100k"): {},
        ("decoupled", "complete-journey"): {"test_cases": 500},
        ("claims", "movielens-2016"): {"test_cases": 2000},
        ("null", "ml-100k"): {"train_cases": None, "test_cases": None},
        ("quick", "ml-100k"): {"min_item_count": 100, "valid_cases": 200, "test_cases": 200},
        ("recbole", "ml-100k"): {"split": "leave-one-out", "same_time": "order"}
        | dict.fromkeys(("train_cases", "valid_cases", "test_cases")),
    }
    for (name, dataset), change in changes.items():
        assert configs[name].datasets[dataset] == default.datasets[dataset].model_copy(update=change), name
    r2ec = default.method("r2ec")
    assert r2ec.params["training"]["max_steps"] == 12 and r2ec.params["warm_start"]["adapters"]["steps"] == 40
    for name in ("r2ec", "decoupled", "ablations"):
        assert configs[name].method("r2ec").params == r2ec.params
    # The registered claims take the first setting of the default's grid, without its log of gradients.
    claimed = configs["claims"].method("r2ec_claims")
    assert not claimed.grid and overlaid(claimed.params, {"training": {"split_grad_norms": 100}}) == r2ec.settings()[0]
    assert configs["decoupled"].method("r2ec").settings() == r2ec.settings()[:1]
    for name, entry in configs["r2ec"].methods.items():
        if name in default.methods and entry is not None:
            assert entry.settings() == default.method(name).settings() and entry.module == default.method(name).module


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


def test_the_paper_s_config_has_the_paper_s_settings() -> None:
    paper = read_config_file(ROOT / "config" / "paper.yaml")
    assert paper.require_clean and paper.seeds == 3
    categories = ("Musical_Instruments", "CDs_and_Vinyl", "Video_Games")
    assert [(entry.source, entry.options["category"]) for entry in paper.datasets.values()] == [
        ("amazon_2023", category) for category in categories
    ]
    for entry in paper.datasets.values():  # what the paper's counts need
        assert (entry.min_user_count, entry.min_item_count, entry.same_time) == (1, 1, "order")
    for name in ("r2ec_qwen2.5_3b", "r2ec_gemma2_2b"):
        entry = paper.method(name)
        params = r2ec_method.Params.model_validate(entry.params)
        assert entry.process_count() * params.training.per_device_train_batch_size == 24
        assert params.backbone.revision and params.warm_start.cases == 0 and params.rollouts.backend == "vllm"
        assert (params.lora.r, params.training.learning_rate, params.training.warmup_steps) == (4, 1e-5, 32)
        assert params.training.num_train_epochs == 3 and params.training.max_steps == -1
        assert (params.rollouts.group_size, params.rollouts.temperature, params.rollouts.top_k) == (4, 1.5, 200)
        assert (params.rollouts.max_new_tokens, params.recpo.beta, params.recpo.ndcg_k) == (512, 0.05, 1000)
        assert params.recpo.epsilon == 0.2 and params.recpo.prior == 0
        # Where the paper is silent: its released code, as docs/paper-config.md has it.
        assert (params.lora.alpha, params.lora.dropout, params.training.patience) == (128, 0, 8)
        assert (params.prompts.wording, params.prompts.deltas) == ("released", "released")
        assert (params.training.max_grad_norm, params.recpo.tau, params.recpo.normalize) == (1, 0.02, True)
        # That of the backbone's own generation config.
        assert params.rollouts.repetition_penalty == (1.05 if "qwen" in name else 1.0)
        # The control without training reads and writes the same.
        untrained = r2ec_method.Params.model_validate(paper.method(f"{name}_untrained").params)
        assert untrained.prompts == params.prompts and untrained.rollouts == params.rollouts.model_copy(
            update={"backend": "transformers"}
        )
    words = [(entry.category, entry.category_plural) for entry in paper.datasets.values()]
    assert words == [
        ("musical instrument", "musical instruments"),
        ("CD or vinyl", "CDs and vinyl"),
        ("video game", "video games"),
    ]
    for name in ("gru4rec", "caser", "sasrec"):
        for params in paper.method(name).settings():
            assert params["train_batch_size"] == 256
        assert paper.method(name).grid[0] == {"learning_rate": 1e-4}
    modules = [paper.module_of(name) for name in paper.methods]
    for module in ("frozen_llm", "profile_retrieval", "langptune", "rec_r1", "bigrec", "d3", "kar", "llm_rerank"):
        assert modules.count(module) == 2, module  # on both backbones
    # As the paper's table has them; SPRec in both of its rankings.
    assert [modules.count(module) for module in ("title_sft", "s_dpo", "sp_rec")] == [2, 1, 2]


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
        (None, r"c.yaml: can't be read as YAML \(.*No such file"),
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


def test_dates_are_read_as_yaml_writes_them(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(dataset()).replace("category:", "start: 2018-01-31\n    category:"))
    assert str(read_config_file(tmp_path / "c.yaml").datasets["toy"].start) == "2018-01-31"


def test_a_merged_mapping_may_say_a_name_anew(tmp_path: Path) -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n"
    (tmp_path / "c.yaml").write_text(text)
    assert read_yaml(tmp_path / "c.yaml")["b"] == {"x": 3, "y": 2}


def test_the_schema_is_in_step_with_the_models() -> None:
    """If it fails: python -m benchmark.config.read > workflow/schemas/config.schema.json"""
    written = json.loads((ROOT / "workflow" / "schemas" / "config.schema.json").read_text())
    assert written == json_schema()


@pytest.mark.parametrize("model", [Config, DatasetConfig, MethodConfig, AblationConfig, ClaimConfig])
def test_the_schema_refuses_the_unknown_too(model: type) -> None:
    assert model.model_json_schema()["additionalProperties"] is False


def readme_rows(heading: str | None = None) -> dict[str, str]:
    """The settings in the tables of config/README.md, or in those under one heading, with the cell beside each."""
    text = (ROOT / "config" / "README.md").read_text()
    if heading is not None:
        _, heading_found, text = text.partition(f"\n{heading}")
        assert heading_found, f"config/README.md has no heading {heading!r}"
        text = text.partition("\n#")[0]
    cells = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    return {row[1].strip().strip("`"): row[2].strip() for row in cells}


SECTIONS = {f"### `{name}`": model for name, model in r2ec_sections().items()} | {
    "## R2ec's params": r2ec_method.Params,
    "#### `warm_start.adapters`": AdapterSettings,
}


@pytest.mark.parametrize("section", SECTIONS)
def test_config_readme_explains_every_setting_of_r2ec(section: str) -> None:
    """The very settings, with their defaults: a renamed one leaves no row behind."""
    model, rows = SECTIONS[section], readme_rows(section)
    assert list(rows) == list(model.model_fields), f"config/README.md, {section}: a row per setting, in this order"
    for name, field in model.model_fields.items():
        default = field.get_default()
        if isinstance(default, BaseModel):
            default = {}
        written = "required" if field.is_required() else as_json(rows[name])
        assert written == ("required" if field.is_required() else default), f"config/README.md, {section}: {name}"


def as_json(cell: str) -> Any:
    """The value in a cell; words stand there without quotes."""
    try:
        return json.loads(cell)
    except json.JSONDecodeError:
        return cell


def test_config_readme_explains_every_setting() -> None:
    rows = [f"`{name}`" for name in readme_rows()]
    for model in (Config, DatasetConfig, MethodConfig, AblationConfig, ClaimConfig):
        for field in model.model_fields:
            assert f"`{field}`" in rows, f"config/README.md has no row for {field}"
