"""Rows that may learn from less, and why: who is refused by name, and what the config's reasons are and do."""

import re
from argparse import ArgumentParser
from typing import Any

import pytest

from benchmark.analysis.arguments import runs_arguments
from benchmark.analysis.information import check_information
from benchmark.config.factors import ablations_of
from benchmark.config.read import read_config
from benchmark.contract import Learned
from benchmark.errors import InputError
from benchmark.jobs.outputs import Outputs
from benchmark.jobs.plan import Plan

ALL, NOTHING = Learned(users=30, targets=200, positions=230), Learned(0, 0, 0)
REFUSED: dict[str, tuple[dict[tuple[str, int], Learned], dict[str, str], str]] = {
    "fewer targets": (
        {("a", 1): ALL, ("b", 1): Learned(30, 199, 230)},
        {},
        "d: b learned from 199 targets of 30 users, but a from 200 targets of 30 users; let it learn",
    ),
    "fewer users": (
        {("a", 1): Learned(29, 200, 230), ("b", 1): ALL},
        {},
        "d: a learned from 200 targets of 29 users, but b from 200 targets of 30 users; let it learn",
    ),
    "one seed of a row": (
        {("a", 1): ALL, ("a", 2): Learned(30, 8, 9), ("b", 1): ALL},
        {},
        "d: a: seed 2 learned from 8 targets of 30 users, but seed 1 from 200 targets of 30 users; delete the folder",
    ),
    "more, by permission for less": (
        {("a", 1): ALL, ("b", 1): Learned(30, 300, 330)},
        {"b": "a few"},
        "d: b learned from 300 targets of 30 users, which is more than the 200 targets of 30 users of a, though the "
        "config gives",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_rows_without_permission_are_refused_by_name(name: str) -> None:
    learned, permitted, message = REFUSED[name]
    with pytest.raises(InputError, match=f"^{re.escape(message)}") as refused:
        check_information("d", learned, permitted)
    assert "\n" not in str(refused.value)


def test_rows_with_permission_keep_their_reasons() -> None:
    """A reason is given only where a row did learn from less; positions don't count."""
    learned = {("a", 1): ALL, ("b", 1): Learned(30, 200, 231), ("c", 1): ALL}
    assert check_information("d", learned, {"c": "sometimes less"}) == {}
    samples = {("a", 1): ALL, ("b", 1): Learned(20, 50, 60), ("b", 2): Learned(22, 50, 70)}
    assert check_information("d", samples, {"b": "a sample"}) == {"b": "a sample"}
    assert check_information("d", {("a", 1): ALL, ("b", 1): NOTHING}, {"a": "x", "b": "y"}) == {"b": "y"}


# --- the config
# --------------------------------------------------------------------------------------------------------


def config(**changes: Any) -> dict[str, Any]:
    lm = {"backbone": {"name": "some/folder"}}
    methods = {"popularity": None, "r2ec": {"params": lm}, "r2ec_untrained": {"module": "r2ec", "params": lm}}
    return {"datasets": {"toy": {"source": "ml_100k", "category": "movie"}}, "methods": methods} | changes


def test_the_configs_reasons_are_told_and_make_no_run_again() -> None:
    plain = config()
    value_read = config()
    value_read["methods"]["r2ec_untrained"]["less_information"] = "it's untrained"
    plans = []
    for value in (plain, value_read):
        config_read = read_config(value)
        plans.append(Plan(config_read, ablations_of(config_read), {"toy": []}))
    outputs = [Outputs(plan) for plan in plans]
    assert (
        outputs[1].selection()
        == f"""{outputs[0].selection()} --less-information '{{"r2ec_untrained": "it'"'"'s untrained"}}'"""
    )
    assert plans[0].run("toy", "r2ec_untrained", 1) == plans[1].run("toy", "r2ec_untrained", 1)
    assert outputs[0].statistics("toy") != outputs[1].statistics("toy")
    selected = ["--datasets", "toy", "--methods", "a", "--seeds", "1", "--less-information"]
    assert runs_arguments(ArgumentParser(), [*selected, '{"a": "why"}']).less_information == {"a": "why"}
    for text, message in (
        ("{", "--less-information: not JSON"),
        ('{"a": 3}', "--less-information: less_information.a: expected"),
        ('{"b": "why"}', "--less-information: no method 'b'"),
    ):
        with pytest.raises(InputError, match=message):
            runs_arguments(ArgumentParser(), [*selected, text])


@pytest.mark.parametrize("reason", ["", " ", "two\nlines", 3])
def test_a_reason_is_one_line_of_words(reason: Any) -> None:
    value = config()
    value["methods"]["r2ec"]["less_information"] = reason
    with pytest.raises(InputError, match=r"methods\.r2ec\.less_information"):
        read_config(value)
