"""Find a method's module, and read what it declares. The file name is the method's name; there is no registry."""

import importlib
import inspect
import math
import os
import traceback
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from benchmark.config.wording import among
from benchmark.errors import InputError, checked, denied
from benchmark.provenance import OWN, ROOT
from benchmark.shipped import settings_file

# The models that lm/backbone.py and baselines/_writers/sentences.py fetch.
BACKBONE, ENCODER = "resources/smollm2-135m-instruct", "resources/all-minilm-l6-v2"
EMBEDDED = {Path(BACKBONE), Path(ENCODER)}

FIT = "fit(split, *, seed, params, workdir)"
Kind = Literal["baseline", "reference"]
KINDS = ("baseline", "reference")
# What a method computes of a user before it recommends, beyond reading the history.
THINKING = ("nothing", "latent, in a model of items", "latent, in the language model", "written")


def known_methods() -> list[str]:
    """Names of all methods: files of baselines/ without a leading underscore, and packages with a file method.py."""
    files = [path.stem for path in (ROOT / "baselines").glob("[!_]*.py")]
    return sorted(files + [package for package in OWN if _is_method(package)])


@cache
def _listed() -> frozenset[str]:  # once: the workflow asks for a method some hundred times
    return frozenset(known_methods())


def module_name(method: str) -> str:
    """The module of a method, as Python imports it."""
    return f"{method}.method" if _is_method(method) else f"baselines.{method}"


def _is_method(package: str) -> bool:
    return package in OWN and (ROOT / package / "method.py").exists()


def load_method(module: str, where: str = "config") -> ModuleType:
    """Import a method's module. Raises InputError for an unknown name, and a file without fit() or one that fails."""
    if module not in _listed() and module not in (known := known_methods()):
        raise InputError(f"{where}: no method {module!r}{among(module, known)}")
    try:
        loaded = importlib.import_module(module_name(module))
    except (Exception, SystemExit) as error:  # whoever adds a method may write anything
        if isinstance(error, OSError) and denied(error):  # `benchmark.sandbox.explain` says what a run may write
            raise
        frames = frames_of(error)
        place = authors_line(frames) or f"{frames[-1][0]}:{frames[-1][1]}"
        at = "" if isinstance(error, SyntaxError) else f"{place}: "
        said = f"{at}{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError(f"method {module!r} can't be imported: {said}; mend it, or leave its rows out") from error
    if "fit" not in vars(loaded):
        raise InputError(f"{loaded.__file__}: defines no {FIT}; see README.md")
    _check_fit(loaded)
    return loaded


def frames_of(error: BaseException) -> list[tuple[str, int]]:
    """File and line of each frame that an exception went through, the outermost first."""
    return [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]


def authors_line(frames: Iterable[tuple[str, int]]) -> str | None:
    """The innermost of these frames (file and line, the outermost first) that lies in baselines/; None where none does.

    A library may have raised the error deep within itself: this is the line of the method that led there.

    >>> authors_line([("run.py", 7), (f"{ROOT}/baselines/mine.py", 42), ("/lib/numpy/core.py", 3)])
    'baselines/mine.py:42'
    """
    for file, line in reversed(list(frames)):
        path = Path(os.path.realpath(file))
        if path.is_relative_to(ROOT / "baselines"):
            return f"{path.relative_to(ROOT)}:{line}"
    return None


@cache
def _check_fit(method: ModuleType) -> None:
    """Raise InputError for a fit() that can't be called as runs call it; else they would say so one by one."""
    if not callable(method.fit):
        raise InputError(f"{method.__file__}: fit is {type(method.fit).__name__}, expected the function {FIT}")
    try:
        inspect.signature(method.fit).bind(None, seed=0, params={}, workdir=None)
    except TypeError as error:
        raise InputError(f"{method.__file__}: fit() can't be called as {FIT}: {error}; see README.md") from None


def check_params(method: ModuleType, params: dict[str, Any], where: str) -> None:
    """Check a method's parameters by its own model `Params`; without one it has none.

    Raises InputError, also for what JSON can't hold, in which a job gets them: .inf, .nan, dates, sets.
    """
    _check_plain(params, where)
    if "Params" in vars(method):
        checked(method.Params, params, where)
    elif params:
        raise InputError(
            f"{where}: setting {next(iter(params))!r}, but {method.__file__} declares no settings; give it a pydantic "
            "model `Params` that names them, or leave them out"
        )


def _check_plain(value: Any, place: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{place}: expected a finite number, found {value}")
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(value, dict) and not isinstance(key, str):
                raise InputError(f"{place}: expected text as a setting's name, found {key!r}; put it in quotes")
            _check_plain(inner, f"{place}.{key}")
    elif not isinstance(value, str | int | float | None):
        raise InputError(f"{place}: expected text, a number, a list or settings by name, found {value}; quote a date")


def trains_in_processes(method: ModuleType) -> bool:
    """Whether several processes may call fit() together: the method's file then says `SEVERAL_PROCESSES = True`."""
    return bool(vars(method).get("SEVERAL_PROCESSES", False))


def kind_of(method: ModuleType) -> Kind:
    """Whether a method is a baseline, or a reference, which baselines are compared with.

    A reference says `KIND = "reference"` in its file. Raises InputError for another word.
    """
    kind = vars(method).get("KIND", "baseline")
    if kind not in KINDS:
        raise InputError(f"{method.__file__}: KIND is {kind!r}; say {' or '.join(map(repr, KINDS))}")
    return kind


def thinking_of(method: ModuleType, params: dict[str, Any]) -> str:
    """What a method with these settings computes before it recommends, one of THINKING: `thinking(params)` in its file,
    which gets all params, or "nothing" where the file doesn't say.

    Raises InputError for another word.
    """
    declaration = vars(method).get("thinking")
    kind = "nothing" if declaration is None else declaration(all_params(method, params))
    if kind not in THINKING:
        expected = ", ".join(map(repr, THINKING))
        raise InputError(f"{method.__file__}: thinking() gave {kind!r}; expected one of {expected}")
    return str(kind)


def all_params(method: ModuleType, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters with the method's defaults filled in, as JSON values."""
    if "Params" in vars(method):
        filled: dict[str, Any] = method.Params.model_validate(params).model_dump(mode="json")
        return filled
    return params


def stream_of(method: ModuleType, row: str) -> str:
    """The name from which a row's seeds are derived: the row's own, or the one in its method's `STREAM`.

    Rows of one stream have one seed in each repetition, so that they begin from the same random numbers.
    """
    return str(vars(method).get("STREAM", row))


def for_fitting(method: ModuleType, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters without those that the method names in `SCORING`: only its scoring reads them."""
    scoring = vars(method).get("SCORING", ())
    return {name: value for name, value in params.items() if name not in scoring}


def named_files(params: dict[str, Any]) -> list[Path]:
    """The user's files that a method's settings name and whose contents a fit depends on, sorted.

    All files of models in `backbone.name` and `encoder`, and those of `training.deepspeed` and `training.fsdp`. The
    latter are named from the current folder, so that a shipped one has the same name on another machine. Models that
    the project's own code fetches are left out, as their checksum is pinned; so are models of the hub, as the settings
    hold their revision.
    """
    backbone, training = params.get("backbone"), params.get("training")
    named = [backbone.get("name") if isinstance(backbone, dict) else None, params.get("encoder")]
    folders = [Path(name) for name in named if isinstance(name, str)]
    own = [folder for folder in folders if folder.is_dir() and folder not in EMBEDDED]
    named = [training.get(engine) for engine in ("deepspeed", "fsdp")] if isinstance(training, dict) else []
    engines = [file for name in named if isinstance(name, str) and (file := settings_file(name)) is not None]
    files = {path for folder in own for path in _files_below(folder)}
    return sorted(files | {Path(os.path.relpath(file)) for file in engines})


def _files_below(folder: Path) -> list[Path]:
    """All files below a folder, also those that links to folders lead to; a link that leads back is left alone."""
    found, seen = [], set[str]()
    for place, folders, files in os.walk(folder, followlinks=True):
        folders.sort()  # of two names of one folder the same one counts everywhere
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [path for name in files if (path := Path(place, name)).is_file()]
    return found
