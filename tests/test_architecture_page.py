"""docs/architecture.md against the code: the packages of its picture, the folders and the functions that it names."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

from benchmark.provenance import OWN, ROOT
from tests.test_architecture import imports_of, modules, reached_from

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
LONGEST = 120
NAMED = re.findall(r"`([\w/]+\.py)(?::(\w+))?`", PAGE)


def names_in(path: Path) -> set[str]:
    """Functions, classes and methods of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_it_is_short() -> None:
    assert len(PAGE.splitlines()) <= LONGEST


def test_the_picture_is_the_packages_as_they_import() -> None:
    arrows = set(re.findall(r"^\s*(\w+)(?:\[.*?\])? --> (\w+)", PAGE, flags=re.M))
    assert {name for arrow in arrows for name in arrow} == {*OWN, "workflow"}
    imported = {(module.split(".")[0], other.split(".")[0]) for module in modules() for other in imports_of(module)}
    direct = {(package, other) for package, other in imported if package != other}
    # One chain: each package imports the next one; arrows that follow from others are left out of the picture.
    chain = ["baselines", "r2ec", "lm", "benchmark"]
    assert direct >= set(pairwise(chain))
    assert all(chain.index(package) < chain.index(other) for package, other in direct)
    assert arrows == {*pairwise(chain), ("workflow", "benchmark")}


def test_every_folder_of_code_is_in_the_table() -> None:
    folders = {f"{path.parent.relative_to(ROOT)}/" for path in modules().values()}
    top = {folder for folder in folders if folder.count("/") == 1 or folder.startswith("benchmark/")}
    rows = dict(re.findall(r"^\| `([\w/]+)` \| (.+) \|$", PAGE, flags=re.M))
    missing = {folder for folder in top if folder not in rows and folder != "benchmark/output/page/"}
    assert not missing
    for folder in folders - top - {"benchmark/output/page/"}:  # named in the row of its package
        package, inner = folder.rstrip("/").split("/", 1)
        assert f"`{inner}/`" in rows[f"{package}/"], folder
    assert all((ROOT / folder).is_dir() for folder in rows)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_file_and_function_that_it_names_is_there(file: str, name: str) -> None:
    assert (ROOT / file).is_file()
    assert not name or name in names_in(ROOT / file)


def test_the_way_of_a_case_is_the_way_of_the_jobs() -> None:
    """Each job of a run reaches the functions that the page says it calls."""
    for job, reached in {
        "benchmark.data.prepare": "benchmark.data.protocol",
        "benchmark.jobs.run": "benchmark.evaluate",
        "benchmark.statistics.datasets": "benchmark.analysis.collect",
        "benchmark.output.tables": "benchmark.statistics.files",
        "r2ec.fit": "r2ec.recpo.trainer",
        "r2ec.recpo.trainer": "r2ec.recpo.reward",
    }.items():
        assert reached in reached_from(job), f"{job} doesn't reach {reached}"
