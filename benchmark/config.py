"""The configuration: every setting a user can write, typed; nothing unknown is accepted.

`python -m benchmark.config` prints its JSON schema, which editors read: workflow/schemas/config.schema.json.
"""

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, field_validator, model_validator

from benchmark.dataset_config import DatasetConfig, source_of
from benchmark.errors import InputError, checked
from benchmark.factors import AblationConfig, ablations_of
from benchmark.methods import check_params, laid_over, load_method, trains_in_processes
from benchmark.sections import TABLES_OF_ALL, Name, Strict
from benchmark.wording import among


class MethodConfig(Strict):
    """One row of the tables."""

    module: Name | None = Field(default=None, description="the method's file, if it isn't named as the row")
    params: dict[str, Any] = Field(default={}, description="given to fit() in every run")
    grid: list[dict[str, Any]] = Field(default=[], description="tried on validation data, laid over params")
    threads: int = Field(default=1, ge=1, description="processor cores of one job")
    gpus: int = Field(default=0, ge=0, description="GPUs of one job, which sees these and no other")
    processes: int | None = Field(
        default=None, ge=1, description="processes that train together in one job; null: one per GPU"
    )
    seeds: int | None = Field(
        default=None, ge=1, description="runs of this method per dataset; null: the config's seeds"
    )
    less_information: str | None = Field(
        default=None,
        pattern=r"^\S[^\n]*$",
        description="why this row may learn from less data than the others, in a few words; printed beside the tables",
    )

    @model_validator(mode="after")
    def a_gpu_for_each_process(self) -> "MethodConfig":
        if self.gpus and self.processes not in (None, self.gpus):
            raise ValueError(
                f"processes {self.processes} do not fit gpus {self.gpus}; each process has one GPU, or all have none"
            )
        return self

    def process_count(self) -> int:
        """How many processes one job has."""
        return self.processes or max(1, self.gpus)

    def settings(self) -> list[dict[str, Any]]:
        """What repetition 1 fits: params, or each setting of the grid laid over them."""
        return [laid_over(self.params, trial) for trial in self.grid or [{}]]


class Config(Strict):
    """The whole file."""

    datasets: dict[Name, DatasetConfig] = Field(min_length=1)
    methods: dict[Name, MethodConfig | None] = Field(min_length=1)
    seeds: int = Field(default=3, ge=1, description="runs per dataset of every method without seeds of its own")
    reference: str | None = Field(
        default=None, description="a row of methods that is held against each of the others, in results/tables/against"
    )
    note: str = Field(
        default="",
        pattern=r"^[^\n]*$",
        description="what a reader has to know of these results, printed with the tables and at the top of the page",
    )
    require_clean: bool = Field(
        default=False, description="run only code that is in a commit: refuse a tree with changed or new files"
    )
    ablations: dict[Name, AblationConfig] = Field(default={}, description="factors of methods and their values")
    ablations_folder: Name = Field(
        default="ablations", description="their tables lie in results/{it}, their plots in results/plots/{it}"
    )

    @field_validator("datasets", mode="after")
    @classmethod
    def every_table_has_a_file_of_its_own(cls, value: dict[str, DatasetConfig]) -> dict[str, DatasetConfig]:
        for taken in TABLES_OF_ALL:
            if taken in value:
                raise ValueError(f"'{taken}' is the name of the table of all datasets; rename this dataset")
        for name in value:
            if f"{name}.tests" in value:
                raise ValueError(
                    f"the table of '{name}.tests' and the tests of '{name}' are one file; rename one of them"
                )
        return value

    @field_validator("ablations", mode="after")
    @classmethod
    def every_factor_has_files_of_its_own(cls, value: dict[str, AblationConfig]) -> dict[str, AblationConfig]:
        for name in value:
            if name == "claims" or name.endswith(".tests"):
                raise ValueError(f"'{name}' is the name of a file beside the factors' tables; rename this factor")
        return value

    @field_validator("ablations_folder", mode="after")
    @classmethod
    def the_folder_is_no_other_one(cls, value: str) -> str:
        taken = "data fetched logs made_from plots published quick report runs states tables texts usage work"
        if value in taken.split():
            raise ValueError(f"results/{value} holds something else; name another folder, such as ablations")
        return value

    @field_validator("methods", mode="after")
    @classmethod
    def an_empty_entry_means_defaults(cls, value: dict[str, MethodConfig | None]) -> dict[str, MethodConfig]:
        return {name: entry or MethodConfig() for name, entry in value.items()}

    @model_validator(mode="after")
    def the_reference_is_a_row(self) -> "Config":
        if self.reference is not None and self.reference not in self.methods:
            raise ValueError(f"reference: no row {self.reference!r} in methods{among(self.reference, self.methods)}")
        if self.reference is not None and len(self.methods) == 1:
            raise ValueError("reference: there is no other row in methods to hold it against; add one or drop it")
        return self

    def method(self, name: str) -> MethodConfig:
        """The entry of one method."""
        return self.methods[name] or MethodConfig()

    def seeds_of(self, name: str) -> int:
        """How many runs of a method each dataset has."""
        return self.method(name).seeds or self.seeds

    def module_of(self, name: str) -> str:
        """The module that implements a method: its own name unless `module` says otherwise."""
        return self.method(name).module or name


def read_config(value: dict[str, Any], where: str = "config") -> Config:
    """Check a configuration. Raises InputError in one sentence that names the setting and what is known."""
    config = checked(Config, value, where)
    for name, dataset in config.datasets.items():
        source_of(dataset, f"{where}: datasets.{name}")
    for name in config.methods:
        entry = config.method(name)
        method = load_method(config.module_of(name), where)
        if (config.module_of(name) == "r2ec") != name.startswith(
            "r2ec"
        ):  # by which tables and plots know the baselines
            what = "is R2ec, whose rows begin with r2ec" if config.module_of(name) == "r2ec" else "is a baseline"
            raise InputError(f"{where}: methods.{name}: {config.module_of(name)} {what}; rename the row")
        for params in entry.settings():
            check_params(method, params, f"{where}: methods.{name}")
            _check_device(entry, params, f"{where}: methods.{name}")
        if entry.process_count() > 1 and not trains_in_processes(method):
            raise InputError(
                f"{where}: methods.{name}: {config.module_of(name)} trains in one process alone, not in "
                f"{entry.process_count()}; set gpus or processes to 1"
            )
    for run, variant in ablations_of(config, where).variants.items():
        entry = config.method(variant.base)
        for params in entry.settings():
            _check_device(entry, laid_over(params, variant.overlay), f"{where}: ablations: {run}")
    return config


def _check_device(entry: MethodConfig, params: dict[str, Any], where: str) -> None:
    """A job sees the GPUs that `gpus` gives it, and no other: an LM on a GPU needs one, and a GPU an LM that uses it."""
    backbone = params.get("backbone")
    if not isinstance(backbone, dict):
        return
    device = str(backbone.get("device", "cpu"))
    if device.startswith("cuda") and entry.gpus == 0:
        raise InputError(f"{where}: backbone.device is {device!r}, but gpus is 0, so that its jobs see none; set gpus")
    if device.startswith("cuda:") and entry.process_count() > 1:
        raise InputError(
            f"{where}: backbone.device {device!r} is that of all processes; set 'cuda', each has its own GPU"
        )
    if not device.startswith("cuda") and entry.gpus:
        raise InputError(
            f"{where}: gpus is {entry.gpus}, but backbone.device is {device!r}; set it to 'cuda', or gpus to 0"
        )


def read_config_file(path: str | Path) -> Config:
    """Read and check one YAML file."""
    return read_config(read_yaml(path), str(path))


class _Yaml(yaml.SafeLoader):
    """YAML as Snakemake reads it, but with a place for what it can't be, and no name twice: the last would win unseen."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands there twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return node

    def construct_date(self, node: yaml.ScalarNode) -> Any:
        try:
            return self.construct_yaml_timestamp(node)
        except ValueError as error:
            said = f"no such date as {node.value!r}: {error}"
            raise yaml.MarkedYAMLError(problem=said, problem_mark=node.start_mark) from None


_Yaml.add_constructor("tag:yaml.org,2002:timestamp", _Yaml.construct_date)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The settings in a YAML file, unchecked. Raises InputError."""
    try:
        value = yaml.load(Path(path).read_text(encoding="utf-8"), _Yaml)
    except (OSError, ValueError, yaml.YAMLError) as error:
        said = " ".join(str(error).split()).replace(' in "<unicode string>", line ', " in line ")
        raise InputError(f"{path}: can't be read as YAML ({said})") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds no settings; see config/README.md")
    return value


if __name__ == "__main__":
    print(json.dumps(Config.model_json_schema(), indent=2))
