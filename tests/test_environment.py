"""conda and venv users get the same packages."""

import yaml

from benchmark.methods import ROOT


def test_environment_yml_has_the_pins_of_requirements_txt_and_names_no_other_file() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins and all("==" in pin for pin in pins)
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, packages = environment["dependencies"]
    assert (python, pip) == ("python=3.11", "pip")
    # Snakemake gives conda a copy of this file: a "-r requirements.txt" would be looked for beside the copy.
    assert packages == {"pip": pins}
