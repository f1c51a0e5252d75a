"""Measures the ranks of validation cases during a training and logs them, without changing the training."""

import time
from collections.abc import Callable, Collection
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

SECONDS, RANKS = "seconds_trained", "measured_ranks"


class Measuring(TrainerCallback):
    """Calls `ranks` after each of `steps` (0: before the first) and adds an entry with its result to the log.

    An entry has the step, RANKS (a list of int, one per case) and SECONDS, the time of training so far. SECONDS counts
    all parts of a training that was stopped, and leaves measuring out. Each checkpoint has an entry of SECONDS only, so
    that a resumed training counts on from there; ranks after that checkpoint are measured again.
    """

    def __init__(self, steps: Collection[int], ranks: Callable[[], list[int]]) -> None:
        self.steps, self.ranks = set(steps), ranks
        self._before, self._started = 0.0, 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        counted = [entry[SECONDS] for entry in state.log_history if SECONDS in entry]
        self._before, self._started = (counted[-1] if counted else 0.0), time.monotonic()
        if state.global_step == 0 and 0 in self.steps:
            self._note(state, measured=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        measured = state.global_step in self.steps
        if measured or state.global_step % int(args.save_steps) == 0 or state.global_step == state.max_steps:
            self._note(state, measured)

    def _note(self, state: TrainerState, measured: bool) -> None:
        seconds = self._before + time.monotonic() - self._started
        entry: dict[str, Any] = {"step": state.global_step, SECONDS: round(seconds, 3)}
        if measured:
            entry[RANKS] = self.ranks()
            self._before, self._started = seconds, time.monotonic()
        state.log_history.append(entry)
