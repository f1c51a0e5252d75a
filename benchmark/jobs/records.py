"""The typed record of one run (method x dataset x seed), run.json, which tells tables where numbers come from."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from benchmark.config.methods import Kind
from benchmark.config.wording import first_problem
from benchmark.errors import InputError, checked
from benchmark.storage.checksums import check_file, check_seal, seal, sums_of
from benchmark.storage.io import atomic, read_json, write_json

Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    """Unknown keys, NaN and infinities are refused; a record doesn't change once made."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class Trial(_Strict):
    """One parameter setting tried on the validation cases."""

    params: dict[str, JsonValue]  # the full setting that was fitted
    value: float  # the criterion on the validation cases; higher is better
    seconds: Seconds  # wall-clock of fitting and validating this setting, as if nothing had been on disk


class Tuning(_Strict):
    """The search over the method's grid; every method has the same budget."""

    criterion: str  # what was maximised, such as "valid NDCG@10"
    trials: list[Trial] = Field(min_length=1)  # in the order tried
    chosen: Count  # index into trials

    @property
    def undecided(self) -> bool:
        """Whether all settings had the same value, so that nothing was chosen: as where fit() reads none of them."""
        return len(self.trials) > 1 and len({trial.value for trial in self.trials}) == 1

    @model_validator(mode="after")
    def _chosen_exists(self) -> Self:
        if self.chosen >= len(self.trials):
            raise ValueError(f"chosen is {self.chosen}, but there are {len(self.trials)} trials, counted from 0")
        return self


class Phases(_Strict):
    """Wall-clock seconds of the final run, tuning excluded (its seconds are in the trials)."""

    fit: Seconds  # fitting with the chosen params, early stopping included; all pieces of a fit that was killed
    score: Seconds  # scoring and ranking all test cases
    # Of both: seconds that other runs had spent on results found on disk. 0 in records of before this was counted.
    reused: Seconds = 0.0


class LearnedFrom(_Strict):
    """The amount of training data that a fit learned from, as `benchmark.contract.Learned`."""

    users: Count
    targets: Count
    positions: Count


class RunRecord(_Strict):
    """One finished run, `results/runs/{dataset}/{method}/seed{seed}/run.json`."""

    dataset: str  # name of the prepared dataset
    method: str  # name of the row, or of an ablation's run
    kind: Kind | None = None  # what its file says it is; None in a record of a run from before this was noted
    seed: Annotated[int, Field(ge=1)]  # 1..number of seeds: which repetition
    seed_value: Count  # the seed that the method got, derived from dataset, method (an ablation's: its base) and seed
    params: dict[str, JsonValue]  # the parameters it ran with, defaults included
    tuning: Tuning | None  # None where the method has nothing to tune
    commit: str  # git commit of the code when the run began, "-dirty" where the tree differed
    # sha256 of the code that made it, without comments and docstrings. Runs of one declared version should have equal
    # results, even where their code differs. Empty in records of before this was kept.
    code: str = ""
    # Declared versions by stage, where the method declares any: those that `benchmark.jobs.code.made_by` takes for its
    # code. Empty in a record of before that was kept.
    stages: dict[str, int] = {}
    versions: dict[str, str]  # Python and package versions
    hardware: dict[str, str | int]  # processor, cores, memory_gib, gpus, gpu; processes
    data_hash: str  # split_hash of the dataset.json it ran on
    learned: LearnedFrom  # users, targets and positions that the fit learned from
    n_cases: Annotated[int, Field(ge=1)]  # test cases ranked
    seconds: Phases  # where the time went
    latency_ms_per_case: Annotated[float, Field(ge=0)]  # seconds.score / n_cases * 1000, batched as the method batches
    latency_ms_alone: Annotated[float, Field(ge=0)]  # median milliseconds to score one case alone, nothing kept on disk
    # Share of the time in which the process could have run and had no core; None where the system doesn't say, and in
    # records of before this was kept. Where it is high, all seconds above are too long.
    waited: Annotated[float, Field(ge=0, le=1)] | None = None
    peak_memory_mib: Count  # peak resident memory of the process, MiB
    tokens_written: Count  # tokens an LLM wrote while scoring; 0 for methods without one
    report: dict[str, JsonValue]  # Recommender.report(): epochs, validation curve, ...
    finished_at: AwareDatetime  # UTC
    sandbox: str = "none"  # how the method was kept from the test targets, such as "landlock 7"
    files: dict[str, str] | None = None  # sha256 by name of the files beside it; None in records without checksums
    sha256: str | None = None  # of all the other fields, as `benchmark.storage.checksums.seal` gives it

    @model_validator(mode="after")
    def _utc(self) -> Self:
        if self.finished_at.utcoffset() != timedelta(0):
            raise ValueError(f"finished_at is {self.finished_at.isoformat()}, not in UTC")
        return self


class FailedRun(_Strict):
    """A run that failed: the run.json in the place of a `RunRecord`, beside rankings.parquet without a row."""

    failed: str  # why, in a sentence
    log: str  # path of its log
    dataset: str
    method: str
    seed: Annotated[int, Field(ge=1)]
    sha256: str | None = None


def read_failed(path: str | Path) -> FailedRun | None:
    """The record of a failed run; None where the run has a result, or no record yet.

    Raises InputError where the record is damaged.
    """
    try:
        value = read_json(path)
    except FileNotFoundError:
        return None
    if not isinstance(value, dict) or "failed" not in value:
        return None
    advice = "delete its folder and run this seed again"
    check_seal(value, path, advice)
    return checked(FailedRun, value, str(path))


def write_failed(out: Path, failed: FailedRun) -> None:
    """Write the folder of a run that failed, whole or not at all."""
    import pyarrow as pa  # here, as each job starts two processes that read records and no table
    import pyarrow.parquet as pq

    with atomic(out) as temporary:
        temporary.mkdir()
        pq.write_table(pa.table({"case": pa.array([], pa.int64())}), temporary / "rankings.parquet")
        write_json(temporary / "run.json", seal(failed.model_dump(mode="json")))


SEALED = {"sandbox", "files", "sha256"}  # fields that came with the seal


def read_run(path: str | Path) -> RunRecord:
    """Read and check one run.json. Raises InputError naming file, field and value, or the reason why the run failed."""
    try:
        value = read_json(path)
        if (failed := read_failed(path)) is not None:
            raise InputError(f"{failed.method} on {failed.dataset}, seed {failed.seed}, has failed: {failed.failed}")
        record = RunRecord.model_validate(value)
        if SEALED & set(value):  # of before there were seals, a record has none of these
            check_seal(value, path, "delete its folder and run this seed again")
        return record
    except FileNotFoundError:
        raise InputError(f"{path}: missing; run this method and seed before making tables") from None
    except ValidationError as error:
        place, why = first_problem(error, RunRecord)
        raise InputError(f"{path}: {place or 'record'}: {why}; run this seed again with the current code") from None


def check_beside(path: Path) -> None:
    """Raise InputError where a run's file isn't the one that its run.json was written with.

    Without a run.json, or in one from before there were checksums, nothing says so, and the file is taken as it is.
    """
    record = path.with_name("run.json")
    about = read_json(record) if record.is_file() else {}
    sums = about.get("files") if isinstance(about, dict) else None
    if isinstance(sums, dict):
        again = f"delete {path.parent} and run this seed again"
        check_seal(about, record, again)
        check_file(path, sums.get(path.name), again)


def write_run(path: str | Path, record: RunRecord) -> None:
    """Write one run.json, sealed and atomically, with the checksums of the files that lie beside it now."""
    beside = sums_of(Path(path).parent)
    beside.pop(Path(path).name, None)
    about = record.model_copy(update={"files": beside}).model_dump(mode="json")
    write_json(path, seal(about))
