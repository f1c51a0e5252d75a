"""Declare the stages whose results are kept, with the versions by which the results are found again.

A result is found by its inputs, by the declared versions of its stage and of those before it, and by the versions of
the packages that these compute with. A version is declared beside the code of its stage, and raised by whoever changes
a number that the stage makes. Golden values of a tiny model check that (tests/test_golden.py), so that code may move
and be rewritten while nothing is made anew.
"""

import importlib.metadata
from dataclasses import dataclass
from typing import Any

# What an LM's numbers come from.
LM_PACKAGES = ("torch", "transformers", "peft", "tokenizers")


@dataclass(frozen=True)
class Stage:
    """A step whose result is kept.

    version: of its numbers, from 1. after: the stages whose results it reads. packages: those that it computes with.
    """

    name: str
    version: int
    after: tuple["Stage", ...] = ()
    packages: tuple[str, ...] = LM_PACKAGES

    def about(self) -> dict[str, Any]:
        """Its part of a key, as JSON: versions by stage, this one and all before it, and versions by package."""
        stages = self._all()
        packages = sorted({package for stage in stages.values() for package in stage.packages})
        return {
            "stages": {name: stages[name].version for name in sorted(stages)},
            "packages": {package: version_of(package) for package in packages},
        }

    def _all(self) -> dict[str, "Stage"]:
        stages = {self.name: self}
        for stage in self.after:
            stages |= stage._all()
        return stages


def version_of(package: str) -> str:
    """The installed version of a package, in words where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
