"""Rollouts: equal to transformers' generate and to plain forwards, the right distribution, the right ends."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from scipy import stats
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, RepetitionPenaltyLogitsProcessor

import lm.writing.decode
from lm.backbone import merged_adapters
from lm.settings import RolloutSettings
from lm.writing.decode import ATTENTION, SharedPromptDecoder, common_beginning
from lm.writing.engine import TransformersEngine
from lm.writing.rollouts import RolloutResult
from lm.writing.sampling import choose, largest, stream_uniforms
from lm.writing.stopping import EndOfReasoning
from tests.support.rollouts import ANSWER, CASES, completions, engine_of, prompts, sampled
from tests.support.tiny_models import FAMILIES
from tests.support.tiny_tokenizers import tiny_lm, tiny_tokenizer


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny products lose more by waiting for a second thread than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write(
    model: PreTrainedModel | PeftModel, family: str, *, final_states: bool = False, **changes: Any
) -> RolloutResult:
    settings = RolloutSettings(**{"group_size": 4, "max_new_tokens": 20, "temperature": 1.0} | changes)
    return engine_of(model, family, settings).generate(
        prompts(), cases=CASES, seed=3, step=2, final_states=final_states
    )


def plain(
    model: PreTrainedModel, prompt: list[int], completion: list[int], temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of a completion's tokens and its last token's state, by one plain forward."""
    ids = torch.tensor([prompt + completion])
    with torch.no_grad():
        out = model(ids, output_hidden_states=True, use_cache=False)
    logps = torch.log_softmax(out.logits[0] / temperature, dim=-1)[len(prompt) - 1 : -1]
    return logps.gather(1, torch.tensor(completion)[:, None])[:, 0], out.hidden_states[-1][0, -1]


@pytest.mark.parametrize("penalty", [1.0, 1.05, 2.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_generate_token_for_token(family: str, penalty: float) -> None:
    model, tokenizer = tiny_lm(family), tiny_tokenizer(family)
    end = EndOfReasoning(tokenizer, ANSWER)
    result = write(model, family, greedy=True, group_size=1, repetition_penalty=penalty)
    config = GenerationConfig(
        max_new_tokens=20,
        do_sample=False,
        repetition_penalty=penalty,
        stop_strings=["<answer>"],
        eos_token_id=sorted(end.turn_ends),
        pad_token_id=0,
    )
    for prompt, written in zip(prompts(), sampled(result), strict=True):
        expected = model.generate(torch.tensor([prompt]), generation_config=config, tokenizer=tokenizer)
        assert written == expected[0, len(prompt) :].tolist()
    if penalty == 2:
        plain_words = sampled(write(model, family, greedy=True, group_size=1))
        assert sampled(result) != plain_words, "the penalty decides here"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_log_probs_and_final_states_equal_a_plain_forward(family: str, temperature: float) -> None:
    model = tiny_lm(family, scale=0.15)
    result = write(model, family, temperature=temperature, top_k=50, max_new_tokens=9, final_states=True)
    assert result.log_probs is not None and result.states is not None
    assert len(set(map(tuple, completions(result)))) > 9  # rollouts differ
    for i, completion in enumerate(completions(result)):
        logps, state = plain(model, prompts()[i // 4], completion, temperature)
        n = len(sampled(result)[i])
        torch.testing.assert_close(result.log_probs[i, :n], logps[:n], atol=1e-4, rtol=0)
        assert not result.log_probs[i, n:].any()
        torch.testing.assert_close(result.states[i], state, atol=1e-4, rtol=1e-4)


def test_gemmas_window_and_cap_matter_here() -> None:
    """Without Gemma's sliding window or soft cap the tokens differ, so that the equalities above do test them."""
    model = tiny_lm("gemma2")
    expected = completions(write(model, "gemma2", greedy=True, group_size=1))
    for layer in model.model.layers:
        layer.self_attn.sliding_window = None
    assert completions(write(model, "gemma2", greedy=True, group_size=1)) != expected
    model = tiny_lm("gemma2")
    for layer in model.model.layers:
        layer.self_attn.attn_logit_softcapping = None
    assert completions(write(model, "gemma2", greedy=True, group_size=1)) != expected


def ends_early(family: str, ends: int) -> PreTrainedModel:
    """An LM that writes `>` and ends its turn often, so that rollouts end at all lengths."""
    model, tokenizer = tiny_lm(family, scale=0.15), tiny_tokenizer(family)
    tokens = [tokenizer.convert_tokens_to_ids("<|im_end|>"), *EndOfReasoning(tokenizer, ANSWER).appended]
    with torch.no_grad():
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
        model.lm_head.bias = torch.nn.Parameter(torch.zeros(len(model.lm_head.weight)))
        model.lm_head.bias[tokens[ends:]] = 7.0 if ends else 4.0
    return model


@pytest.mark.parametrize("ends", [0, 1])
def test_an_unfinished_reasoning_gets_the_answer_appended(ends: int) -> None:
    tokenizer = tiny_tokenizer("llama")
    end = EndOfReasoning(tokenizer, ANSWER)
    result = write(ends_early("llama", ends), "llama", group_size=16, max_new_tokens=12)
    rollouts = result.rollouts
    assert rollouts.action_mask is not None and result.log_probs is not None
    kinds = set()
    for i, (ids, own) in enumerate(zip(completions(result), sampled(result), strict=True)):
        text = result.texts(tokenizer)[i]
        assert text.endswith("<answer>") and text == tokenizer.decode(ids)
        kind = (bool(result.cut[i]), bool(result.ended[i]))
        kinds.add(kind)
        assert ids == own + (end.appended if kind[0] else [])
        assert (own[-1] in end.turn_ends) == kind[1]
        assert kind != (True, False) or len(own) == 12
        # It ended at the first place where it could.
        assert not any(
            "<answer>" in tokenizer.decode(own[:n]) or own[n - 1] in end.turn_ends for n in range(1, len(own))
        )
        assert end.finish(own) == (ids, len(own), *kind)
    assert (True, False) in kinds and ((True, True) in kinds or ends) and ((False, False) in kinds or not ends)
    assert result.lengths.equal(rollouts.completion_mask.sum(dim=1))
    assert result.sampled_tokens == sum(map(len, sampled(result))) and result.tokens_per_second > 0
    assert not (rollouts.completion_ids[~rollouts.completion_mask] != tokenizer.pad_token_id).any()


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_dropping_finished_rows_changes_nothing(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches copied at once, never, or rows decoded user by user: the same rollouts."""
    model = ends_early("llama", 0) if family == "llama" else tiny_lm(family, scale=0.15)
    end = EndOfReasoning(tiny_tokenizer(family), ANSWER)
    if family == "gemma2":  # more ends, as its head is capped
        end.turn_ends |= frozenset(range(0, 500, 20))
    kept: list[int] = []
    keep = SharedPromptDecoder.keep
    monkeypatch.setattr(SharedPromptDecoder, "keep", lambda self, rows: (kept.append(len(rows)), keep(self, rows))[1])

    def run(repack: float, rows_at_once: int, states: bool) -> RolloutResult:
        monkeypatch.setattr(lm.writing.decode, "REPACK_BELOW", repack)
        settings = RolloutSettings(group_size=8, max_new_tokens=40, temperature=1.0, rows_at_once=rows_at_once)
        engine = TransformersEngine(model, tiny_tokenizer(family), settings, end)
        return engine.generate(prompts(), cases=CASES, seed=3, final_states=states)

    expected = run(1.0, 64, False)
    assert len(set(kept)) > 5, "rollouts of this model end at different times"
    for result in (run(0.0, 64, False), run(0.75, 8, False), run(0.75, 64, True)):
        assert completions(result) == completions(expected)
        assert result.log_probs is not None and expected.log_probs is not None
        torch.testing.assert_close(result.log_probs, expected.log_probs, atol=1e-4, rtol=0)


def test_prompts_read_in_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = write(tiny_lm("gemma2", scale=0.15), "gemma2", final_states=True)
    monkeypatch.setattr(lm.writing.decode, "PROMPT_TOKENS_AT_ONCE", 3)
    result = write(tiny_lm("gemma2", scale=0.15), "gemma2", final_states=True)
    assert completions(result) == completions(expected)
    torch.testing.assert_close(result.states, expected.states, atol=1e-5, rtol=1e-5)


def test_a_rollouts_stream_depends_on_its_case_alone() -> None:
    """Any order and batch of cases, and the same after a resume; another step, seed or rollout differs."""
    settings = RolloutSettings(group_size=2, max_new_tokens=10, temperature=1.0)
    engine = engine_of(tiny_lm("llama", scale=0.1), "llama", settings)
    all_three = completions(engine.generate(prompts(), cases=CASES, seed=3, step=2))
    by_itself = completions(engine.generate(prompts()[1:2], cases=CASES[1:2], seed=3, step=2))
    assert all_three[2:4] == by_itself and by_itself[0] != by_itself[1]
    assert completions(engine.generate(prompts()[1:2], cases=CASES[1:2], seed=3, step=3)) != by_itself
    assert completions(engine.generate(prompts()[1:2], cases=CASES[1:2], seed=4, step=2)) != by_itself
    numbers = stream_uniforms(0, 0, np.arange(50), 4, 100)
    assert numbers.shape == (200, 100) and len(np.unique(numbers)) == numbers.size
    assert stats.kstest(numbers.ravel(), "uniform").pvalue > 0.01


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (1.5, 12, 1.0), (0.8, 0, 0.9), (2.0, 20, 0.7)]
)
def test_tokens_follow_temperature_top_k_and_top_p(temperature: float, top_k: int, top_p: float) -> None:
    """Chi-square of 40,000 tokens from the same logits against the distribution worked out by sorting."""
    logits = torch.randn(64, generator=torch.Generator().manual_seed(5)) * 2
    n = 40_000
    uniforms = torch.from_numpy(np.random.default_rng(1).random(n))
    tokens, logps = choose(
        logits.expand(n, -1).clone(), uniforms, temperature=temperature, top_k=top_k, top_p=top_p, greedy=False
    )
    full = np.exp(logits.double().numpy() / temperature)
    full /= full.sum()
    order = np.argsort(-full)[: top_k or None]
    shares = full[order] / full[order].sum()
    kept = int(np.searchsorted(np.cumsum(shares), top_p)) + 1
    order, shares = order[:kept], shares[:kept] / shares[:kept].sum()
    counts = np.bincount(tokens.numpy(), minlength=64)
    assert counts[order].sum() == n, "nothing outside top-k and top-p"
    often = shares * n >= 5
    observed = np.append(counts[order][often], counts[order][~often].sum())
    expected = np.append(shares[often], shares[~often].sum()) * n
    observed, expected = observed[expected > 0], expected[expected > 0]
    assert stats.chisquare(observed, expected).pvalue > 0.01
    # Log-probabilities are those before top-k and top-p.
    np.testing.assert_allclose(logps.numpy(), np.log(full)[tokens.numpy()], atol=1e-5)


def test_rollouts_follow_the_models_distribution() -> None:
    """First tokens of 4,000 rollouts of one prompt, through the whole engine."""
    model = tiny_lm("llama", scale=0.1)
    settings = RolloutSettings(group_size=4000, max_new_tokens=1, temperature=0.5, top_k=8)
    result = engine_of(model, "llama", settings).generate(prompts()[:1], cases=CASES[:1], seed=0)
    with torch.no_grad():
        logits = model(torch.tensor(prompts()[:1])).logits[0, -1]
    values, ids = (logits / 0.5).topk(8)
    counts = (result.rollouts.completion_ids[:, :1] == ids).sum(dim=0)
    assert int(counts.sum()) == 4000
    assert stats.chisquare(counts.numpy(), values.double().softmax(dim=-1).numpy() * 4000).pvalue > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_a_repetition_penalty_changes_what_is_sampled_and_no_log_probability(family: str) -> None:
    """Each token against transformers' own processor, over the prompt and the rollout's tokens; they end apart."""
    model, penalty = tiny_lm(family, scale=0.15), 1.7
    sampling = {"temperature": 1.5, "top_k": 20, "top_p": 0.95}
    result = write(model, family, repetition_penalty=penalty, **sampling)
    assert result.log_probs is not None
    uniforms = stream_uniforms(3, 2, CASES, 4, 20)
    repeated = RepetitionPenaltyLogitsProcessor(penalty)
    differs = 0
    for i, own in enumerate(sampled(result)):
        prompt = prompts()[i // 4]
        logps, _ = plain(model, prompt, completions(result)[i], 1.5)
        torch.testing.assert_close(result.log_probs[i, : len(own)], logps[: len(own)], atol=1e-4, rtol=0)
        with torch.no_grad():
            logits = model(torch.tensor([prompt + own])).logits[0, len(prompt) - 1 : -1].float()
        for at, token in enumerate(own):
            before = torch.tensor([prompt + own[:at]])
            number = torch.from_numpy(uniforms[i, at : at + 1])
            penalised_logits = repeated(before, logits[None, at].clone())
            assert choose(penalised_logits, number, greedy=False, **sampling)[0].item() == token
            differs += choose(logits[None, at], number, greedy=False, **sampling)[0].item() != token
    assert differs > 5, "without the penalty other tokens would have been chosen"


def test_largest_equals_topk() -> None:
    random = torch.Generator().manual_seed(0)
    for n, k in ((4096, 50), (4096, 127), (4096, 4000), (1000, 3), (4099, 10), (64, 64), (40, 100)):
        x = torch.randn(5, n, generator=random)
        values, places = largest(x, k)
        expected = x.topk(min(k, n), dim=-1)
        assert values.equal(expected.values) and places.equal(expected.indices)


def test_a_common_beginning_leaves_each_prompt_a_token() -> None:
    assert common_beginning([[1, 2, 3], [1, 2, 4, 5]]) == 2
    assert common_beginning([[1, 2], [1, 2, 3]]) == 1
    assert common_beginning([[5], [6, 7]]) == 0


def adapted(family: str, dtype: torch.dtype = torch.float32) -> PeftModel:
    model = tiny_lm(family, scale=0.15).to(dtype)
    return get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False))


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_adapters_write_the_same_and_are_restored(family: str) -> None:
    model = adapted(family)
    model.train()
    model.base_model.model.model.norm.eval()  # modes are kept module by module
    before = {name: (value, value.clone()) for name, value in model.state_dict(keep_vars=True).items()}
    modules = [(name, id(module), module.training) for name, module in model.named_modules()]
    merged = write(model, family, temperature=1.3, final_states=True)
    apart = write(model, family, temperature=1.3, final_states=True, merge_adapters=False)
    assert completions(merged) == completions(apart)
    torch.testing.assert_close(merged.states, apart.states, atol=1e-4, rtol=1e-4)
    bare = write(tiny_lm(family, scale=0.15), family, temperature=1.3)
    assert completions(merged) != completions(bare), "the adapters matter"
    after = model.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[name] is value and after[name].equal(copy) for name, (value, copy) in before.items())
    assert [(name, id(module), module.training) for name, module in model.named_modules()] == modules
    assert model.config._attn_implementation != ATTENTION
    assert all(value.requires_grad == ("lora_" in name) for name, value in model.named_parameters())


def test_adapters_are_restored_after_an_error_and_in_bf16() -> None:
    model = adapted("llama", torch.bfloat16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="halfway"), merged_adapters(model) as causal_lm:
        folded = causal_lm.model.layers[0].self_attn.q_proj.weight
        assert folded.dtype == torch.bfloat16
        assert not folded.equal(before["base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight"])
        raise RuntimeError("halfway")
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
