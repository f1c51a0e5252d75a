"""Every setting that a user can write, typed; nothing unknown is accepted.

`python -m benchmark.config.read` prints their JSON schema, which editors read: workflow/schemas/config.schema.json.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from benchmark.config.overlay import overlaid
from benchmark.config.sections import TABLES_OF_ALL, Name, Strict
from benchmark.config.wording import among
from benchmark.data.settings import DatasetConfig
from benchmark.metrics import METRICS


def as_label(value: Any) -> Any:
    """A value's label: text, or a number that YAML reads where the quotes are missing.

    >>> [as_label(value) for value in ("0.05", 0.05, 8)]
    ['0.05', '0.05', '8']
    """
    if value is None or isinstance(value, bool):
        raise ValueError(f"YAML reads this label as {value!r}; put it in quotes")
    return str(value) if isinstance(value, int | float) else value


MOST_SEEDS = 1_000  # each is a job, and the plan holds them all
Label = Annotated[str, BeforeValidator(as_label), Field(min_length=1)]


Reason = Annotated[str, Field(pattern=r"^\S[^\n]*$")]


class ClaimConfig(Strict):
    """A statement about two values of the factor, which their runs test."""

    says: str = Field(min_length=1, description="the statement, in one sentence")
    value: Label = Field(description="the value that it speaks of")
    against: Label = Field(description="the value that it is compared with")
    expect: Literal["higher", "lower", "equal"] = Field(
        default="higher", description="what the statement expects of the metric of `value` against that of `against`"
    )
    metric: Literal[
        "Hit@5", "NDCG@5", "Hit@10", "NDCG@10", "Hit@20", "NDCG@20", "NDCG@100", "NDCG@1000", "log rank"
    ] = "NDCG@10"
    margin: float | None = Field(
        default=None, gt=0, description="for equal: the difference that still counts as none, as a share of `against`"
    )
    smallest_effect: float | None = Field(
        default=None,
        gt=0,
        description="of a registered claim: the smallest difference that is worth having, as a share of `against`; "
        "judged over all datasets and trainings of its factor by benchmark.analysis.registered",
    )

    @model_validator(mode="after")
    def _two_values_and_a_margin_where_it_counts(self) -> "ClaimConfig":
        if self.value == self.against:
            raise ValueError(f"a claim compares two values, but both are {self.value!r}")
        if (self.expect == "equal") != (self.margin is not None):
            demand = "needs a margin, such as 0.1" if self.expect == "equal" else "takes no margin"
            raise ValueError(f"expect: {self.expect} {demand}")
        if self.smallest_effect is None and self.metric not in METRICS:
            raise ValueError(f"metric: {self.metric} is for claims with a smallest_effect; the tables have {METRICS}")
        if self.smallest_effect and self.margin and self.smallest_effect != self.margin:
            raise ValueError("margin and smallest_effect of one claim are the same; give both the same value")
        return self


class AblationConfig(Strict):
    """One factor of a method and what it is set to, or rows of methods that are held against each other."""

    title: str | None = Field(default=None, description="the factor in words, for tables and plots; null: its name")
    base: Name | None = Field(default=None, description="the row of `methods` that is varied")
    datasets: list[Name] | None = Field(default=None, min_length=1, description="of `datasets`; null: all of them")
    seeds: int | None = Field(
        default=None, ge=1, le=MOST_SEEDS, description="runs of every value per dataset; null: the base's"
    )
    values: dict[str, dict[str, Any]] = Field(
        default={}, description="label -> settings laid over the base's params; {} is the base itself"
    )
    rows: dict[Label, Name] = Field(
        default={}, description="in the place of base and values: label -> row of `methods`; the first is the base"
    )
    claims: list[ClaimConfig] = Field(default=[], description="statements that this factor tests")
    less_information: dict[Label, Reason] = Field(
        default={}, description="label -> why this value may learn from less data than the others, in a few words"
    )

    @model_validator(mode="before")
    @classmethod
    def _labels(cls, section: Any) -> Any:
        values = section.get("values") if isinstance(section, dict) else None
        if not isinstance(values, dict):
            return section
        labels = [as_label(label) for label in values]
        if twice := [label for label in labels if labels.count(label) > 1]:
            raise ValueError(f"values: the label {twice[0]!r} is given twice; keep one")
        settings = [{} if overlay is None else overlay for overlay in values.values()]  # an empty entry is the base
        return section | {"values": dict(zip(labels, settings, strict=True))}

    @model_validator(mode="after")
    def _values_or_rows(self) -> "AblationConfig":
        if self.rows and (self.base is not None or self.values):
            raise ValueError("rows stand in the place of base and values; leave these out, or the rows")
        if not self.rows and (self.base is None or not self.values):
            raise ValueError("needs a base and values of it, or rows that are held against each other")
        if self.rows and len(set(self.rows.values())) < max(2, len(self.rows)):
            raise ValueError("rows: give at least two different ones, each once")
        return self


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
        default=None, ge=1, le=MOST_SEEDS, description="runs of this method per dataset; null: the config's seeds"
    )
    max_hours: float = Field(
        default=72,
        gt=0,
        le=100_000,
        description="a job that takes longer is ended, and its row says that it failed",
    )
    max_memory_gib: float | None = Field(
        default=None,
        gt=0,
        le=1_000_000,
        description="a job that takes more main memory is ended; null: 90 % of the machine's",
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

    @model_validator(mode="after")
    def _settings_differ(self) -> "MethodConfig":
        settings = self.settings()
        for number, one in enumerate(settings):
            if one in settings[:number]:
                first = settings.index(one) + 1
                raise ValueError(f"settings {first} and {number + 1} of the grid are equal; leave one out")
        return self

    def process_count(self) -> int:
        """How many processes one job has."""
        return self.processes or max(1, self.gpus)

    def settings(self) -> list[dict[str, Any]]:
        """What repetition 1 fits: params, or each setting of the grid laid over them."""
        return [overlaid(self.params, trial) for trial in self.grid or [{}]]


class Config(Strict):
    """The whole file."""

    datasets: dict[Name, DatasetConfig] = Field(min_length=1)
    methods: dict[Name, MethodConfig | None] = Field(min_length=1)
    seeds: int = Field(
        default=3, ge=1, le=MOST_SEEDS, description="runs per dataset of every method without seeds of its own"
    )
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
        for reserved in TABLES_OF_ALL:
            if reserved in value:
                raise ValueError(f"'{reserved}' is the name of the table of all datasets; rename this dataset")
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
        reserved = (
            "data fetched logs made_from plots published quick report runs states statistics tables texts usage work"
        )
        if value in reserved.split():
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
