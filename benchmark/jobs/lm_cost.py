"""Seconds and bytes of reading, learning and writing tokens with a causal LM, by plain formulas from its shape."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.precision import processor_has_avx512, processor_has_bfloat16
from benchmark.storage.io import read_json
from benchmark.workload import KEPT_BELOW, Work


@dataclass(frozen=True)
class LM:
    """The shape of a causal LM with gated feed-forward layers and tied embeddings: layers, widths, vocabulary."""

    layers: int
    hidden: int
    inner: int
    queries: int  # width of all query heads
    keys: int  # width of all key heads, and of all value heads
    vocabulary: int

    @property
    def body(self) -> int:
        """Weights that each token read is multiplied with."""
        return self.layers * self.hidden * (2 * self.queries + 2 * self.keys + 3 * self.inner)

    @property
    def weights(self) -> int:
        """All weights, which each token written is multiplied with."""
        return self.body + self.vocabulary * self.hidden

    @property
    def activations(self) -> int:
        """Bytes kept per token for the backward pass: 20 bf16 vectors of a layer and the adapters' float32 inputs."""
        return self.layers * (40 * self.hidden + 14 * self.inner)

    @property
    def kept_twice(self) -> int:
        """The same where activations are computed twice: each layer's input, and one layer whole."""
        return 2 * self.layers * self.hidden + self.activations // self.layers

    @property
    def cache(self) -> int:
        """Bytes of the keys and values of a token, bf16."""
        return 4 * self.layers * self.keys


KNOWN = {
    "resources/smollm2-135m-instruct": LM(30, 576, 1_536, 576, 192, 49_152),
    "Qwen/Qwen2.5-3B-Instruct": LM(36, 2_048, 11_008, 2_048, 256, 151_936),
    "google/gemma-2-2b-it": LM(26, 2_304, 9_216, 2_048, 1_024, 256_000),
    "google/gemma-2-9b-it": LM(42, 3_584, 14_336, 4_096, 2_048, 256_000),
}


@dataclass(frozen=True)
class Machine:
    """The speed of one process with an LM in bf16.

    reading, learning, writing: operations per second in its matrix products. step: least seconds of a step of writing.
    maps: operations per second of small float32 products on the CPU.
    """

    reading: float
    learning: float
    writing: float
    step: float
    maps: float = 2.6e10

    def times(self, threads: int) -> "Machine":
        """The same with so many threads."""
        faster = (self.reading * threads, self.learning * threads, self.writing * threads)
        return Machine(*faster, self.step, self.maps * threads)


# Of one thread: fitted to the run in tests/benchmark/test_measured_runs.py. The slowest machine so far took twice that.
THREAD = Machine(reading=2.1e11, learning=1.4e11, writing=1.15e11, step=0.01)
# Of one thread in float32, on a processor without instructions for bfloat16: with AVX-512 (Ice Lake, 2.8 GHz, beside
# other work), and without (Zen 1, the slowest one so far).
WIDE_THREAD = Machine(reading=1.0e11, learning=6.0e10, writing=5.0e10, step=0.05)
PLAIN_THREAD = Machine(reading=2.1e10, learning=1.7e10, writing=1.2e10, step=0.07, maps=1.0e10)
# A guess at an A100: a third of the 312e12 of its data sheet, which plain PyTorch code tends to reach. Never measured.
GPU = Machine(reading=1e14, learning=1e14, writing=1e14, step=0.03)


def processor(threads: int) -> Machine:
    """This machine's processor, one process with so many threads."""
    if processor_has_bfloat16():
        return THREAD.times(threads)
    return (WIDE_THREAD if processor_has_avx512() else PLAIN_THREAD).times(threads)


def weight_bytes(backbone: Mapping[str, Any], gpus: int) -> int:
    """Bytes of a weight of a backbone as it is loaded here. A GPU is taken for one that multiplies in bfloat16."""
    dtype = backbone.get("dtype", "auto")
    wide = dtype == "float32" or (dtype == "auto" and not gpus and not processor_has_bfloat16())
    return 4 if wide else 2


def lm_of(backbone: Mapping[str, Any]) -> LM | None:
    """The shape of a backbone: a known one, or that of the config.json in its folder; None for any other name."""
    path = Path(backbone["name"])
    if (known := KNOWN.get(str(path))) is not None:
        return known
    if not (path / "config.json").is_file():
        return None
    about = read_json(path / "config.json")
    shape = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
    sizes = [about.get(name) if isinstance(about, dict) else None for name in shape]
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        return None  # a family of another shape
    heads = about["num_attention_heads"]
    width = about.get("head_dim") or about["hidden_size"] // heads
    return LM(
        about["num_hidden_layers"],
        about["hidden_size"],
        about["intermediate_size"],
        heads * width,
        about.get("num_key_value_heads", heads) * width,
        about["vocab_size"],
    )


def parts_by_lm(backbone: Mapping[str, Any], work: list[Work]) -> dict[LM, list[Work]] | None:
    """The parts of a row's work by the LM that does them, that of its own backbone first; None: one isn't known."""
    own = lm_of(backbone)
    if own is None:
        return None
    parts: dict[LM, list[Work]] = {own: []}
    for part in work:
        lm = own if part.backbone is None else lm_of(part.backbone)
        if lm is None:
            return None
        parts.setdefault(lm, []).append(part)
    return parts


def seconds_of(lm: LM, work: Work, machine: Machine) -> float:
    """Seconds that one process takes for its work."""
    upper = learning_share(lm, work)
    read = 2 * lm.body * (work.read + upper * work.again + (1 - upper) * work.lower) / machine.reading
    learned = (2 + (4 if work.twice else 2) * learning_share(lm, work)) * lm.body * work.learned / machine.learning
    step = max(machine.step, 2 * lm.weights * work.rows / machine.writing)
    return read + learned + step * work.written / work.rows + work.maps / machine.maps


def by_kept_layers(
    parts: Mapping[LM, list[Work]], tokens: float, width: int, gpus: int
) -> tuple[dict[LM, list[Work]], float]:
    """The parts as they are done, and the bytes that are kept of what the `frozen` layers say of the items' tokens.

    On a GPU, and of a large catalogue, nothing is kept: all layers read all. width: bytes of a weight.
    """
    size = tokens * next(iter(parts)).hidden * width
    if not gpus and size <= KEPT_BELOW:
        return dict(parts), size * any(part.lower and part.frozen for work in parts.values() for part in work)
    read = {lm: [replace(w, read=w.read + w.again, again=0.0, lower=0.0) for w in work] for lm, work in parts.items()}
    return read, 0.0


def learning_share(lm: LM, work: Work) -> float:
    """The share of the LM's layers that have a backward pass."""
    return max(0, lm.layers - work.frozen) / lm.layers


def device_memory(lm: LM, work: list[Work], longest: int, width: int = 2) -> float:
    """Bytes of one process: weights, their copy with merged adapters, activations and KV caches of a batch.

    width: bytes of a weight.
    """
    kept = max(
        part.held * (lm.kept_twice if part.twice else lm.activations) * learning_share(lm, part) for part in work
    )
    return (4 * lm.weights + kept + max(part.rows for part in work) * longest * lm.cache) * width / 2


def most_memory(parts: Mapping[LM, list[Work]], longest: int, width: int) -> float:
    """Bytes of the LM that takes most, of several that are loaded one after the other."""
    return max(device_memory(lm, work, longest, width) for lm, work in parts.items())
