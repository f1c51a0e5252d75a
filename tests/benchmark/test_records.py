"""A run's record: read as it was written, and refused where it can't be one."""

from pathlib import Path

import pytest

from benchmark.jobs.records import RunRecord, Trial, Tuning, read_run, write_run
from benchmark.storage.io import read_json
from tests.support.results_tree import record


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    tuning = Tuning(criterion="valid NDCG@10", trials=[Trial(params={"lr": 0.1}, value=0.2, seconds=3)], chosen=0)
    tuned_record = record("d", "m", 1, 10).model_copy(update={"tuning": tuning})
    write_run(tmp_path / "run.json", tuned_record)
    read_again = read_run(tmp_path / "run.json")
    assert read_again.model_copy(update={"files": None, "sha256": None}) == tuned_record and read_again.files == {}
    assert read_json(tmp_path / "run.json")["finished_at"] == "2025-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": 0}, "seed"),
        ({"finished_at": "2025-01-01T00:00:00+02:00"}, "not in UTC"),
        ({"finished_at": "2025-01-01T00:00:00"}, "timezone"),
        ({"latency_ms_per_case": float("nan")}, "latency_ms_per_case"),
        ({"tuning": {"criterion": "c", "trials": [{"params": {}, "value": 1, "seconds": 1}], "chosen": 1}}, "1 trials"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_bad_records_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RunRecord.model_validate(record("d", "m", 1, 10).model_dump(mode="json") | fields)
