"""Plain English, with units, for the names in the records that the page's provenance shows."""

from collections.abc import Mapping
from typing import Any

from benchmark.config.wording import many
from benchmark.data.settings import DatasetConfig

# Counts of dataset.json in the order of the rules.
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


# What a source counts on its own, in the order of its rules.
OF_SOURCES = {
    "window": "first day read, and the day before which the last one lies",
    "months_widened": "months by which the window begins before the day that was set",
    "interactions_read": "interactions in its file",
    "ratings_of_zero": "ratings of 0, which count as no rating",
    "items_read": "lines of its file of items",
    "lines_broken": "lines skipped, as they hold no item",
    "titles_no_text": "titles that are a list, a number or the like, which count as none",
    "items_without_interaction": "items without an interaction before the window's end",
    "items_without_title": "items dropped: without a title",
    "items_title_too_long": "items dropped: their title is too long",
    "items_without_price": "items dropped: without a price",
    "items_repeated": "further lines of an item that stays",
    "items_merged": "items merged with another one of the same title",
    "lines_without_quantity": "lines of receipts left out, as nothing was bought",
    "dropped_unknown_item": "interactions dropped: the file of items doesn't have theirs",
    "dropped_of_dropped_items": "interactions dropped: of an item that was dropped",
    "dropped_outside_window": "interactions dropped: outside the window",
    "dropped_repeats": "interactions dropped: the user had taken the item before",
    "dropped_k_core": "interactions dropped: too few of their user or of their item in the source's own rule",
    "interactions": "interactions handed on",
    "items": "items handed on",
}


SOURCE = "the file of benchmark/datasets that reads the data"


def in_words(name: str) -> str:
    """A name that has no words of its own.

    >>> in_words("new_rule")
    'new rule'
    """
    return name.replace("_", " ")


def setting(name: str) -> str:
    """What a setting of a dataset is; options are those of its source.

    >>> setting("min_user_count"), setting("options.timestamp_unit")
    ('interactions a user must have (k-core, repeated)', "the source's own setting: timestamp unit")
    """
    if name == "source":
        return SOURCE
    field = DatasetConfig.model_fields.get(name)
    if field is not None and field.description:
        return field.description
    return f"the source's own setting: {in_words(name.removeprefix('options.'))}"


def machine(facts: Mapping[str, Any]) -> str:
    """The hardware of a run's record.

    >>> machine({"processor": "EPYC", "cores": 2, "memory_gib": 24, "gpus": 0, "gpu": "none"})
    'EPYC, 2 cores, 24 GiB of memory, no GPU'
    >>> machine({"cores": 1, "gpus": 2, "gpu": "H200", "processes": 2, "new_fact": "x"})
    '1 core, 2 GPUs (H200), processes that trained together: 2, new fact: x'
    """
    parts = []
    for name, value in facts.items():
        match name:
            case "processor":
                parts.append(str(value))
            case "cores":
                parts.append(many(value, "core"))
            case "memory_gib":
                parts.append(f"{value:,} GiB of memory")
            case "gpus":
                parts.append(f"{many(value, 'GPU')} ({facts['gpu']})" if value else "no GPU")
            case "gpu":
                continue  # said with their number
            case "processes":
                parts.append(f"processes that trained together: {value}")
            case _:
                parts.append(f"{in_words(name)}: {value}")
    return ", ".join(parts)
