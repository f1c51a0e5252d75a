"""Finding a method's module and the files it is made of. The file name is the method's name; there is no registry."""

import ast
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from benchmark.config.wording import among
from benchmark.errors import InputError, checked
from benchmark.provenance import OWN, ROOT

# The models that lm/backbone.py and baselines/_writers/sentences.py fetch.
BACKBONE, ENCODER = "resources/smollm2-135m-instruct", "resources/all-minilm-l6-v2"
EMBEDDED = {Path(BACKBONE), Path(ENCODER)}

Kind = Literal["baseline", "reference"]
KINDS = ("baseline", "reference")


def known_methods() -> list[str]:
    """Names of all methods: the files of baselines/ without a leading underscore, and r2ec."""
    names = [path.stem for path in (ROOT / "baselines").glob("[!_]*.py")]
    return sorted(names + ["r2ec"] * (ROOT / "r2ec" / "method.py").exists())


def module_name(method: str) -> str:
    """The module of a method, as Python imports it."""
    return "r2ec.method" if method == "r2ec" else f"baselines.{method}"


def load_method(module: str, where: str = "config") -> ModuleType:
    """Import a method's module. Raises InputError for an unknown name or a file without fit()."""
    known = known_methods()
    if module not in known:
        raise InputError(f"{where}: no method {module!r}{among(module, known)}")
    loaded = importlib.import_module(module_name(module))
    if "fit" not in vars(loaded):
        raise InputError(f"{loaded.__file__}: defines no fit(split, *, seed, params, workdir); see README.md")
    return loaded


def check_params(method: ModuleType, params: dict[str, Any], where: str) -> None:
    """Check a method's parameters by its own model `Params`, if it defines one. Raises InputError."""
    if "Params" in vars(method):
        checked(method.Params, params, where)


def trains_in_processes(method: ModuleType) -> bool:
    """Whether fit() may be called by several processes together, which says `SEVERAL_PROCESSES = True` in the file."""
    return bool(vars(method).get("SEVERAL_PROCESSES", False))


def kind_of(method: ModuleType) -> Kind:
    """Whether a method is a baseline, or one that baselines are held against, which says `KIND = "reference"` in its file.

    Raises InputError for another word.
    """
    kind = vars(method).get("KIND", "baseline")
    if kind not in KINDS:
        raise InputError(f"{method.__file__}: KIND is {kind!r}; say {' or '.join(map(repr, KINDS))}")
    return kind


def all_params(method: ModuleType, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters with the method's defaults filled in, as JSON values."""
    if "Params" in vars(method):
        filled: dict[str, Any] = method.Params.model_validate(params).model_dump(mode="json")
        return filled
    return params


def for_fitting(method: ModuleType, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters without those that the method names in `SCORING`: only its scoring reads them."""
    scoring = vars(method).get("SCORING", ())
    return {name: value for name, value in params.items() if name not in scoring}


def laid_over(params: dict[str, Any], trial: dict[str, Any]) -> dict[str, Any]:
    """One setting of a grid over a method's params: what the trial doesn't name stays, also inside sections.

    >>> laid_over({"lora": {"r": 4, "alpha": 8}, "epochs": 2}, {"lora": {"r": 16}})
    {'lora': {'r': 16, 'alpha': 8}, 'epochs': 2}
    """
    whole = dict(params)
    for key, value in trial.items():
        before = whole.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            value = laid_over(before, value)
        whole[key] = value
    return whole


def model_files(params: dict[str, Any]) -> list[Path]:
    """The files of the user's own models that a method's settings name: in the folders `backbone.name` and `encoder`, sorted.

    None of the models that the project's own code fetches by a pinned checksum, nor of one of the hub, whose revision is in
    the settings.
    """
    backbone = params.get("backbone")
    named = [backbone.get("name") if isinstance(backbone, dict) else None, params.get("encoder")]
    folders = [Path(name) for name in named if isinstance(name, str)]
    own = [folder for folder in folders if folder.is_dir() and folder not in EMBEDDED]
    return sorted(path for folder in own for path in folder.rglob("*") if path.is_file())


def source_files(*modules: str) -> list[str]:
    """The files of these modules and of every module of this project that they import, relative to the root, sorted.

    What a job depends on: editing one of these files, and no other, has to run the job again.
    """
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = _file_of(name)
        if path is None or name in found:
            continue
        found[name] = path
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return sorted(str(path.relative_to(ROOT)) for path in found.values())


def method_files(module: str) -> list[str]:
    """The files that one method is made of."""
    return source_files(module_name(module))


def _file_of(module: str) -> Path | None:
    """The file of a module of this project; None for a package's attribute or another project's module."""
    if module.split(".")[0] not in OWN:
        return None
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None
