"""Find files that the project ships beside its packages: the workflow and the configs."""

from pathlib import Path

PACKED = Path(__file__).resolve().parent / "_project"  # where a wheel holds them; pyproject.toml says so


def shipped(name: str) -> Path:
    """Where `name`, such as workflow/Snakefile or config/quick.yaml, lies: in the checkout, or in the installed wheel.

    >>> shipped("workflow/Snakefile").is_file()
    True
    """
    return (PACKED if PACKED.is_dir() else PACKED.parents[1]) / name


def settings_file(name: str) -> Path | None:
    """A file that a setting names, looked for from the current folder and then from the project's; None without one."""
    return next((place for place in (Path(name), shipped(name)) if place.is_file()), None)
