"""Every decoder alike: numbers that share one program, NaN, tiny temperatures, prompts as plain values."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import GPTConfig, MaskedDecoding, MaskGITConfig, RNNConfig, Sampling
from eqxgen.decoding import autoregressive, beam, logits, masked
from eqxgen.models.gpt import GPT
from eqxgen.models.maskgit import MaskGIT
from eqxgen.models.rnn import RNN

KEY = jr.key(0)
COMPILED = [0]


def _count(name, seconds, **_):
    COMPILED[0] += name.endswith("backend_compile_duration")


jax.monitoring.register_event_duration_secs_listener(_count)


@functools.cache
def model(name):
    return {
        "GPT": lambda: GPT(70, GPTConfig(dim=8, depth=1, heads=2, context=40), key=KEY),
        "RNN": lambda: RNN(70, RNNConfig(dim=8, depth=1), key=KEY),
        "MaskGIT": lambda: MaskGIT(9, 7, 3, MaskGITConfig(dim=8, depth=1, heads=2, dropout=0.0), key=KEY),
    }[name]()


def text(name, prompt=(1, 2), length=3, stop=(), **options):
    return autoregressive.generate(model(name), [list(prompt)], length, Sampling(**options), stop=stop, key=KEY)


def search(length=3, stop=(), prompt=(1, 2)):
    return beam.beam_search(model("GPT"), list(prompt), length, 2, stop=stop)


def image(label=1, unknown=None, **options):
    known = {} if unknown is None else {"ids": [1] * 9, "unknown": jnp.arange(9) < unknown}
    return masked.generate(model("MaskGIT"), label, MaskedDecoding(**{"steps": 3} | options), **known, key=KEY)


@jax.jit
def _history(rules, key):
    predict = masked.guided(model("MaskGIT"), jnp.asarray(1), rules.guidance)
    return masked.masked_decode(
        predict, jnp.zeros(9, jnp.int32), jnp.ones(9, bool), rules, length=9, mask_id=7, key=key
    )


def history(**options):
    return _history(masked.MaskedRules.of(MaskedDecoding(**{"guidance": 2.0} | options), 9), KEY)


@jax.jit
def _draw(rules, key):
    return logits.draw(jnp.arange(70.0), rules, jnp.zeros(70, bool), key=key)


def draw(**options):
    return _draw(logits.Rules.of(Sampling(**options)), KEY)


TEMPERATURES = [{"temperature": t} for t in (0.7, 0.8, 1.0, 1e-40, 3.5)]
NUMBERS = {
    **{f"{name}: temperature": (functools.partial(text, name), TEMPERATURES) for name in ("GPT", "RNN")},
    "GPT: top_k": (functools.partial(text, "GPT"), [{"top_k": k} for k in (1, 5, 40, 64)]),
    "GPT: top_p": (functools.partial(text, "GPT"), [{"top_p": p} for p in (0.1, 0.9, 1.0)]),
    "GPT: min_p": (functools.partial(text, "GPT"), [{"min_p": p} for p in (0.1, 0.9)]),
    "GPT: repetition_penalty": (functools.partial(text, "GPT"), [{"repetition_penalty": p} for p in (1.1, 2.0)]),
    "GPT: length": (functools.partial(text, "GPT"), [{"length": n} for n in (1, 4, 7)]),
    "GPT: prompt": (functools.partial(text, "GPT"), [{"prompt": range(n)} for n in (1, 2, 9, 30)]),
    "GPT: stop": (functools.partial(text, "GPT"), [{"stop": ids} for ids in ([1], [2], [3, 4, 5], range(60))]),
    "beam search: length": (search, [{"length": n} for n in (1, 3, 4, 30)]),
    "beam search: stop": (search, [{"stop": ids} for ids in ([1], [2], [3, 4, 5], range(60))]),
    "beam search: prompt": (search, [{"prompt": range(n)} for n in (1, 2, 9)]),
    "MaskGIT: steps": (image, [{"steps": n} for n in (1, 2, 9)]),
    "MaskGIT: guidance": (image, [{"guidance": g} for g in (2.0, 0.0, 7.5)]),
    "MaskGIT: temperature": (image, TEMPERATURES),
    "MaskGIT: choice_temperature": (image, [{"choice_temperature": t} for t in (0.0, 4.5, 9.0)]),
    "MaskGIT: halton": (image, [{"order": "halton"} | more for more in ({}, {"steps": 9}, {"temperature": 0.5})]),
    "MaskGIT: revised": (
        image,
        [
            {"remask": r, "edit": e, "guidance": 2.0, "guidance_ramp": p}
            for r, e, p in ((0.1, 0.2, 1.0), (1.0, 0.9, 2.0))
        ],
    ),
    "MaskGIT: label": (image, [{"label": n} for n in (0, 1, 3)]),
    "MaskGIT: unknown": (image, [{"unknown": n} for n in (1, 5, 9)]),
    "masked_decode": (history, [{"steps": 2}, {"temperature": 0.3}, {"guidance": 3.0}, {"choice_temperature": 0.0}]),
    "draw": (draw, TEMPERATURES),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_other_numbers_run_the_same_program(case):
    call, options = NUMBERS[case]
    call(**options[0])
    before = COMPILED[0]
    for values in options:
        call(**values)
    assert COMPILED[0] == before


def test_compilations_are_counted():
    before = COMPILED[0]
    jax.jit(lambda x: x * 3 + 1)(jnp.ones(173))
    assert COMPILED[0] > before


def broken(name, part):
    return eqx.tree_at(part, model(name), replace_fn=lambda x: x * jnp.nan)


def eager(tokens):
    return jnp.full((4, 5), jnp.nan)


NAN = {
    "generate": lambda: autoregressive.generate(broken("GPT", lambda m: m.norm.scale), [[1]], 2, key=KEY),
    "generate of an RNN": lambda: autoregressive.generate(broken("RNN", lambda m: m.head.weight), [[1]], 2, key=KEY),
    "stream": lambda: next(autoregressive.stream(broken("GPT", lambda m: m.norm.scale), [[1]], key=KEY)),
    "beam search": lambda: beam.beam_search(broken("GPT", lambda m: m.norm.scale), [1, 2], 3, 2),
    "beam search of an RNN": lambda: beam.beam_search(broken("RNN", lambda m: m.head.weight), [1, 2], 3, 2),
    "masked generate": lambda: masked.generate(broken("MaskGIT", lambda m: m.head_bias), 1, key=KEY),
    "masked_decode": lambda: masked.masked_decode(
        eager, jnp.zeros(4, jnp.int32), jnp.ones(4, bool), MaskedDecoding(steps=2), mask_id=5, key=KEY
    ),
}


@pytest.mark.parametrize("decoder", NAN)
def test_logits_of_nan_are_the_same_error_of_every_decoder(decoder):
    with pytest.raises(FloatingPointError, match=r"^the model's logits are not numbers: its weights, or a prompt's"):
        NAN[decoder]()


def test_of_one_damaged_token_the_error_comes_when_it_is_drawn():
    damaged = eqx.tree_at(lambda m: m.embedding.weight, model("RNN"), replace_fn=lambda w: w.at[5].set(jnp.nan))
    assert autoregressive.generate(damaged, [[1]], 3, Sampling(temperature=0.0), key=KEY).min() >= 0
    with pytest.raises(FloatingPointError):
        autoregressive.generate(damaged, [[1], [5]], 3, Sampling(temperature=0.0), key=KEY)
    with pytest.raises(FloatingPointError):
        beam.beam_search(damaged, [5], 3, 2)


def test_inside_a_compiled_program_what_cannot_be_drawn_is_no_token():
    nothing = jnp.full(3, jnp.nan)
    for row in (nothing, jnp.array([1.0, jnp.inf, 0.0]), jnp.full(3, -jnp.inf), jnp.array([1.0, 2.0, jnp.nan])):
        assert int(logits.draw(row, Sampling(), jnp.zeros(3, bool), key=KEY)) == -1
    model_ = broken("MaskGIT", lambda m: m.head_bias)
    ids = jax.jit(lambda key: masked.generate(model_, jnp.asarray(1), MaskedDecoding(steps=2), key=key))(KEY)
    assert (ids == -1).all()


@jax.jit
def _coldest(rules, masked_rules, row):
    history = masked.masked_decode(
        lambda tokens: jnp.tile(row, (2, 1)),
        jnp.zeros(2, jnp.int32),
        jnp.ones(2, bool),
        masked_rules,
        length=2,
        mask_id=4,
        key=KEY,
    )
    return logits.draw(row, rules, jnp.zeros(4, bool), key=KEY), history[-1]


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 1e-38, 1e-42, 1e-46, 5e-324])
def test_the_smallest_temperatures_draw_the_likeliest_token(temperature):
    rules = logits.Rules.of(Sampling(temperature=temperature))
    masked_rules = masked.MaskedRules.of(MaskedDecoding(steps=2, temperature=temperature), 2)
    for scale in (1.0, 1e30, -1.0):
        row = scale * jnp.array([5.0, 1.0, 60.0, 30.0])
        drawn, filled = _coldest(rules, masked_rules, row)
        assert [int(drawn), *filled.tolist()] == [int(jnp.argmax(row))] * 3


def test_a_penalty_that_overflows_still_draws():
    seen = jnp.array([False, True, False])
    drawn = logits.draw(jnp.array([3.0, 2.0, 1.0]), Sampling(repetition_penalty=1e-39, top_p=0.5), seen, key=KEY)
    assert int(drawn) == 1


def test_prompts_are_arrays_or_lists_and_all_the_same():
    gpt, rows = model("GPT"), [[1, 2, 3], [4, 5, 6]]
    wanted = autoregressive.generate(gpt, [np.asarray(row) for row in rows], 4, key=KEY)
    for prompts in (rows, tuple(map(tuple, rows)), np.asarray(rows), [jnp.asarray(row) for row in rows]):
        np.testing.assert_array_equal(autoregressive.generate(gpt, prompts, 4, key=KEY), wanted)
    one, _ = beam.beam_search(gpt, [1, 2, 3], 4, 2)
    np.testing.assert_array_equal(one, beam.beam_search(gpt, np.asarray([1, 2, 3]), 4, 2)[0])
    assert next(autoregressive.stream(gpt, rows, key=KEY)).tolist() == wanted[:, 0].tolist()
    ids = masked.generate(model("MaskGIT"), 1, ids=[0] * 9, unknown=jnp.arange(9) < 2, key=KEY)
    assert ids[2:].tolist() == [0] * 7


WRONG = {
    "floats": ([[1.5, 2.0]], "prompt 0 must be integers: got float64; convert them on purpose"),
    "floats in the second": ([[1], np.ones(2)], "prompt 1 must be integers: got float64"),
    "text": (["ab"], "prompt 0 must be integers: got str"),
    "a flat list": ([1, 2], r"prompt 0 must be one or more ids: got shape \(\); prompts are a list, with a sequence"),
    "a batch of batches": ([[[1, 2]]], r"prompt 0 must be one or more ids: got shape \(1, 2\); prompts are a list"),
    "an empty one": ([[]], r"prompt 0 must be one or more ids: got shape \(0,\)"),
    "none": ([], "prompts must be one or more: got none"),
    "an id out of range": ([[70]], r"prompt 0 must have ids in \[0, vocab=70\): got 70 to 70"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_prompt_that_cannot_be_is_named(case, monkeypatch):
    prompts, message = WRONG[case]
    _without_annotations(monkeypatch)
    for call in (
        lambda: autoregressive.generate(model("GPT"), prompts, 1, key=KEY),
        lambda: autoregressive.stream(model("RNN"), prompts, key=KEY),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    if prompts:
        with pytest.raises(ValueError, match=message.replace("prompt 1", "prompt 0")):
            beam.beam_search(model("GPT"), prompts[-1], 1, 1)


def _without_annotations(monkeypatch):
    """Types are not checked at run time, as users have it."""
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
