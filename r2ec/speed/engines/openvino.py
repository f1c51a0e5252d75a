"""OpenVINO GenAI's continuous batching on a processor. optimum-intel beside it converts the model."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from r2ec.speed.engines.work import Task, Work, Write, run

# How OpenVINO calls the dtype of its products and of its cache, and optimum the one of the weights on disk.
NAMES = {"bfloat16": ("bf16", "fp16"), "float32": ("f32", "fp32")}


def load(work: Work) -> tuple[str, str, Write]:
    """Convert the model, once for all turns, and open it."""
    import numpy as np
    import openvino
    import openvino_genai

    precision, on_disk = NAMES[work.dtype]
    folder = Path(work.model) / "openvino"
    if not folder.exists():
        arguments = ["--model", work.model, "--task", "text-generation-with-past", "--weight-format", on_disk]
        subprocess.run(
            [str(Path(sys.executable).with_name("optimum-cli")), "export", "openvino", *arguments, folder], check=True
        )
    scheduler = openvino_genai.SchedulerConfig()
    # The rollouts of a user share its prompt by themselves; this shares the beginning of all prompts.
    scheduler.enable_prefix_caching = True
    scheduler.cache_size = 4  # GiB
    properties = {
        "INFERENCE_PRECISION_HINT": precision,
        "KV_CACHE_PRECISION": precision,
        "INFERENCE_NUM_THREADS": work.threads,
    }
    pipeline = openvino_genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", properties)

    def write(task: Task, prompts: list[list[int]]) -> list[list[int]]:
        settings = openvino_genai.GenerationConfig()
        settings.max_new_tokens, settings.ignore_eos = task.new_tokens, True
        settings.num_return_sequences = task.group
        if not task.greedy:
            settings.do_sample, settings.temperature, settings.top_k = True, 1.0, task.top_k
        ids = [openvino.Tensor(np.array([prompt], dtype=np.int64)) for prompt in prompts]
        results = pipeline.generate(ids, [settings] * len(ids))
        return [[int(token) for token in text] for result in results for text in result.m_generation_ids]

    return f"OpenVINO GenAI, {work.dtype}", version("openvino-genai"), write


if __name__ == "__main__":
    run(load)
