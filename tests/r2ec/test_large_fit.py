"""A fitted model with its item table on disk gives the evaluator's top items and the reward of the table in memory."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmark.evaluate import rank
from r2ec.catalogue.large_table import LargeTable, Refreshed, encoding, refresh
from r2ec.catalogue.nearest import NearestIndex, top_k
from r2ec.fit import fit_r2ec
from r2ec.method import Params
from r2ec.recpo.reward import recpo_rewards
from r2ec.scoring.recommender import R2ecRecommender
from r2ec.warm_start.kept_states import encoder_of
from tests.support.tiny_fits import settings, split, write_backbone


def on_disk(folder: Path, fitted: R2ecRecommender, prompts: Sequence[Sequence[int]], encoder: str) -> Refreshed:
    def of_rows(start: int, stop: int) -> Sequence[Sequence[int]]:
        return prompts[start:stop]

    return refresh(
        folder,
        len(prompts),
        of_rows,
        encoding(fitted.reader.model),
        width=fitted.reader.model.dim,
        encoder=encoder,
        dtype="float32",
        shard_rows=32,
    )


def test_a_fitted_model_answers_from_a_table_on_disk(tmp_path: Path) -> None:
    fit_settings = settings(
        write_backbone(tmp_path / "tiny"), recpo={"prior": 0.5}, training={"max_steps": 2, "save_steps": 2}
    )
    fitted = fit_r2ec(split(), 3, Params.model_validate(fit_settings), tmp_path / "fit")
    encoder, prompts = encoder_of(tmp_path / "fit" / "model"), fitted.reader.prompts.item_prompts()
    assert on_disk(tmp_path / "table", fitted, prompts, encoder).encoded == split().n_items
    table = LargeTable(tmp_path / "table")

    cases = replace(split().valid.take(np.arange(20)), target=None)
    target = np.asarray(split().valid.target)[:20]
    expected = rank(fitted.score(cases), cases, target, split().n_items, "r2ec").column("top_items").to_pylist()
    recpo, model = fitted.reader.params.recpo, fitted.reader.model
    with torch.no_grad():
        users = torch.cat([model.head.user(fitted.reader.read(batch)[0]) for batch in cases.batches(16)])
    history = torch.from_numpy(cases.padded(-1, split().history_length))
    scoring = {"tau": recpo.tau, "normalize": recpo.normalize, "prior": model.item_prior, "item_map": model.head.item}
    assert top_k(users, table, history, 20, **scoring)[0].tolist() == expected
    index = NearestIndex.build(table, "hnsw", **scoring)
    assert index.search(users, history, 20, effort=400)[0].tolist() == expected

    targets = torch.from_numpy(target.astype(np.int64))
    in_memory = recpo_rewards(
        users, model.catalogue(fitted.reader.table.states), targets, history, tau=recpo.tau, prior=model.item_prior
    )
    from_disk = recpo_rewards(
        users, table, targets, history, tau=recpo.tau, prior=model.item_prior, item_map=model.head.item
    )
    assert torch.equal(from_disk.rank, in_memory.rank)
    torch.testing.assert_close(from_disk.reward, in_memory.reward, rtol=1e-4, atol=1e-6)

    # Another title is one prompt to encode; other weights are another encoder.
    prompts[7] = [*prompts[7][:-1], prompts[7][-1] + 1]
    refreshed = on_disk(tmp_path / "table", fitted, prompts, encoder)
    assert refreshed.encoded == 1 and refreshed.changed.tolist() == [7]
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.mul_(2)
    fitted.reader.save(tmp_path / "other", fitted.report())
    assert encoder_of(tmp_path / "other") != encoder
