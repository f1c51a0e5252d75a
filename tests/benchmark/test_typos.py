"""Every setting of every model, misspelt or of the wrong kind: the sentence names what may be meant, in plain words."""

import datetime
import importlib
import re
import string
import typing
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from annotated_types import Ge, Gt
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from benchmark.config.methods import known_methods, load_method
from benchmark.config.read import read_config
from benchmark.config.schema import Config
from benchmark.config.wording import EXPECTED, OTHERWISE, nearest, problem, shown
from benchmark.data.settings import SOURCES
from benchmark.errors import InputError, checked
from benchmark.jobs.records import RunRecord

Place = tuple[type[BaseModel], tuple[str, ...]]  # a model, and the way to one of its sections


def roots() -> list[type[BaseModel]]:
    """The models that a config is checked by: its own, and those of sources and methods."""
    sources = [importlib.import_module(f"benchmark.datasets.{path.stem}") for path in sorted(SOURCES.glob("[!_]*.py"))]
    methods = [vars(load_method(name)) for name in known_methods()]
    return [
        Config,
        *(source.Options for source in sources),
        *(method["Params"] for method in methods if "Params" in method),
    ]


def within(kind: Any) -> Iterator[type[BaseModel]]:
    """The models in an annotation."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for part in typing.get_args(kind):
        yield from within(part)


def models() -> list[type[BaseModel]]:
    """All of them, with those inside of them."""
    all_models: list[type[BaseModel]] = []
    waiting = roots()
    while waiting:
        model = waiting.pop(0)
        if model not in all_models:
            all_models.append(model)
            waiting += [inner for field in model.model_fields.values() for inner in within(field.annotation)]
    return all_models


MODELS = models()
SETTINGS = [(model, name) for model in MODELS for name in model.model_fields]


def test_all_models_are_found() -> None:
    assert len(MODELS) > 30 and len(SETTINGS) > 200
    names = {name for _, name in SETTINGS}
    assert {"group_size", "folder", "claims", "metric", "adapters", "held_items", "gamma"} <= names
    assert all(model.model_config["extra"] == "forbid" for model in MODELS)


def sentence(model: type[BaseModel], value: Any) -> str:
    with pytest.raises(InputError) as caught:
        checked(model, value, "here")
    message = str(caught.value)
    assert message.startswith("here: ") and "\n" not in message
    return message


def meant(message: str) -> list[str]:
    """What a sentence asks about: one name, or two that are as near."""
    question = re.search(
        r"; did you mean '([^']+)'(?: or '([^']+)')\? Known: |; did you mean '([^']+)'\? Known: ", message
    )
    return [name for name in question.groups() if name] if question else []


@st.composite
def misspelt(draw: st.DrawFn) -> tuple[type[BaseModel], str, str]:
    """A model, one of its settings, and that by one letter wrong: left out, doubled, exchanged, another one,
    swapped."""
    model, name = draw(st.sampled_from(SETTINGS))
    at = draw(st.integers(0, len(name) - 1))
    letter = draw(st.sampled_from(string.ascii_lowercase))
    wrong = draw(
        st.sampled_from(
            [
                name[:at] + name[at + 1 :],
                name[:at] + name[at] + name[at:],
                name[:at] + letter + name[at + 1 :],
                name[:at] + letter + name[at:],
                name[:at] + name[at + 1 : at + 2] + name[at] + name[at + 2 :],
            ]
        )
    )
    return model, name, wrong


@given(misspelt())
def test_a_misspelt_setting_is_named_with_the_right_one(drawn: tuple[type[BaseModel], str, str]) -> None:
    model, name, wrong = drawn
    known = list(model.model_fields)
    if wrong in known or not wrong:
        return
    message = sentence(model, {wrong: 1})
    assert f"here: unknown setting {wrong!r}" in message and message.endswith(f" Known: {', '.join(known)}")
    if len(name) > 3:  # of three letters, one says too little
        assert name in meant(message)


@pytest.mark.parametrize("number", range(len(SETTINGS)))
def test_no_setting_without_its_first_letter_or_with_one_too_many(number: int) -> None:
    """The same for each setting, and not for a sample of them alone."""
    model, name = SETTINGS[number]
    for wrong in (name + name[-1], name[1:], name.upper(), name.replace("_", "-")):
        if wrong and wrong not in model.model_fields:
            message = sentence(model, {wrong: 1})
            assert f"unknown setting {wrong!r}" in message and (name in meant(message) or len(name) < 3)


# Where they stand


def config(**changes: Any) -> dict[str, Any]:
    return {
        "datasets": {"shop": {"source": "ml_100k", "category": "movie"}},
        "methods": {"popularity": None},
    } | changes


def r2ec(**params: Any) -> dict[str, Any]:
    return config(methods={"r2ec": {"params": {"backbone": {"name": "x"}} | params}})


def varied(**entry: Any) -> dict[str, Any]:
    return config(ablations={"beta": {"base": "popularity", "values": {"x": {"half_life_days": 3}}} | entry})


def files(**options: Any) -> dict[str, Any]:
    return config(datasets={"shop": {"source": "files", "category": "movie", "options": options}})


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "an option of a source": (
        files(folder="x", timestamp_unt="ms"),
        "c: datasets.shop.options: unknown setting 'timestamp_unt'; did you mean 'timestamp_unit'? Known: folder, "
        "timestamp_unit, attributes",
    ),
    "one that must be there": (
        files(foldr="x"),
        "c: datasets.shop.options: unknown setting 'foldr'; did you mean 'folder'? Known: folder, ",
    ),
    "a part of the config": (
        {"datsets": config()["datasets"], "methods": {"popularity": None}},
        "c: unknown setting 'datsets'; did you mean 'datasets'? Known: datasets, methods, ",
    ),
    "a section of params": (
        r2ec(rollouts={"group_sice": 2}),
        "c: methods.r2ec: rollouts: unknown setting 'group_sice'; did you mean 'group_size'? Known: backend, "
        "group_size, ",
    ),
    "a section in a section": (
        r2ec(warm_start={"adapters": {"stepps": 2}}),
        "c: methods.r2ec: warm_start.adapters: unknown setting 'stepps'; did you mean 'steps'? Known: steps, ",
    ),
    "the section": (r2ec(rollout={}), "c: methods.r2ec: unknown setting 'rollout'; did you mean 'rollouts'? Known: "),
    "a list of sections": (
        config(methods={"d3": {"params": {"backbone": {"name": "x"}, "sasrec": [{}, {"epoch": 3}]}}}),
        "c: methods.d3: sasrec.1: unknown setting 'epoch'; did you mean 'epochs'? Known: ",
    ),
    "of an ablation": (
        varied(seds=3),
        "c: ablations.beta: unknown setting 'seds'; did you mean 'seeds'? Known: title, base, ",
    ),
    "of a value": (
        varied(values={"x": {"half_live_days": 3}}),
        "c: ablations.beta.values.x: unknown setting 'half_live_days'; did you mean 'half_life_days'? Known: ",
    ),
    "of a claim": (
        varied(claims=[{"says": "so", "value": "x", "against": "popularity", "metrc": "Hit@5"}]),
        "c: ablations.beta.claims.0: unknown setting 'metrc'; did you mean 'metric'? Known: says, ",
    ),
    "a base": (
        varied(base="popularty"),
        "no base 'popularty' in methods; did you mean 'popularity'? Known: popularity",
    ),
    "a dataset": (
        varied(datasets=["shpo"]),
        "c: ablations.beta: no dataset 'shpo' in datasets; did you mean 'shop'? Known: ",
    ),
    "a value of a claim": (
        varied(claims=[{"says": "so", "value": "x", "against": "popularty"}]),
        "c: ablations.beta.claims: no value 'popularty'; did you mean 'popularity'? Known: popularity, x",
    ),
    "a row": (
        config(reference="populrity"),
        "no row 'populrity' in methods; did you mean 'popularity'? Known: popularity",
    ),
    "a method": (config(methods={"SASRec": None}), "c: no method 'SASRec'; did you mean 'sasrec'? Known: "),
    "a source": (
        config(datasets={"shop": {"source": "movielens", "category": "x"}}),
        "c: datasets.shop: no source 'movielens'; did you mean 'movielens_2016'? Known: ",
    ),
    "one of a few": (
        r2ec(recpo={"advantage": "rlo"}),
        "c: methods.r2ec: recpo.advantage: expected 'grpo', 'rloo', 'rloo_released' or 'batch', found 'rlo'; did you "
        "mean 'rloo'?",
    ),
    "a number as a name": (
        config(datasets={1: {"source": "ml_100k", "category": "x"}}),
        "c: datasets: expected text, found 1; put it in quotes",
    ),
    "a setting that is a number": (
        config(**{"methods": {"popularity": {3: 1}}}),
        "c: methods.popularity: unknown setting 3. Known: ",
    ),
    "the word like of a dataset": (
        config(datasets={"shop": {"lke": "ml-100k"}}),
        "c: datasets.shop: unknown setting 'lke'; did you mean 'like'? Known: like, source, ",
    ),
    "the word like of a method": (
        config(methods={"popularity": {"liek": "popularity", "seeds": 1}}),
        "c: methods.popularity: unknown setting 'liek'; did you mean 'like'? Known: like, module, ",
    ),
    "a device": (
        r2ec(backbone={"name": "x", "device": "gpu"}),
        "c: methods.r2ec: backbone.device: expected cpu, cuda, a GPU such as cuda:0, or mps, found 'gpu'",
    ),
    "an empty section": (config(datasets=None), "c: datasets: expected settings by name, found nothing"),
    "a long value": (
        config(seeds="many " * 50),
        f"c: seeds: expected a whole number, found '{'many ' * 11}many...",
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_typo_in_a_config_is_one_sentence(name: str) -> None:
    value, message = CONFIGS[name]
    with pytest.raises(InputError) as caught:
        read_config(value, "c")
    assert message in str(caught.value)


# Values out of range


def open_below(kind: Any, bounds: Iterable[object] = ()) -> bool:
    """Whether a setting of this kind takes numbers as small as they come.

    >>> open_below(int), open_below(list[float] | None), open_below(typing.Annotated[int, Ge(0)] | None)
    (True, True, False)
    """
    if kind in (int, float):
        return not any(isinstance(bound, Ge | Gt) for bound in bounds)
    parts = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Annotated:
        return open_below(parts[0], [bound for more in parts[1:] for bound in getattr(more, "metadata", [more])])
    return any(open_below(part, () if typing.get_origin(kind) is list else bounds) for part in parts)


def test_every_number_has_a_lower_bound() -> None:
    """What no network or training can have is said before any job runs."""
    fields = [(model, name, field) for model in MODELS for name, field in model.model_fields.items()]
    unbounded = {f"{m.__module__}: {name}" for m, name, field in fields if open_below(field.annotation, field.metadata)}
    assert not unbounded


@pytest.mark.parametrize("method", ["sasrec", "bert4rec", "kar", "rearec", "slim"])
def test_sizes_that_no_network_can_have_are_refused(method: str) -> None:
    known = {"backbone": {"name": "x"}} if method in ("kar", "slim") else {}
    for params, message in (
        ({"n_heads": 3}, "hidden_size 64 is no multiple of n_heads 3; change one of them"),
        ({"n_layers": 0}, "n_layers: expected at least 1, found 0"),
        ({"hidden_dropout_prob": 1}, "hidden_dropout_prob: expected less than 1, found 1"),
    ):
        with pytest.raises(InputError) as caught:
            read_config(config(methods={method: {"params": known | params}}), "c")
        assert message in str(caught.value)


# Values of the wrong kind

WRONG: list[Any] = [
    "x", "", "a/b", "{x}", "1.5", "2020-01-02T03:04:05", b"\xff", b"x", None, True, 0, -1, 1.5, 3,
    10**30, -(10**30), float("nan"), float("inf"), float("-inf"), [], [None], ["x"], [-1], [{}], [{"x": 1}], {},
    {"x": 1}, {1: 2}, {"a/b": {}}, {"a": None}, {"a": [1]}, {"a": {"b": 1}}, {("a", "b"): 1}, {"x"}, object(), 1j,
    datetime.date(2020, 1, 2), datetime.datetime(2020, 1, 2, 3), datetime.time(3), datetime.timedelta(1),
]  # fmt: skip
PYDANTIC = (
    "nput",
    "valid ",
    "dictionary",
    "instance",
    "integer",
    "boolean",
    "parse",
    "string",
    "should",
    "permitted",
    "Extra",
)


def wrong_values() -> Iterator[tuple[type[BaseModel], Any]]:
    """Each setting with each of these values, and each of these in place of a section."""
    for model in MODELS:
        for value in WRONG:
            yield model, value
            for name in model.model_fields:
                yield model, {name: value}


def test_every_kind_of_error_has_plain_words() -> None:
    """All models get all values: the table has all that pydantic can raise, and nothing else.

    Its own words are not printed.
    """
    raised = set()
    for model, value in wrong_values():
        try:
            model.model_validate(value)
        except ValidationError as error:
            for detail in error.errors():
                raised.add(detail["type"])
                place, why = problem(detail, model)
                expectation = (
                    why if detail["type"] == "value_error" else why.partition(", found ")[0].partition(" Known: ")[0]
                )
                if detail["type"] not in ("value_error", "extra_forbidden", "invalid_key", "missing", "literal_error"):
                    assert not any(word in expectation for word in PYDANTIC), expectation
                    assert expectation.startswith("expected ") and OTHERWISE not in expectation, detail
                assert "\n" not in place + why
                assert len(why) < 800 or detail["type"] == "value_error"
    ours = {"value_error", "extra_forbidden", "invalid_key", "missing"}
    records = {"datetime_type", "datetime_parsing", "datetime_from_date_parsing", "timezone_aware", "finite_number"}
    assert raised - ours <= set(EXPECTED)
    assert ours <= raised and set(EXPECTED) - raised <= records | {"int_parsing_size"}


def test_a_number_of_thousands_of_digits() -> None:
    assert sentence(Config, {"seeds": "9" * 5000}).startswith("here: setting 'datasets' is missing")
    assert "seeds: expected a smaller number, found '99999" in sentence(Config, config(seeds="9" * 5000))


def test_records_are_worded_too() -> None:
    """The program writes them, and a user may edit them by hand."""
    raised = set()
    for value in WRONG:
        for name in RunRecord.model_fields:
            with pytest.raises(ValidationError) as caught:  # the other fields are missing, at least
                RunRecord.model_validate({name: value})
            for detail in caught.value.errors():
                raised.add(detail["type"])
                _, why = problem(detail, RunRecord)
                assert OTHERWISE not in why, detail
    assert {"datetime_type", "timezone_aware", "finite_number"} <= raised


# Names


@given(st.text(max_size=8), st.lists(st.text(string.ascii_lowercase + "_", min_size=1), max_size=5))
@example("", [""])
def test_the_nearest_is_one_of_the_known(name: str, known: list[str]) -> None:
    assert set(nearest(name, known)) <= set(known) and len(nearest(name, known)) <= 2
    for name_known in known:
        assert nearest(name_known, known)[0] == nearest(name_known.upper(), known)[0] == name_known


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=30))
def test_a_value_is_shown_on_one_short_line(value: Any) -> None:
    assert "\n" not in shown(value) and len(shown(value)) <= 63
