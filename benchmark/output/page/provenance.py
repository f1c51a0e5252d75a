"""Describe where a page's numbers come from: data, settings, seeds, code, machine."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmark.analysis.collect import Collected
from benchmark.jobs.records import RunRecord
from benchmark.output.page import labels


def as_text(value: Any) -> str:
    """Nested settings as "key: value" words, their values as a config writes them.

    >>> as_text({"grid": {"lr": [0.1, 1]}, "name": "ml", "none": None, "on": True})
    'grid: (lr: 0.1, 1), name: ml, none: null, on: true'
    """
    if isinstance(value, dict):
        parts = [(key, as_text(entry), isinstance(entry, dict)) for key, entry in value.items()]
        return ", ".join(f"{key}: ({text})" if nested else f"{key}: {text}" for key, text, nested in parts)
    if isinstance(value, list):
        return ", ".join(f"({as_text(entry)})" if isinstance(entry, dict | list) else as_text(entry) for entry in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)


def side_by_side(datasets: Sequence[Mapping[str, Any]], order: Iterable[str] = ()) -> dict[str, list[Any]]:
    """By name the value of each dataset, None where it has none. order: of names that come first.

    >>> side_by_side([{"b": 1, "a": 2}, {"c": 3, "a": 4}], order="a")
    {'a': [2, 4], 'b': [1, None], 'c': [None, 3]}
    """
    names = [name for name in order if any(name in values for values in datasets)]
    names = list(dict.fromkeys([*names, *(name for values in datasets for name in values)]))
    return {name: [values.get(name) for values in datasets] for name in names}


def counted(datasets: Sequence[Mapping[str, Any]], words: Mapping[str, str]) -> list[list[Any]]:
    """Counts as [what, the number on each dataset], in the order of `words`; a count without words keeps its name.

    >>> counted([{"new_rule": 3, "users": 1200}, {"users": 5}], {"users": "users kept"})
    [['users kept', [1200, 5]], ['new rule', [3, None]]]
    """
    return [
        [
            words.get(name, labels.in_words(name)),
            [value if value is None or isinstance(value, int) else as_text(value) for value in values],
        ]
        for name, values in side_by_side(datasets, words).items()
    ]


def of_source(about: Mapping[str, Any]) -> dict[str, Any]:
    """What a source counted on its own, from dataset.json."""
    facts = dict(about.get("source") or {})
    return facts | facts.pop("counts", {})


def settings(about: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """The settings of all datasets as [what, name in a config, [value on each]], those of their sources last."""
    flat = []
    for entry in about:
        own = {name: value for name, value in entry["settings"].items() if name != "options"}
        options = entry["settings"].get("options") or {}
        flat.append({name: as_text(value) for name, value in own.items()})
        flat[-1] |= {f"options.{name}": as_text(value) for name, value in options.items()}
    return [[labels.setting(name), name, values] for name, values in side_by_side(flat, flat[0]).items()]


def shared(runs: Iterable[RunRecord], text_of: Callable[[RunRecord], str]) -> list[list[Any]]:
    """The distinct texts on all runs with the number of runs that have each; commonest first."""
    count: dict[str, int] = {}
    for run in runs:
        text = text_of(run)
        count[text] = count.get(text, 0) + 1
    return [[text, number] for text, number in sorted(count.items(), key=lambda pair: (-pair[1], pair[0]))]


def _file(source: Mapping[str, Any]) -> str:
    """A file that a dataset was read from, with its size and checksum."""
    size = f", {source['bytes']:,} bytes" if "bytes" in source else ""
    return f"{source['file']}{size}, SHA-256 {source['sha256']}"


def of_dataset(results: Collected) -> dict[str, Any]:
    """A dataset's warnings and sources."""
    about = results.about
    facts = [["read from", _file(source)] for source in about.get("sources") or []]
    if expected := about.get("expected"):
        same = "as here" if expected["equal"] else "which differ from those here"
        counts = ", ".join(f"{number:,} {labels.in_words(name)}" for name, number in expected["counts"].items())
        facts.append([f"printed in {expected['source']}", f"{counts}, {same}"])
    facts.append(["hash of the split", str(about["split_hash"])])
    return {
        "name": results.dataset,
        "warnings": [str(text) for text in about.get("warnings", [])],
        "facts": facts,
    }


def of_run(run: RunRecord) -> dict[str, Any]:
    """One run's row under the heads of its columns: seeds, time, memory, and its settings, which are no column."""
    tried = len(run.tuning.trials) if run.tuning else 1
    return {
        "dataset": run.dataset,
        "method": run.method,
        "training": run.seed,
        "seed": run.seed_value,
        "fit, s": round(run.seconds.fit, 1),
        "ranking, s": round(run.seconds.score, 1),
        "ms per case, in batches": round(run.latency_ms_per_case, 2),
        "ms per case, alone": round(run.latency_ms_alone, 1),
        "peak memory, MiB": run.peak_memory_mib,
        "tokens written": run.tokens_written,
        "users learned from": run.learned.users,
        "targets learned": run.learned.targets,
        "settings tried": tried,
        "commit": run.commit[:10] + ("-dirty" if run.commit.endswith("-dirty") else ""),
        "finished, UTC": run.finished_at.strftime("%Y-%m-%d %H:%M"),
        "settings": as_text(run.params),
    }


def provenance(collected: Sequence[Collected]) -> dict[str, Any]:
    """The page's part on provenance: what the runs share, the datasets' rules and settings, and every run."""
    runs = [run for results in collected for run in results.records.values()]
    about = [results.about for results in collected]
    return {
        "shared": [
            ["Commit", shared(runs, lambda run: run.commit)],
            ["Versions of packages", shared(runs, lambda run: ", ".join(map(" ".join, run.versions.items())))],
            ["Machine", shared(runs, lambda run: labels.machine(run.hardware))],
        ],
        "read": counted([of_source(entry) for entry in about], labels.OF_SOURCES),
        "rules": counted([entry["counts"] for entry in about], labels.RULES),
        "settings": settings(about),
        "datasets": [of_dataset(results) for results in collected],
        "runs": [of_run(run) for run in runs],
    }
