"""Make the table of costs in Markdown."""

import json
from collections.abc import Iterable, Sequence

import pandas as pd

from benchmark.output.markdown import plain, running, table
from benchmark.output.page.labels import machine
from benchmark.statistics.files import DatasetStatistics

HEADINGS = {
    "users": "users learned from",
    "targets": "targets",
    "positions": "positions",
    "settings": "settings tried",
    "fit_s": "fit, s",
    "tuning_s": "tuning, s",
    "score_s": "ranking, s",
    "tokens": "tokens written",
    "ms_batched": "ms per case, in batches",
    "ms_alone": "ms per case, alone",
    "peak_mib": "peak memory, MiB",
}
NOTE = (
    "Means over the runs of a row; what a run found on disk (states, warm starts, texts) counts with the seconds of "
    "making it. targets: training interactions that a fit predicted; positions: those that it read, in a history or as "
    "a target; settings tried: of the grid, not within a fit; fit: with the chosen setting, early stopping included; "
    "tuning: all settings tried on validation cases by repetition 1, its own fit among them; ranking: all test cases; "
    "tokens written: by an LLM while ranking; alone: median over 5 cases, one at a time, nothing taken from disk; peak "
    "memory: of the process."
)
WAITED = 0.1  # share of the time without a core from which seconds are said to be too long
# What every run says of its machine. Its GPUs are counted only in runs that load torch.
ALIKE = ("processor", "cores", "memory_gib")


def number(value: float) -> str:
    """A cost as the tables print it.

    >>> number(1234.5), number(0.04567), number(0.0)
    ('1,234', '0.0457', '0')
    """
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.3g}"


def machines(hardware: Iterable[str]) -> list[str]:
    """The machines of some runs in words, each once. hardware: a run's, as JSON.

    >>> one = {"processor": "EPYC", "cores": 2, "memory_gib": 24, "gpus": 0, "gpu": "none"}
    >>> machines(json.dumps(facts) for facts in (one, one | {"gpus": 1, "gpu": "H200"}, one | {"cores": 1}))
    ['EPYC, 1 core, 24 GiB of memory', 'EPYC, 2 cores, 24 GiB of memory, H200']
    """
    gpus_of: dict[str, set[str]] = {}
    for facts in map(json.loads, hardware):
        gpus = gpus_of.setdefault(machine({name: facts[name] for name in ALIKE if name in facts}), set())
        gpus |= {facts.get("gpu", "none")} - {"none"}
    return sorted(", ".join(filter(None, (name, gpu))) for name, gpus in gpus_of.items() for gpu in gpus or {""})


def on_seconds(frame: pd.DataFrame, hardware: Iterable[str]) -> list[str]:
    """Sentences about why seconds of these runs mislead; none where nothing is known against them.

    frame: columns of costs.csv; hardware: of all runs, as JSON. Other work on the machine makes threads wait for a
    core, and so do more of a run's own than there are cores for it.

    >>> rows = pd.DataFrame({"dataset": ["d"] * 3, "method": list("abc"), "waited": [0.1, 0.62, float("nan")]})
    >>> on_seconds(rows, [])
    ['These rows waited for a core, so that their seconds are too long: b on d 62 % of the time.']
    """
    sentences = []
    if waited := [row for row in frame.to_dict("records") if row.get("waited", 0) > WAITED]:
        shares = ", ".join(f"{row['method']} on {row['dataset']} {100 * row['waited']:.0f} %" for row in waited)
        sentences.append(f"These rows waited for a core, so that their seconds are too long: {shares} of the time.")
    if len(several := machines(hardware)) > 1:
        of_each = f"These runs are of {len(several)} machines ({'; '.join(several)})"
        sentences.append(f"{of_each}: seconds of different machines don't compare.")
    return sentences


def on_seconds_of(datasets: Sequence[DatasetStatistics]) -> list[str]:
    """The sentences of `on_seconds` about all runs of these datasets."""
    runs = pd.concat([part.runs for part in datasets])
    return on_seconds(pd.concat([part.costs for part in datasets]), runs.hardware)


def markdown(frame: pd.DataFrame, hardware: Iterable[str]) -> str:
    """The table in GitHub's Markdown, its note below it. frame: columns of costs.csv; hardware: as of `on_seconds`."""
    head = ["dataset", "method", "seeds", *HEADINGS.values()]
    body = [
        [plain(row["dataset"]), plain(row["method"]), str(row["seeds"]), *(number(row[column]) for column in HEADINGS)]
        for row in frame.to_dict("records")
    ]
    return f"{table(head, body, left=2)}\n\n{running(' '.join([NOTE, *on_seconds(frame, hardware)]))}\n"
