"""Lay settings over others (a grid's over a method's params, an ablation's over its base's), and name the run of it."""

import json
import re
from typing import Any

from benchmark.storage.io import sha256_of_json

LONGEST_NAME = 120  # characters of a folder's name behind that of its base
Changes = dict[tuple[str, ...], Any]  # by the path of a setting, such as ("recpo", "beta")


def overlaid(params: dict[str, Any], trial: dict[str, Any]) -> dict[str, Any]:
    """One setting of a grid over a method's params: what the trial doesn't name stays, also inside sections.

    >>> overlaid({"lora": {"r": 4, "alpha": 8}, "epochs": 2}, {"lora": {"r": 16}})
    {'lora': {'r': 16, 'alpha': 8}, 'epochs': 2}
    """
    whole = dict(params)
    for key, value in trial.items():
        before = whole.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            value = overlaid(before, value)
        whole[key] = value
    return whole


def flatten(params: dict[str, Any], path: tuple[str, ...] = ()) -> Changes:
    """Every setting by its path.

    >>> flatten({"recpo": {"beta": 0.05, "tau": 0.1}, "rows": 64})
    {('recpo', 'beta'): 0.05, ('recpo', 'tau'): 0.1, ('rows',): 64}
    """
    flat: Changes = {}
    for key, value in params.items():
        flat |= flatten(value, (*path, key)) if isinstance(value, dict) and value else {(*path, key): value}
    return flat


def unflatten(changes: Changes) -> dict[str, Any]:
    """The settings at these paths, in their sections.

    >>> unflatten({("recpo", "beta"): 0, ("rows",): 8})
    {'recpo': {'beta': 0}, 'rows': 8}
    """
    sections: dict[str, Any] = {}
    for path, value in changes.items():
        for key in reversed(path):
            value = {key: value}
        sections = overlaid(sections, value)
    return sections


def run_name(base: str, changes: Changes) -> str:
    """The folder of a base's run with these changes: the same for the same changes, the base's own for none.

    No row of `methods` can have the name of such a folder, as none may hold an "=".

    >>> run_name("r2ec", {("rollouts", "group_size"): 8, ("recpo", "beta"): 0.25})
    'r2ec--recpo.beta=0.25,rollouts.group_size=8'
    """
    if not changes:
        return base
    ordered = sorted(changes.items())
    words = [(".".join(path), value if isinstance(value, str) else json.dumps(value)) for path, value in ordered]
    text = ",".join(f"{path}={word}" for path, word in words)
    safe = re.sub(r"[^A-Za-z0-9_.=,-]+", "_", text)[:LONGEST_NAME]
    if safe != text:  # something was lost
        safe = f"{safe}-{sha256_of_json([[*path, value] for path, value in ordered])[:8]}"
    return f"{base}--{safe}"
