"""Find files that the project ships beside its packages: the workflow and the configs."""

from pathlib import Path

PACKED = Path(__file__).resolve().parent / "_project"  # where a wheel holds them; pyproject.toml says so


def shipped(name: str) -> Path:
    """Where `name`, such as workflow/Snakefile or config/quick.yaml, lies: in the checkout, or in the installed wheel.

    >>> shipped("workflow/Snakefile").is_file()
    True
    """
    return (PACKED if PACKED.is_dir() else PACKED.parents[1]) / name
