"""Ablations in the workflow: the runs that they start, share and wait for, and what they end in."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from benchmark.jobs.records import read_run
from tests.support.project import changed_config, copy_of_project, runs_started, snakemake, with_ablations, yaml_entry


def test_ablations_end_in_tables_plots_and_claims_and_one_value_more_is_one_run_more(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    claim = {"says": "Newer items matter more.", "value": "0.5", "against": "item_knn"}
    decay: dict[str, Any] = {"base": "item_knn", "seeds": 2, "values": {"0.5": {"decay": 0.5}}, "claims": [claim]}
    shared = {"base": "item_knn", "values": {"tuned": {}, "half": {"decay": 0.5}}}
    config = with_ablations(project, "ablations.yaml", decay=decay, shared=shared)
    done = snakemake(project, config=config)
    assert done.returncode == 0, done.stdout[-4000:]
    # The base has as many seeds as its factor, beyond its own one; `shared` takes the run that `decay` has.
    runs = [f"item_knn{change}/seed{seed}" for change in ("--decay=0.5", "") for seed in (1, 2)]
    assert runs_started(done.stdout) == runs
    results = project / "results"
    for factor in ("decay", "shared"):
        for ending in ("csv", "md", "tex", "tests.csv"):
            assert (results / "ablations" / f"{factor}.{ending}").stat().st_size > 100
        assert (results / "plots" / "ablations" / f"{factor}.png").stat().st_size > 1000
    assert "Newer items matter more." in (results / "ablations" / "claims.md").read_text()
    page = (results / "report" / "index.html").read_text()
    assert "Newer items matter more." in page
    # The same random streams and the tuned setting as the base, but for what is varied.
    for seed in (1, 2):
        base, variant = (
            read_run(results / f"runs/planted/{run}/seed{seed}/run.json") for run in ("item_knn", "item_knn--decay=0.5")
        )
        assert base.seed_value == variant.seed_value and variant.params == base.params | {"decay": 0.5}
    # Nothing of it is in the methods' tables.
    assert pd.read_csv(results / "tables/main.csv")[["method", "seeds"]].values.tolist() == [["item_knn", 1]]

    assert "Nothing to be done" in snakemake(project, config=config).stdout
    more = decay | {"title": "another title", "values": {"0.7": {"decay": 0.7}} | decay["values"], "seeds": 1}
    config = with_ablations(project, "ablations.yaml", shared=shared, decay=more)
    done = snakemake(project, "ablations", config=config)
    assert done.returncode == 0, done.stdout[-4000:]
    assert runs_started(done.stdout) == ["item_knn--decay=0.7/seed1"]
    assert pd.read_csv(results / "ablations/decay.csv")["value"].tolist() == ["item_knn", "0.7", "0.5"]


def test_runs_that_only_score_wait_for_the_fit_that_they_share(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    path = project / changed_config(project, "scored.yaml", only=True, r2ec=yaml_entry("r2ec"))
    read = {"own": {}, "none": {"evaluation": {"reasoning": "empty"}}, "beta 0": {"recpo": {"beta": 0}}}
    value = yaml.safe_load(path.read_text()) | {"ablations": {"read": {"base": "r2ec", "seeds": 2, "values": read}}}
    path.write_text(yaml.safe_dump(value))
    output = snakemake(project, "ablations", "--dry-run", "--printshellcmds", config="config/scored.yaml").stdout
    jobs = re.findall(r"^rule run:\n(.*?)^$", output, flags=re.M | re.S)
    command_of = {re.search(r"--out results/runs/planted/(\S+)", job)[1]: job for job in jobs}  # type: ignore[index]
    assert len(command_of) == 6
    for seed in ("seed1", "seed2"):  # the base has one seed of its own, the factor two
        scored = command_of[f"r2ec--evaluation.reasoning=empty/{seed}"]
        assert f"results/runs/planted/r2ec/{seed}/run.json" in scored
        assert f"--work results/work/planted/r2ec/{seed}" in scored and "--stream r2ec" in scored
        other = command_of[f"r2ec--recpo.beta=0.0/{seed}"]
        assert f"--work results/work/planted/r2ec--recpo.beta=0.0/{seed}" in other
        assert f"results/runs/planted/r2ec/{seed}/run.json" not in other
