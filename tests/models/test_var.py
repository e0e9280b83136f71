"""The model of image tokens scale by scale: its inputs, its mask, its cache, guidance and errors."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen import nn
from eqxgen.configs import ImageSampling, VARConfig
from eqxgen.decoding.images import evidence, log_likelihood
from eqxgen.decoding.scales import generate
from eqxgen.losses.image_ar import image_ar_loss
from eqxgen.models import VAR
from tests.arrays import filled, integers
from tests.full import full

SCALES, CODES, DIM = (1, 2, 3), 7, 4
TOKENS = 14
SMALL = VARConfig(dim=16, depth=2, heads=2, hidden_dim=24)
IDS = integers((TOKENS,), CODES, 7)


def quantizer():
    return filled(lambda key: nn.MultiScaleVQ(nn.VectorQuantizer(CODES, DIM, key=key), SCALES, phis=2, key=key))


def made(**changes):
    """A small model with drawn parameters, so that its label, its context and its head matter."""
    config = dataclasses.replace(SMALL, **changes)
    return filled(lambda key: VAR(SCALES, CODES, DIM, 3, config, key=key)).reading(quantizer())


@eqx.filter_jit
def run(model, ids, label):
    return model(ids, label, inference=True)


@pytest.fixture(scope="module")
def model():
    return made()


@eqx.filter_jit
def cached(model, ids, label):
    logits, memory = model.start(label)
    found, before = [logits], 0
    for side in SCALES[:-1]:
        logits, memory = model.extend(ids[before : before + side * side], memory)
        found.append(logits)
        before += side * side
    return jnp.concatenate(found)


@pytest.mark.parametrize("label", [0, 3])
def test_scale_by_scale_with_the_cache_logits_equal_the_full_forward(model, label):
    full = run(model, IDS, jnp.asarray(label))
    of_cache = cached(model.unrolled(), IDS, jnp.asarray(label))
    np.testing.assert_allclose(of_cache, full, atol=1e-5 * float(jnp.abs(full).max()))
    assert full.shape == (TOKENS, CODES)


def test_a_token_depends_on_the_scales_before_its_own_alone_and_on_the_label(model):
    plain = run(model, IDS, jnp.asarray(1))
    assert np.abs(run(model, IDS, jnp.asarray(2)) - plain).min(axis=-1).max() > 1e-3
    for token, after in ((0, 1), (3, 5), (4, 5)):
        changed = run(model, IDS.at[token].set((IDS[token] + 1) % CODES), jnp.asarray(1))
        same = np.isclose(changed, plain, rtol=0, atol=1e-6).all(axis=1)
        assert same[:after].all()
        assert not same[after:].any()
    last = run(model, IDS.at[9].set((IDS[9] + 1) % CODES), jnp.asarray(1))
    np.testing.assert_array_equal(last, plain)


COMPILED = [0]
jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration_secs, **_: COMPILED.__setitem__(0, COMPILED[0] + event.endswith("backend_compile_duration"))
)


def test_samples_are_those_of_guided_logits_and_other_numbers_run_the_same_program(model):
    options = ImageSampling(guidance=3.0, guidance_ramp=1.0, temperature=0.7, top_k=3, guidance_to=9)
    ids, key = generate(model, 2, options, key=jr.key(5)), jr.key(5)
    label, null = (run(model, ids, jnp.asarray(x)) for x in (2, 3))
    progress = np.repeat(np.arange(3) / 2, [1, 4, 9])
    scale = np.where(np.arange(TOKENS) < 9, 1 + 2 * progress, 1.0)[:, None]
    guided = null + scale * (label - null)
    best = jnp.where(guided >= jnp.sort(guided, axis=-1)[:, -3:-2], guided / 0.7, -jnp.inf)
    wanted = [jr.categorical(jr.fold_in(key, i), row) for i, row in enumerate(best)]
    np.testing.assert_array_equal(ids, wanted)
    before = COMPILED[0]
    other = ImageSampling(guidance=1.5, guidance_ramp=2.0, temperature=2.0, top_k=5, guidance_from=3)
    again = generate(model, 0, other, key=jr.key(6))
    assert COMPILED[0] == before
    assert not np.array_equal(ids, again)


@full
def test_of_candidates_the_best_is_kept_and_the_loss_is_the_likelihood(model):
    found = generate(model, 1, ImageSampling(candidates=3), key=jr.key(3))
    each = [generate(model, 1, key=key) for key in jr.split(jr.key(3), 3)]
    odds = [float(eqx.filter_jit(evidence)(model, ids, jnp.asarray(1))) for ids in (found, *each)]
    assert odds[0] == pytest.approx(max(odds[1:]), rel=1e-4)
    loss = eqx.filter_jit(image_ar_loss)(model, IDS, jnp.asarray(1), label_dropout=0.0, key=jr.key(1))
    assert float(loss.loss) == pytest.approx(-float(log_likelihood(model, IDS, 1)), rel=1e-5)


def test_the_published_sizes_have_their_numbers_of_parameters():
    scales = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    for name, millions in {"d16": 310, "d20": 600, "d24": 1000, "d30": 2000}.items():
        make = lambda key, name=name: VAR(scales, 4096, 32, 1000, VARConfig.var(name), key=key)
        leaves = jax.tree.leaves(eqx.filter_eval_shape(make, jr.key(0)))
        count = sum(leaf.size for leaf in leaves if isinstance(leaf, jax.ShapeDtypeStruct))
        assert count / 1e6 == pytest.approx(millions, rel=0.035), name


def test_an_input_that_cannot_be_is_an_error(model):
    unread = filled(lambda key: VAR(SCALES, CODES, DIM, 3, SMALL, key=key))
    other = lambda scales=SCALES, codes=CODES, dim=DIM: filled(
        lambda key: nn.MultiScaleVQ(nn.VectorQuantizer(codes, dim, key=key), scales, key=key)
    )
    cases = {
        r"ids must be in \[0, codes=7\)": lambda: model(IDS + 7, 1, inference=True),
        r"ids must be \(tokens=14,\): got shape \(13,\)": lambda: model(IDS[1:], 1, inference=True),
        r"label must be in \[0, classes \+ 1 null=4\)": lambda: model(IDS, 4, inference=True),
        "guidance needs a model with a null label": lambda: generate(
            made(null=False), 1, ImageSampling(guidance=2.0), key=jr.key(0)
        ),
        r"call model\.reading\(tokenizer\.quantizer\)": lambda: unread(IDS, 1, inference=True),
        r"quantizer must have scales=\(1, 2, 3\): got \(1, 3\)": lambda: unread.reading(other((1, 3))),
        "quantizer must have codes=7: got 8": lambda: unread.reading(other(codes=8)),
        "quantizer must have dim=4: got 5": lambda: unread.reading(other(dim=5)),
        r"scales must be integers .* increase: got \(2, 1\)": lambda: VAR((2, 1), 7, 4, 3, SMALL, key=jr.key(0)),
        r"ids must be \(tokens=1,\)": lambda: model.extend(IDS[:2], model.start(1)[1]),
        "name must be one of d16, d20, d24, d30: got 'd12'": lambda: VARConfig.var("d12"),
        "decode.guidance_ramp must be at least 0 and finite: got -1": lambda: ImageSampling(guidance_ramp=-1.0),
    }
    for message, wrong in cases.items():
        with pytest.raises(ValueError, match=message):
            wrong()
    with pytest.raises(FloatingPointError):
        generate(eqx.tree_at(lambda m: m.level_positions, model, replace_fn=lambda x: x * jnp.nan), 1, key=jr.key(0))
