"""Tokens that R2ec's LM reads, learns from and writes, for estimates of a job before it runs. Light to import.

s: sizes of the dataset; p: the method's params, defaults filled in; k: processes.
"""

from dataclasses import replace
from typing import Any

from benchmark.workload import PROCESS, STATES, WARM_START, Sizes, Work, named, prompt_tokens


def work(s: Sizes, p: dict[str, Any], k: int) -> list[Work]:
    """The work of a fit and its scoring, in order.

    First what is kept for other fits; then encoding and evaluation, which every process does; then training, in which
    each process has users of its own.
    """
    recpo, rollouts, training, warm = p["recpo"], p["rollouts"], p["training"], p["warm_start"]
    s = replace(s, item=min(s.item, p["prompts"]["max_prompt_tokens"]))
    prompt = prompt_tokens(s, p["prompts"]["max_items"], p["prompts"]["max_prompt_tokens"])
    length, group = (rollouts["max_new_tokens"], rollouts["group_size"]) if recpo["reasoning"] else (0, 1)
    at_once = training["per_device_train_batch_size"]
    users = at_once * training["gradient_accumulation_steps"]  # of one process in one step
    steps = training["max_steps"]
    if steps < 0:
        steps = int(training["num_train_epochs"] * s.train_llm) // (users * k) * recpo["num_iterations"]
    evaluations = steps // training["eval_steps"] if training["eval_steps"] else 0
    if steps:
        evaluations += sum(step <= steps for step in training["measured_steps"])
    cases = s.test + evaluations * min(training["eval_cases"], s.valid)
    # The frozen table, which is kept. Without a warm start RecPO encodes the table itself.
    encodes_first = bool(warm["cases"]) or not steps
    # Every refresh_steps, at each evaluation and at the end; the layers below all adapters read it once.
    refreshes = 1 + evaluations + (steps - 1) // recpo["refresh_steps"] if steps else 0
    table, frozen = s.items * s.item, p["lora"]["layers_from"]
    twice = training["activation_checkpointing"]
    # Item tokens that an update encodes for each user: its target's, or none where the whole catalogue takes part.
    encoded = 0.0 if recpo["cls_head"] or recpo["candidates"] == "table" else s.item
    by_teacher = training["objective"] == "teacher"
    if by_teacher:  # a greedy text of each user, and items that are held
        group, encoded = 1, warm["adapters"]["held_items"] * s.item / at_once
    learned = (group if twice else 1) * prompt + group * length + encoded
    fresh = steps * users / recpo["num_iterations"]
    is_read_again = bool(frozen and (refreshes or (warm["cases"] and warm["adapters"]["steps"])))
    below = Work(lower=table, frozen=frozen, kept=named(PROCESS, p["backbone"], p["prompts"]))
    first = replace(encoded_items(s, p), read=0, again=table, frozen=frozen) if is_read_again else encoded_items(s, p)
    return [
        *([below] if is_read_again else []),
        *([first] if encodes_first else []),
        *(_warm_start(s, p, prompt, length) if warm["cases"] else []),
        Work(
            read=cases * prompt,
            again=(refreshes + (not encodes_first)) * table,
            written=cases * length,
            rows=p["evaluation_rows"],
            frozen=frozen,
        ),
        Work(
            # By the start's weights, too, where a KL term holds on to them.
            read=fresh * (prompt + (prompt + group * length if recpo["kl"] and not by_teacher else 0)),
            written=fresh * group * length,
            rows=min(rollouts["rows_at_once"], at_once * group),
            learned=steps * users * learned,
            held=at_once * learned if steps else 0,
            twice=twice,
            frozen=frozen,
        ),
    ]


def encoded_items(s: Sizes, p: dict[str, Any]) -> Work:
    """The frozen table, which depends on no reasoning."""
    return Work(read=s.items * s.item, rows=p["evaluation_rows"], kept=named(STATES, p["backbone"], p["prompts"]))


def encoded_cases(p: dict[str, Any], cases: int, prompt: int, length: int, pooling: str = "last") -> Work:
    """Frozen states of so many cases, each behind `length` written tokens."""
    read = named(STATES, p["backbone"], p["prompts"], cases, length, pooling, p["evaluation_rows"])
    return Work(read=cases * prompt, written=cases * length, rows=p["evaluation_rows"], kept=read)


def _warm_start(s: Sizes, p: dict[str, Any], prompt: int, length: int) -> list[Work]:
    """The work of a warm start: frozen states of cases, the maps' fit, and the adapters' steps, if there are any.

    After the adapters' steps the table is encoded again.
    """
    recpo, training, warm, taught = p["recpo"], p["training"], p["warm_start"], p["warm_start"]["adapters"]
    valid = min(warm["valid_cases"], s.valid)
    own = {name: value for name, value in warm.items() if name != "states"}
    of_recpo = [recpo[name] for name in ("tau", "normalize", "prior", "pooling")]
    of_training = [training[name] for name in ("max_grad_norm", "weight_decay", "activation_checkpointing")]
    kept = named(WARM_START, p["backbone"], p["prompts"], p["lora"], own, length, of_recpo, of_training)
    fits = len(warm["weight_decays"]) * ("taught" in warm["forms"])
    works = [
        encoded_cases(p, min(warm["cases"], s.train_llm) + valid, prompt, length, recpo["pooling"]),
        # A multiplication and an addition for each pair of training case and item, forward, and twice that backward.
        Work(maps=6 * fits * warm["teacher_epochs"] * s.train * s.items * warm["rank"], kept=(*kept, "maps")),
    ]
    if taught["steps"]:
        at_each = taught["batch_size"]
        one_step = at_each * (prompt + length) + taught["held_items"] * s.item
        works += [
            Work(
                read=taught["steps"] * at_each * prompt,
                written=taught["steps"] * at_each * length,
                rows=min(p["rollouts"]["rows_at_once"], at_each),
                learned=taught["steps"] * one_step,
                held=one_step,
                twice=training["activation_checkpointing"],
                frozen=p["lora"]["layers_from"],
                kept=(*kept, "adapters"),
            ),
            Work(
                read=valid * prompt,
                again=s.items * s.item,
                written=valid * length,
                rows=p["evaluation_rows"],
                frozen=p["lora"]["layers_from"],
                kept=(*kept, "table"),
            ),
        ]
    return works
