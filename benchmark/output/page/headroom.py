"""The page's part on what choosing among a case's reasonings could gain, from the measures in results/headroom.

They are made by commands of their own, which know the method. This file says what such a measure holds.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from pydantic import Field, ValidationError

from benchmark.analysis.arguments import HEADROOM_FILES, headroom_files
from benchmark.analysis.collect import Collected
from benchmark.config.sections import Strict
from benchmark.config.wording import first_problem
from benchmark.errors import InputError
from benchmark.output.page.pairs import digits
from benchmark.storage.io import read_json, sha256_of

Row = TypeVar("Row", bound=Strict)
_PARTS = tuple(Path(name).stem for name in HEADROOM_FILES)


class MeasuredRun(Strict):
    """The run whose model was measured."""

    dataset: str
    method: str
    seed: int
    commit: str
    sha256: str  # of its run.json


class BestOf(Strict):
    """The best of so many reasonings of a case, chosen by an oracle: means over all subsets and cases."""

    samples: int
    statistics: dict[str, float]  # by name, such as NDCG@10
    gain: float  # of the log rank, over one reasoning's
    low: float | None  # 95 % interval over users
    high: float | None


class Choice(Strict):
    """What a choice without the target gains over a random reasoning, by one statistic."""

    picker: str
    statistic: str
    random: float
    picked: float
    gain: float
    low: float | None
    high: float | None
    p: float | None  # not corrected


class Headroom(Strict):
    """headroom.json: many reasonings of some validation cases, and what choosing among them could gain."""

    run: MeasuredRun | None  # None for a model without a run, which no page shows
    cases: int
    users: int
    samples: int  # reasonings of a case
    within: dict[str, float]  # share of a statistic's variance that lies within a case
    oracle: list[BestOf] = Field(min_length=1)
    pickers: list[Choice]
    lent: list[Choice]  # the reasoning that was best for the user's case before
    lent_cases: int
    lent_users: int


class Term(Strict):
    """Signal and noise of one term's gradient."""

    term: str
    signal: float  # share of the mean square
    low: float | None
    high: float | None
    scale: float | None  # in cases; None without an end
    scale_low: float | None
    scale_high: float | None
    steps: float | None  # of `size` cases, for one without noise
    steps_low: float | None
    steps_high: float | None


class Gradients(Strict):
    """gradients.json: how noisy the gradient of a training is."""

    run: MeasuredRun | None
    batches: int
    size: int  # cases of a batch
    samples: int  # reasonings of a case
    cases: int  # of which the batches were drawn
    terms: list[Term] = Field(min_length=1)


def rows_of(frame: pd.DataFrame, kind: type[Row]) -> list[Row]:
    """The rows of a table as what they mean; its other columns are left out, and None stands for NaN and infinities."""
    names = [name for name in kind.model_fields if name in frame]
    finite = frame[names].astype(object).where(~frame[names].isin([np.inf, -np.inf, np.nan]), None)
    return [kind.model_validate(row) for row in finite.to_dict("records")]


def part_of(collected: Sequence[Collected], results: Path) -> dict[str, Any] | None:
    """The measures of runs that this page shows, by dataset, and sentences on those that are left out.

    None where there is no measure. Raises InputError for a file that is no measure.
    """
    by_run: dict[tuple[str, str, int], dict[str, Any]] = {}
    left_out = []
    for path in headroom_files(results):
        measure = _read(path)
        if (why := _not_shown(measure.run, collected, results)) is not None:
            left_out.append(f"{path.relative_to(results)} is left out: {why}.")
            continue
        assert measure.run is not None
        run = (measure.run.dataset, measure.run.method, measure.run.seed)
        found = by_run.setdefault(run, dict.fromkeys(_PARTS))
        if found[path.stem] is not None:
            left_out.append(f"{path.relative_to(results)} is left out: another measure of the same run is shown.")
            continue
        found[path.stem] = _shown(measure)
    if not by_run and not left_out:
        return None
    order = [runs.dataset for runs in collected]
    runs_shown = sorted(by_run, key=lambda run: (order.index(run[0]), *run[1:]))
    return {"datasets": [{"name": _name(run, runs_shown)} | by_run[run] for run in runs_shown], "left_out": left_out}


def _name(run: tuple[str, str, int], shown: Sequence[tuple[str, str, int]]) -> str:
    """A run as the page calls it: its dataset, with method and seed where another one has the same dataset."""
    dataset, method, seed = run
    alone = sum(other[0] == dataset for other in shown) == 1
    return dataset if alone else f"{dataset}, {method}, seed {seed}"


def _read(path: Path) -> Headroom | Gradients:
    kind: type[Headroom | Gradients] = Headroom if path.name == HEADROOM_FILES[0] else Gradients
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        place, why = first_problem(error, kind)
        raise InputError(f"{path}: {place or 'measure'}: {why}; measure again, or delete it") from None


def _not_shown(run: MeasuredRun | None, collected: Sequence[Collected], results: Path) -> str | None:
    """Why a measure isn't one of a run on this page; None where it is."""
    if run is None:
        return "it names no run; measure with --run"
    name = f"{run.method} on {run.dataset}, seed {run.seed}"
    if not any(runs.dataset == run.dataset and (run.method, run.seed) in runs.records for runs in collected):
        return f"this page has no run {name}"
    if sha256_of(results / "runs" / run.dataset / run.method / f"seed{run.seed}" / "run.json") != run.sha256:
        return f"{name}, was fitted again since; measure again"
    return None


def _shown(measure: Headroom | Gradients) -> dict[str, Any]:
    """A measure as plain values, of as many digits as the page shows."""

    def fewer(value: Any) -> Any:
        if isinstance(value, float):
            return digits(value)
        if isinstance(value, dict):
            return {name: fewer(one) for name, one in value.items()}
        return [fewer(one) for one in value] if isinstance(value, list) else value

    shown: dict[str, Any] = fewer(measure.model_dump(mode="json"))
    return shown
