"""Methods' files and params, and which file runs which method again."""

import ast
import copy
import functools
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import baselines
from benchmark.config import methods
from benchmark.config.methods import check_params, known_methods, load_method
from benchmark.config.overlay import flatten, overlaid
from benchmark.config.schema import MethodConfig
from benchmark.errors import InputError
from benchmark.jobs import code as code_of_jobs
from benchmark.jobs.code import method_files, source_files
from benchmark.provenance import ROOT


@functools.cache
def files_by_method() -> dict[str, list[str]]:
    return {name: method_files(name) for name in known_methods()}


RECBOLE = ["baselines/_recbole/dropout.py", "baselines/_recbole/settings.py", "baselines/_recbole/training.py"]


def test_every_file_without_underscore_is_a_method() -> None:
    files = {path.stem for path in (ROOT / "baselines").glob("*.py")}
    assert {name for name in known_methods() if name != "r2ec"} == {name for name in files if not name.startswith("_")}
    assert {"popularity", "item_knn", "gru4rec", "caser", "sasrec", "bert4rec"} <= set(known_methods())


@pytest.mark.parametrize("name", known_methods())
def test_editing_one_method_touches_no_other(name: str) -> None:
    own = "r2ec/method.py" if name == "r2ec" else f"baselines/{name}.py"
    files = files_by_method()
    assert [other for other in files if own in files[other]] == [name]


@pytest.mark.parametrize("name", ["gru4rec", "caser", "sasrec", "bert4rec"])
def test_the_shared_adapter_belongs_to_its_methods(name: str) -> None:
    # _recbole_training is imported inside a function, which counts as well.
    assert set(RECBOLE) < set(method_files(name))
    assert not set(RECBOLE) & set(method_files("popularity"))


def test_the_benchmark_knows_no_method() -> None:
    jobs = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "benchmark").rglob("*.py")]
    assert len(jobs) > 10
    assert not [file for file in source_files(*jobs) if not file.startswith("benchmark/")]


def test_the_import_closure_of_made_up_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_of_jobs, "ROOT", tmp_path)
    sources = {
        "baselines/one.py": "import numpy\nfrom baselines._shared import thing\n",
        "baselines/_shared.py": "def thing():\n    import benchmark.deep.inner as inner\n    return inner\n",
        "benchmark/deep/__init__.py": "from benchmark import late\n",
        "benchmark/deep/inner.py": "from benchmark.deep import value\nfrom baselines import one\n",  # a ring
        "benchmark/late.py": "",
        "benchmark/other.py": "import baselines.one",
        "numpy.py": "import benchmark.other",  # not a package of the project
    }
    for name, text in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    expected = ["baselines/_shared.py", "baselines/one.py", "benchmark/deep/__init__.py", "benchmark/deep/inner.py"]
    assert source_files("baselines.one") == [*expected, "benchmark/late.py"]
    assert source_files("benchmark.late") == ["benchmark/late.py"]
    assert source_files("benchmark.missing", "numpy") == []


@pytest.mark.parametrize("job", ["benchmark.jobs.run", "baselines.sasrec", "benchmark.data.prepare"])
def test_no_file_that_python_loads_is_missing_from_the_closure(job: str) -> None:
    """The modules that a job imports at its start are those of Python itself, without empty files of packages."""
    code = (
        f"import sys, importlib; importlib.import_module({job!r});"
        "print(*(m.__file__ for n, m in list(sys.modules.items())"
        " if n.split('.')[0] in ('benchmark', 'lm', 'r2ec', 'baselines') and m.__file__), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {str(Path(line).relative_to(ROOT)) for line in done.stdout.split()}
    # A package's own file may be left out where there is nothing in it but a docstring.
    plain = {file for file in loaded if file.endswith("__init__.py")}
    plain = {file for file in plain if len(ast.parse((ROOT / file).read_text()).body) == 1}
    assert "benchmark/__init__.py" in plain and len(loaded - plain) > 3
    assert loaded - plain <= set(source_files(job))


def test_unknown_methods_are_one_sentence() -> None:
    for name in ("sasrek", "_recbole", "", "benchmark.jobs.run", "../x"):
        with pytest.raises(
            InputError, match=r"^config: no method '.*'(\.|; did you mean '[a-z0-9_]+'\?) Known: .*popularity.*sasrec"
        ) as caught:
            load_method(name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x = 1\ndef fit(:\n", r"SyntaxError: .* \(broken\.py, line 2\); mend it, or leave its rows out"),
        (
            "import nowhere_at_all\n",
            r".*/broken\.py:1: ModuleNotFoundError: No module named 'nowhere_at_all'; mend",
        ),
        ("\nraise SystemExit(3)\n", r".*/broken\.py:2: SystemExit: 3; mend it"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_sentence(
    code: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text(code)
    importlib.invalidate_caches()
    monkeypatch.setattr(baselines, "__path__", [*baselines.__path__, str(tmp_path)])
    monkeypatch.setattr(methods, "known_methods", lambda: ["broken"])
    with pytest.raises(InputError, match=rf"^method 'broken' can't be imported: {said}") as caught:
        load_method("broken")
    assert "\n" not in str(caught.value)


def test_what_a_library_raises_while_a_file_is_imported_names_the_files_line(monkeypatch: pytest.MonkeyPatch) -> None:
    code = compile("import json\nx = json.loads('{')\n", f"{ROOT}/baselines/broken.py", "exec")
    monkeypatch.setattr(methods, "known_methods", lambda: ["broken"])
    monkeypatch.setattr(methods.importlib, "import_module", lambda name: exec(code, {}))
    with pytest.raises(InputError, match=r"can't be imported: baselines/broken\.py:2: JSONDecodeError: Expecting"):
        load_method("broken")


def test_a_file_without_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = type(sys)("baselines.empty")
    empty.__file__ = "baselines/empty.py"
    monkeypatch.setitem(sys.modules, "baselines.empty", empty)
    monkeypatch.setattr(methods, "known_methods", lambda: ["empty"])
    with pytest.raises(InputError, match=r"^baselines/empty.py: defines no fit\(split, \*, seed, params, workdir\)"):
        load_method("empty")


@pytest.mark.parametrize(
    ("fit", "said"),
    [
        (
            lambda split, seed, params: None,
            r"fit\(\) can't be called as fit\(split, .*: got an unexpected keyword .*'workdir'",
        ),
        (lambda: None, r"fit\(\) can't be called as fit\(split, .*: "),
        (lambda split, train, *, seed, params, workdir: None, r".*missing a required argument: 'train'"),
        (3, r"fit is int, expected the function fit\(split, \*, seed, params, workdir\)"),
    ],
)
def test_a_fit_that_no_run_can_call_is_refused_before_any(
    fit: object, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = type(sys)("baselines.odd")
    method.__file__, vars(method)["fit"] = "baselines/odd.py", fit
    monkeypatch.setitem(sys.modules, "baselines.odd", method)
    monkeypatch.setattr(methods, "known_methods", lambda: ["odd"])
    with pytest.raises(InputError, match=rf"^baselines/odd.py: {said}"):
        load_method("odd")
    for takes in (lambda split, seed, params, workdir: None, lambda split, **settings: None):
        vars(method)["fit"] = takes
        assert load_method("odd") is method


@pytest.mark.parametrize("name", [name for name in known_methods() if name != "r2ec"])
def test_every_baseline_refuses_unknown_and_takes_default_params(name: str) -> None:
    method = load_method(name)
    needed = {"backbone": {"name": "somewhere"}} if "backbone" in method.Params.model_fields else {}
    check_params(method, needed, "here")
    with pytest.raises(InputError, match=r"^here: unknown setting 'learning_rat'"):
        check_params(method, needed | {"learning_rat": 1}, "here")


def test_params_of_a_method_without_settings_are_refused() -> None:
    method = ModuleType("baselines.odd")
    method.__file__ = "baselines/odd.py"
    check_params(method, {}, "here")
    with pytest.raises(InputError, match=r"^here: setting 'decay', but baselines/odd.py declares no settings; give it"):
        check_params(method, {"decay": 0.5}, "here")


def test_equal_settings_of_a_grid_are_refused() -> None:
    """Each counts as one that was tried."""
    MethodConfig(params={"a": 1}, grid=[{"a": 1}, {"a": 2}])
    for grid in ([{"a": 2}, {"a": 3}, {"a": 2}], [{}, {"b": 1}, {"a": 1}]):
        with pytest.raises(ValidationError, match="settings 1 and 3 of the grid are equal; leave one out"):
            MethodConfig(params={"a": 1}, grid=grid)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("popularity", {"half_life_days": 0}, r"half_life_days: expected more than 0, found 0"),
        ("item_knn", {"neighbours": 1.5}, r"neighbours: expected a whole number, found 1.5"),
        ("item_knn", {"decay": 2}, r"decay: expected at most 1, found 2"),
        ("sasrec", {"epochs": 0}, r"epochs: expected at least 1, found 0"),
        ("d3", {"backbone": {"name": "x"}, "alpha": 0}, r"alpha: expected more than 0, found 0"),
        (
            "d3",
            {"backbone": {"name": "x"}, "beams": 0},
            r"beams: expected at least 1, found 0",
        ),
        (
            "kar",
            {"backbone": {"name": "x"}, "item_knowledge": "none"},
            r"item_knowledge: expected 'written' or 'attributes', found 'none'",
        ),
        (
            "kar",
            {"backbone": {"name": "x"}, "factors": "{x}"},
            r"factors: expected text without braces, found '\{x\}'",
        ),
        ("gru4rec", {"learning_rate": "fast"}, r"learning_rate: expected a number, found 'fast'"),
    ],
)
def test_wrong_params_name_the_value(name: str, params: dict, message: str) -> None:
    with pytest.raises(InputError, match=f"^here: {message}"):
        check_params(load_method(name), params, "here")


@pytest.mark.parametrize(
    ("params", "trial", "expected"),
    [
        ({}, {}, {}),
        ({"a": 1, "b": 2}, {"b": 3}, {"a": 1, "b": 3}),
        ({"s": {"a": 1, "b": 2}}, {"s": {"b": 3}}, {"s": {"a": 1, "b": 3}}),
        ({"s": {"t": {"a": 1}, "b": 2}}, {"s": {"t": {"c": 3}}}, {"s": {"t": {"a": 1, "c": 3}, "b": 2}}),
        ({"s": {"a": 1}}, {"s": None}, {"s": None}),  # not two sections: the trial's value stands
        ({"s": None}, {"s": {"a": 1}}, {"s": {"a": 1}}),
        ({"s": [1, 2]}, {"s": [3]}, {"s": [3]}),  # a list is one value
        ({"s": {"a": 1}}, {"s": {}}, {"s": {"a": 1}}),
    ],
)
def test_a_trial_laid_over_params(params: dict[str, Any], trial: dict[str, Any], expected: dict[str, Any]) -> None:
    before = copy.deepcopy((params, trial))
    assert overlaid(params, trial) == expected
    assert (params, trial) == before


LEAVES = st.none() | st.integers() | st.lists(st.integers(), max_size=2)
SETTINGS = st.recursive(
    st.dictionaries(st.sampled_from("abcd"), LEAVES, min_size=1, max_size=4),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), LEAVES | inner, min_size=1, max_size=4),
    max_leaves=12,
)


@given(SETTINGS, SETTINGS)
def test_what_a_trial_does_not_name_keeps_its_value(params: dict[str, Any], trial: dict[str, Any]) -> None:
    whole, named, before = flatten(overlaid(params, trial)), flatten(trial), flatten(params)
    assert named.items() <= whole.items()
    # A value of params stays, unless the trial names it, a section around it or a setting inside of it.
    shared = {path: value for path, value in before.items() if not any(related(path, other) for other in named)}
    assert shared.items() <= whole.items()
    assert set(whole) <= set(named) | set(before)
    assert overlaid(overlaid(params, trial), trial) == overlaid(params, trial)


def related(path: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether one of two paths begins with the other."""
    shorter = min(len(path), len(other))
    return path[:shorter] == other[:shorter]
