"""Small configs, with what a test changes in them."""

from typing import Any


def config(**changes: Any) -> dict[str, Any]:
    return {
        "datasets": {"toy": {"source": "ml_100k", "category": "movie"}},
        "methods": {"popularity": None},
    } | changes


def dataset(**changes: Any) -> dict[str, Any]:
    return config(datasets={"toy": {"source": "ml_100k", "category": "movie"} | changes})


def method(**changes: Any) -> dict[str, Any]:
    return config(methods={"sasrec": changes})


def r2ec(device: str = "cpu", **changes: Any) -> dict[str, Any]:
    """R2ec with its LM on this device."""
    return config(methods={"r2ec": {"params": {"backbone": {"name": "x", "device": device}}} | changes})
