"""Keeps states of the untrained LM, encoded once for all fits, and names the encoder that a fitted LM is."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from benchmark.contract import Cases
from benchmark.storage.checksums import check_kept
from benchmark.storage.io import read_json, sha256_of, sha256_of_json
from benchmark.storage.kept import kept, key, place
from benchmark.storage.stages import Stage
from lm import backbone as backbones
from lm.writing.engine import WRITING
from r2ec.model.item_table import ENCODING, hash_of
from r2ec.model.network import WEIGHTS
from r2ec.scoring.reader import SETTINGS, Reader
from r2ec.settings import Params

# The states of cases under the untrained LM: h_T of what it writes, pooled.
STATES = Stage("states", 1, after=(WRITING, ENCODING))
# What a greedy rollout depends on, of the section `rollouts`.
GREEDY = {"max_new_tokens", "merge_adapters", "repetition_penalty"}


def frozen_states(reader: Reader, parts: dict[str, Cases]) -> dict[str, Tensor]:
    """States of all items (`items`, [V, d]) and of each part's cases ([n, d]) under the untrained LM, float32.

    Each is encoded once and kept in the folder `warm_start.states`, in a file named by the hash of all that it depends
    on: weights, prompts, how a reasoning is written and pooled, and the versions of the stages and packages that do it.
    New adapters change nothing (their B is zero), so that every seed and every setting of RecPO starts from the same
    files. A file is written whole or not at all; a killed encoding begins anew. The reader's table is left with the
    states of its items.
    """
    params, recpo = reader.params, reader.params.recpo
    items_of, cases_of = (_encoder(params, stage) for stage in (ENCODING, STATES))
    reasoning = {
        "rollouts": params.rollouts.model_dump(mode="json", include=GREEDY),
        "reasoning": recpo.reasoning,
        "pooling": recpo.pooling,
        "rows": params.evaluation_rows,
    }

    def states_at(about: dict[str, Any], encode: Callable[[], Tensor]) -> Tensor:
        path = place(params.warm_start.states, about, ".safetensors")

        def write(temporary: Path) -> None:
            encoded = encode().float().cpu().clone()  # not the table itself, which is encoded again later
            save_file({"states": encoded}, temporary, metadata={"about": json.dumps(about, sort_keys=True)})

        kept(path, write)
        return load_file(path)["states"]

    def items() -> Tensor:
        reader.table.refresh(reader.model)
        return reader.table.states

    def read(cases: Cases, name: str) -> Tensor:
        batches = cases.batches(params.evaluation_rows)
        bar = tqdm(batches, total=-(-len(cases) // params.evaluation_rows), desc=f"untrained states, {name}", delay=5)
        return torch.cat([reader.read(batch)[0].float().cpu() for batch in bar])

    states = {"items": states_at(items_of | {"items": reader.table.prompts_hash}, items)}
    reader.table.states.copy_(states["items"])
    for name, cases in parts.items():
        prompts = reader.prompts.user_prompts(cases, open_answer=not recpo.reasoning)
        states[name] = states_at(cases_of | reasoning | {"cases": hash_of(prompts)}, partial(read, cases, name))
    return states


def encoder_of(folder: Path) -> str:
    """The hash of all that a fitted model's item states depend on besides their prompts, for `large_table.refresh`."""
    check_kept(folder)
    params = Params.model_validate(read_json(folder / SETTINGS)["params"])
    return sha256_of_json(_encoder(params, ENCODING) | {"weights": sha256_of(folder / WEIGHTS)})


def _encoder(params: Params, stage: Stage) -> dict[str, Any]:
    """The key of the untrained LM and of the stage that encodes with it."""
    return key(stage, {"backbone": backbones.identity(params.backbone)})
