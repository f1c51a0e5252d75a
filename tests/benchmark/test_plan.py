"""The workflow's plan: options of a run's command line, which run goes first, what comes before every command."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmark.analysis.arguments import registered_files
from benchmark.config.methods import BACKBONE, named_files
from benchmark.config.read import read_config
from benchmark.errors import InputError
from benchmark.jobs.outputs import Outputs
from benchmark.jobs.plan import WORK, Plan, shell_prefix
from benchmark.jobs.stale import Job, record_command
from benchmark.provenance import REQUIRE_CLEAN, ROOT

GRID = [{"epochs": 1}, {"epochs": 2}]
OVERLAY = {"epochs": 7}


def plan(**changes: Any) -> Plan:
    """Two methods, one of them with a grid and an ablation, which has more seeds than the tables."""
    ablation = {"base": "sasrec", "values": {"short": {}, "long": OVERLAY}, "seeds": 3}
    value = {
        "datasets": {"toy": {"source": "ml_100k", "category": "movie"}},
        "methods": {"popularity": None, "sasrec": {"grid": GRID, "threads": 2}},
        "seeds": 2,
        "ablations": {"epochs": ablation},
    }
    return Plan.of(read_config(value | changes))


VARIANT = "sasrec--epochs=7"


def test_later_repetitions_and_variants_are_told_where_the_choice_is() -> None:
    full_plan = plan()
    option = "--tuned results/runs/toy/sasrec/seed1/run.json"
    assert list(full_plan.ablations.variants) == [VARIANT]
    assert full_plan.tuned_option("toy", "sasrec", 1) == "" and full_plan.tuned_option("toy", "sasrec", 2) == option
    assert full_plan.tuned_option("toy", VARIANT, 1) == option
    assert full_plan.tuned_option("toy", "popularity", 2) == ""  # no grid


def test_a_variant_is_told_its_overlay_and_whose_streams_it_takes() -> None:
    full_plan = plan()
    assert full_plan.variant_options("sasrec") == ""
    words = shlex.split(full_plan.variant_options(VARIANT))
    assert words[:3] == ["--stream", "sasrec", "--overlay"] and json.loads(words[3]) == OVERLAY and len(words) == 4


def test_wide_and_awaited_runs_go_first_and_what_ablations_add_last() -> None:
    full_plan = plan()
    # 2 * threads², a hundred times that for the tables' own; one more where others wait for the choice.
    assert full_plan.priority("popularity", 1, 59) == 200 and full_plan.priority("popularity", 2, 0) == 200
    assert full_plan.priority("sasrec", 1, 0) == 900 and full_plan.priority("sasrec", 2, 0) == 800
    assert full_plan.priority("sasrec", 3, 0) == full_plan.priority(VARIANT, 1, 0) == 8
    # A minute counts as much as half the square of a core; beyond 400 all are alike.
    assert full_plan.priority("popularity", 1, 185) == 500 and full_plan.priority(VARIANT, 1, 600) == 18
    assert full_plan.priority("popularity", 1, 1e6) == 40_200 == full_plan.priority("popularity", 1, 24_000)


def test_a_backbone_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    def with_backbone(name: str, **more: str) -> Plan:
        params = {"backbone": {"name": name} | more}
        return plan(methods={"frozen_llm": {"params": params}}, ablations={})

    nowhere = str(tmp_path / "lm")
    message = rf"^config: methods.frozen_llm: backbone '{nowhere}': no such folder; to take it from the hub, set"
    with pytest.raises(InputError, match=message):
        with_backbone(nowhere)
    with pytest.raises(
        InputError, match=r"^config: .*: backbone '~/lm': no such folder; write the whole path in the place of ~$"
    ):
        with_backbone("~/lm")
    assert with_backbone(nowhere, revision="abc").embedded("frozen_llm") == []
    (tmp_path / "lm").mkdir()
    assert with_backbone(nowhere).embedded("frozen_llm") == []
    embedded = with_backbone("resources/smollm2-135m-instruct").embedded("frozen_llm")
    assert embedded == ["resources/smollm2-135m-instruct/manifest.json"]


def test_a_sentence_encoder_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    def with_encoder(name: str) -> Plan:
        return plan(methods={"tiger": {"params": {"encoder": name}}}, ablations={})

    for name, advice in ((str(tmp_path / "minilm"), "give one that is there"), ("~/minilm", "write the whole path")):
        with pytest.raises(InputError, match=rf"^config: methods.tiger: encoder '{name}': no such folder; {advice}"):
            with_encoder(name)
    (tmp_path / "minilm").mkdir()
    assert with_encoder(str(tmp_path / "minilm")).embedded("tiger") == []


def test_a_method_that_reads_no_sentences_may_call_anything_its_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    own = plan(methods={"popularity": {}}, ablations={})
    monkeypatch.setattr("benchmark.jobs.plan.all_params", lambda method, params: {"encoder": "gru"})
    assert own.encoders("popularity") == []
    with pytest.raises(InputError, match="encoder 'gru': no such folder"):
        plan(methods={"tiger": {}}, ablations={})


def test_the_sentence_encoder_is_fetched_before_the_runs_that_read_it() -> None:
    """The runs are in a sandbox, where they can't write it."""

    def embedded(method: str, **params: str) -> list[str]:
        return plan(methods={method: {"params": params}}, ablations={}).embedded(method)

    sums = "resources/all-minilm-l6-v2/SHA256SUMS"
    assert embedded("tiger") == [sums] == embedded("tiger", encoder="./resources/all-minilm-l6-v2/")
    assert embedded("popularity") == []


def said_by_a_job(prefix: str, **environment: str) -> list[str]:
    """The first folder of PATH and the variables that a job sees behind a prefix, once Snakemake has formatted it."""
    code = f"echo ${{PATH%%:*}}; echo $PYTHONPATH; echo $OMP_WAIT_POLICY; echo ${{{REQUIRE_CLEAN}:-}}"
    done = subprocess.run(
        ["bash", "-c", prefix.format() + code],
        env={"PATH": "/usr/bin:/bin"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split("\n")[:4]


def test_what_comes_before_every_command() -> None:
    own = str(Path(sys.executable).parent)
    assert said_by_a_job(shell_prefix(False, False)) == [own, str(ROOT), "PASSIVE", ""]
    assert said_by_a_job(shell_prefix(True, True), OMP_WAIT_POLICY="ACTIVE") == ["/usr/bin", str(ROOT), "ACTIVE", "1"]


def test_the_command_that_records_a_job() -> None:
    job = Job("run/x", ("out a",), ("in",), "s", "c")
    words = shlex.split(record_command(job, ["in"], ["out a"]))
    head = ["python", "-m", "benchmark.jobs.stale", "record", "--job", "run/x", "--settings", "s", "--code", "c"]
    assert words == [*head, "--inputs", "in", "--outputs", "out a"]
    assert shlex.split(record_command(job, [], ["out a"])) == [*head, "--outputs", "out a"]


def test_the_page_is_made_of_the_registered_claims_that_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another command makes them: with them, without them and with others the page is another one."""
    monkeypatch.chdir(tmp_path)
    outputs = Outputs(plan())
    without = outputs.page().inputs
    beside = Path("results/claims/results/claims/registered.csv")
    beside.parent.mkdir(parents=True)
    beside.write_text("says\n")
    assert set(outputs.page().inputs) - set(without) == {str(beside)}
    own = Path("results/ablations/registered.csv")
    own.parent.mkdir(parents=True)
    own.write_text("says\n")
    assert set(outputs.page().inputs) - set(without) == {str(own)} and registered_files(
        Path("results"), "ablations"
    ) == [own]


def test_the_page_is_made_of_the_measures_that_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outputs = Outputs(plan())
    without = outputs.page().inputs
    names = ("headroom.json", "gradients.json")
    for name in names:
        path = Path("results/headroom/toy") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}\n")
    path.with_name("oracle.csv").write_text("x\n")  # read by nobody here
    assert set(outputs.page().inputs) - set(without) == {f"results/headroom/toy/{name}" for name in names}


def test_a_value_that_moves_to_another_setting_is_another_job() -> None:
    """Snakemake's own notes hold values without the names of their settings."""

    def settings(**params: int) -> str:
        made = plan(methods={"sasrec": {"params": params}}, ablations={})
        return made.run("toy", "sasrec", 1).settings

    assert settings(epochs=5, train_batch_size=20) != settings(epochs=20, train_batch_size=5)
    assert settings(epochs=5, train_batch_size=20) == settings(train_batch_size=20, epochs=5)


def test_a_run_reads_the_files_that_its_settings_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("own", "elsewhere"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "model.safetensors").write_text("weights")
    (tmp_path / "own/0_Transformer").symlink_to("../elsewhere")
    (tmp_path / "elsewhere/back").symlink_to("../own")
    made = plan(methods={"frozen_llm": {"params": {"backbone": {"name": "own"}}}}, ablations={})
    read = ["own/0_Transformer/model.safetensors", "own/model.safetensors"]
    assert made.own_files("frozen_llm") == read and set(read) < set(made.run("toy", "frozen_llm", 1).inputs)
    # Of accelerate's engines a file from here goes before the project's, which is named from here, too.
    (tmp_path / "mine.json").write_text("{}")
    shipped_one = "config/accelerate/zero2.json"
    assert named_files({"training": {"deepspeed": "mine.json", "fsdp": None}}) == [Path("mine.json")]
    (found,) = named_files({"training": {"fsdp": shipped_one}})
    assert not found.is_absolute() and found.samefile(ROOT / shipped_one)
    assert named_files({"training": {"deepspeed": "none.json"}}) == named_files({"training": None}) == []


def test_a_fresh_start_knows_where_runs_keep_what_they_find_again() -> None:
    made = plan()
    made.check_kept()
    rule = (ROOT / "workflow/rules/runs.smk").read_text()
    assert f"--work {WORK}/{{wildcards.dataset}}/{{params.work}}/seed{{wildcards.seed}}" in rule
    assert made.work("toy", VARIANT, 2) == f"{WORK}/toy/{made.fit_of(VARIANT)}/seed2"
    for states in ("results/states", "elsewhere"):
        rows = {"frozen_llm": {"params": {"backbone": {"name": BACKBONE}, "states": states}}}
        found = plan(methods=rows, ablations={})
        if states == "elsewhere":
            with pytest.raises(
                InputError, match=r"^methods\.frozen_llm: states is 'elsewhere', which fresh=true leaves"
            ):
                found.check_kept()
        else:
            found.check_kept()
