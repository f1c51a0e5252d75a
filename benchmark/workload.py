"""How much text each method lets its LM read, learn from and write, counted from the config: what benchmark/estimates.py weighs.

No reasoning is taken to end early. Counts of cases and items are those of `results/data/{dataset}/dataset.json` once it is
there, until then those that the source usually gives.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from benchmark.dataset_config import DatasetConfig
from benchmark.io import read_json


@dataclass(frozen=True)
class Sizes:
    """Counts of a prepared dataset, and tokens of its texts: of a history line, and of an item's own prompt."""

    items: int
    train: int
    valid: int
    test: int
    line: int = 17
    item: int = 25
    llm: int | None = None  # training cases that an LLM may read; None: all

    @property
    def train_llm(self) -> int:
        """Training cases that an LLM may read."""
        return self.train if self.llm is None else self.llm


# Items and cases of the sources with their usual settings; of the Amazon categories arXiv 2505.16994 gives them.
AMAZON = {"line": 40, "item": 150}
USUAL = {
    "ml_100k": Sizes(1_349, 77_725, 9_715, 9_717),
    "movielens_2016": Sizes(3_496, 71_021, 8_877, 8_878),
    "complete_journey": Sizes(1_568, 104_000, 13_000, 13_000),
    "Video_Games": Sizes(10_144, 50_801, 6_350, 6_351, **AMAZON),
    "CDs_and_Vinyl": Sizes(12_024, 10_748, 1_343, 1_344, **AMAZON),
    "Musical_Instruments": Sizes(10_320, 27_498, 3_437, 3_438, **AMAZON),
}
UNKNOWN = Sizes(10_000, 80_000, 10_000, 10_000, **AMAZON)


@dataclass(frozen=True)
class Work:
    """Tokens of one process: read, learned from, and written (`rows` at a time); `held`: learned from in one batch.

    kept: the name under which what comes of it lies on disk for later fits, empty where it doesn't: `STATES` and what they depend
    on serve all fits on a dataset, `WARM_START` those of one row and repetition, with their ablations.
    """

    read: float = 0
    learned: float = 0
    written: float = 0
    rows: float = 1
    held: float = 0
    twice: bool = False  # activations are computed again in the backward pass
    frozen: int = 0  # lowest layers without adapters, which have no backward pass
    maps: float = 0  # float32 operations on the CPU beside the LM: of the warm start's maps
    kept: tuple[str, ...] = ()


STATES, WARM_START = "states", "warm start"  # what is kept, see `Work`


def sizes_of(name: str, dataset: DatasetConfig, results: Path) -> Sizes:
    """Counts of a dataset: those of its dataset.json if it is prepared, or the source's usual ones, or by the user's own files."""
    category = str(dataset.options.get("category", ""))
    usual = USUAL.get(category) or USUAL.get(dataset.source) or _own_sizes(dataset)
    path = results / "data" / name / "dataset.json"
    if path.exists():
        counts = read_json(path)["counts"]
        found = replace(usual, **{part: counts[part] for part in ("items", "train", "valid", "test")})
        return replace(found, llm=counts.get("train_llm"))  # absent where it has to be prepared again
    limits = {"valid": dataset.valid_cases, "test": dataset.test_cases}
    found = replace(usual, **{part: min(n, getattr(usual, part)) for part, n in limits.items() if n is not None})
    return replace(found, llm=None if dataset.train_cases is None else min(dataset.train_cases, found.train))


def _own_sizes(dataset: DatasetConfig) -> Sizes:
    """Those of the user's own two files, if they are there: four of five rows of interactions become cases."""
    folder = dataset.options.get("folder")
    if dataset.source != "files" or folder is None:
        return UNKNOWN
    counts = {}
    for name in ("interactions", "items"):
        for path in (Path(folder) / f"{name}.csv", Path(folder) / f"{name}.parquet"):
            if path.is_file() and (rows := _rows(path, path.stat().st_size)):
                counts[name] = rows
    if len(counts) < 2:
        return UNKNOWN
    cases = max(10, int(0.8 * counts["interactions"]))
    return replace(UNKNOWN, items=counts["items"], train=cases * 8 // 10, valid=cases // 10, test=cases // 10)


@cache
def _rows(path: Path, size: int) -> int:
    """About how many rows a table has: those of a csv by the length of its first ones; 0 of what can't be read."""
    try:
        if path.suffix == ".parquet":
            return int(pyarrow.parquet.read_metadata(path).num_rows)
        with path.open("rb") as file:
            start = file.read(2**20)
    except (OSError, pyarrow.ArrowException):
        return 0  # the job that prepares it says what is wrong
    lines = start.count(b"\n")
    return max(1, round(lines * size / max(1, len(start))) - 1) if lines else 0


# What each method lets its LM do. s: sizes; p: its params, defaults filled in; k: processes.


def _r2ec(s: Sizes, p: dict[str, Any], k: int) -> list[Work]:
    """What is kept for other fits; encoding and evaluation, which every process does; then training, in which each has users of
    its own."""
    recpo, rollouts, training, warm = p["recpo"], p["rollouts"], p["training"], p["warm_start"]
    prompt = prompt_tokens(s, p["prompts"]["max_items"], p["prompts"]["max_prompt_tokens"])
    length, group = (rollouts["max_new_tokens"], rollouts["group_size"]) if recpo["reasoning"] else (0, 1)
    at_once = training["per_device_train_batch_size"]
    users = at_once * training["gradient_accumulation_steps"]  # of one process in one step
    steps = training["max_steps"]
    if steps < 0:
        steps = int(training["num_train_epochs"] * s.train_llm) // (users * k) * recpo["num_iterations"]
    evaluations = steps // training["eval_steps"] if training["eval_steps"] else 0
    cases = s.test + evaluations * min(training["eval_cases"], s.valid)
    first = (
        bool(warm["cases"]) or not steps
    )  # the frozen table, which is kept; RecPO encodes it itself without a warm start
    # Every refresh_steps, at each evaluation and at the end.
    refreshes = (2 - first) + evaluations + (steps - 1) // recpo["refresh_steps"] if steps else 0
    twice = training["activation_checkpointing"]
    learned = (group if twice else 1) * prompt + group * length + s.item
    fresh = steps * users / recpo["num_iterations"]
    return [
        *([_encoded_items(s, p)] if first else []),
        *(_warm_start(s, p, prompt, length) if warm["cases"] else []),
        Work(read=refreshes * s.items * s.item + cases * prompt, written=cases * length, rows=p["evaluation_rows"]),
        Work(
            read=fresh * prompt,
            written=fresh * group * length,
            rows=min(rollouts["rows_at_once"], at_once * group),
            learned=steps * users * learned,
            held=at_once * learned if steps else 0,
            twice=twice,
            frozen=p["lora"]["layers_from"],
        ),
    ]


def _encoded_items(s: Sizes, p: dict[str, Any]) -> Work:
    """The frozen table, which depends on no reasoning."""
    return Work(read=s.items * s.item, rows=p["evaluation_rows"], kept=_named(STATES, p["backbone"], p["prompts"]))


def _encoded_cases(p: dict[str, Any], cases: int, prompt: int, length: int, pooling: str = "last") -> Work:
    """Frozen states of so many cases, each behind `length` written tokens."""
    read = _named(STATES, p["backbone"], p["prompts"], cases, length, pooling, p["evaluation_rows"])
    return Work(read=cases * prompt, written=cases * length, rows=p["evaluation_rows"], kept=read)


def _warm_start(s: Sizes, p: dict[str, Any], prompt: int, length: int) -> list[Work]:
    """Cases on frozen states; the maps' fit; the adapters' steps, if there are any, behind which the table is encoded again."""
    recpo, training, warm, taught = p["recpo"], p["training"], p["warm_start"], p["warm_start"]["adapters"]
    valid = min(warm["valid_cases"], s.valid)
    own = {name: value for name, value in warm.items() if name != "states"}
    of_recpo = [recpo[name] for name in ("tau", "normalize", "prior", "pooling")]
    of_training = [training[name] for name in ("max_grad_norm", "weight_decay", "activation_checkpointing")]
    kept = _named(WARM_START, p["backbone"], p["prompts"], p["lora"], own, length, of_recpo, of_training)
    fits = len(warm["weight_decays"]) * ("taught" in warm["forms"])
    made = [
        _encoded_cases(p, min(warm["cases"], s.train_llm) + valid, prompt, length, recpo["pooling"]),
        # A multiplication and an addition for each pair of a training case and an item, forward, and twice that backward.
        Work(maps=6 * fits * warm["teacher_epochs"] * s.train * s.items * warm["rank"], kept=(*kept, "maps")),
    ]
    if taught["steps"]:
        at_each = taught["batch_size"]
        one_step = at_each * (prompt + length) + taught["held_items"] * s.item
        made += [
            Work(
                read=taught["steps"] * at_each * prompt,
                written=taught["steps"] * at_each * length,
                rows=min(p["rollouts"]["rows_at_once"], at_each),
                learned=taught["steps"] * one_step,
                held=one_step,
                twice=training["activation_checkpointing"],
                frozen=p["lora"]["layers_from"],
                kept=(*kept, "adapters"),
            ),
            Work(
                read=s.items * s.item + valid * prompt,
                written=valid * length,
                rows=p["evaluation_rows"],
                kept=(*kept, "table"),
            ),
        ]
    return made


def _named(kind: str, *parts: Any) -> tuple[str, ...]:
    """What is kept, by all that it depends on beside the dataset."""
    return kind, json.dumps(parts, sort_keys=True)


def _frozen(s: Sizes, p: dict[str, Any], k: int) -> list[Work]:
    prompt = prompt_tokens(s, p["prompts"]["max_items"], p["prompts"]["max_prompt_tokens"])
    length = p["rollouts"]["max_new_tokens"] if p["reasoning"] else 0
    cases = min(max(p["standardize"]), s.train_llm)
    cases += min(p["valid_cases"], s.valid) if len(p["standardize"]) > 1 else 0
    return [
        _encoded_items(s, p),
        *([_encoded_cases(p, cases, prompt, length)] if cases else []),
        Work(read=s.test * prompt, written=s.test * length, rows=p["evaluation_rows"]),
    ]


def _texts(s: Sizes, p: dict[str, Any], cases: int, rows: int = 64) -> Work:
    """A text for each of so many cases."""
    return Work(read=cases * prompt_tokens(s, p["max_items"]), written=cases * p["max_new_tokens"], rows=rows)


def _chosen(s: Sizes, p: dict[str, Any], shares: str) -> int:
    """Validation cases for which a text is written, where a share of popularity is a choice."""
    return min(p["valid_cases"], s.valid) if len(p[shares]) > 1 else 0


def _grpo(s: Sizes, p: dict[str, Any], k: int) -> list[Work]:
    """A group shares its prompt in writing; trl's trainer repeats it in every rollout that it learns from."""
    rounds = p.get("rounds", 1)
    rollouts = rounds * p["max_steps"] * p["users_per_step"] * p["group_size"]
    profiles = (rounds + 1) * min(p["contrastive_cases"], s.train_llm) if "contrastive_cases" in p else 0
    prompt = prompt_tokens(s, p["max_items"])
    whole = prompt + p["max_new_tokens"]
    return [
        _texts(s, p, s.test + profiles + _chosen(s, p, "popularity")),
        Work(
            read=rollouts / p["group_size"] * prompt,
            written=rollouts * p["max_new_tokens"],
            rows=p["users_per_step"] * p["group_size"],
            learned=rollouts * whole,
            held=p["rollouts_at_once"] * whole if p["max_steps"] else 0,
            frozen=p["lora"]["layers_from"],
        ),
    ]


def _titles(s: Sizes, p: dict[str, Any], k: int) -> list[Work]:
    """Tuning to titles; then a text per case, or beams, each as long as a title."""
    whole = prompt_tokens(s, p["max_items"]) + s.line
    learned = p["max_steps"] * p["users_per_step"]
    tuning = Work(
        learned=learned * whole,
        held=p["at_once"] * whole if p["max_steps"] else 0,
        read=s.items * s.line,
        frozen=p["lora"]["layers_from"],
    )
    if "beams" not in p:
        return [tuning, _texts(s, p, s.test + _chosen(s, p, "gamma"))]
    rows = p["evaluation_rows"] * p["beams"]
    return [
        tuning,
        Work(read=s.test * prompt_tokens(s, p["max_items"]), written=s.test * p["beams"] * s.line, rows=rows),
    ]


def _kar(s: Sizes, p: dict[str, Any], k: int) -> list[Work]:
    texts = _texts(s, p, min(p["cases"], s.train_llm) + s.valid + s.test)
    if p["item_knowledge"] == "written":
        texts = replace(
            texts, read=texts.read + s.items * s.item, written=texts.written + s.items * p["max_new_tokens"]
        )
    return [texts]


def _rerank(s: Sizes, p: dict[str, Any], k: int) -> list[Work]:
    prompt = prompt_tokens(s, p["prompts"]["max_items"], p["prompts"]["max_prompt_tokens"])
    read = s.test * (prompt + p["candidates"] * s.line)
    return [Work(read=read, written=s.test * p["rollouts"]["max_new_tokens"], rows=p["evaluation_rows"])]


def _retrieval(s: Sizes, p: dict[str, Any], k: int) -> list[Work]:
    return [_texts(s, p, s.test + _chosen(s, p, "popularity"))]


Counted = Callable[[Sizes, dict[str, Any], int], list[Work]]
WITH_LM: dict[str, Counted] = {
    "r2ec": _r2ec,
    "frozen_llm": _frozen,
    "profile_retrieval": _retrieval,
    "langptune": _grpo,
    "rec_r1": _grpo,
    "bigrec": _titles,
    "d3": _titles,
    "kar": _kar,
    "llm_rerank": _rerank,
}


def prompt_tokens(s: Sizes, items: int, limit: int = 10**9) -> int:
    """Tokens of a user's prompt beyond the beginning that all share."""
    return min(limit, 30 + s.line * items)


def longest(p: dict[str, Any], s: Sizes) -> int:
    """Tokens of a prompt and what is written behind it."""
    prompts = p.get("prompts", {})
    items, limit = prompts.get("max_items", p.get("max_items", 0)), prompts.get("max_prompt_tokens", 10**9)
    length: int = p.get("rollouts", p).get("max_new_tokens", s.line)
    return prompt_tokens(s, items, limit) + length
