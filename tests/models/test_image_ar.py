"""The autoregressive model of image tokens: published arithmetic, its cache, orders, guidance, scorers and loss."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import LLAMAGEN_SIZES, ImageARConfig, ImageSampling
from eqxgen.decoding.images import ImageRules, evidence, generate, log_likelihood
from eqxgen.losses.image_ar import image_ar_loss
from eqxgen.models import ImageAR
from tests import oracles
from tests.full import full
from tests.oracles._drawn import published
from tests.oracles.llamagen import SIZES

CASES = oracles.load("llamagen")
SMALL = ImageARConfig(dim=16, depth=2, heads=2, hidden_dim=24, dropout=0.0)
LABEL, IDS = jnp.asarray(2), jr.randint(jr.key(7), (15,), 0, 7)


def made(grid=(3, 5), **changes):
    """A small model whose label and context matter, and whose head is not zero."""
    model = ImageAR(grid, 7, 3, dataclasses.replace(SMALL, **changes), key=jr.key(0))
    model = jax.tree.map(lambda x: 8 * x if eqx.is_inexact_array(x) and x.ndim > 1 else x, model)
    return eqx.tree_at(lambda m: m.head.weight, model, 0.3 * jr.normal(jr.key(1), model.head.weight.shape))


@eqx.filter_jit
def run(model, ids, label, order=None):
    return model(ids, label, order=order, inference=True)


@pytest.fixture(scope="module")
def model():
    return made()


def of_published(arrays, model):
    """The model with the arrays of a published checkpoint."""
    heads, depth = model.stack.blocks.attention.heads, model.stack.depth
    stacked = lambda name: np.stack([arrays[f"layers.{i}.{name}.weight"] for i in range(depth)])
    parts = stacked("attention.wqkv").reshape(depth, 3, heads, -1, model.norm.scale.shape[0])
    both = np.stack([stacked("feed_forward.w3"), stacked("feed_forward.w1")], axis=2)
    flat = lambda x: x.reshape(depth, -1, x.shape[-1])
    blocks = lambda m: m.stack.blocks
    where = lambda m: (
        m.embedding.weight,
        m.labels.weight,
        m.norm.scale,
        m.head.weight,
        blocks(m).attention.qkv.weight,
        blocks(m).attention.out.weight,
        blocks(m).mlp.up.weight,
        blocks(m).mlp.down.weight,
        blocks(m).attention_norm.scale,
        blocks(m).mlp_norm.scale,
    )
    names = ("tok_embeddings", "cls_embedding.embedding_table", "norm", "output")
    values = [arrays[f"{name}.weight"] for name in names]
    values += [flat(parts.swapaxes(1, 2)), stacked("attention.wo"), flat(both), stacked("feed_forward.w2")]
    values += [stacked("attention_norm"), stacked("ffn_norm")]
    assert [x.shape for x in where(model)] == [x.shape for x in values]
    return eqx.tree_at(where, model, [jnp.asarray(x) for x in values])


@pytest.mark.parametrize("case", SIZES)
def test_logits_equal_those_of_the_published_arithmetic(case):
    (side, dim, depth, heads, classes), kept = SIZES[case], CASES[case]
    config = ImageARConfig(dim=dim, depth=depth, heads=heads, blank_prefix=True)
    model = of_published(published(kept["shapes"]), ImageAR((side, side), 11, classes, config, key=jr.key(0)))
    logits = [run(model, *map(jnp.asarray, row)) for row in zip(kept["ids"], kept["labels"])]
    np.testing.assert_allclose(logits, kept["logits"], atol=1e-5 * np.abs(kept["logits"]).max())
    other = ImageAR((side, side), 11, classes, dataclasses.replace(config, blank_prefix=False), key=jr.key(0))
    other = of_published(published(kept["shapes"]), other)
    at_origin = run(other, jnp.asarray(kept["ids"][0]), jnp.asarray(kept["labels"][0]))
    assert np.abs(at_origin - kept["logits"][0]).max() > 1e-3
    np.testing.assert_allclose(at_origin[0], kept["logits"][0, 0], rtol=1e-4, atol=1e-5)  # the class alone


def test_the_published_sizes_have_their_numbers_of_parameters():
    for name, millions in {"b": 111, "l": 343, "xl": 775, "xxl": 1400, "3b": 3100}.items():
        make = lambda key, name=name: ImageAR((16, 16), 16_384, 1000, ImageARConfig.llamagen(name), key=key)
        leaves = jax.tree.leaves(eqx.filter_eval_shape(make, jr.key(0)))
        count = sum(leaf.size for leaf in leaves if isinstance(leaf, jax.ShapeDtypeStruct))
        assert count / 1e6 == pytest.approx(millions, rel=0.02), name
    assert len(LLAMAGEN_SIZES) == 5


@eqx.filter_jit
def _cached(model, ids, label):
    first, caches = model.start(label)

    def step(caches, token):
        logits, caches = model.extend(token, caches)
        return caches, logits

    return jnp.concatenate([first[None], jax.lax.scan(step, caches, ids[:-1])[1]])


@pytest.mark.parametrize("changes", [{}, {"blank_prefix": True, "targets": True}], ids=str)
@pytest.mark.parametrize("label", [0, 3])
def test_with_the_cache_logits_equal_the_full_forward(changes, label):
    model = made(**changes)
    full = run(model, IDS, jnp.asarray(label))
    np.testing.assert_allclose(
        _cached(model.unrolled(), IDS, jnp.asarray(label)), full, atol=1e-5 * float(jnp.abs(full).max())
    )


def test_a_token_depends_on_those_before_it_and_in_another_order_on_others():
    model = made(targets=True)
    plain = run(model, IDS, LABEL)
    np.testing.assert_allclose(run(model, IDS, LABEL, jnp.arange(15)), plain, rtol=1e-5, atol=1e-5)
    order = jr.permutation(jr.key(4), 15)
    shuffled = run(model, IDS, LABEL, order)
    for place in (0, 9):
        changed = IDS.at[order[place]].set((IDS[order[place]] + 1) % 7)
        same = np.isclose(run(model, changed, LABEL, order), shuffled, rtol=0, atol=1e-6).all(axis=1)
        assert same[: place + 1].all()
        assert not same[place + 1 :].any()
    with pytest.raises(ValueError, match=r"order needs a model with config\.targets"):
        made()(IDS, LABEL, order=order, inference=True)


COMPILED = [0]
jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **_: COMPILED.__setitem__(0, COMPILED[0] + name.endswith("backend_compile_duration"))
)


def test_samples_are_those_of_guided_logits_and_other_numbers_run_the_same_program(model):
    options = ImageSampling(guidance=3.0, temperature=0.7, top_k=3, guidance_from=2, guidance_to=9)
    ids, key = generate(model, 2, options, key=jr.key(5)), jr.key(5)
    label, null = (run(model, ids, jnp.asarray(x)) for x in (2, 3))
    scale = np.where((np.arange(15) >= 2) & (np.arange(15) < 9), 3.0, 1.0)[:, None]
    guided = null + scale * (label - null)
    best = jnp.where(guided >= jnp.sort(guided, axis=-1)[:, -3:-2], guided / 0.7, -jnp.inf)
    wanted = [jr.categorical(jr.fold_in(key, i), row) for i, row in enumerate(best)]
    np.testing.assert_array_equal(ids, wanted)
    before = COMPILED[0]
    generate(model, 0, ImageSampling(guidance=1.5, temperature=2.0, top_k=5, guidance_to=3), key=jr.key(6))
    assert COMPILED[0] == before
    assert not np.array_equal(ids, generate(model, 2, options, key=jr.key(6)))


def test_without_guidance_and_inside_an_empty_interval_the_label_alone_counts(model):
    draw = lambda **options: generate(model, 1, ImageSampling(**options), key=jr.key(2))
    np.testing.assert_array_equal(draw(), draw(guidance=4.0, guidance_from=3, guidance_to=3))
    greedy = draw(temperature=0.0)
    logits = run(model, greedy, jnp.asarray(1))
    np.testing.assert_array_equal(greedy, jnp.argmax(logits, axis=-1))


@full
def test_of_candidates_the_scorer_keeps_its_best(model):
    likes = lambda ids, label: jnp.sum(ids == 6).astype(jnp.float32)
    draw = lambda n, scorer=None: generate(model, 1, ImageSampling(candidates=n), scorer=scorer, key=jr.key(3))
    each = [generate(model, 1, key=key) for key in jr.split(jr.key(3), 3)]
    best = max(each, key=lambda ids: float(likes(ids, 1)))
    np.testing.assert_array_equal(draw(3, likes), best)
    found = draw(3)
    odds = lambda ids: float(eqx.filter_jit(evidence)(model, ids, jnp.asarray(1)))
    assert odds(found) == pytest.approx(max(map(odds, each)), rel=1e-4)
    assert float(log_likelihood(model, found, 1)) < 0


def test_the_loss_is_the_likelihood_and_hides_labels(model):
    loss = eqx.filter_jit(image_ar_loss)
    one = lambda label, **options: loss(model, IDS, jnp.asarray(label), key=jr.key(1), **options)
    assert float(one(1, label_dropout=0.0).loss) == pytest.approx(-float(log_likelihood(model, IDS, 1)), rel=1e-5)
    hidden = [float(one(label, label_dropout=0.999999).loss) for label in (0, 1, 3)]
    assert hidden[0] == hidden[1] == hidden[2]
    ordered = made(targets=True)
    options = {"label_dropout": 0.0}
    losses = lambda shuffled: [
        loss(ordered, IDS, LABEL, **options, shuffled=jnp.float32(shuffled), key=jr.key(n)).loss for n in range(6)
    ]
    assert len(set(np.round(np.asarray(losses(0.0)), 3))) == 1
    assert len(set(np.round(np.asarray(losses(1.0)), 3))) == 6


def test_an_input_that_cannot_be_is_an_error(model):
    single = made(null=False)
    cases = {
        r"ids must be in \[0, codes=7\)": lambda: model(IDS + 7, 1, inference=True),
        r"label must be in \[0, classes \+ 1 null=4\)": lambda: model(IDS, 4, inference=True),
        r"label must be in \[0, classes=3\)": lambda: generate(single, 3, key=jr.key(0)),
        "guidance needs a model with a null label": lambda: generate(
            single, 1, ImageSampling(guidance=2.0), key=jr.key(0)
        ),
        "candidates need a scorer for a model without a null label": lambda: generate(
            single, 1, ImageSampling(candidates=2), key=jr.key(0)
        ),
        "evidence needs a model with a null label": lambda: evidence(single, IDS, 1),
        "label_dropout must be 0 for a model without a null label": lambda: image_ar_loss(
            single, IDS, LABEL, key=jr.key(0)
        ),
        r"decode\.guidance_to must be at most the number of tokens, 15: got 16": lambda: ImageRules.of(
            ImageSampling(guidance_to=16), 15
        ),
        r"decode\.guidance_to must be at least decode\.guidance_from: got 1 and 2": lambda: ImageSampling(
            guidance_from=2, guidance_to=1
        ),
        r"decode\.candidates must be at least 1: got 0": lambda: ImageSampling(candidates=0),
        r"decode\.top_k must be at least 1: got 0": lambda: ImageSampling(top_k=0),
        r"model\.dim / model\.heads must be a multiple of 4": lambda: ImageARConfig(dim=12, heads=2),
        "name must be one of b, l, xl, xxl, 3b: got 'm'": lambda: ImageARConfig.llamagen("m"),
    }
    for message, wrong in cases.items():
        with pytest.raises(ValueError, match=message):
            wrong()
    with pytest.raises(FloatingPointError):
        generate(eqx.tree_at(lambda m: m.norm.scale, model, replace_fn=lambda x: x * jnp.nan), 1, key=jr.key(0))
