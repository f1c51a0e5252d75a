"""The report of a fit, as JSON and back."""

import json
from typing import Any

import pytest

from r2ec.report import AdapterReport, Choice, FitReport


@pytest.mark.parametrize(
    ("report", "names"),
    [
        (FitReport(), []),
        (FitReport(recpo_steps=0, recpo_seconds=0.0, recpo_log=[]), ["recpo_steps", "recpo_seconds", "recpo_log"]),
        (
            FitReport(
                adapter_log=[{"divergence": 0.5}],
                adapters=AdapterReport(0.1, 0.2, 0.9, 3.0),
                warm_start=[Choice("adapters", 0.0, 7, 0.4), Choice("taught", 0.1, 3, 0.3, teacher=0.5)],
            ),
            ["adapter_log", "adapters", "warm_start"],
        ),
    ],
)
def test_a_report_is_what_was_done_and_comes_back_from_a_file(report: FitReport, names: list[str]) -> None:
    from_file: dict[str, Any] = json.loads(json.dumps(report.as_json()))
    assert list(from_file) == names
    assert FitReport.from_json(from_file) == report
    assert report.form == ("adapters" if report.warm_start else None)


def test_another_report_is_refused() -> None:
    with pytest.raises(TypeError, match="losses"):
        FitReport.from_json({"losses": []})
