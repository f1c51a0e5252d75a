"""The config's ablations: which runs they ask for, what they share, and what is refused in which words."""

import doctest
from typing import Any, get_args

import pytest

from benchmark.config import factors, overlay
from benchmark.config.factors import Ablations, Factor, Variant, ablations_of, read_factors
from benchmark.config.methods import ROOT
from benchmark.config.overlay import flatten, overlaid, run_name
from benchmark.config.read import read_config, read_config_file
from benchmark.errors import InputError
from benchmark.metrics import METRICS, WHOLE_RANKING

R2EC = {"backbone": {"name": "somewhere"}, "recpo": {"beta": 0.05}}


def config(ablations: dict[str, Any], **changes: Any) -> dict[str, Any]:
    dataset = {"source": "ml_100k", "category": "movie"}
    return {
        "datasets": {"toy": dataset, "other": dataset},
        "methods": {"r2ec": {"params": R2EC, "seeds": 1}, "item_knn": {"grid": [{"decay": 0.9}, {"decay": 0.6}]}},
        "ablations": ablations,
    } | changes


def expanded(**ablations: Any) -> Ablations:
    return ablations_of(read_config(config(ablations)))


def beta(**changes: Any) -> dict[str, Any]:
    return {"base": "r2ec", "values": {"0": {"recpo": {"beta": 0}}, "0.05": {}, "1": {"recpo": {"beta": 1}}}} | changes


def test_doctests() -> None:
    assert doctest.testmod(overlay).attempted > 0
    assert doctest.testmod(overlay).failed == 0


def test_a_factor_has_a_run_per_value_and_the_base_s_own() -> None:
    ablations = expanded(beta=beta(title="weight of R_c", datasets=["toy"], seeds=2))
    params: dict[str, Any] = R2EC
    assert ablations.factors == {
        "beta": Factor(
            name="beta",
            title="weight of R_c",
            datasets=["toy"],
            seeds=2,
            base="0.05",
            runs={"0": "r2ec--recpo.beta=0.0", "0.05": "r2ec", "1": "r2ec--recpo.beta=1.0"},
            settings={
                "r2ec--recpo.beta=0.0": [overlaid(params, {"recpo": {"beta": 0.0}})],
                "r2ec": [params],
                "r2ec--recpo.beta=1.0": [overlaid(params, {"recpo": {"beta": 1.0}})],
            },
            claims=[],
        )
    }
    assert ablations.variants["r2ec--recpo.beta=0.0"] == Variant(
        base="r2ec", overlay={"recpo": {"beta": 0.0}}, fit="r2ec--recpo.beta=0.0", after=None
    )
    assert ablations.factors["beta"].seeds_of_runs == {
        "r2ec--recpo.beta=0.0": 2,
        "r2ec": 2,
        "r2ec--recpo.beta=1.0": 2,
    }


def test_what_is_left_out_has_a_default() -> None:
    factor = expanded(beta=beta()).factors["beta"]
    assert (factor.title, factor.datasets, factor.seeds) == ("beta", ["toy", "other"], 1)
    decay = expanded(decay={"base": "item_knn", "values": {"0.5": {"decay": 0.5}}}).factors["decay"]
    assert decay.seeds == 3  # the config's
    # The base stands among its values though nobody listed it.
    assert decay.runs == {"item_knn": "item_knn", "0.5": "item_knn--decay=0.5"} and decay.base == "item_knn"


def test_a_value_that_changes_nothing_is_the_base() -> None:
    for changed in ({}, None, {"recpo": {"beta": 0.05}}, {"recpo": {"beta": 0.05, "head_update": "top1"}}):
        runs = expanded(x={"base": "r2ec", "values": {"a": changed, "b": {"recpo": {"beta": 1}}}}).factors["x"].runs
        assert runs == {"a": "r2ec", "b": "r2ec--recpo.beta=1.0"}


def test_with_a_grid_the_base_is_what_every_setting_of_it_says() -> None:
    values = {"rare": {"neighbours": 7}, "0.9": {"decay": 0.9}}
    ablations = expanded(x={"base": "item_knn", "values": values})
    # 0.9 is one of two settings that tuning may choose, so that it is a run of its own.
    assert set(ablations.variants) == {"item_knn--neighbours=7", "item_knn--decay=0.9"}
    assert ablations.variants["item_knn--decay=0.9"].overlay == {"decay": 0.9}


def test_equal_values_of_several_factors_are_one_run_whatever_their_labels_and_order() -> None:
    parts = {"base": "r2ec", "values": {"R2ec": {}, "w/o R_c": {"recpo": {"beta": 0.0}}}}
    both = expanded(beta=beta(), parts=parts), expanded(parts=parts, beta=beta())
    assert both[0].variants == both[1].variants and len(both[0].variants) == 2
    assert both[0].factors["parts"].runs["w/o R_c"] == both[1].factors["beta"].runs["0"] == "r2ec--recpo.beta=0.0"


def test_adding_a_value_changes_no_other_run() -> None:
    before = expanded(beta=beta()).variants
    more = beta()["values"] | {"0.5": {"recpo": {"beta": 0.5}}}
    after = expanded(beta=beta(values=more)).variants
    assert {run: after[run] for run in before} == before and set(after) - set(before) == {"r2ec--recpo.beta=0.5"}


def test_values_that_only_scoring_reads_share_a_fit() -> None:
    read = {
        "own": {},
        "other": {"evaluation": {"reasoning": "other"}},
        "other, beta 0": {"evaluation": {"reasoning": "other"}, "recpo": {"beta": 0}},
        "empty, beta 0": {"evaluation": {"reasoning": "empty"}, "recpo": {"beta": 0}},
    }
    for order in (("read", "beta"), ("beta", "read")):
        factors = {"read": {"base": "r2ec", "values": read}, "beta": beta()}
        ablations = expanded(**{name: factors[name] for name in order})
        runs = ablations.factors["read"].runs
        other, empty, plain = runs["other, beta 0"], runs["empty, beta 0"], "r2ec--recpo.beta=0.0"
        after = {run: (variant.fit, variant.after) for run, variant in ablations.variants.items()}
        assert after[runs["other"]] == ("r2ec", "r2ec")
        # Of the three with beta 0 the one that only trains makes the fit, wherever it stands.
        assert after[plain] == (plain, None) and after[other] == after[empty] == (plain, plain)
        assert (
            ablations.factors["read"].scored == [runs["other"], other, empty] and ablations.factors["beta"].scored == []
        )
    ablations = expanded(read={"base": "r2ec", "values": read})
    runs, fits = ablations.factors["read"].runs, {run: (v.fit, v.after) for run, v in ablations.variants.items()}
    # Without that one the first makes it, in the folder that they share.
    assert fits[other] == ("r2ec--recpo.beta=0.0", None) and fits[empty] == ("r2ec--recpo.beta=0.0", other)
    assert ablations.factors["read"].scored == [runs["other"], empty]


def test_a_long_or_odd_change_still_has_a_name_of_its_own() -> None:
    values = {name: {"forms": [name], "name": "x" * 200} for name in ("a/b", "a b")}
    names = [run_name("r2ec", flatten(value)) for value in values.values()]
    assert len(set(names)) == 2 and all(len(name) < 150 and "/" not in name and " " not in name for name in names)


def test_labels_may_be_numbers_of_yaml() -> None:
    config_read = read_config(config({"beta": beta(values={0: {"recpo": {"beta": 0}}, 0.05: {}})}))
    assert list(config_read.ablations["beta"].values) == ["0", "0.05"]


def test_factors_survive_the_way_to_a_job() -> None:
    claim = {"says": "it helps", "value": "0.05", "against": "0", "expect": "equal", "margin": 0.1}
    factor = expanded(beta=beta(claims=[claim])).factors["beta"]
    assert read_factors(f"[{factor.model_dump_json()}]") == [factor]
    with pytest.raises(InputError, match=r"^--factors: not JSON"):
        read_factors("beta")
    with pytest.raises(InputError, match=r"^--factors: setting 'factors.0.name' is missing"):
        read_factors("[{}]")


CLAIM = {"says": "it helps", "value": "0.05", "against": "0"}
SENTENCES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown base": (
        beta(base="r2ek"),
        "c: ablations.beta: no base 'r2ek' in methods; did you mean 'r2ec'? Known: r2ec, item_knn",
    ),
    "unknown dataset": (
        beta(datasets=["toy", "ml"]),
        "c: ablations.beta: no dataset 'ml' in datasets. Known: toy, other",
    ),
    "a dataset twice": (beta(datasets=["toy", "toy"]), "c: ablations.beta: dataset 'toy' is given twice; keep one"),
    "unknown key": (beta(value={}), "c: ablations.beta: unknown setting 'value'; did you mean 'values'? Known: "),
    "no values": (beta(values={}), "c: ablations.beta: needs a base and values of it, or rows"),
    "no base": ({"values": {"a": {}}}, "c: ablations.beta: needs a base and values of it, or rows"),
    "no seeds": (beta(seeds=0), "c: ablations.beta.seeds: expected at least 1, found 0"),
    "equal values": (
        beta(values={"0": {"recpo": {"beta": 0}}, "none": {"recpo": {"beta": 0.0}}}),
        "c: ablations.beta: the values '0' and 'none' have equal params; leave one out",
    ),
    "the base twice": (
        beta(values={"a": {}, "b": {"recpo": {"beta": 0.05}}}),
        "c: ablations.beta: the values 'a' and 'b' have equal params; leave one out",
    ),
    "the base alone": (
        beta(values={"a": {}}),
        "c: ablations.beta: every value is the base itself; add one that differs",
    ),
    "a typo in a value": (
        beta(values={"2": {"recpo": {"betta": 2}}}),
        "c: ablations.beta.values.2: recpo: unknown setting 'betta'; did you mean 'beta'? Known: ",
    ),
    "a value that the method refuses": (
        beta(values={"2": {"recpo": {"beta": 2}}}),
        "c: ablations.beta.values.2: recpo.beta: expected at most 1, found 2",
    ),
    "a value that only together is wrong": (
        beta(values={"1": {"rollouts": {"group_size": 1}}}),
        "c: ablations.beta.values.1: training: recpo.advantage grpo compares the rollouts of a user, but "
        "rollouts.group_size is 1; raise it, or set recpo.advantage to batch",
    ),
    "no settings": (beta(values={"2": 3}), "c: ablations.beta.values.2: expected settings by name, found 3"),
    "an unquoted word": (
        beta(values={False: {}}),
        "c: ablations.beta: YAML reads this label as False; put it in quotes",
    ),
    "a number and its text": (
        beta(values={1: {}, "1": {"recpo": {"beta": 0}}}),
        "c: ablations.beta: values: the label '1' is given twice; keep one",
    ),
    "the base's name": (
        beta(values={"r2ec": {"recpo": {"beta": 0}}}),
        "c: ablations.beta: the value 'r2ec' has the base's name and other params; rename the label",
    ),
    "a claim on no value": (
        beta(claims=[CLAIM | {"against": "7"}]),
        "c: ablations.beta.claims: no value '7'. Known: 0, 0.05, 1",
    ),
    "a claim on one value": (
        beta(claims=[CLAIM | {"against": "0.05"}]),
        "c: ablations.beta.claims.0: a claim compares two values, but both are '0.05'",
    ),
    "a claim without a margin": (
        beta(claims=[CLAIM | {"expect": "equal"}]),
        "c: ablations.beta.claims.0: expect: equal needs a margin, such as 0.1",
    ),
    "a claim with a margin too many": (
        beta(claims=[CLAIM | {"margin": 0.1}]),
        "c: ablations.beta.claims.0: expect: higher takes no margin",
    ),
    "a claim by no metric": (
        beta(claims=[CLAIM | {"metric": "MRR"}]),
        "c: ablations.beta.claims.0.metric: expected 'Hit@5', ",
    ),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_wrong_ablations_are_one_sentence(name: str) -> None:
    entry, message = SENTENCES[name]
    with pytest.raises(InputError) as caught:
        read_config(config({"beta": entry}), "c")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["claims", "beta.tests", "a/b"])
def test_a_factor_has_files_of_its_own(name: str) -> None:
    with pytest.raises(InputError, match=r"^c: ablations"):
        read_config(config({name: beta()}), "c")


def test_the_metrics_of_claims_are_the_tables_own() -> None:
    assert list(get_args(factors.ClaimConfig.model_fields["metric"].annotation)) == [*METRICS, *WHOLE_RANKING]


def test_the_ablations_of_both_configs_share_their_runs() -> None:
    """config.yaml and ablations.yaml have the same dataset and base, so that a run of one is a run of the other."""
    default, full = (read_config_file(ROOT / "config" / name) for name in ("config.yaml", "ablations.yaml"))
    assert full.datasets["ml-100k"] == default.datasets["ml-100k"] and full.method("r2ec") == default.method("r2ec")
    few, all_of_them = ablations_of(default), ablations_of(full)
    assert set(few.variants) <= set(all_of_them.variants) and set(few.factors) <= set(all_of_them.factors)
    assert all(few.variants[run] == all_of_them.variants[run] for run in few.variants)
    leaky = full.datasets["ml-100k-leaky"].model_copy(update={"leaky_popularity": False})
    assert leaky == full.datasets["ml-100k"]


def test_the_full_config_has_what_the_paper_varied() -> None:
    factors = ablations_of(read_config_file(ROOT / "config" / "ablations.yaml")).factors
    assert list(factors["beta"].runs) == ["0", "0.05", "0.25", "0.5", "1"]
    assert list(factors["group_size"].runs) == ["1", "2", "4", "8"]
    assert list(factors["group_size_equal_tokens"].runs) == ["r2ec", "1", "2", "4", "8"]
    assert set(factors["head_update"].runs) == {"top1", "topk, 2", "all", "random", "none", "released"}
    assert factors["released"].seeds == 3 and set(factors["released"].runs) == {"top1", "released"}
    assert list(factors["length"].runs) == ["0", "16", "32", "64", "128"]
    assert {"advantage", "refresh", "temperature", "top_k", "pooling", "parts", "item_head"} <= set(factors)
    assert {"reasoning_read", "samples", "time_anchor", "popularity"} <= set(factors)


def test_equal_rollout_tokens_are_equal() -> None:
    """They are equal by whatever number of steps the base's grid chooses, which only the base itself follows."""
    factor = ablations_of(read_config_file(ROOT / "config" / "ablations.yaml")).factors["group_size_equal_tokens"]
    for label in ("1", "2", "4", "8"):
        may_be = factor.settings[factor.runs[label]]
        written = {settings["training"]["max_steps"] * settings["rollouts"]["group_size"] for settings in may_be}
        assert len(may_be) == 6 and written == {48}, label


ROWS = {"rows": {"ours": "r2ec", "counted": "popularity"}}


def rows_of(entry: dict[str, Any], **methods: Any) -> Factor:
    made = config({"rows": entry})
    made["methods"] = made["methods"] | {"popularity": {}} | methods
    return ablations_of(read_config(made)).factors["rows"]


def test_rows_are_held_against_each_other_by_their_own_runs() -> None:
    factor = rows_of(ROWS | {"seeds": 2}, popularity={"less_information": "counts alone"})
    assert factor.runs == {"ours": "r2ec", "counted": "popularity"} and factor.base == "ours" and factor.seeds == 2
    assert factor.settings["popularity"] == [{}] and factor.less_information["popularity"] == "counts alone"
    assert not factor.share_random_numbers("ours", "counted")
    llm = {"module": "title_sft", "params": {"backbone": {"name": "resources/smollm2-135m-instruct"}}}
    paired = rows_of({"rows": {"a": "sft", "b": "tuned"}}, sft=llm, tuned=llm | {"module": "s_dpo"})
    assert paired.share_random_numbers("a", "b")
    values = expanded(beta=beta()).factors["beta"]
    assert values.share_random_numbers("0", "1")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"rows": {"a": "r2ec", "b": "popularty"}},
            r"ablations\.rows\.rows: no row 'popularty' in methods.*popularity",
        ),
        ({"rows": {"a": "r2ec"}}, r"rows: give at least two different ones, each once"),
        ({"rows": {"a": "r2ec", "b": "r2ec"}}, r"rows: give at least two different ones, each once"),
        (ROWS | {"base": "r2ec"}, r"rows stand in the place of base and values"),
        ({"base": "r2ec"}, r"needs a base and values of it, or rows"),
        (ROWS | {"claims": [CLAIM]}, r"claims: no value '0.05'"),
    ],
)
def test_wrong_rows_are_one_sentence(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        rows_of(entry)
