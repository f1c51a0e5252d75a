"""Jobs through Snakemake's Slurm plugin.

Slurm's commands are replaced by scripts that record their call and run the job here.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from benchmark.config.methods import ROOT
from benchmark.jobs.records import read_run
from tests.support.project import SEEING, SNAKEMAKE, changed_config, copy_of_project, snakemake
from tests.support.slurm_stub import install


def test_jobs_ask_for_what_they_need_and_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = copy_of_project(tmp_path / "project")
    (project / "baselines" / "seeing.py").write_text(SEEING)
    methods = {"popularity": {"threads": 2}, "seeing": {"gpus": 1, "threads": 3}}
    config = changed_config(project, "slurm.yaml", only=True, **methods)
    assert snakemake(project, "results/data/planted/dataset.json", config=config).returncode == 0

    monkeypatch.setenv("PATH", f"{install(tmp_path / 'slurm')}:{os.environ['PATH']}")
    runs = [f"results/runs/planted/{method}/seed1/run.json" for method in ("popularity", "seeing")]
    profile = ["--profile", "workflow/profiles/slurm", "--slurm-init-seconds-before-status-checks", "1"]
    command = [*SNAKEMAKE, *runs, *profile, "--latency-wait", "5", "--configfile", config]
    done = subprocess.run(
        command, cwd=project, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=1500
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert [read_run(project / run).report.get("gpus") for run in runs] == [None, "0"]  # the one that Slurm gave

    calls = [json.loads(line) for line in (tmp_path / "slurm" / "calls.jsonl").read_text().splitlines()]
    by_method = {call[call.index("--comment") + 1].rsplit("_", 2)[-2]: call for call in calls}
    assert set(by_method) == {"popularity", "seeing"}
    plain, large = by_method["popularity"], by_method["seeing"]
    assert "cpu" in plain and "gpu" in large  # the partitions
    assert "--cpus-per-task=2" in plain and "--cpus-per-task=3" in large
    assert "--ntasks=1" in plain and not any(word.startswith("--gpus") for word in plain)
    assert "--gpus=1" in large and not any(word.startswith("--ntasks-per-gpu") for word in large)
    for call in calls:
        assert call[call.index("-A") + 1] == "default"
        assert 0 < int(call[call.index("-t") + 1]) < 10080 and 500 < int(call[call.index("--mem") + 1]) < 256000


def test_the_partitions_file_is_one_that_the_plugin_reads() -> None:
    from snakemake_executor_plugin_slurm.partitions import read_partition_file

    limits = {
        partition.name: partition.limits
        for partition in read_partition_file(ROOT / "workflow/profiles/slurm/partitions.yaml")
    }
    assert limits["cpu"].max_gpu == 0 and limits["gpu"].max_gpu == 8 and limits["cpu"].max_runtime == 10080


def test_the_kubernetes_job_runs_what_snakemake_takes() -> None:
    """No cluster is asked: what the pod's shell would run is a command that Snakemake understands, with a profile that
    is here."""
    job = yaml.safe_load((ROOT / "workflow/profiles/kubernetes/job.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert job["kind"] == "Job" and container["resources"]["limits"]["nvidia.com/gpu"] == 4
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert container["workingDir"] in mounts and "/dev/shm" in mounts
    (script,) = container["args"]
    line = next(line for line in script.splitlines() if "snakemake --profile" in line)
    assert "--profile workflow/profiles/paper" in line and "--resources gpu=4" in line
    words = line.split()[line.split().index("--profile") :]
    command = [*SNAKEMAKE, *words, "--configfile", "config/smoke.yaml", "--directory", "/nonexistent", "--version"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0
