"""vLLM, as trl's own code talks to it, without vLLM: a server with its routes, and its class LLM. A tiny LM writes
behind both.

They stop where the request says, keep the weights that they are sent, and draw from the streams of TransformersEngine,
so that what they write can be foretold. What is no request goes through memory in place of NCCL.
"""

import json
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from trl.generation import vllm_client, vllm_generation

from lm.kernels.attention import use_grouped_attention
from lm.settings import RolloutSettings
from lm.writing import vllm, vllm_processor
from lm.writing.engine import TransformersEngine
from lm.writing.stopping import EndOfReasoning


class Writer:
    """The LM behind the stub. `now`: case numbers, seed and step of the call that is being answered, which the test
    sets."""

    def __init__(self, folder: str) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        assert isinstance(loaded, PreTrainedModel)
        self.model = loaded.eval()
        use_grouped_attention(self.model)
        self.now: dict[str, Any] = {}
        self.updates = 0

    def load(self, names: list[str], tensors: list[Tensor]) -> None:
        """Take the weights of an update: all of them, under the names of transformers' LM."""
        own = dict(self.model.named_parameters())
        assert set(names) == set(own)
        for name, tensor in zip(names, tensors, strict=True):
            own[name].data.copy_(tensor)
        self.updates += 1

    def write(self, prompts: list[list[int]], count: int, request: dict[str, Any]) -> list[list[int]]:
        """Write `count` completions of each prompt, one after the other; only tokens that were sampled, as vLLM's."""
        assert request["stop"] == ["<answer>"] and request["include_stop_str_in_output"] and request["stop_token_ids"]
        assert request["logprobs"] is None and not request["skip_special_tokens"]
        settings = RolloutSettings(
            group_size=count,
            temperature=request["temperature"],
            top_k=request["top_k"],
            top_p=request["top_p"],
            repetition_penalty=request["repetition_penalty"],
            max_new_tokens=request["max_tokens"],
        )
        (answer,) = request["stop"]
        end = EndOfReasoning(self.tokenizer, answer)
        result = TransformersEngine(self.model, self.tokenizer, settings, end).generate(prompts, **self.now)
        assert result.rollouts.action_mask is not None
        rows, lengths = result.rollouts.completion_ids.tolist(), result.rollouts.action_mask.sum(dim=1).tolist()
        return [row[:length] for row, length in zip(rows, lengths, strict=True)]


class Stub:
    """Both forms of vLLM, in the place of the real one for the time of a test."""

    def __init__(self) -> None:
        self.writer: Writer | None = None
        self.asked: list[str] = []  # routes, in the order of the requests
        self.wire: queue.Queue[Tensor] = queue.Queue()
        self.engine: dict[str, Any] = {}  # what LLM was started with
        self.transfer: dict[str, str] | None = {"backend": "nccl"}

    def the(self) -> Writer:
        assert self.writer is not None
        return self.writer

    def serve(self, folder: Path) -> tuple[ThreadingHTTPServer, str]:
        """Start a server on a free port; returns it and its address."""
        self.writer = Writer(str(folder))
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(stub.get(self.path.partition("?")[0]))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.answer(stub.post(self.path, json.loads(body) if body else {}))

            def answer(self, value: dict[str, Any] | None) -> None:
                text = json.dumps(value).encode()
                self.send_response(404 if value is None else 200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server, f"http://127.0.0.1:{server.server_port}"

    def get(self, route: str) -> dict[str, Any] | None:
        self.asked.append(route)
        return {
            "/health": {},
            "/v1/models": {"data": [{"id": "tiny"}]},
            "/server_info": {"vllm_config": {"weight_transfer_config": self.transfer}},
            "/get_world_size": {"world_size": 1},
        }.get(route)

    def post(self, route: str, body: dict[str, Any]) -> dict[str, Any] | None:
        self.asked.append(route)
        if route == "/update_weights":
            info = body["update_info"]
            tensors = [self.wire.get(timeout=30) for _ in info["names"]]
            assert info["shapes"] == [list(tensor.shape) for tensor in tensors]
            assert info["dtype_names"] == [str(tensor.dtype).removeprefix("torch.") for tensor in tensors]
            self.the().load(info["names"], tensors)
        if route == "/v1/completions":
            assert body["return_token_ids"]
            written = self.the().write(body["prompt"], body["n"], body)
            prompts = [prompt for prompt in body["prompt"] for _ in range(body["n"])]
            return {
                "choices": [
                    {"prompt_token_ids": prompt, "token_ids": ids, "logprobs": None}
                    for prompt, ids in zip(prompts, written, strict=True)
                ]
            }
        known = ("/init_weight_transfer_engine", "/start_weight_update", "/update_weights", "/finish_weight_update")
        return {} if route in (*known, "/reset_prefix_cache") else None

    def llm(self, **arguments: Any) -> Any:
        """Stand in for `vllm.LLM`."""
        self.engine = arguments
        self.writer = writer = Writer(arguments["model"])
        pending: list[tuple[str, Tensor]] = []

        def load_weights(weights: list[tuple[str, Tensor]]) -> None:
            pending.extend((name, tensor.clone()) for name, tensor in weights)

        def reset_prefix_cache() -> None:  # trl calls it when all weights are there
            names, tensors = zip(*pending, strict=True)
            writer.load(list(names), list(tensors))
            pending.clear()

        def generate(prompts: list[dict[str, Any]], sampling_params: dict[str, Any], use_tqdm: bool) -> list[Any]:
            rows = [prompt["prompt_token_ids"] for prompt in prompts]
            group = len(rows) // len(writer.now["cases"])
            assert sampling_params["n"] == 1 and rows == [row for row in rows[::group] for _ in range(group)]
            written = writer.write(rows[::group], group, sampling_params)
            return [
                SimpleNamespace(prompt_token_ids=row, outputs=[SimpleNamespace(token_ids=ids, logprobs=None)])
                for row, ids in zip(rows, written, strict=True)
            ]

        model = SimpleNamespace(load_weights=load_weights)
        worker = SimpleNamespace(model_runner=SimpleNamespace(model=model))
        executor = SimpleNamespace(driver_worker=worker)
        return SimpleNamespace(
            llm_engine=SimpleNamespace(model_executor=executor),
            generate=generate,
            reset_prefix_cache=reset_prefix_cache,
        )


def install(monkeypatch: pytest.MonkeyPatch, mode: Literal["server", "colocate"]) -> Stub:
    """Let trl find the stub in the place of vLLM; everything else that runs is trl's own code."""
    stub = Stub()
    for module in (vllm, vllm_generation, vllm_client):
        monkeypatch.setattr(module, "is_vllm_available", lambda *_, **__: True)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        # trl sets them; they are to be gone afterwards, which pytest sees to for what it has seen set.
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)
    monkeypatch.setattr(vllm_processor, "is_for_processors", lambda: False)
    monkeypatch.setattr(vllm_generation, "LLM", stub.llm, raising=False)
    monkeypatch.setattr(vllm_generation, "SamplingParams", dict, raising=False)
    original = vllm.VllmEngine.generate

    def generate(self: Any, prompts: Any, *, cases: np.ndarray, seed: int, step: int = 0) -> Any:
        stub.the().now = {"cases": cases, "seed": seed, "step": step}
        return original(self, prompts, cases=cases, seed=seed, step=step)

    monkeypatch.setattr(vllm.VllmEngine, "generate", generate)
    if mode == "server":

        def send(iterator: Iterator[tuple[str, Tensor]], trainer_args: Any) -> None:
            for _, tensor in iterator:
                stub.wire.put(tensor.clone())

        group = SimpleNamespace(group=SimpleNamespace(store=None, socket=None))
        nccl = SimpleNamespace(trainer_init=lambda info: group, trainer_send_weights=send)
        monkeypatch.setattr(vllm_client, "NCCLWeightTransferEngine", nccl, raising=False)
        monkeypatch.setattr(vllm_client, "NCCLTrainerSendWeightsArgs", SimpleNamespace, raising=False)
        monkeypatch.setattr(vllm_client, "get_ip", lambda: "127.0.0.1", raising=False)
        join = vllm_client.VLLMClient.init_communicator
        # It refuses any other device, and does nothing with this one.
        monkeypatch.setattr(vllm_client.VLLMClient, "init_communicator", lambda self, device: join(self, "cuda"))
    return stub
