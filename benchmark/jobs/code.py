"""Find the files that a job's numbers come from, and hash their code or the versions that they declare.

A method that declares a stage, `FIT = Stage(name, version, packages=...)`, has golden values (tests/test_golden.py):
whoever changes one of its numbers raises the version, or that of the stage which makes it. So its runs are kept while
code is moved and rewritten. Any other method's runs, and cheap results such as tables, are made anew after an edit of
their code. Comments and docstrings don't count.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmark.config.methods import module_name
from benchmark.provenance import OWN, ROOT
from benchmark.storage.io import sha256_of_json
from benchmark.storage.stages import LM_PACKAGES, version_of

# Comments that begin a line, with the line's end, by the ending of a file that is no Python.
COMMENTS = {
    ".js": re.compile(r"^[ \t]*//.*\n?", re.MULTILINE),
    ".css": re.compile(r"^[ \t]*/\*.*?\*/[ \t]*\n?", re.MULTILINE | re.DOTALL),
    ".jinja": re.compile(r"^[ \t]*\{#.*?#\}[ \t]*\n?", re.MULTILINE | re.DOTALL),
}
RUN = ("benchmark.jobs.run", "benchmark.jobs.launch")  # the modules that fit every method and rank its test cases


def source_files(*modules: str) -> list[str]:
    """The files of these modules and of every module of this project that they import, relative to the root, sorted.

    A job of these modules depends on these files and on no others.
    """
    path_of: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = _file_of(name)
        if path is None or name in path_of:
            continue
        path_of[name] = path
        waiting += _imported_by(path)
    return sorted(str(path.relative_to(ROOT)) for path in path_of.values())


# Files are read once: no process outlives an edit.
@cache
def _imported_by(path: Path) -> list[str]:
    """The modules that a file may import, wherever in its text, and the names in them, which may be modules as well."""
    names = []
    for node in _statements(_tree_of(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(path, node)
            names += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
    return names


def _origin(path: Path, node: ast.ImportFrom) -> str:
    """What stands between `from` and `import` in a file, with the package in the place of leading dots."""
    if node.level == 0:
        return node.module or ""
    package = path.relative_to(ROOT).parent.parts
    return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])


@cache
def _tree_of(path: Path) -> ast.Module:
    """A file of Python, parsed, without its docstrings: nothing here reads them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in _statements(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            node.body = node.body[1:]
    return tree


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """A file and every statement in it, also within others: a small part of what ast.walk sees, which each start of
    the workflow waits for."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(node, field, None)
            if isinstance(inner, list):  # of a lambda it is an expression
                waiting += inner


def method_files(module: str) -> list[str]:
    """The files that one method is made of."""
    return source_files(module_name(module))


@cache
def _code_of(path: Path) -> str:
    """The code of a file as text, without comments and docstrings.

    Of a script, style or template of the page, only comments that begin a line are left out; of any other file, none.
    """
    if path.suffix != ".py":
        text = path.read_text(encoding="utf-8")
        return COMMENTS[path.suffix].sub("", text) if path.suffix in COMMENTS else text
    return ast.dump(_tree_of(path))


def code_hash(files: tuple[str, ...]) -> str:
    """sha256 over these files of the project: an edited comment or docstring changes nothing, any other edit does."""
    return sha256_of_json([[file, _code_of(ROOT / file)] for file in files])


def _file_of(module: str) -> Path | None:
    """The file of a module of this project; None for a package's attribute or another project's module."""
    return _file_below(ROOT, module)


@cache  # most names are asked for by every method
def _file_below(root: Path, module: str) -> Path | None:
    if module.split(".")[0] not in OWN:
        return None
    path = root.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@dataclass(frozen=True)
class Declared:
    """A stage as its file declares it, read without importing the file, which may import torch."""

    name: str
    version: int
    packages: tuple[str, ...]


@cache
def stages_in(path: Path) -> tuple[Declared, ...]:
    """The stages that a file declares: its assignments `NAME = Stage(name, version, ...)`.

    Raises ValueError unless name, version and packages stand there as they are, in the file's outermost level.
    """
    stages = []
    for node in _tree_of(path).body:
        call = node.value if isinstance(node, ast.Assign) else None
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Stage":
            named = {keyword.arg: keyword.value for keyword in call.keywords}
            try:
                name, version = (ast.literal_eval(argument) for argument in call.args)
                packages = ast.literal_eval(named["packages"]) if "packages" in named else LM_PACKAGES
            except ValueError:
                where = f"{path}: line {node.lineno}"
                raise ValueError(
                    f"{where}: write name, version and packages of a stage as constants, first two by place"
                ) from None
            stages.append(Declared(name, version, tuple(packages)))
    return tuple(stages)


def versions_in(files: Iterable[str]) -> dict[str, Any]:
    """The versions of the stages that these files declare, and of the packages that these name, as installed."""
    stages = {stage.name: stage.version for file in files for stage in stages_in(ROOT / file)}
    packages = {package for file in files for stage in stages_in(ROOT / file) for package in stage.packages}
    return {
        "stages": dict(sorted(stages.items())),
        "packages": {package: version_of(package) for package in sorted(packages)},
    }


def code_files(module: str) -> tuple[str, ...]:
    """The files that a method's runs depend on: the method's own, and those that fit and rank every method."""
    return tuple(sorted({*source_files(*RUN), *method_files(module)}))


@cache
def made_by(module: str) -> str:
    """The sha256 of the versions that a method declares, or of its code, where it declares none."""
    files = code_files(module)
    return sha256_of_json(versions_in(files)) if _declares(module) else code_hash(files)


def declared_stages(module: str) -> dict[str, int]:
    """The declared versions that a method's runs come from, by stage; empty for a method that declares none."""
    stages: dict[str, int] = versions_in(code_files(module))["stages"] if _declares(module) else {}
    return stages


def _declares(module: str) -> bool:
    own = _file_of(module_name(module))
    return own is not None and bool(stages_in(own))
