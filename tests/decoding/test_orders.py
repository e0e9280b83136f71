"""Orders of masked decoding, re-masking, editing, the critic and ramped guidance."""

import functools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.stats import chisquare, qmc

from eqxgen.configs import ORDERS, MaskedDecoding
from eqxgen.decoding.masked import MaskedRules, generate, guided, masked_decode
from eqxgen.decoding.orders import halton_order, halton_places, rolled
from tests import oracles
from tests.decoding.test_decoders import model
from tests.full import full
from tests.oracles.halton import COUNTS, SIDES

SEQ, CODES = 16, 4
ALL, NONE = jnp.ones(SEQ, bool), jnp.zeros(SEQ, jnp.int32)
LOGITS = 1.5 * jr.normal(jr.key(9), (SEQ, CODES))
HALTON = oracles.load("halton")


@pytest.mark.parametrize("side", SIDES)
def test_the_halton_order_equals_the_published_one(side):
    np.testing.assert_array_equal(halton_order(side, side), HALTON[f"side {side}"]["order"])


@pytest.mark.parametrize("grid", [(3, 5), (8, 24), (13, 7), (31, 32)])
def test_the_halton_order_of_any_grid_is_that_of_the_points_of_scipy(grid):
    points = qmc.Halton(2, scramble=False).random(20_000)[1:]  # without the origin, as the published sampler
    at = np.floor(points * grid + 1e-9).astype(int)
    cells = at[:, 0] * grid[1] + at[:, 1]
    np.testing.assert_array_equal(halton_order(*grid), list(dict.fromkeys(cells.tolist())))


@pytest.mark.parametrize("grid", [(1, 1), (1, 9), (7, 1), (3, 5), (8, 24), (32, 32), (19, 64)])
def test_a_halton_order_is_a_permutation_of_any_grid_and_so_is_a_roll(grid):
    tokens = grid[0] * grid[1]
    assert sorted(halton_order(*grid).tolist()) == list(range(tokens))
    places = halton_places(tokens, grid)
    assert sorted(places.tolist()) == sorted(rolled(places, key=jr.key(1)).tolist()) == list(range(tokens))


def test_neighbours_in_a_halton_order_are_far_apart_and_a_roll_keeps_them():
    rows, columns = np.divmod(halton_order(8, 8), 8)
    assert (np.hypot(np.diff(rows), np.diff(columns)) > 2).all()
    places = np.asarray(rolled(halton_places(64, None), key=jr.key(3)))
    first = halton_order(8, 8)[-places[halton_order(8, 8)[0]] % 64]
    assert places[first] == 0
    np.testing.assert_array_equal(np.argsort(places), np.roll(halton_order(8, 8), places[halton_order(8, 8)[0]]))


@functools.cache
def decoder():
    @jax.jit
    def run(rules, key, known):
        return masked_decode(lambda tokens: LOGITS, NONE, ~known, rules, length=SEQ, mask_id=CODES, key=key)

    return run


def history(key=0, known=~ALL, **options):
    rules = MaskedRules.of(MaskedDecoding(**{"steps": 6} | options), SEQ)
    return np.asarray(decoder()(rules, jr.key(key), known))


@pytest.mark.parametrize(("side", "steps"), COUNTS)
def test_the_halton_order_places_as_many_tokens_a_step_as_the_published_sampler(side, steps):
    found = masked_decode(
        lambda tokens: jnp.zeros((side**2, CODES)),
        jnp.zeros(side**2, jnp.int32),
        jnp.ones(side**2, bool),
        MaskedDecoding(steps=steps, order="halton", schedule="arccos"),
        mask_id=CODES,
        key=jr.key(2),
    )
    placed = np.sum(np.asarray(found) != CODES, axis=1)
    np.testing.assert_array_equal(placed, HALTON[f"{side} in {steps}"]["placed"])
    order, first = halton_order(side, side), np.flatnonzero(np.asarray(found)[0] != CODES)
    turn = np.flatnonzero(np.isin(order, first))
    assert len(turn) == placed[0]
    assert np.ptp(turn) == placed[0] - 1 or {0, side**2 - 1} <= set(turn)  # neighbours in the rolled order


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "revise", [{}, pytest.param({"remask": 0.3}, marks=full), {"edit": 0.5}, {"remask": 1.0, "edit": 1.0}], ids=str
)
def test_every_order_ends_complete_and_one_step_places_all_tokens(order, revise):
    for steps in (1, 6, SEQ):
        found = history(steps=steps, order=order, **revise)
        assert ((found[steps - 1 :] >= 0) & (found[steps - 1 :] < CODES)).all()
        if steps > 1:
            assert (found[: steps - 1] == CODES).any(axis=1).all()


@pytest.mark.parametrize("order", ORDERS)
def test_known_tokens_stay_known_and_accepted_ones_change_only_where_asked(order):
    known = jnp.arange(SEQ) % 3 == 0
    for revise in ({}, {"remask": 1.0}, {"edit": 1.0}):
        found = history(order=order, known=known, **revise)
        assert (found[:, np.asarray(known)] == 0).all()
        before, after = found[:-1], found[1:]
        kept = (before == after)[:5][before[:5] != CODES]
        assert kept.all() == (not revise)
    assert (history(order=order, remask=1.0)[1:] == CODES)[history(order=order, remask=1.0)[:-1] != CODES].any()


SAMPLERS = {
    "confidence in one step": {"steps": 1},
    "confidence drowned in noise": {"choice_temperature": 1e6},
    "halton": {"order": "halton", "schedule": "arccos"},
    "random": {"order": "random"},
    "random, one token a step": {"order": "random", "steps": SEQ, "schedule": "linear"},
    "re-masked": {"order": "random", "remask": 0.4},
    "edited": {"order": "halton", "edit": 0.4},
}


@jax.jit
def _counts(rules, keys):
    run = lambda key: masked_decode(lambda ids: LOGITS, NONE, ALL, rules, length=SEQ, mask_id=CODES, key=key)[-1]
    return jax.nn.one_hot(jax.vmap(run)(keys), CODES).sum(0)


def counts(**options):
    rules = MaskedRules.of(MaskedDecoding(**{"steps": 6} | options), SEQ)
    return np.asarray(_counts(rules, jr.split(jr.key(5), 2000)))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_of_independent_tokens_every_sampler_has_the_same_marginals(sampler):
    found = counts(**SAMPLERS[sampler])
    expected = np.asarray(jax.nn.softmax(LOGITS), np.float64)
    values = [chisquare(row, 2000 * p / p.sum()).pvalue for row, p in zip(found, expected)]
    assert min(values) > 1e-3 / SEQ, values


def test_confidence_alone_prefers_likely_tokens():
    found = counts(choice_temperature=0.0)
    likeliest = np.argmax(np.asarray(LOGITS), axis=1)
    expected = 2000 * np.asarray(jax.nn.softmax(LOGITS))[np.arange(SEQ), likeliest]
    assert found[np.arange(SEQ), likeliest].sum() > 1.1 * expected.sum()


def test_a_critic_masks_the_tokens_that_it_finds_least_right():
    wanted = jnp.argsort(LOGITS, axis=1)[:, 0]  # the critic likes unlikely tokens
    critic = lambda ids: (ids == wanted) + 0.01 * jnp.arange(SEQ)
    run = lambda critic: masked_decode(
        lambda ids: 0 * LOGITS,
        NONE,
        ALL,
        MaskedDecoding(steps=SEQ, schedule="linear", choice_temperature=0.0),
        critic=critic,
        mask_id=CODES,
        key=jr.key(0),
    )
    found = np.asarray(run(critic))
    assert (found[-2][found[-2] != CODES] == np.asarray(wanted)[found[-2] != CODES]).mean() > 0.9
    assert np.sum(found == CODES, axis=1).tolist() == list(range(SEQ - 1, -1, -1))
    assert (np.asarray(run(None))[-1] == np.asarray(wanted)).mean() < 0.6
    ids = generate(model("MaskGIT"), 1, MaskedDecoding(steps=2), critic=lambda ids: jnp.zeros(9), key=jr.key(0))
    assert ids.shape == (9,)


def test_ramped_guidance_grows_with_the_step_and_ends_at_its_value():
    at = lambda ramp, r: float(MaskedRules.of(MaskedDecoding(guidance=5.0, guidance_ramp=ramp), 9).guidance_at(r))
    assert [at(1.0, jnp.float32(r)) for r in (0.25, 0.5, 1.0)] == [2.0, 3.0, 5.0]
    assert [at(0.0, jnp.float32(r)) for r in (0.25, 1.0)] == [5.0, 5.0]
    assert at(2.0, jnp.float32(0.5)) == 2.0
    assert MaskedRules.of(MaskedDecoding(guidance_ramp=1.0), 9).guidance_at(jnp.float32(0.5)) is None
    net = model("MaskGIT")
    one = MaskedDecoding(steps=1, guidance=5.0, temperature=0.0, guidance_ramp=1.0)
    np.testing.assert_array_equal(
        generate(net, 1, one, key=jr.key(0)), guided(net, jnp.asarray(1), 5.0)(jnp.full(9, 7)).argmax(-1)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"order": "haltn"}, "decode.order must be one of confidence, halton, random: got 'haltn'"),
        ({"remask": 1.5}, r"decode.remask must be a probability, in \[0, 1\]: got 1.5"),
        ({"edit": float("nan")}, r"decode.edit must be a probability, in \[0, 1\]: got nan"),
        ({"guidance_ramp": -1.0}, "decode.guidance_ramp must be at least 0 and finite: got -1.0"),
    ],
)
def test_an_option_out_of_its_range_is_an_error(change, message):
    with pytest.raises(ValueError, match=message):
        MaskedDecoding(**change)


def test_a_grid_that_cannot_be_and_a_critic_of_another_order_are_errors():
    halton = MaskedDecoding(steps=2, order="halton")
    with pytest.raises(ValueError, match=r"grid must be given for decode\.order=halton, as 12 tokens are no square"):
        MaskedRules.of(halton, 12)
    with pytest.raises(ValueError, match="grid must have a cell for each of 12 tokens: got 3 x 5"):
        MaskedRules.of(halton, 12, (3, 5))
    with pytest.raises(ValueError, match=r"critic needs decode\.order=confidence, in place of which it is: got halton"):
        generate(model("MaskGIT"), 1, halton, critic=lambda ids: jnp.zeros(9), key=jr.key(0))
    with pytest.raises(ValueError, match="rows must be"):
        halton_order(0, 3)
