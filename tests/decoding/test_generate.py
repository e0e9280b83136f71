"""Mask schedules and masked decoding."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import SCHEDULES, MaskedDecoding
from eqxgen.decoding.masked import mask_schedule, masked_decode
from tests.full import full

SEQ, CODES = 12, 5
MASK = CODES
ALL = jnp.ones(SEQ, bool)
EVERY_SCHEDULE = [*SCHEDULES, "power3", "power0.5"]


def predict(tokens):
    """Logits that depend on every token, as a model's do."""
    seen = jnp.sum(jnp.where(tokens == MASK, 0, tokens + 1))
    return jnp.sin(jnp.arange(SEQ * CODES, dtype=jnp.float32).reshape(SEQ, CODES) * (1.0 + seen))


@jax.jit
def _decode_eight(tokens, unknown, key):
    return masked_decode(predict, tokens, unknown, MaskedDecoding(steps=8), mask_id=MASK, key=key)


@pytest.mark.parametrize("name", EVERY_SCHEDULE)
def test_a_schedule_falls_from_one_to_zero(name):
    shares = np.asarray([mask_schedule(name, 64)(jnp.float32(r)) for r in np.linspace(0, 1, 33)])
    assert shares[0] == 1
    assert shares[-1] == 0
    assert (np.diff(shares) <= 1e-6).all()


@pytest.mark.parametrize(
    ("name", "r", "share"),
    [
        ("cosine", 0.5, np.cos(np.pi / 4)),
        ("linear", 0.25, 0.75),
        ("power", 0.5, 0.75),
        ("power3", 0.5, 0.875),
        ("sqrt", 0.25, 0.5),
        ("log", 0.25, 2 / 6),
        ("exp", 0.5, 1 - 2**-3),
        ("arccos", 0.5, 2 / 3),
    ],
)
def test_a_schedule_has_its_published_value(name, r, share):
    np.testing.assert_allclose(mask_schedule(name, 64)(jnp.float32(r)), share, rtol=1e-6)


@pytest.mark.parametrize("name", ["cosin", "", "power-1", "power0", "powerx", "powernan"])
def test_an_unknown_schedule_is_an_error_that_lists_the_known(name):
    with pytest.raises(ValueError, match="schedule"):
        mask_schedule(name, 64)


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        pytest.param(steps, name, marks=() if steps == 3 or name == EVERY_SCHEDULE[0] else full)
        for steps in (1, 3, SEQ)
        for name in EVERY_SCHEDULE
    ],
)
def test_every_schedule_reaches_zero_masked_tokens(name, steps):
    options = MaskedDecoding(steps=steps, schedule=name)
    history = masked_decode(predict, jnp.zeros(SEQ, jnp.int32), ALL, options, mask_id=MASK, key=jr.key(0))
    assert history.shape == (steps, SEQ)
    assert not (history[-1] == MASK).any()
    assert ((history[-1] >= 0) & (history[-1] < CODES)).all()


def test_a_token_once_accepted_never_changes():
    histories = jax.vmap(lambda key: _decode_eight(jnp.zeros(SEQ, jnp.int32), ALL, key))(jr.split(jr.key(1), 50))
    before, after = np.asarray(histories[:, :-1]), np.asarray(histories[:, 1:])
    accepted = before != MASK
    assert (before[accepted] == after[accepted]).all()
    assert accepted.any(axis=(0, 2)).all()  # at every step there was something to keep


def test_the_number_of_masked_tokens_follows_the_schedule():
    masked = np.sum(np.asarray(_decode_eight(jnp.zeros(SEQ, jnp.int32), ALL, jr.key(2))) == MASK, axis=1)
    still = SEQ
    for t in range(8):
        still = min(still - 1, int(SEQ * np.cos(np.pi / 2 * (t + 1) / 8)))  # at least one is accepted at each step
        assert masked[t] == still


def left(schedule, unknown, tokens=256, steps=8):
    """Tokens that are masked after each step, of which `unknown` were at the start; all are as likely."""
    history = masked_decode(
        lambda ids: jnp.zeros((tokens, CODES)),
        jnp.zeros(tokens, jnp.int32),
        jnp.arange(tokens) < unknown,
        MaskedDecoding(steps=steps, schedule=schedule),
        mask_id=MASK,
        key=jr.key(0),
    )
    return np.sum(np.asarray(history) == MASK, axis=1).tolist()


@pytest.mark.parametrize(
    ("schedule", "unknown", "wanted"),
    [
        ("log", 16, [12, 8, 5, 4, 2, 1, 1, 0]),
        ("exp", 16, [14, 13, 12, 11, 10, 8, 4, 0]),
        ("linear", 16, [14, 12, 10, 8, 6, 4, 2, 0]),
        ("cosine", 3, [2, 1, 1, 1, 1, 1, 1, 0]),
        ("log", 1, [1, 1, 1, 1, 1, 1, 1, 0]),
        ("exp", 0, [0] * 8),
    ],
)
def test_the_share_is_of_the_unknown_tokens_and_some_is_left_for_the_last_step(schedule, unknown, wanted):
    assert left(schedule, unknown) == wanted


def test_with_as_many_steps_as_tokens_each_accepts_one():
    options = MaskedDecoding(steps=SEQ, schedule="linear")
    history = masked_decode(predict, jnp.zeros(SEQ, jnp.int32), ALL, options, mask_id=MASK, key=jr.key(3))
    assert np.sum(np.asarray(history) == MASK, axis=1).tolist() == list(range(SEQ - 1, -1, -1))


def test_known_tokens_survive_inpainting_and_the_others_are_filled():
    tokens = jnp.arange(SEQ, dtype=jnp.int32) % CODES
    unknown = jnp.arange(SEQ) % 3 == 0
    history = _decode_eight(tokens, unknown, jr.key(4))
    np.testing.assert_array_equal(
        np.asarray(history)[:, ~np.asarray(unknown)], np.asarray(tokens)[None, ~np.asarray(unknown)].repeat(8, 0)
    )
    assert not (history[-1] == MASK).any()


def test_values_at_unknown_positions_are_ignored():
    unknown = jnp.arange(SEQ) < 6
    tokens = jnp.arange(SEQ, dtype=jnp.int32) % CODES
    one = _decode_eight(tokens, unknown, jr.key(5))
    other = _decode_eight(jnp.where(unknown, (tokens + 1) % CODES, tokens), unknown, jr.key(5))
    np.testing.assert_array_equal(one, other)


def test_nothing_unknown_changes_nothing():
    tokens = jnp.arange(SEQ, dtype=jnp.int32) % CODES
    np.testing.assert_array_equal(_decode_eight(tokens, ~ALL, jr.key(6))[-1], tokens)


def test_without_randomness_the_surest_and_likeliest_are_taken_first():
    logits = jnp.zeros((SEQ, CODES)).at[:, 2].set(jnp.arange(SEQ, dtype=jnp.float32))
    options = MaskedDecoding(steps=SEQ, schedule="linear", temperature=0.0, choice_temperature=0.0)
    decode = lambda key: masked_decode(
        lambda tokens: logits, jnp.zeros(SEQ, jnp.int32), ALL, options, mask_id=MASK, key=key
    )
    history = np.asarray(decode(jr.key(7)))
    for t in range(SEQ):
        assert set(np.flatnonzero(history[t] != MASK)) == set(range(SEQ - 1 - t, SEQ))
    np.testing.assert_array_equal(history, decode(jr.key(8)))
    assert (history[-1][1:] == 2).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "decode.steps must be at least 1: got 0"),
        ({"steps": -1}, "decode.steps .* got -1"),
        ({"steps": True}, "decode.steps .* got True"),
        ({"temperature": -1.0}, "decode.temperature must be at least 0 and finite: got -1.0"),
        ({"choice_temperature": float("nan")}, "decode.choice_temperature must be at least 0 and finite: got nan"),
        ({"guidance": float("inf")}, "decode.guidance must be at least 0 and finite: got inf"),
        ({"schedule": "cos"}, "schedule must be one of"),
    ],
)
def test_an_option_out_of_its_range_is_an_error(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        MaskedDecoding(**change)


def test_more_steps_than_tokens_and_unequal_shapes_are_errors():
    arguments = {"tokens": jnp.zeros(SEQ, jnp.int32), "unknown": ALL, "mask_id": MASK, "key": jr.key(0)}
    with pytest.raises(ValueError, match=r"decode\.steps must be from 1 to the number of tokens, 12: got 13"):
        masked_decode(predict, **arguments, options=MaskedDecoding(steps=SEQ + 1))
    with pytest.raises((ValueError, TypeError)):
        masked_decode(predict, **arguments | {"unknown": jnp.ones(SEQ + 1, bool)})
