"""Where a page's numbers come from, in words: data, settings, seeds, code, machine."""

from collections.abc import Iterable, Sequence
from typing import Any

from benchmark.analysis.collect import Collected
from benchmark.jobs.records import RunRecord

# Counts of dataset.json in the order of the rules, in words. {n} is the count.
RULES = {
    "interactions_read": "{n} interactions were read",
    "items_read": "{n} items were read",
    "items_without_title": "{n} items have no title",
    "dropped_unknown_item": "{n} interactions were dropped: their item isn't among the items",
    "dropped_no_title": "{n} interactions were dropped: their item has no title",
    "dropped_outside_window": "{n} interactions were dropped: they lie outside the window of time",
    "dropped_repeats": "{n} interactions were dropped: the user had taken the item before",
    "interactions_before_minimum_counts": "{n} interactions were left before the minimum counts",
    "dropped_minimum_counts": "{n} interactions were dropped by the minimum counts of users and items",
    "interactions": "{n} interactions are kept",
    "users": "{n} users are kept",
    "items": "{n} items are in the catalogue that every case ranks",
    "users_without_case": "{n} users have no case: all that they took is of one second",
    "interactions_in_a_shared_second": "{n} interactions share their second with another one of the same user",
    "interactions_hidden": "{n} interactions are hidden from the history of a case of their own second",
    "cases": "{n} cases: each a history and the item that was taken next",
    "cases_train": "{n} cases lie in the time of training",
    "cases_valid": "{n} cases lie in the time of validation",
    "cases_test": "{n} cases lie in the time of the test",
    "train": "{n} training cases, for every method",
    "train_llm": "{n} training cases, a seeded sample, may be read by a language model",
    "valid": "{n} validation cases are used",
    "test": "{n} test cases are ranked",
    "test_users": "{n} users have a test case",
    "cold_targets_valid": "{n} validation targets were never seen in training",
    "cold_targets_test": "{n} test targets were never seen in training",
    "items_cold": "{n} items of the catalogue were never seen in training",
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


def counted(counts: dict[str, Any]) -> list[str]:
    """The counts of dataset.json as sentences; a count without words keeps its name, and rules that met nothing come last.

    >>> counted({"users": 1200, "dropped_repeats": 0, "new_rule": 3, "dropped_no_title": 0})
    ['1,200 users are kept.', 'new_rule: 3.', 'None: dropped_no_title, dropped_repeats.']
    """
    known = [name for name in RULES if name in counts] + [name for name in counts if name not in RULES]
    said, none = [], []
    for name in known:
        number = f"{counts[name]:,}" if isinstance(counts[name], int) else as_text(counts[name])
        if counts[name] == 0:
            none.append(name)
        else:
            said.append(RULES[name].format(n=number) + "." if name in RULES else f"{name}: {number}.")
    return said + ([f"None: {', '.join(none)}."] if none else [])


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
    """All of it: what the runs share, each dataset's rules, every run."""
    runs = [run for results in collected for run in results.records.values()]
    return {
        "shared": [
            [words, shared(runs, field)]
            for field, words in (("commit", "commit"), ("versions", "versions"), ("hardware", "machine"))
        ],
        "datasets": [of_dataset(results) for results in collected],
        "runs": [of_run(run) for run in runs],
    }
