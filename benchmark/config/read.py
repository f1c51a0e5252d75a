"""Read and check a configuration.

An entry of `datasets` or `methods` that says `like: NAME` is the entry NAME of config/shared.yaml with its other
settings laid over. `composed` puts both together before anything is checked, so that jobs and records see whole
settings and no `like`.

`python -m benchmark.config.read` prints its JSON schema, which editors read: workflow/schemas/config.schema.json.
"""

import json
import re
from collections.abc import Hashable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from benchmark.config.factors import ablations_of
from benchmark.config.methods import check_params, kind_of, load_method, thinking_of, trains_in_processes
from benchmark.config.overlay import overlaid
from benchmark.config.schema import Config, MethodConfig
from benchmark.config.wording import among, nearest
from benchmark.data.settings import DatasetConfig, source_of
from benchmark.errors import InputError, checked
from benchmark.shipped import shipped

SHARED = "config/shared.yaml"
# The sections whose entries may say `like`, and what else these may say.
COMPOSED: dict[str, type[BaseModel]] = {"datasets": DatasetConfig, "methods": MethodConfig}
# Of a config with its anchors written out. Ours have some thousands of values, five deep.
MOST_VALUES, DEEPEST = 200_000, 50
LARGEST = 2**63 - 1


def read_config(value: dict[str, Any], where: str = "config") -> Config:
    """Compose and check a configuration. Raises InputError in one sentence that names the setting and what is known."""
    _check_whole_numbers(value, where)
    return _check(checked(Config, composed(value, where), where), where)


def composed(value: dict[str, Any], where: str = "config") -> dict[str, Any]:
    """The configuration with its entries `like: NAME` written out, otherwise as it is, unchecked.

    Raises InputError where shared.yaml has no entry of this name in this section, or is wrong itself.
    """
    whole = dict(value)
    for section in COMPOSED:
        entries = value.get(section)
        if isinstance(entries, dict):
            whole[section] = {
                name: _written_out(entry, section, f"{where}: {section}.{name}") for name, entry in entries.items()
            }
    return whole


def _written_out(entry: Any, section: str, where: str) -> Any:
    """One entry, laid over the one that it is like."""
    if not isinstance(entry, dict):
        return entry
    settings = ["like", *COMPOSED[section].model_fields]
    for name in entry:
        if name not in settings and nearest(str(name), settings) == ["like"]:
            raise InputError(f"{where}: unknown setting {name!r}{among(name, settings)}")
    if "like" not in entry:
        return entry
    own = dict(entry)
    like, known = own.pop("like"), shared()[section]
    if not isinstance(like, str) or like not in known:
        raise InputError(f"{where}.like: no entry {like!r} in {section} of {SHARED}{among(str(like), known)}")
    return overlaid(deepcopy(known[like]), own)


@cache
def shared() -> dict[str, dict[str, Any]]:
    """The entries of shared.yaml by section. Raises InputError, which names that file, where one of them is wrong."""
    value = read_yaml(shipped(SHARED))
    _check(checked(Config, value, SHARED), SHARED)
    return {section: value[section] for section in COMPOSED}


def _check(config: Config, where: str) -> Config:
    """What pydantic can't see: sources, methods, their settings and the ablations."""
    for name, dataset in config.datasets.items():
        source_of(dataset, f"{where}: datasets.{name}")
    for name in config.methods:
        entry = config.method(name)
        method = load_method(config.module_of(name), where)
        kind_of(method)
        for params in entry.settings():
            check_params(method, params, f"{where}: methods.{name}")
            thinking_of(method, params)
            _check_device(entry, params, f"{where}: methods.{name}")
        if entry.process_count() > 1 and not trains_in_processes(method):
            raise InputError(
                f"{where}: methods.{name}: {config.module_of(name)} trains in one process alone, not in "
                f"{entry.process_count()}; set gpus or processes to 1"
            )
    for run, variant in ablations_of(config, where).variants.items():
        entry = config.method(variant.base)
        for params in entry.settings():
            _check_device(entry, overlaid(params, variant.overlay), f"{where}: ablations: {run}")
    return config


def _check_device(entry: MethodConfig, params: dict[str, Any], where: str) -> None:
    """Raise InputError where an LM is to run on a GPU and has none, or has one and does not use it.

    A job sees the GPUs that `gpus` gives it, and no other.
    """
    backbone = params.get("backbone")
    if not isinstance(backbone, dict):
        return
    device = str(backbone.get("device", "cpu"))
    if device.startswith("cuda") and entry.gpus == 0:
        raise InputError(f"{where}: backbone.device is {device!r}, but gpus is 0, so that its jobs see none; set gpus")
    if device.startswith("cuda:") and entry.process_count() > 1:
        raise InputError(
            f"{where}: backbone.device {device!r} is that of all processes; set 'cuda', each has its own GPU"
        )
    if not device.startswith("cuda") and entry.gpus:
        raise InputError(
            f"{where}: gpus is {entry.gpus}, but backbone.device is {device!r}; set it to 'cuda', or gpus to 0"
        )


def read_config_file(path: str | Path) -> Config:
    """Read and check one YAML file."""
    return read_config(read_yaml(path), str(path))


def _check_whole_numbers(value: Any, place: str) -> None:
    """Raise InputError for a whole number that no array and no other program can hold."""
    if isinstance(value, int) and abs(value) > LARGEST:
        raise InputError(f"{place}: expected a number of at most 19 digits, found {str(value)[:30]}...")
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            _check_whole_numbers(inner, f"{place}.{key}")


class _Yaml(yaml.SafeLoader):
    """YAML as Snakemake reads it, but errors name their place, and a name that stands twice is one.

    Plain YAML would silently take the last of two values, 8 for 010, and 90 for 1:30.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: dict[Hashable, str] = {}  # by the key as it is read: 0.1 and 0.10 are one
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            merges = key.tag == "tag:yaml.org,2002:merge"
            name = key.value if merges else self.construct_object(key)
            if name in seen:
                twice = "stands there twice" if seen[name] == key.value else f"is the same name as {seen[name]!r}"
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} {twice}", problem_mark=key.start_mark)
            seen[name] = key.value
        return node

    def construct_date(self, node: yaml.ScalarNode) -> Any:
        try:
            return self.construct_yaml_timestamp(node)
        except ValueError as error:
            reason = f"no such date as {node.value!r}: {error}"
            raise yaml.MarkedYAMLError(problem=reason, problem_mark=node.start_mark) from None

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        whole = node.tag == "tag:yaml.org,2002:int"
        try:
            value = self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)
        except ValueError:
            reason = f"{node.value[:30]!r} is no number; put it in quotes if it is none"
            raise yaml.MarkedYAMLError(problem=reason, problem_mark=node.start_mark) from None
        if ":" in node.value or (whole and re.fullmatch("[-+]?0[0-9_]+", node.value)):
            reason = f"{node.value!r} is read as {value}; write that, or put it in quotes"
            raise yaml.MarkedYAMLError(problem=reason, problem_mark=node.start_mark)
        return value


_Yaml.add_constructor("tag:yaml.org,2002:timestamp", _Yaml.construct_date)
_Yaml.add_constructor("tag:yaml.org,2002:int", _Yaml.construct_number)
_Yaml.add_constructor("tag:yaml.org,2002:float", _Yaml.construct_number)


def _check_size(value: Any, where: str) -> None:
    """Raise InputError for a file whose anchors stand for a multitude of values, or hold themselves."""
    known: dict[int, tuple[int, int]] = {}  # values and depth of lists and sections, by identity: anchors share them

    def measured(part: Any, depth: int) -> tuple[int, int]:
        if not isinstance(part, dict | list):
            return 1, 1
        if depth <= DEEPEST and id(part) not in known:
            sizes = [measured(inner, depth + 1) for inner in (part.values() if isinstance(part, dict) else part)]
            known[id(part)] = 1 + sum(n for n, _ in sizes), 1 + max((deep for _, deep in sizes), default=0)
        values, deep = known.get(id(part), (0, DEEPEST + 1))
        if deep > DEEPEST:
            raise InputError(f"{where}: nested more than {DEEPEST} deep, or an anchor holds itself; write it flatter")
        return values, deep

    if (values := measured(value, 1)[0]) > MOST_VALUES:
        raise InputError(f"{where}: its anchors stand for {values:,} values, of at most {MOST_VALUES:,}; use fewer")


def json_schema() -> dict[str, Any]:
    """The JSON schema of a config file: that of `Config`, and `like`, which stands for what an entry doesn't say."""
    schema = Config.model_json_schema()
    for name in ("DatasetConfig", "MethodConfig"):
        entry = schema["$defs"][name]
        like = {"type": "string", "title": "Like", "description": f"an entry of {SHARED}, over which this one is laid"}
        entry["properties"]["like"] = like
        if required := entry.pop("required", None):
            entry["anyOf"] = [{"required": required}, {"required": ["like"]}]
    return schema


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The settings in a YAML file, unchecked. Raises InputError."""
    try:
        value = yaml.load(Path(path).read_text(encoding="utf-8"), _Yaml)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the path of a config, such as config/config.yaml") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split()).replace(' in "<unicode string>", line ', " in line ")
        raise InputError(f"{path}: can't be read as YAML ({reason})") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply to be read; write it flatter") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds no settings; see config/README.md")
    _check_size(value, str(path))
    return value


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
