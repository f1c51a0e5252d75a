"""The files that a job is made of, and their hash: no comment and no docstring counts."""

import ast
from functools import cache
from pathlib import Path

from benchmark.config.methods import module_name
from benchmark.provenance import OWN, ROOT
from benchmark.storage.io import sha256_of_json


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


@cache
def _code_of(path: Path) -> str:
    """Code without comments and docstrings as a text; another file, such as a template, as it is."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            node.body = node.body[1:]
    return ast.dump(tree)


@cache
def code_hash(files: tuple[str, ...]) -> str:
    """sha256 over these files of the project: an edited comment or docstring changes nothing, any other edit does."""
    return sha256_of_json([[file, _code_of(ROOT / file)] for file in files])


def _file_of(module: str) -> Path | None:
    """The file of a module of this project; None for a package's attribute or another project's module."""
    if module.split(".")[0] not in OWN:
        return None
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None
