"""From logits to tokens: each rule against its definition in NumPy, and decoding against full forward passes."""

import itertools
import re
import runpy
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqxgen.configs import GPTConfig, RNNConfig, Sampling
from eqxgen.decoding import autoregressive, memory
from eqxgen.decoding.autoregressive import generate, stream
from eqxgen.decoding.beam import beam_search
from eqxgen.decoding.logits import adjusted, draw, min_p, penalised, top_k, top_p
from eqxgen.models.gpt import GPT
from eqxgen.models.rnn import RNN
from tests.arrays import filled
from tests.full import full

VOCAB = 11
LOGITS = st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=12)
MODELS = {
    "learned positions": lambda: GPT(VOCAB, GPTConfig(dim=16, depth=2, heads=2, context=24), key=jr.key(0)),
    "a LLaMA": lambda: GPT(VOCAB, GPTConfig.llama(dim=16, depth=2, heads=4, kv_heads=2, context=24), key=jr.key(0)),
    "latent attention": lambda: GPT(
        VOCAB, GPTConfig.mla(dim=16, depth=2, heads=2, latent=8, context=24), key=jr.key(0)
    ),
    "an LSTM": lambda: RNN(VOCAB, RNNConfig(dim=16), key=jr.key(0)),
    "a GRU": lambda: RNN(VOCAB, RNNConfig(dim=16, cell="gru", depth=1), key=jr.key(0)),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    """Its weights are larger than those of its initialisers, so that tokens differ."""
    return filled(lambda key: MODELS[request.param]())


def kept(logits):
    return set(np.flatnonzero(np.isfinite(np.asarray(logits))).tolist())


def probabilities(logits):
    powers = np.exp(np.asarray(logits, np.float64) - max(logits))
    return powers / powers.sum()


@given(LOGITS, st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_top_p_keeps_the_fewest_likeliest_tokens_that_reach_p(logits, p):
    probs = probabilities(np.float32(logits))
    order = np.argsort(-probs, kind="stable")
    reached = np.cumsum(probs[order])
    if np.abs(reached - p).min() < 1e-5 or len(set(np.float32(probs).tolist())) < len(logits):
        return  # on the edge, or between equals, rounding may decide either way
    expected = set(order[: int(np.searchsorted(reached, p)) + 1].tolist())
    assert kept(top_p(jnp.asarray(logits, jnp.float32), p)) == expected


@given(LOGITS, st.floats(0.01, 1.0))
@settings(max_examples=60, deadline=None)
def test_min_p_keeps_tokens_of_at_least_that_share_of_the_likeliest(logits, p):
    probs = probabilities(np.float32(logits))
    if np.abs(probs / probs.max() - p).min() < 1e-5:
        return
    assert kept(min_p(jnp.asarray(logits, jnp.float32), p)) == set(np.flatnonzero(probs >= p * probs.max()).tolist())


def test_top_k_keeps_k_and_those_equal_to_the_last():
    logits = jnp.asarray([1.0, 3.0, 2.0, 3.0, 2.0])
    assert [kept(top_k(logits, k)) for k in (1, 2, 3, 5, 9)] == [
        {1, 3},
        {1, 3},
        {1, 2, 3, 4},
        set(range(5)),
        set(range(5)),
    ]


def test_the_penalty_divides_what_is_positive_and_multiplies_what_is_not():
    seen = jnp.asarray([True, True, False])
    np.testing.assert_allclose(penalised(jnp.asarray([2.0, -2.0, 2.0]), seen, 2.0), [1.0, -4.0, 2.0])


def test_the_rules_come_in_the_order_penalty_temperature_limits():
    logits, seen = jnp.asarray([2.0, 1.5, 0.0]), jnp.asarray([True, False, False])
    found = adjusted(logits, Sampling(temperature=0.5, top_k=1, repetition_penalty=2.0), seen)
    assert (kept(found), float(found[1])) == ({1}, 0.0)  # the largest is shifted to 0


def test_draws_follow_the_probabilities_and_temperature_0_is_greedy():
    logits, seen = jnp.log(jnp.asarray([0.5, 0.3, 0.2])), jnp.zeros(3, bool)
    drawn = jax.vmap(lambda key: draw(logits, Sampling(), seen, key=key))(jr.split(jr.key(0), 4000))
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 4000, [0.5, 0.3, 0.2], atol=0.03)
    greedy = jax.vmap(lambda key: draw(logits, Sampling(temperature=0.0), seen, key=key))(jr.split(jr.key(0), 10))
    assert set(greedy.tolist()) == {0}
    assert int(draw(logits.at[2].set(jnp.nan), Sampling(), seen, key=jr.key(0))) == -1


BAD = [
    ({"temperature": -0.1}, "temperature must be at least 0 and finite: got -0.1"),
    ({"temperature": float("nan")}, "temperature must be at least 0"),
    ({"top_k": 0}, "top_k must be at least 1: got 0"),
    ({"top_k": -3}, "top_k must be at least 1: got -3"),
    ({"top_p": 0.0}, r"top_p must be in \(0, 1\]: got 0.0"),
    ({"top_p": 1.5}, "top_p must be in .*: got 1.5"),
    ({"min_p": -1.0}, "min_p must be in .*: got -1.0"),
    ({"repetition_penalty": 0.0}, "repetition_penalty must be positive and finite: got 0.0"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_a_rule_that_cannot_be_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**options)


@eqx.filter_jit
def logits_at(model, ids, last):
    return model(ids, inference=True)[last]


def full_greedy(model, prompt, length):
    """By a forward pass over the whole text for each token; of a model with a context, over what its window holds."""
    ids, start = list(prompt), 0
    for _ in range(length):
        if model.context and len(ids) - start >= model.context:
            start = len(ids) - model.context // 2
        window = ids[start:]
        padded = np.asarray(window + [0] * ((model.context or 32 * 9) - len(window)), np.int32)
        ids.append(int(np.argmax(np.asarray(logits_at(model, padded, np.int32(len(window) - 1))))))
    return ids[len(prompt) :]


@pytest.mark.parametrize("start", [1, pytest.param(3, marks=full), 24])
def test_greedy_decoding_from_memory_is_the_argmax_of_full_passes_for_200_tokens(model, start):
    prompt = np.arange(start, dtype=np.int32) * 3 % VOCAB
    found = generate(model, [prompt], 200, Sampling(temperature=0.0), key=jr.key(0))[0]
    assert found.tolist() == full_greedy(model, prompt, 200)


def test_a_stream_is_the_same_alone_and_beside_others_of_other_lengths(model):
    prompts = [np.arange(n, dtype=np.int32) % VOCAB for n in (3, 20, 1)]
    together = generate(model, prompts, 40, Sampling(top_k=5), key=jr.key(1))
    tokens = stream(model, prompts[:1], Sampling(top_k=5), key=jr.key(1))
    np.testing.assert_array_equal([next(tokens)[0] for _ in range(40)], together[0])
    assert not np.array_equal(together[0], together[1])
    assert not np.array_equal(generate(model, prompts[:1], 40, Sampling(top_k=5), key=jr.key(2))[0], together[0])


def test_prompts_of_every_length_share_one_program(model):
    before = [memory._prefill._cached._cache_size(), autoregressive._step._cached._cache_size()]
    for length in (1, 2, 7, 13, 24):
        generate(model, [np.zeros(length, np.int32)], 30, Sampling(top_p=0.9), key=jr.key(0))
    after = [memory._prefill._cached._cache_size(), autoregressive._step._cached._cache_size()]
    assert max(np.subtract(after, before)) <= 1


def test_the_penalty_counts_the_prompt_and_what_was_drawn(model):
    prompt = np.asarray([4, 4, 1], np.int32)
    found = generate(model, [prompt], 12, Sampling(temperature=0.0, repetition_penalty=1.7), key=jr.key(0))[0]
    ids = prompt.tolist()
    for token in found.tolist():
        logits = logits_at(model, np.asarray(ids + [0] * (24 - len(ids)), np.int32), np.int32(len(ids) - 1))
        seen = jnp.asarray(np.isin(np.arange(VOCAB), ids))
        assert token == int(np.argmax(np.asarray(penalised(logits, seen, 1.7))))
        ids.append(token)


def test_a_beam_search_as_wide_as_all_texts_finds_the_likeliest(model):
    prompt, length = np.asarray([1, 2], np.int32), 3

    def log_probability(ids):
        logits = jax.nn.log_softmax(model(jnp.concatenate([jnp.asarray(prompt), ids])[:-1], inference=True))
        return jnp.sum(jnp.take_along_axis(logits[1:], ids[:, None], axis=1))

    every = jnp.asarray(list(itertools.product(range(VOCAB), repeat=length)), jnp.int32)
    scores = np.asarray(eqx.filter_jit(jax.vmap(log_probability))(every))
    greedy, one = beam_search(model, prompt, length, 1)
    best, wide = beam_search(model, prompt, length, VOCAB)
    assert greedy.tolist() == generate(model, [prompt], length, Sampling(temperature=0.0), key=jr.key(0))[0].tolist()
    assert one <= wide + 1e-6 <= scores.max() + 2e-5
    np.testing.assert_allclose(wide, scores[np.flatnonzero((np.asarray(every) == best).all(axis=1))[0]], rtol=1e-4)


GPT_ONLY = MODELS["learned positions"]
WRONG = [
    (lambda m: generate(m, [], 1, key=jr.key(0)), "prompts must be one or more: got none"),
    (
        lambda m: generate(m, [np.zeros(0, np.int32)], 1, key=jr.key(0)),
        r"prompt 0 must be one or more ids: got shape \(0,\)",
    ),
    (
        lambda m: generate(m, [np.zeros(25, np.int32)], 1, key=jr.key(0)),
        "prompt 0 must be at most context=24 tokens: got 25",
    ),
    (
        lambda m: generate(m, [np.asarray([0, 11])], 1, key=jr.key(0)),
        r"prompt 0 must have ids in \[0, vocab=11\): got 0 to 11",
    ),
    (lambda m: generate(m, [np.asarray([-1])], 1, key=jr.key(0)), "got -1 to -1"),
    (lambda m: generate(m, [np.asarray([1])], 0, key=jr.key(0)), "length must be an integer of at least 1: got 0"),
    (
        lambda m: beam_search(m, np.asarray([1]), 24, 2),
        "prompt and length must be at most context=24 tokens together: got 1 and 24",
    ),
    (lambda m: beam_search(m, np.asarray([1]), 2, 12), "beams must be from 1 to the vocabulary's 11: got 12"),
    (lambda m: beam_search(m, np.asarray([1]), 0, 2), "length must be an integer of at least 1: got 0"),
    (lambda m: m(jnp.zeros(25, jnp.int32)), "ids must be at most context=24 tokens: got 25"),
    (lambda m: m(jnp.asarray([11])), r"ids must be in \[0, vocab=11\)"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG)
def test_a_wrong_call_is_an_error(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong(GPT_ONLY())


def test_weights_that_are_no_numbers_stop_the_stream():
    broken = eqx.tree_at(lambda m: m.norm.scale, GPT_ONLY(), jnp.full(16, jnp.nan))
    with pytest.raises(FloatingPointError, match="logits are not numbers"):
        generate(broken, [np.asarray([1])], 2, key=jr.key(0))


def test_the_documented_example_runs(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "language.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "example.py").write_text(block, encoding="utf-8")
    found = runpy.run_path(str(tmp_path / "example.py"))
    assert (found["ids"].shape, found["first"].shape) == ((2, 20), (2,))
