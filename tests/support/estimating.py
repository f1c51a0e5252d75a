"""What tests of estimates share: a small dataset's sizes, a method's filled params, and a config of it."""

from pathlib import Path
from typing import Any

from benchmark.config.read import read_config
from benchmark.config.schema import Config
from benchmark.workload import Sizes

NOWHERE = Path("/nowhere")
SIZES = Sizes(items=100, train=1000, valid=200, test=50, line=10, item=20)


def filled(module: str, **params: Any) -> dict[str, Any]:
    from benchmark.config.methods import load_method

    params_filled: dict[str, Any] = load_method(module).Params.model_validate(params).model_dump(mode="json")
    return params_filled


def toy_config(**methods: Any) -> Config:
    return read_config(
        {"datasets": {"toy": {"source": "ml_100k", "category": "movie"}}, "methods": methods, "seeds": 2}
    )
