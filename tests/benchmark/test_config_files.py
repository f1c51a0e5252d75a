"""The project's own configs: each loads, they agree where they are compared, and the paper's has its settings."""

import json
from pathlib import Path

import pytest

import r2ec.method as r2ec_method
from benchmark.config.methods import ROOT
from benchmark.config.overlay import overlaid
from benchmark.config.read import read_config_file, read_yaml
from benchmark.data.settings import DatasetConfig

FILES = sorted((ROOT / "config").glob("*.yaml"))


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
