"""Which package may import which, and that no modules import each other in a circle, also for type checkers or in functions."""

import ast
from functools import cache
from pathlib import Path

import pytest

from benchmark.provenance import OWN, ROOT

# What each package may import of the others: one way down.
MAY_IMPORT = {
    "benchmark": set(),
    "lm": {"benchmark"},
    "r2ec": {"benchmark", "lm"},
    "baselines": {"benchmark", "lm", "r2ec"},
}

# Within a package: what the first must not reach, not even by others.
NEVER = [
    ("r2ec.model", ("r2ec.warm_start", "r2ec.catalogue", "r2ec.speed", "r2ec.recpo", "r2ec.scoring", "r2ec.training")),
    ("r2ec.recpo", ("r2ec.warm_start", "r2ec.catalogue", "r2ec.speed", "r2ec.scoring")),
    ("r2ec.training", ("r2ec.warm_start", "r2ec.catalogue", "r2ec.speed", "r2ec.scoring", "r2ec.recpo")),
    ("r2ec.warm_start", ("r2ec.recpo", "r2ec.scoring.recommender", "r2ec.catalogue", "r2ec.speed")),
]


@cache
def modules() -> dict[str, Path]:
    """Every module of the project by name."""
    found = {}
    for package in OWN:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


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
    """All modules that it imports, and those that these import."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        for other in imports_of(waiting.pop()):
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found


def test_the_graph_is_seen() -> None:
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
    others = {other.split(".")[0] for other in imports_of(module)} - {own}
    assert others <= MAY_IMPORT[own], f"{module} imports {', '.join(sorted(others - MAY_IMPORT[own]))}"


@pytest.mark.parametrize(("inside", "never"), NEVER, ids=[inside for inside, _ in NEVER])
def test_a_folder_never_reaches_what_builds_on_it(inside: str, never: tuple[str, ...]) -> None:
    own = [module for module in modules() if f"{module}.".startswith(f"{inside}.")]
    assert own and all(any(f"{other}.".startswith(f"{one}.") for other in modules()) for one in never)
    for module in own:
        found = [other for other in reached_from(module) if any(f"{other}.".startswith(f"{one}.") for one in never)]
        assert not found, f"{module} reaches {', '.join(sorted(found))}"
