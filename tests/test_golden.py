"""Golden values of tiny models: a stage whose numbers change has to raise its version.

What is kept of it would be wrong otherwise. Every declared stage has them. A method's own stage is that of its runs:
these stay until its version, or that of a stage that it follows, is raised.

`python -m tests.test_golden NAME` writes tests/golden/{stage}.json anew, for a stage whose version has been raised.
"""

import json
import tempfile
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines._knowledge.rationales import DISTILLED, RATIONALES
from baselines._writers.llm_texts import TEXTS, Writer
from baselines._writers.title_tuning import TITLES
from baselines.sp_rec import SELF_PLAY
from benchmark.config.methods import known_methods, load_method
from benchmark.contract import Recommender
from benchmark.evaluate import RANKING, rank
from benchmark.jobs.code import stages_in
from benchmark.provenance import OWN, ROOT
from benchmark.storage.stages import Stage
from lm.settings import BackboneSettings
from lm.writing.engine import WRITING
from r2ec.model.item_table import ENCODING
from r2ec.scoring.reader import Reader
from r2ec.settings import Params
from r2ec.warm_start import kept_states, start
from tests.support.tiny_encoders import write_encoder
from tests.support.tiny_fits import settings, split, write_backbone

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 1e-5  # of float32 on another processor
TRAINED = 2e-3  # where steps of an optimizer have made more of it


@cache
def backbone() -> Path:
    return write_backbone(Path(tempfile.mkdtemp()) / "tiny")


def reader(**changes: Any) -> Reader:
    folder = Path(tempfile.mkdtemp())
    torch.manual_seed(1)
    params = settings(backbone(), **changes)
    params["warm_start"] = params["warm_start"] | {"states": str(folder / "states")}
    return Reader.build(split(), Params.model_validate(params))


def first_values(values: torch.Tensor) -> list[float]:
    """The first numbers of an array, and two sums that a change of any other number changes."""
    flat = values.detach().double().flatten()
    weights = torch.linspace(0.5, 1.5, len(flat), dtype=torch.float64)
    return [*flat[:: max(1, len(flat) // 5)][:6].tolist(), float(flat.mean()), float((flat * weights).mean())]


def encoding() -> Any:
    own_reader = reader()
    own_reader.table.refresh(own_reader.model)
    return {"states": first_values(own_reader.table.states)}


def writing() -> Any:
    own_reader, cases = reader(), split().train.take(np.arange(6))
    prompts = own_reader.prompts.user_prompts(cases, open_answer=False)
    greedy = own_reader.engine.generate(prompts, cases=cases.case, seed=0, final_states=True)
    return {
        "tokens": greedy.rollouts.completion_ids.tolist(),
        "cut": greedy.cut.tolist(),
        "states": first_values(greedy.states),  # type: ignore[arg-type]
    }


def states() -> Any:
    return {
        pooling: first_values(
            kept_states.frozen_states(reader(recpo={"pooling": pooling}), {"some": split().train.take(np.arange(20))})[
                "some"
            ]
        )
        for pooling in ("last", "mean")
    }


def warm_start() -> Any:
    own_reader = reader(warm_start={"epochs": 2, "teacher_epochs": 2, "adapters": {"steps": 2, "batch_size": 4}})
    report = start.warm_start(own_reader, split(), 3, Path(tempfile.mkdtemp()))
    users = own_reader.model.head.user(
        own_reader.table.states[:5]
    )  # any vectors do; products, as the maps may begin with either sign
    tried = [[choice.form, choice.epochs] for choice in report.warm_start or []]
    return {
        "scores": first_values(users @ own_reader.model.catalogue(own_reader.table.states).T),
        "tried": tried,
        "adapters": [getattr(report.adapters, name) for name in ("divergence", "divergence_before", "item_cosine")],
    }


def texts() -> Any:
    writer = Writer(BackboneSettings(name=str(backbone()), dtype="float32"), 6, Path(tempfile.mkdtemp()))
    messages = [f"Say what you think of thing {number}." for number in range(4)]
    return [
        [text.text, text.tokens, text.cut] for text in writer.write([writer.prompt(message) for message in messages])
    ]


def ranking() -> Any:
    """Ranks and best items of scores with ties, with a history that is masked and items that aren't retrieved."""
    cases = split().valid.take(np.arange(12))
    assert cases.target is not None
    scores = np.random.default_rng(5).integers(0, 12, (12, split().n_items)).astype(np.float64)
    scores[:, ::7] = -np.inf
    table = rank([scores[:5], scores[5:]], replace(cases, target=None), cases.target, split().n_items, "made up")
    return {name: table.column(name).to_pylist() for name in ("rank", "top_items")}


LM: dict[str, Any] = {"max_new_tokens": 3}
TUNED = LM | {"users_per_step": 4, "at_once": 2, "max_steps": 2, "learning_rate": 1e-2}
WRITES = LM | {"users_per_step": 4, "group_size": 2, "max_steps": 2, "learning_rate": 1e-2}
# Every method that declares a stage, with settings by which it is fitted in a second or two.
METHODS: dict[str, dict[str, Any]] = {
    "popularity": {},
    "item_knn": {},
    "ease": {},
    "markov": {},
    "gru4rec": {"epochs": 2},
    "caser": {"epochs": 2},
    "sasrec": {"epochs": 2},
    "bert4rec": {"epochs": 2},
    "stock_recbole": {"model": "BERT4Rec", "epochs": 2},
    "tiger": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "codes": 6, "levels": 2, "epochs": 2}
    | {"dtype": "float32", "beams": 20},
    "bigrec": TUNED | {"gamma": [0.5]},
    "d3": {name: value for name, value in TUNED.items() if name != "max_new_tokens"}
    | {"sasrec": [{"epochs": 1}], "beams": 5},
    "title_sft": {name: value for name, value in TUNED.items() if name != "max_new_tokens"} | {"beams": 5},
    "s_dpo": {name: value for name, value in TUNED.items() if name != "max_new_tokens"}
    | {"beams": 5, "preference_steps": 2, "preference_rate": 1e-2},
    "sp_rec": TUNED
    | {"cases": 8, "tuning_steps": 1, "preference_steps": 2, "preference_rate": 1e-2, "ranking": "beams", "beams": 5},
    "rearec": {"epochs": 2, "quiet_epochs": 0},
    "llara": {name: value for name, value in TUNED.items() if name != "max_new_tokens"}
    | {"beams": 5, "hybrid_steps": 3, "hybrid_rate": 1e-2, "sasrec": [{"epochs": 1}], "placeholder": "<bos>"},
    "latent_r3": {name: value for name, value in TUNED.items() if name != "max_new_tokens"}
    | {"beams": 5, "thought_steps": 2, "rl_steps": 2, "rl_rate": 1e-2, "thoughts": 3, "placeholder": "<bos>"},
    "kar": LM | {"max_items": 3, "cases": 40, "epochs": 1, "item_knowledge": "attributes"},
    "slim": {"max_new_tokens": 4, "max_items": 3, "cases": 20, "taught": 6, "step_tokens": 3, "epochs": 1}
    | {"writer_steps": 2, "users_per_step": 4, "at_once": 2, "writer_rate": 1e-2},
    "langptune": WRITES | {"contrastive_cases": 12, "contrastive_batch": 6},
    "llm_rerank": {"sasrec": [{"epochs": 1}], "candidates": 8, "rollouts": {"max_new_tokens": 3}},
    "profile_retrieval": LM,
    "rec_r1": WRITES,
    "frozen_llm": {"standardize": [30], "prompts": {"max_items": 4}},
    "r2ec": {},
}


@cache
def fit_of(name: str) -> tuple[Recommender, Path]:
    """A fit of a method, and the folder in which it has kept what other fits would find."""
    method, folder = load_method(name), Path(tempfile.mkdtemp())
    params = settings(backbone()) if name == "r2ec" else METHODS[name]
    fields = method.Params.model_fields
    if "backbone" in fields:
        params = params | {"backbone": {"name": str(backbone()), "dtype": "float32"}}
    if "encoder" in fields:
        params = params | {"encoder": str(write_encoder(folder / "encoder"))}
    for kept in {"texts", "states", "tunings"} & fields.keys():
        params = params | {kept: str(folder / kept)}
    if name == "r2ec":
        params["warm_start"] = params["warm_start"] | {"states": str(folder / "states")}
    return method.fit(split(), seed=3, params=params, workdir=folder / "work"), folder


def fitted(name: str) -> Any:
    """Some scores of a method on test cases, and for how many items it has none."""
    recommender, _ = fit_of(name)
    cases = replace(split().valid.take(np.arange(10)), target=None)
    scores = np.concatenate([batch.copy() for batch in recommender.score(cases)])
    if name == "slim":
        # All of its items share a bias, which adds the same to all scores of a case. Its gradient is 0 but for
        # rounding, of which Adam makes whole steps, so that it is another one on each processor.
        scores -= scores.mean(axis=1, keepdims=True)
    retrieved = np.isfinite(scores)
    return {"scores": first_values(torch.from_numpy(scores[retrieved])), "not retrieved": int((~retrieved).sum())}


def title_tuning() -> Any:
    """The losses of the tuning's steps, and scores behind its last one."""
    return {"losses": fit_of("title_sft")[0].report()["losses"], **fitted("title_sft")}


def self_play() -> Any:
    """What the iterations report, and scores behind the last one."""
    return {"iterations": fit_of("sp_rec")[0].report()["iterations"], **fitted("sp_rec")}


def rationales() -> Any:
    """What the teacher wrote about each case."""
    (path,) = (fit_of("slim")[1] / "texts").glob("*.rationales.json")
    return json.loads(path.read_text())


def distillation() -> Any:
    """The losses of the student's steps, and scores by what it wrote behind the last one."""
    return {"losses": fit_of("slim")[0].report()["losses"], **fitted("slim")}


STAGES: dict[str, tuple[Stage, Any]] = {
    "ranking": (RANKING, ranking),
    "encoding": (ENCODING, encoding),
    "writing": (WRITING, writing),
    "states": (kept_states.STATES, states),
    "warm_start": (start.WARM_START, warm_start),
    "texts": (TEXTS, texts),
    "title_tuning": (TITLES, title_tuning),
    "self_play": (SELF_PLAY, self_play),
    "rationales": (RATIONALES, rationales),
    "distillation": (DISTILLED, distillation),
    **{name: (load_method(name).FIT, partial(fitted, name)) for name in METHODS},
}
TRAINS = METHODS.keys() | {"warm_start", "title_tuning", "self_play", "distillation"}


def same(values: Any, kept: Any, tolerance: float) -> bool:
    """Whether two values are equal up to rounding."""
    if isinstance(kept, dict):
        return values.keys() == kept.keys() and all(same(values[key], value, tolerance) for key, value in kept.items())
    if isinstance(kept, list):
        return len(values) == len(kept) and all(
            same(inner, value, tolerance) for inner, value in zip(values, kept, strict=True)
        )
    if isinstance(kept, float):
        return abs(values - kept) <= tolerance * max(1, abs(kept))
    return bool(values == kept)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_makes_what_it_made(name: str) -> None:
    stage, make = STAGES[name]
    kept = json.loads((GOLDEN / f"{name}.json").read_text())
    assert kept["version"] == stage.version, (
        f"{name}: its golden values are of version {kept['version']}; write them anew"
    )
    made_now = make()
    tolerance = TRAINED if name in TRAINS else TOLERANCE
    assert same(made_now, kept["values"], tolerance), (
        f"the numbers of stage {name!r} have changed: raise its version, from {stage.version}, then write its golden "
        f"values anew with `python -m tests.test_golden {name}`; found {made_now}"
    )


def test_every_declared_stage_has_golden_values() -> None:
    assert {name for name in known_methods() if "FIT" in vars(load_method(name))} == set(METHODS)
    files = [path for package in OWN for path in (ROOT / package).rglob("*.py")]
    declared = [stage.name for path in files for stage in stages_in(path)]
    assert sorted(declared) == sorted(stage.name for stage, _ in STAGES.values())


def test_a_changed_number_is_noticed() -> None:
    kept = json.loads((GOLDEN / "encoding.json").read_text())["values"]
    moved = {"states": [kept["states"][0] + 1e-4, *kept["states"][1:]]}
    assert (
        same(kept, kept, 0) and not same(moved, kept, TOLERANCE) and not same({"states": kept["states"][1:]}, kept, 1)
    )


if __name__ == "__main__":
    import sys

    GOLDEN.mkdir(exist_ok=True)
    for name in sys.argv[1:] or STAGES:
        about = {"version": STAGES[name][0].version, "values": STAGES[name][1]()}
        (GOLDEN / f"{name}.json").write_text(json.dumps(about, indent=1) + "\n")
