"""Fit the settings of a run, each in a folder of its own for checkpoints, and choose one by validation."""

import argparse
import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import JsonValue, TypeAdapter, ValidationError

from benchmark import provenance
from benchmark.config.methods import all_params, check_params, for_fitting, named_files
from benchmark.config.overlay import flatten, overlaid
from benchmark.config.wording import first_problem
from benchmark.contract import Learned, Recommender, Split, watched
from benchmark.errors import InputError
from benchmark.evaluate import validation_ndcg
from benchmark.jobs.records import LearnedFrom, Trial, Tuning, read_run
from benchmark.precision import dtype_of_auto
from benchmark.storage.io import locked, sha256_of
from benchmark.storage.ledger import Cost, account, timed_fit

CRITERION = "valid NDCG@10"
REPORT: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, JsonValue])  # as run.json is read


@dataclass(frozen=True)
class Fitted:
    """The fit that ranks the test cases: of the only setting, or of the one that validation has chosen."""

    recommender: Recommender
    chosen: int  # index of its setting
    tuning: Tuning | None  # None where there was a single setting
    cost: Cost
    learned: Learned  # what it learned from


def from_json(option: str, text: str, kind: type) -> Any:
    """The value of an option that holds JSON. Raises InputError."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{option}: not JSON ({error}); quote it for the shell") from None
    if not isinstance(value, kind):
        demand = "a list of settings" if kind is list else "settings"
        raise InputError(f"{option}: expected {demand}, found {text}; give JSON")
    return value


def settings_to_try(args: argparse.Namespace, method: ModuleType) -> tuple[list[dict[str, Any]], Tuning | None]:
    """The settings that this repetition fits, defaults filled in, and the tuning of repetition 1 for later ones."""
    if args.seed < 1:
        raise InputError(f"--seed is {args.seed}; repetitions are counted from 1")
    params, grid = from_json("--params", args.params, dict), from_json("--grid", args.grid, list)
    overlay, base = from_json("--overlay", args.overlay, dict), args.stream or args.method
    to_try = [overlaid(overlaid(params, trial), overlay) for trial in grid or [{}]]
    for tried in to_try:
        check_params(method, tried, f"methods.{args.method}")
    if (args.seed > 1 or base != args.method) and len(grid) > 1:
        if args.tuned is None:
            raise InputError(
                f"{args.method}: repetition {args.seed} needs --tuned, the run.json of repetition 1 of {base}"
            )
        first = read_run(args.tuned)
        if (first.method, first.seed) != (base, 1):
            raise InputError(f"{args.tuned}: is seed {first.seed} of {first.method}; --tuned takes seed 1 of {base}")
        return [all_params(method, overlaid(first.params, overlay))], first.tuning
    return [all_params(method, tried) for tried in to_try], None


def checkpoint_folder(
    work: Path,
    method: ModuleType,
    params: dict[str, Any],
    data_hash: str,
    code: str,
    processes: int = 1,
    category: str = "",
) -> Path:
    """The folder of a fit's checkpoints, named by all that the fit depends on, so that nothing stale is resumed.

    That is params, data, the word for an item in prompts, code, versions of packages, the user's files that the
    params name, what `dtype: auto` stands for on this machine, as another one may share the folder, and the number of
    processes. Params that a method names in `SCORING` are left out: only its scoring reads them, so that
    one fit serves all their values.
    """
    params = for_fitting(method, params)
    about = json.dumps([params, provenance.versions()], sort_keys=True)
    parts = [about, data_hash, category, code]
    parts += [f"{file.name} {sha256_of(file)}" for file in named_files(params)]
    parts += [f"{name} is float32 here" for name in _float32_by_auto(params)]
    if processes > 1:
        parts.append(f"{processes} processes")
    return work / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _float32_by_auto(params: dict[str, Any]) -> list[str]:
    """The settings `dtype: auto` that stand for float32 on this machine. Where all stand for bfloat16 there are none,
    so that checkpoints from before this was asked keep their name there."""
    flat = flatten(params)
    autos = [path[:-1] for path, value in flat.items() if path[-1] == "dtype" and value == "auto"]
    devices = {section: flat.get((*section, "device")) for section in autos}
    return sorted(
        ".".join((*section, "dtype"))
        for section, device in devices.items()
        if dtype_of_auto(device if isinstance(device, str) else None) == "float32"
    )


def fit_best(
    method: ModuleType, name: str, split: Split, seed: int, settings: list[dict[str, Any]], folders: list[Path]
) -> Fitted:
    """Fit each setting and keep the one with the best NDCG@10 on validation cases; of equal ones the first.

    With a single setting nothing has to be chosen and validation is left out.
    """
    best: Fitted | None = None
    trials = list[Trial]()
    for number, (params, folder) in enumerate(zip(settings, folders, strict=True)):
        if len(settings) > 1:
            print(f"{name}: setting {number + 1} of {len(settings)}: {params}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        watched_split = watched(split)  # by this setting alone
        provenance.seed_generators(seed)
        with locked(folder):  # runs that differ in scoring alone share a fit
            recommender, cost = timed_fit(
                partial(method.fit, watched_split, seed=seed, params=params, workdir=folder), folder
            )
        check_fitted(recommender, name)
        learned = learned_by(recommender, name) or watched_split.learned()
        if len(settings) == 1:
            return Fitted(recommender, 0, None, cost, learned)
        with account(own=frozenset({cost.by})) as validation:
            value = validation_ndcg(recommender, split.valid, split.n_items, name)
        took = round(cost.seconds + validation.seconds, 3)
        trials.append(Trial(params=params, value=round(value, 6), seconds=took))
        print(f"{name}: {CRITERION} {value:.4f} after {cost.seconds:.1f} s", flush=True)
        if best is None or trials[-1].value > trials[best.chosen].value:  # the recorded values decide
            best = Fitted(recommender, number, None, cost, learned)
    assert best is not None
    tuning = Tuning(criterion=CRITERION, trials=trials, chosen=best.chosen)
    if tuning.undecided:
        print(f"{name}: {undecided_in_words(tuning)}", flush=True)
    return replace(best, tuning=tuning)


def undecided_in_words(tuning: Tuning) -> str:
    """What to look for where all settings of a grid had the same value."""
    settings = [flatten(trial.params) for trial in tuning.trials]
    differ = sorted({path for one in settings for path, value in one.items() if settings[0].get(path) != value})
    names = ", ".join(".".join(path) for path in differ) or "none, they are all equal"
    return (
        f"all {len(settings)} settings have the same {tuning.criterion}, {tuning.trials[0].value:g}, so that nothing "
        f"was chosen; look whether fit() reads what they differ in ({names})"
    )


def check_fitted(recommender: Any, name: str) -> None:
    """Raise InputError, before anything is scored, unless fit() gave a Recommender whose report run.json can hold."""
    if not isinstance(recommender, Recommender):
        raise InputError(f"{name}: fit() gave {type(recommender).__name__}; return a Recommender")
    check_report(recommender.report(), name)


def learned_by(recommender: Recommender, name: str) -> Learned | None:
    """What the method itself says that its fit learned from. Raises InputError, before anything is scored, for what is
    neither that nor None."""
    amount: Any = recommender.learned()
    if amount is None:
        return None
    if not isinstance(amount, Learned):
        expected = "Learned(users, targets, positions) of benchmark.contract, or None for all that the fit asked for"
        raise InputError(f"{name}: learned() gave {amount!r:.100}; return {expected}")
    try:
        LearnedFrom(**asdict(amount))
    except ValidationError as error:
        place, why = first_problem(error, LearnedFrom)
        raise InputError(
            f"{name}: learned() gave {place}: {why}; return the numbers that the fit learned from"
        ) from None
    return amount


def check_report(report: Any, name: str) -> None:
    """Raise InputError unless a report is a dictionary of values that JSON can hold, with finite numbers."""
    if not isinstance(report, dict):
        raise InputError(f"{name}: report() gave {type(report).__name__}; return a dict")
    for key, value in report.items():
        try:
            json.dumps({key: value}, allow_nan=False, ensure_ascii=False).encode()  # no half of a surrogate pair
            REPORT.validate_python({key: value})
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            raise InputError(f"{name}: report() holds {key!r}, which run.json can't: {why}; leave it out") from None
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(f"{name}: report() holds {key!r}, which run.json can't: {error}; leave it out") from None


def fit_along(method: ModuleType, split: Split, seed: int, settings: list[dict[str, Any]], folders: list[Path]) -> None:
    """Fit each setting together with the first process, which prints and keeps the results."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        for params, folder in zip(settings, folders, strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            provenance.seed_generators(seed)
            method.fit(split, seed=seed, params=params, workdir=folder)
