"""Describe where a page's numbers come from: data, settings, seeds, code, machine."""

from collections.abc import Iterable, Sequence
from typing import Any

from benchmark.analysis.collect import Collected
from benchmark.jobs.records import RunRecord

# Counts of dataset.json in the order of the rules, in words.
RULES = {
    "interactions_read": "interactions read",
    "items_read": "items read",
    "items_without_title": "items without a title",
    "dropped_unknown_item": "interactions dropped: their item isn't among the items",
    "dropped_no_title": "interactions dropped: their item has no title",
    "dropped_outside_window": "interactions dropped: outside the window of time",
    "dropped_repeats": "interactions dropped: the user had taken the item before",
    "interactions_before_minimum_counts": "interactions left before the minimum counts",
    "dropped_minimum_counts": "interactions dropped: too few of their user or of their item",
    "interactions": "interactions kept",
    "users": "users kept",
    "items": "items kept: the catalogue that every case ranks",
    "users_without_case": "users without a case: all that they took is of one second",
    "interactions_in_a_shared_second": "interactions in one second with another one of the same user",
    "interactions_hidden": "interactions hidden from the history of a case of their own second",
    "cases": "cases: each a history and the item that was taken next",
    "cases_train": "cases in the time of training",
    "cases_valid": "cases in the time of validation",
    "cases_test": "cases in the time of the test",
    "train": "training cases, for every method",
    "train_llm": "training cases that a language model may read, a seeded sample where fewer",
    "valid": "validation cases used",
    "test": "test cases ranked",
    "test_users": "users with a test case",
    "cold_targets_valid": "validation targets never seen in training",
    "cold_targets_test": "test targets never seen in training",
    "items_cold": "items of the catalogue never seen in training",
}


def as_text(value: Any) -> str:
    """Nested settings as "key: value" words.

    >>> as_text({"grid": {"lr": [0.1, 1]}, "name": "ml", "none": None})
    'grid: (lr: 0.1, 1), name: ml, none: none'
    """
    if isinstance(value, dict):
        parts = [(key, as_text(entry), isinstance(entry, dict)) for key, entry in value.items()]
        return ", ".join(f"{key}: ({text})" if nested else f"{key}: {text}" for key, text, nested in parts)
    if isinstance(value, list):
        return ", ".join(f"({as_text(entry)})" if isinstance(entry, dict | list) else as_text(entry) for entry in value)
    return "none" if value is None else str(value)


def counted(counts: dict[str, Any]) -> list[list[Any]]:
    """The counts of dataset.json as [words, count], in the order of the rules; a count without words keeps its name.

    >>> counted({"users": 1200, "new_rule": 3, "dropped_no_title": 0})
    [['interactions dropped: their item has no title', 0], ['users kept', 1200], ['new_rule', 3]]
    """
    known = [name for name in RULES if name in counts] + [name for name in counts if name not in RULES]
    values = [counts[name] if isinstance(counts[name], int) else as_text(counts[name]) for name in known]
    return [[RULES.get(name, name), value] for name, value in zip(known, values, strict=True)]


def shared(runs: Iterable[RunRecord], field: str) -> list[list[Any]]:
    """The distinct values of one field of all runs as text, with the number of runs that have it; commonest first."""
    count: dict[str, int] = {}
    for run in runs:
        value = getattr(run, field)
        text = ", ".join(f"{key} {entry}" for key, entry in value.items()) if isinstance(value, dict) else str(value)
        count[text] = count.get(text, 0) + 1
    return [[text, number] for text, number in sorted(count.items(), key=lambda pair: (-pair[1], pair[0]))]


def of_dataset(results: Collected) -> dict[str, Any]:
    """A dataset's rules, settings and sources."""
    about = results.about
    facts = [["settings", as_text(about["settings"])]]
    facts += [["sources", as_text(about["sources"])]] if about.get("sources") else []
    facts += [["the source itself", as_text(about["source"])]] if about.get("source") else []
    if expected := about.get("expected"):
        same = "as here" if expected["equal"] else "which differ from those here"
        facts.append([str(expected["source"]), f"{as_text(expected['counts'])}, {same}"])
    facts.append(["hash of the split", str(about["split_hash"])])
    return {
        "name": results.dataset,
        "rules": counted(about["counts"]),
        "warnings": [str(text) for text in about.get("warnings", [])],
        "facts": facts,
    }


def of_run(run: RunRecord) -> dict[str, Any]:
    """One run's row: seeds, settings, time, memory."""
    tried = len(run.tuning.trials) if run.tuning else 1
    return {
        "dataset": run.dataset,
        "method": run.method,
        "seed": run.seed,
        "seed value": run.seed_value,
        "fit, s": round(run.seconds.fit, 1),
        "ranking, s": round(run.seconds.score, 1),
        "ms per case": round(run.latency_ms_per_case, 2),
        "ms alone": round(run.latency_ms_alone, 1),
        "peak MiB": run.peak_memory_mib,
        "tokens written": run.tokens_written,
        "users": run.learned.users,
        "targets": run.learned.targets,
        "settings tried": tried,
        "commit": run.commit[:10] + ("-dirty" if run.commit.endswith("-dirty") else ""),
        "finished, UTC": run.finished_at.strftime("%Y-%m-%d %H:%M"),
        "params": as_text(run.params),
    }


def provenance(collected: Sequence[Collected]) -> dict[str, Any]:
    """The page's part on provenance: what the runs share, each dataset's rules, and every run."""
    runs = [run for results in collected for run in results.records.values()]
    return {
        "shared": [
            [words, shared(runs, field)]
            for field, words in (("commit", "commit"), ("versions", "versions"), ("hardware", "machine"))
        ],
        "datasets": [of_dataset(results) for results in collected],
        "runs": [of_run(run) for run in runs],
    }
