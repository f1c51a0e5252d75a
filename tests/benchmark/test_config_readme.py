"""The configuration's documentation and schema are complete."""

import json
from typing import Any

import pytest
from pydantic import BaseModel

import r2ec.method as r2ec_method
from benchmark.config.methods import ROOT
from benchmark.config.read import json_schema
from benchmark.config.schema import AblationConfig, ClaimConfig, Config, MethodConfig
from benchmark.data.settings import DatasetConfig
from r2ec.settings import AdapterSettings
from tests.support.config_readme import readme_rows


def r2ec_sections() -> dict[str, type[BaseModel]]:
    """The sections of R2ec's params."""
    fields = r2ec_method.Params.model_fields.items()
    sections = {name: field.annotation for name, field in fields}
    return {name: kind for name, kind in sections.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}


def test_the_schema_is_in_step_with_the_models() -> None:
    """If it fails: python -m benchmark.config.read > workflow/schemas/config.schema.json"""
    written = json.loads((ROOT / "workflow" / "schemas" / "config.schema.json").read_text())
    assert written == json_schema()


@pytest.mark.parametrize("model", [Config, DatasetConfig, MethodConfig, AblationConfig, ClaimConfig])
def test_the_schema_refuses_the_unknown_too(model: type) -> None:
    assert model.model_json_schema()["additionalProperties"] is False


SECTIONS = {f"### `{name}`": model for name, model in r2ec_sections().items()} | {
    "## R2ec's params": r2ec_method.Params,
    "#### `warm_start.adapters`": AdapterSettings,
}


@pytest.mark.parametrize("section", SECTIONS)
def test_config_readme_explains_every_setting_of_r2ec(section: str) -> None:
    """The very settings, with their defaults: a renamed one leaves no row behind."""
    model, rows = SECTIONS[section], readme_rows(section)
    assert list(rows) == list(model.model_fields), f"config/README.md, {section}: a row per setting, in this order"
    for name, field in model.model_fields.items():
        default = field.get_default()
        if isinstance(default, BaseModel):
            default = {}
        written = "required" if field.is_required() else as_json(rows[name])
        assert written == ("required" if field.is_required() else default), f"config/README.md, {section}: {name}"


def as_json(cell: str) -> Any:
    """The value in a cell; words stand there without quotes."""
    try:
        return json.loads(cell)
    except json.JSONDecodeError:
        return cell


def test_config_readme_explains_every_setting() -> None:
    rows = [f"`{name}`" for name in readme_rows()]
    for model in (Config, DatasetConfig, MethodConfig, AblationConfig, ClaimConfig):
        for field in model.model_fields:
            assert f"`{field}`" in rows, f"config/README.md has no row for {field}"
