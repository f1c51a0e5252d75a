"""Which package may import which, without circles; files and folders stay small; the benchmark names no method.

Imports for type checkers and inside functions count, too.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from benchmark.config.methods import known_methods
from benchmark.provenance import OWN, ROOT

# What each package may import of the others: one way down.
MAY_IMPORT = {
    "benchmark": set(),
    "lm": {"benchmark"},
    "r2ec": {"benchmark", "lm"},
    "baselines": {"benchmark", "lm", "r2ec"},
}

# Within r2ec: what a folder must not reach, not even by others.
TOOLS = ("r2ec.catalogue", "r2ec.speed", "r2ec.headroom", "r2ec.curves")
NEVER = {
    "r2ec.model": (*TOOLS, "r2ec.warm_start", "r2ec.scoring", "r2ec.training", "r2ec.recpo"),
    "r2ec.training": (*TOOLS, "r2ec.warm_start", "r2ec.scoring", "r2ec.recpo"),
    "r2ec.recpo": (*TOOLS, "r2ec.warm_start", "r2ec.scoring"),
    "r2ec.warm_start": (*TOOLS, "r2ec.recpo", "r2ec.scoring.recommender"),
}
SOURCES = {".py", ".smk"}


@cache
def modules() -> dict[str, Path]:
    """Every module of the project by name."""
    path_of = {}
    for package in OWN:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            path_of[name.removesuffix(".__init__")] = path
    return path_of


@cache
def imports_of(module: str) -> frozenset[str]:
    """The project's modules that a module imports, wherever in its text."""
    named = set()
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            named |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(named & modules().keys()) - {module}


def reached_from(module: str) -> set[str]:
    """All modules that it imports, directly or through others."""
    reached: set[str] = set()
    waiting = [module]
    while waiting:
        for other in imports_of(waiting.pop()):
            if other not in reached:
                reached.add(other)
                waiting.append(other)
    return reached


def test_the_graph_of_imports_has_known_edges() -> None:
    assert len(modules()) > 120
    assert "r2ec.scoring.reader" in imports_of("r2ec.scoring.recommender") and "benchmark.config.schema" in imports_of(
        "benchmark.config.read"
    )
    assert "baselines._recbole.learners" in imports_of("baselines.gru4rec")  # inside a function


@pytest.mark.parametrize("module", sorted(modules()))
def test_no_module_imports_itself_by_others(module: str) -> None:
    through = sorted(other for other in reached_from(module) if module in imports_of(other))
    assert module not in reached_from(module), f"{module} is imported by what it imports: {', '.join(through)}"


@pytest.mark.parametrize("module", sorted(modules()))
def test_a_package_imports_what_is_below_it(module: str) -> None:
    own = module.split(".")[0]
    packages = {other.split(".")[0] for other in imports_of(module)} - {own}
    assert packages <= MAY_IMPORT[own], f"{module} imports {', '.join(sorted(packages - MAY_IMPORT[own]))}"


@pytest.mark.parametrize(("inside", "never"), NEVER.items(), ids=NEVER)
def test_a_folder_never_reaches_what_builds_on_it(inside: str, never: tuple[str, ...]) -> None:
    own = [module for module in modules() if f"{module}.".startswith(f"{inside}.")]
    assert own and all(any(f"{other}.".startswith(f"{barred}.") for other in modules()) for barred in never)
    for module in own:
        forbidden = [
            other for other in reached_from(module) if any(f"{other}.".startswith(f"{barred}.") for barred in never)
        ]
        assert not forbidden, f"{module} reaches {', '.join(sorted(forbidden))}"


LONGEST_FILE, LONGEST_FUNCTION, LARGEST_FOLDER = 400, 60, 15  # lines, lines, and files beside __init__.py


def test_no_file_is_long() -> None:
    files = [path for package in (*OWN, "workflow") for path in (ROOT / package).rglob("*") if path.suffix in SOURCES]
    assert len(files) > 150
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {file: number for file, number in lines.items() if number > LONGEST_FILE} == {}


def test_no_function_is_long() -> None:
    """Neither in the packages nor in the tests."""
    long, functions = set(), 0
    for path in [*modules().values(), *(ROOT / "tests").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                functions += 1
                if (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION:
                    long.add(f"{path.relative_to(ROOT)}: {node.name}")
    assert functions > 1000 and long == set()


def test_the_first_line_of_every_module_says_what_it_is_for() -> None:
    """Its docstring begins with a sentence that ends on the same line."""
    first_lines = {}
    for path in [*modules().values(), *(ROOT / "tests").rglob("*.py")]:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        first_lines[str(path.relative_to(ROOT))] = docstring.splitlines()[0] if docstring else ""
    assert [file for file, line in first_lines.items() if not re.search(r"[.?]( |$)", line)] == []


def test_no_folder_is_large() -> None:
    """But baselines/, in which a file is a method."""
    folders = [ROOT / "workflow", *(ROOT / package for package in OWN)]
    folders += [path for folder in folders for path in folder.rglob("*") if path.is_dir()]
    files = {
        str(folder.relative_to(ROOT)): len([path for path in folder.glob("*.*") if path.name != "__init__.py"])
        for folder in folders
    }
    assert len(files) > 20
    assert {name: number for name, number in files.items() if number > LARGEST_FOLDER} == {
        "baselines": files["baselines"]
    }


# Files of the benchmark that may name R2ec: of the packages, of the paper's ablation, and of the page's reference.
NAME_R2EC = {"benchmark/provenance.py", "benchmark/analysis/gains.py"}


def test_the_benchmark_names_no_method() -> None:
    """What the benchmark has to know of a method, the method's file says; NAME_R2EC are the exceptions."""
    names = set(known_methods())
    assert len(names) > 15 and "r2ec" in names
    named = {}
    for path in (ROOT / "benchmark").rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        constants = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        packages = {constant.split(".")[0] for constant in constants} & set(OWN)  # named by a module of theirs
        if (constants | packages) & names:
            named[str(path.relative_to(ROOT))] = (constants | packages) & names
    commands = "benchmark/cli.py"  # of the project, r2ec.recommend among them
    assert named == {file: {"r2ec"} for file in (*NAME_R2EC, commands)}


def test_one_function_makes_every_markdown_table() -> None:
    """No other file joins cells or draws the line below a table's head: escaping and alignment are decided once."""
    making = set()
    for module, path in modules().items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {
            id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)
        }  # docstrings may show one
        texts = {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
        }
        if any(text.startswith("| ") or text in (" | ", " |") or "|--" in text or "| :--" in text for text in texts):
            making.add(module)
    assert making == {"benchmark.output.markdown"}


def test_no_rule_runs_code_of_its_own() -> None:
    """Snakemake compares only some lines of a `run:` block (findings/snakemake-run-block-changes.sh)."""
    files = [ROOT / "workflow" / "Snakefile", *(ROOT / "workflow" / "rules").glob("*.smk")]
    texts = {file.name: file.read_text(encoding="utf-8") for file in files}
    assert len(texts) > 5 and all("rule " in texts[name] for name in ("runs.smk", "data.smk"))
    assert [name for name, text in texts.items() if re.search(r"^\s+run:", text, flags=re.MULTILINE)] == []
