"""The report of a fit of R2ec: what the warm start tried, what RecPO did, and their logs."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Form = Literal["none", "tied", "free", "taught"]  # of the warm start's maps


@dataclass(frozen=True)
class Choice:
    """One start that was tried: a form of the maps, or adapters that learned from a teacher."""

    form: Form | Literal["adapters"]
    weight_decay: float
    epochs: int  # whose weights were kept; of the adapters, steps
    value: float  # validation NDCG@10
    teacher: float | None = None  # validation NDCG@10 of the teacher


@dataclass(frozen=True)
class AdapterReport:
    """How near the taught adapters came to their teacher, on validation cases."""

    divergence: float  # from the teacher's probabilities, nats per case
    divergence_before: float  # the same of the maps that the adapters began with
    item_cosine: float  # mean over items: the refitted map's vector of the new state against the old map's of the old
    seconds: float


@dataclass(frozen=True)
class Curve:
    """Ranks of validation cases during the training, at the steps of `training.measured_steps`."""

    users: list[int]  # of the cases
    points: list[dict[str, Any]]  # in the order of steps: step, seconds (of training so far), ranks (list of int)


@dataclass(frozen=True)
class FitReport:
    """What a fit did, None where it left something out. `as_json` is a run's `report`."""

    adapter_log: list[dict[str, float]] | None = None
    adapters: AdapterReport | None = None
    warm_start: list[Choice] | None = None  # what was tried, the chosen one first
    recpo_steps: int | None = None
    recpo_seconds: float | None = None
    rollouts_by: str | None = None  # the engine and its version, where it isn't the LM itself
    recpo_log: list[dict[str, float]] | None = None  # of the control that goes on with the teacher, its divergence
    curve: Curve | None = None
    peak_gpu_mib: int | None = None

    @property
    def form(self) -> Form | Literal["adapters"] | None:
        """What RecPO began with; None without a warm start."""
        return self.warm_start[0].form if self.warm_start else None

    def as_json(self) -> dict[str, Any]:
        """Its parts by name, those that are None left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, report: dict[str, Any]) -> "FitReport":
        """The report that `as_json` gave. Raises TypeError for a name that is no part of one."""
        parts = dict(report)
        if "warm_start" in parts:
            parts["warm_start"] = [Choice(**choice) for choice in parts["warm_start"]]
        if "adapters" in parts:
            parts["adapters"] = AdapterReport(**parts["adapters"])
        if "curve" in parts:
            parts["curve"] = Curve(**parts["curve"])
        return cls(**parts)
