"""Hashes of jobs' code: comments and docstrings don't count, and a declared version counts for all that follows."""

import ast
import importlib.metadata
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark.config.factors import ablations_of
from benchmark.config.methods import known_methods, load_method
from benchmark.config.read import read_config_file
from benchmark.jobs import code, plan
from benchmark.jobs.code import code_files, code_hash, made_by, method_files, versions_in
from benchmark.jobs.outputs import Outputs
from benchmark.jobs.plan import Plan
from benchmark.provenance import OWN, ROOT
from tests.test_golden import METHODS

# Methods with an LM, and those of them that write texts for another recommender or titles.
LM = {name for name in METHODS if "backbone" in load_method(name).Params.model_fields}
WRITERS = LM - {"llm_rerank", "frozen_llm", "r2ec"}
TRL = WRITERS - {"kar", "profile_retrieval"}


def forget() -> None:
    """Empty the caches, so that files are read again."""
    for cached in (code._code_of, code._tree_of, code._imported_by, code.stages_in, code.made_by, plan.files_of):
        cached.cache_clear()


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the project's packages, in which jobs are now looked for."""
    for package in OWN:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "ROOT", tmp_path)
    forget()
    yield tmp_path
    forget()


def edit(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert text.count(before) == 1, (file, before)
    file.write_text(text.replace(before, after))
    forget()


def written_code() -> dict[str, str]:
    """The hash of each method's runs, by its name."""
    return {name: made_by(name) for name in known_methods()}


def changed(before: dict[str, str]) -> set[str]:
    """The methods whose runs have another hash than before."""
    return {name for name, of in written_code().items() if of != before[name]}


def jobs(name: str) -> dict[str, str]:
    """The code of every job of a config."""
    config = read_config_file(ROOT / "config" / name)
    ablations = ablations_of(config)
    whole = Plan(config, ablations, {dataset: [] for dataset in config.datasets})
    all_jobs = [whole.run(*run) for run in [*whole.runs, *whole.runs_of(*ablations.factors)]]
    after = Outputs(whole)
    of_dataset = (whole.fetch, whole.prepare, after.statistics, after.table, after.plots)
    all_jobs += [part(dataset) for part in of_dataset for dataset in config.datasets]
    of_factor = (after.factor_statistics, after.ablation, after.ablation_plot)
    all_jobs += [part(factor) for part in of_factor for factor in ablations.factors]
    all_jobs += [after.overall_statistics(), after.against_statistics(), after.claims_statistics()]
    all_jobs += [after.tables(), after.against(), after.page(), after.claims()]
    return {job.name: job.code for job in all_jobs}


def data_jobs() -> dict[str, str]:
    """The code of the jobs that fetch and prepare the data of a config."""
    return {name: of for name, of in jobs("config.yaml").items() if name.split("/")[0] in ("fetch", "prepare")}


def test_a_comment_changes_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "ROOT", tmp_path)

    def hashed(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        code._tree_of.cache_clear()
        code._code_of.cache_clear()
        return code_hash((name,))

    plain = hashed("a.py", "def f(x):\n    return x + 1\n")
    same = '"""A module."""\n# why\ndef f(x):\n    """Add."""\n\n    return (x + 1)  # one\n'
    assert hashed("a.py", same) == plain
    assert hashed("a.py", same.replace("1)", "2)")) != plain
    assert hashed("a.jinja", "x") != hashed("b.jinja", "x")


@pytest.mark.parametrize(
    ("ending", "plain", "commented", "other"),
    [
        ("js", "f();\ng();\n", "// why\nf();\n  // and\ng();\n", "f(); // no line of its own\ng();\n"),
        ("css", "a {}\n", "/* of\n links */\na {}\n", "b {}\n"),
        ("jinja", "<p>{{ x }}</p>\n", "{# said #}\n<p>{{ x }}</p>\n{# in\ntwo #}\n", "<p>{{ y }}</p>\n"),
        ("csv", "a\n", "a\n", "// a\na\n"),
    ],
)
def test_a_comment_on_its_own_line_of_the_page_changes_no_code(
    ending: str, plain: str, commented: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "ROOT", tmp_path)

    def hashed(text: str) -> str:
        (tmp_path / f"a.{ending}").write_text(text)
        code._code_of.cache_clear()
        return code_hash((f"a.{ending}",))

    assert hashed(commented) == hashed(plain) != hashed(other)


@pytest.mark.parametrize("name", ["config.yaml", "ablations.yaml"])
def test_a_comment_and_a_docstring_in_every_file_make_no_job_run(name: str, copy: Path) -> None:
    before = jobs(name)
    edited = 0
    for file in copy.rglob("*.py"):
        text = file.read_text()
        edited += text.count('"""') // 2
        text = re.sub(r'^(\s*)"""(?=\S)', r'\1"""Edited. ', text, flags=re.M)
        file.write_text(f"# edited\n{text}\n# edited\n")
    for file in copy.rglob("assets/*.*"):
        comment = {".js": "// edited", ".css": "/* edited\nhere */", ".jinja": "{# edited #}"}[file.suffix]
        file.write_text(f"{comment}\n{file.read_text()}{comment}\n")
        edited += 1
    forget()
    assert edited > 1000 and len(before) > 80
    assert jobs(name) == before


@pytest.mark.parametrize(
    ("stage", "follow"),
    [
        ("writing", LM),
        ("encoding", {"frozen_llm", "llm_rerank", "r2ec"}),
        ("states", {"frozen_llm", "r2ec"}),
        ("warm start", {"r2ec"}),
        ("texts", WRITERS),
        ("kar", {"kar"}),
        ("r2ec", {"r2ec"}),
        ("ranking", set(METHODS)),
    ],
)
def test_a_raised_version_makes_what_follows_run_and_nothing_else(stage: str, follow: set[str], copy: Path) -> None:
    before, of_data = written_code(), data_jobs()
    declared = re.compile(rf'(Stage\(\s*"{stage}", )1\b')
    (file,) = [path for path in copy.rglob("*.py") if declared.search(path.read_text())]
    file.write_text(declared.sub(r"\g<1>2", file.read_text()))
    forget()
    assert changed(before) & METHODS.keys() == follow
    assert data_jobs() == of_data


def test_every_stage_is_seen_without_importing_its_file() -> None:
    names: list[str] = []
    for path in (path for package in OWN for path in (ROOT / package).rglob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        declared = [call for call in calls if ast.unparse(call.func).split(".")[-1] == "Stage"]
        in_file = [stage.name for stage in code.stages_in(path)]
        assert len(in_file) == len(declared), f"{path}: has a stage that isn't a plain NAME = Stage(...)"
        names += in_file
    assert len(names) == len(set(names)) and {"writing", "texts", "r2ec"} <= set(names)


@pytest.mark.parametrize(
    "text", ['A = Stage("a", N)', 'A = Stage("a", version=1)', 'A = Stage("a", 1, packages=(*MORE, "b"))']
)
def test_a_stage_that_has_to_be_run_to_be_known_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(f"# one\n{text}\n")
    with pytest.raises(ValueError, match=r"a\.py: line 2: write name, version and packages of a stage as constants"):
        code.stages_in(tmp_path / "a.py")


def test_an_edit_runs_what_declares_no_stage(copy: Path) -> None:
    before = written_code()
    file = copy / "lm" / "writing" / "engine.py"
    file.write_text(file.read_text() + "\nEDITED = 1\n")
    forget()
    assert not changed(before) & METHODS.keys()  # golden values say whether a number has moved
    edit(copy / "baselines" / "item_knn.py", 'FIT = Stage("item_knn", 1', 'NONE = print("item_knn", 1')
    before = written_code()
    file = copy / "baselines" / "item_knn.py"
    file.write_text(file.read_text() + "\nEDITED = 1\n")
    forget()
    assert changed(before) == {"item_knn"}


# What packages that compute are called in an import. Numpy is not among them: every method draws its orders with it,
# and only those name it that compute with nothing else.
COMPUTE = {name: name for name in ("accelerate", "bm25s", "peft", "recbole", "scipy", "torch", "transformers", "trl")}
COMPUTE |= {"faiss": "faiss-cpu", "sklearn": "scikit-learn"}
# Another backend writes by what it imports: vLLM, which the lock leaves out.
ANOTHER_BACKEND = "lm/writing/vllm.py"


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_stages_name_the_packages_that_it_computes_with(name: str) -> None:
    files = [file for file in method_files(name) if file != ANOTHER_BACKEND]
    imported = {module.split(".")[0] for file in files for module in code._imported_by(ROOT / file)}
    computes_with = {COMPUTE[module] for module in imported & COMPUTE.keys()}
    assert computes_with <= versions_in(code_files(name))["packages"].keys()


@pytest.mark.parametrize(
    ("package", "named_by"),
    [
        ("peft", LM),
        (
            "recbole",
            {"gru4rec", "caser", "sasrec", "bert4rec", "stock_recbole", "d3", "kar", "llm_rerank", "rearec", "llara"}
            | {"slim"},
        ),
        ("trl", TRL),
        ("scikit-learn", {"tiger"}),
        ("numpy", {"popularity", "item_knn", "ease", "markov"}),
        ("matplotlib", set()),
    ],
)
def test_an_upgrade_makes_the_stages_that_name_the_package_run(
    package: str, named_by: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made_by.cache_clear()  # which alone asks for versions
    before, installed = written_code(), importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99.0" if name == package else installed(name))
    made_by.cache_clear()
    assert changed(before) & METHODS.keys() == named_by
    made_by.cache_clear()


@pytest.mark.parametrize(
    "line",
    [
        "from . import _sign",
        "from ._sign import SIGN",
        "from baselines import _sign",
        "import baselines._sign",
        "from ._more.deep import SIGN",
    ],
)
def test_what_a_method_imports_is_its_code_however_it_is_written(copy: Path, line: str) -> None:
    (copy / "baselines/_more").mkdir()
    (copy / "baselines/_more/deep.py").write_text("from .._sign import SIGN\n")
    (copy / "baselines/_sign.py").write_text("SIGN = 1.0\n")
    (copy / "baselines/own.py").write_text(f"def fit(split, *, seed, params, workdir):\n    {line}\n")
    forget()
    assert "baselines/_sign.py" in method_files("own")
    before = code_hash(tuple(method_files("own")))
    edit(copy / "baselines/_sign.py", "1.0", "-1.0")
    assert code_hash(tuple(method_files("own"))) != before
