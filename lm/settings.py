"""Settings of a language model that writes: which one, its adapters, how it writes. Light to import: no torch."""

from typing import Literal

from pydantic import Field, model_validator

from benchmark.config.sections import Strict
from benchmark.config.wording import DEVICE
from benchmark.precision import Dtype


class BackboneSettings(Strict):
    """Which LM, and how it is loaded."""

    name: str = Field(description="a folder, such as the one that `fetch` writes, or a name on the Hugging Face hub")
    revision: str | None = Field(
        default=None, description="commit hash or tag; required for a name, so that a run can be redone"
    )
    dtype: Dtype = Field(
        default="auto", description="of its weights; auto: bfloat16 where the device multiplies in it, else float32"
    )
    device: str = Field(default="cpu", pattern=DEVICE, description="of torch")


class LoraSettings(Strict):
    """Low-rank adapters (arXiv 2106.09685) on all linear projections of the layers from `layers_from`; paper: r=4."""

    r: int = Field(default=4, ge=1)
    alpha: int = Field(default=8, ge=1, description="the adapters' output is scaled by alpha / r")
    dropout: float = Field(default=0.0, ge=0, lt=1)
    layers_from: int = Field(default=0, ge=0, description="layers below have no adapters")


class RolloutSettings(Strict):
    """How reasonings are written. The paper: G = 4, T = 1.5, top-k 200, 512 tokens."""

    backend: Literal["transformers", "vllm"] = "transformers"
    group_size: int = Field(default=4, ge=1)
    temperature: float = Field(default=1.5, gt=0)
    top_k: int = Field(default=200, ge=0, description="0: the whole vocabulary")
    top_p: float = Field(default=1.0, gt=0, le=1)
    repetition_penalty: float = Field(
        default=1.0,
        ge=1,
        allow_inf_nan=False,
        description="logits of tokens that the prompt or the reasoning holds are divided by it, negative ones "
        "multiplied",
    )
    max_new_tokens: int = Field(default=512, ge=1, description="sampled tokens; an appended <answer> comes on top")
    greedy: bool = Field(default=False, description="for evaluation: the most probable token, one rollout per user")
    rows_at_once: int = Field(default=64, ge=1, description="rollouts decoded together; bounds the KV caches' memory")
    merge_adapters: bool = Field(
        default=True,
        description="fold LoRA into copies of the weights meanwhile: faster, in bf16 rounded to the weights' precision",
    )

    @model_validator(mode="after")
    def _greedy_needs_one_rollout(self) -> "RolloutSettings":
        if self.greedy and self.group_size > 1:
            raise ValueError(f"greedy rollouts of a user are all equal; set group_size {self.group_size} to 1")
        return self

    def for_evaluation(self) -> "RolloutSettings":
        """The same with one greedy rollout per user, as the paper evaluates; always written by transformers."""
        return self.model_copy(update={"greedy": True, "group_size": 1, "backend": "transformers"})


class VllmSettings(Strict):
    """Where vLLM writes the rollouts of a training (`rollouts.backend: vllm`); names are trl's without `vllm_`."""

    mode: Literal["colocate", "server"] = Field(
        "colocate", description="in the training's process, on its GPUs or its processor, or a server of its own"
    )
    server_base_url: str | None = Field(None, description="of the server, such as http://localhost:8000")
    server_timeout: float = Field(240.0, ge=0, description="seconds to wait until the server answers")
    group_port: int = Field(51216, ge=1, le=65535, description="port by which the server gets the weights")
    gpu_memory_utilization: float = Field(0.3, gt=0, lt=1, description="share of each GPU that colocated vLLM takes")
    tensor_parallel_size: int = Field(1, ge=1, description="GPUs over which colocated vLLM spreads one copy")

    @model_validator(mode="after")
    def _server_needs_its_url(self) -> "VllmSettings":
        if (self.mode == "server") != (self.server_base_url is not None):
            raise ValueError(
                f"mode {self.mode!r} with server_base_url {self.server_base_url}: give it for 'server' alone"
            )
        return self
