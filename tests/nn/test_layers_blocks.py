"""Properties of blocks, stacks and glue alone; common ones are in tests/nn/test_layers.py."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen import nn
from eqxgen.nn.transformer.blocks import PLACEMENTS
from tests import oracles
from tests.nn.layers_blocks import awake, decoder
from tests.oracles._drawn import published

KEY, JOINT = jr.key(0), oracles.load("joint")


def mixed(key):
    """Attention, MLP and four norms that differ."""
    keys = jr.split(key, 4)
    norm = lambda key: eqx.tree_at(lambda norm: norm.scale, nn.LayerNorm(8), jr.normal(key, (8,)))
    return nn.SelfAttention(8, 2, causal=True, key=key), nn.MLP(8, key=key), *map(norm, keys)


def test_each_placement_is_its_formula():
    f, g, n, m, o, p = mixed(KEY)
    x = jr.normal(jr.key(1), (5, 8))
    block = lambda *out, mlp_norm=m, **options: nn.TransformerBlock(
        f, g, attention_norm=n, mlp_norm=mlp_norm, **dict(zip(("attention_out_norm", "mlp_out_norm"), out)), **options
    )
    pre = x + f(n(x))
    post = n(x + f(x))
    sandwich = x + o(f(n(x)))
    for made, wanted in (
        (block(), pre + g(m(pre))),
        (block(placement="post"), m(post + g(post))),
        (block(o, p, placement="sandwich"), sandwich + p(g(m(sandwich)))),
        (block(placement="parallel"), x + f(n(x)) + g(m(x))),
        (block(placement="parallel", mlp_norm=None), x + f(n(x)) + g(n(x))),
    ):
        np.testing.assert_allclose(made(x), wanted, rtol=1e-5, atol=1e-5)


def test_a_block_with_a_cross_attention_takes_a_context_and_one_with_self_attention_a_mask():
    x, context = jr.normal(jr.key(1), (5, 8)), jr.normal(jr.key(2), (3, 8))
    cross = lambda x, context: x + jnp.mean(context, 0, keepdims=True)
    block = nn.TransformerBlock(cross, jnp.tanh, attention_norm=lambda x: 2 * x, mlp_norm=lambda x: x)
    y = x + 2 * x + context.mean(0, keepdims=True)
    np.testing.assert_allclose(block(x, context), y + jnp.tanh(y), rtol=1e-5)
    free, causal = (nn.Stack(lambda key, c=c: nn.Selformer(8, 2, causal=c, key=key), 2, key=KEY) for c in (False, True))
    np.testing.assert_allclose(free(x, mask=jnp.tri(5, dtype=bool)), causal(x), rtol=1e-5, atol=1e-5)


class Remembering(eqx.Module):
    """A causal attention that, for decoding, keeps the inputs that it has seen."""

    attention: nn.SelfAttention

    def __call__(self, x, *, key=None, inference=None):
        return self.attention(x, key=key, inference=inference)

    def cache(self, length, dtype):
        return jnp.zeros((length, self.attention.out.in_dim), dtype), jnp.asarray(0), "a name"

    def extend(self, x, cache, *, count=None):
        seen, start, name = cache
        seen = jax.lax.dynamic_update_slice(seen, x.astype(seen.dtype), (start, 0))
        y = jax.lax.dynamic_slice_in_dim(self.attention(seen), start, len(x))
        return y, (seen, start + (len(x) if count is None else count), name)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_stack_extended_step_by_step_equals_the_whole(placement):
    def block(key):
        made = nn.Selformer(8, 2, causal=True, placement=placement, key=key)
        return eqx.tree_at(lambda block: block.attention, made, Remembering(made.attention))

    stack, x = nn.Stack(block, 3, remat="full", key=KEY), jr.normal(jr.key(1), (6, 8))
    extend = eqx.filter_jit(lambda stack, x, caches, count: stack.extend(x, caches, count=count))
    caches = stack.cache(7)
    assert caches[0].shape == (3, 7, 8)
    first, caches = extend(stack, x[:3].at[2].set(9.0), caches, jnp.asarray(2))
    found = [first[:2]]
    for i in range(2, 6):
        y, caches = extend(stack, x[i : i + 1], caches, jnp.asarray(1))
        found.append(y)
    np.testing.assert_allclose(jnp.concatenate(found), stack(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(caches[1], [6, 6, 6])


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_a_decoder_block_is_its_formula_and_extends_step_by_step(placement):
    block = decoder(KEY, placement)
    block = eqx.tree_at(lambda block: block.attention, block, Remembering(block.attention))
    x, context = jr.normal(jr.key(1), (4, 8)), jr.normal(jr.key(2), (3, 8))
    y, normed = x, nn.LayerNorm(8)
    for f in (
        block.attention.attention,
        lambda x: block.rest.attention(x, context),
        lambda x: block.rest.mlp(x, inference=True),
    ):
        y = y + f(normed(y)) if placement == "pre" else normed(y + f(y))
    whole = block(x, context, inference=True)
    np.testing.assert_allclose(whole, y, rtol=1e-4, atol=1e-5)
    first, cache = block.extend(x[:3], block.cache(4), context)
    last, _ = block.extend(x[3:], cache, context)
    np.testing.assert_allclose(jnp.concatenate([first, last]), whole, rtol=1e-4, atol=1e-5)


def test_every_way_to_rematerialise_gives_the_same_gradient():
    x = jr.normal(jr.key(1), (5, 8))
    stack = lambda remat: nn.Stack(lambda key: nn.Selformer(8, 2, dropout=0.3, key=key), 3, remat=remat, key=KEY)
    gradient = eqx.filter_jit(eqx.filter_grad(lambda stack: jnp.sum(stack(x, key=jr.key(2)) ** 2)))
    wanted = jax.tree.leaves(gradient(stack(False)))
    assert stack(True).remat == "full"
    for remat in ("dots", "full"):
        for a, b in zip(wanted, jax.tree.leaves(gradient(stack(remat)))):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_drop_path_drops_an_example_whole_and_keeps_the_mean():
    x = jnp.ones((2000, 3, 2))
    y = np.asarray(jax.vmap(lambda x, key: nn.DropPath(0.25)(x, key=key))(x, jr.split(KEY, 2000)))
    kept = y[:, 0, 0] > 0
    np.testing.assert_allclose(y, np.where(kept[:, None, None], 1 / 0.75, 0) * np.ones_like(y), rtol=1e-6)
    assert kept.mean() == pytest.approx(0.75, abs=0.04)


def test_a_block_with_all_paths_dropped_is_the_identity():
    attention, mlp, n, m, *_ = mixed(KEY)
    block = nn.TransformerBlock(attention, mlp, attention_norm=n, mlp_norm=m, drop_path=0.999)
    x = jr.normal(KEY, (5, 8))
    np.testing.assert_array_equal(block(x, key=jr.key(3)), x)


def test_a_stack_with_long_skips_is_its_formula():
    stack = nn.LongSkipStack(lambda key: nn.Selformer(8, 2, key=key), 5, dim=8, key=KEY)
    x = jr.normal(jr.key(1), (5, 8))
    at = lambda blocks, i: jax.tree.map(lambda leaf: leaf[i] if eqx.is_array(leaf) else leaf, blocks)
    skips, y = [], x
    for i in range(2):
        y = at(stack.first.blocks, i)(y)
        skips.append(y)
    y = stack.middle(y)
    for i in range(2):
        joined = at(stack.second.blocks, i)
        y = joined.block(joined.join(jnp.concatenate([y, skips.pop()], -1)))
    np.testing.assert_allclose(stack(x), y, rtol=1e-5, atol=1e-5)


def test_adaptive_norms_and_film_are_their_formulas_and_start_as_promised():
    x, condition = jr.normal(jr.key(1), (5, 8)), jr.normal(jr.key(2), (6,))
    normed = (x - x.mean(1, keepdims=True)) / jnp.sqrt(x.var(1, keepdims=True) + 1e-6)
    silu = np.asarray(condition / (1 + jnp.exp(-condition)))
    ada, zero, film = (awake(layer(8, 6, key=KEY)) for layer in (nn.AdaLN, nn.AdaLNZero, nn.FiLM))
    rows = lambda layer, c, n: np.split(layer.modulation.weight @ c + layer.modulation.bias, n)
    shift, scale = rows(ada, silu, 2)
    np.testing.assert_allclose(ada(x, condition), normed * (1 + scale)[None] + shift[None], rtol=1e-4, atol=1e-5)
    shift, scale, gate = rows(zero, silu, 3)
    y, found = zero(x, condition)
    np.testing.assert_allclose(y, normed * (1 + scale)[None] + shift[None], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found, gate[None], rtol=1e-5, atol=1e-6)
    shift, scale = rows(film, np.asarray(condition), 2)
    np.testing.assert_allclose(film(x, condition), x * (1 + scale)[None] + shift[None], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(nn.AdaLN(8, 6, key=KEY)(x, condition), normed, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(nn.Timeformer(8, 2, condition_dim=6, key=KEY)(x, condition), x)


def test_patches_equal_a_strided_convolution_and_unpatch_undoes_them():
    layer, x = nn.PatchEmbed(3, 8, patch=2, key=KEY), jr.normal(jr.key(1), (4, 6, 3))
    kernel = layer.projection.weight.reshape(8, 2, 2, 3).transpose(1, 2, 3, 0)
    wanted = jax.lax.conv_general_dilated(x[None], kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(layer(x), wanted.reshape(6, 8), rtol=1e-5, atol=1e-5)
    same = lambda layer, size: eqx.tree_at(lambda layer: layer.projection.weight, layer, jnp.eye(size))
    back = same(nn.Unpatch(12, 3, patch=2, key=KEY), 12)
    np.testing.assert_array_equal(back(same(nn.PatchEmbed(3, 12, patch=2, key=KEY), 12)(x), rows=2), x)


def test_registers_and_the_class_token_come_first_and_come_off():
    x = jr.normal(KEY, (5, 8))
    for layer in (nn.Registers(8, 3, key=KEY), nn.ClassToken(8, key=KEY)):
        first, rest = layer.split(layer(x))
        np.testing.assert_array_equal(first, layer.tokens)
        np.testing.assert_array_equal(rest, x)


def test_token_drop_keeps_as_many_in_order_and_any_alike():
    x = jnp.arange(24.0).reshape(12, 2)
    layer = nn.TokenDrop(5)
    kept, places = jax.vmap(lambda key: layer(x, key=key))(jr.split(KEY, 600))
    np.testing.assert_array_equal(kept, x[places])
    assert (jnp.diff(places, axis=1) > 0).all()
    np.testing.assert_allclose(np.bincount(np.asarray(places).ravel()) / 600, np.full(12, 5 / 12), atol=0.09)
    whole = layer.restore(kept[0], places[0], -jnp.ones((12, 2)))
    np.testing.assert_array_equal(whole[:, 0] >= 0, np.isin(np.arange(12), places[0]))
    np.testing.assert_array_equal(whole[places[0]], kept[0])


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_keeps_its_share_in_every_row_and_column_and_draws_each_entry_alone(rate):
    side = 1000
    draw = jax.jit(lambda key: nn.Dropout(rate)(jnp.ones((side, side)), key=key))
    y, other = np.asarray(draw(jr.key(0))), np.asarray(draw(jr.key(1)))
    kept, twin = y > 0, other > 0
    np.testing.assert_allclose(y[kept], np.float32(1 / (1 - rate)), rtol=1e-6)
    deviation = np.sqrt(rate * (1 - rate))
    for share, count in ((kept.mean(), side**2), (kept.mean(0), side), (kept.mean(1), side)):
        assert np.abs(share - (1 - rate)).max() < 5 * deviation / np.sqrt(count)
    centred = kept - kept.mean()
    assert np.std(kept.mean(0)) == pytest.approx(deviation / np.sqrt(side), rel=0.15)
    # Neighbours in both directions and at powers of two, and another key's mask, tell nothing about an entry.
    others = [np.roll(centred, (i, j), (0, 1)) for i, j in ((0, 1), (1, 0), (1, 1), (0, 64), (64, 0), (0, 512))]
    for another in (*others, twin - twin.mean()):
        assert abs((centred * another).mean()) < 5 * deviation**2 / side


def test_dropouts_gradient_is_its_mask():
    layer, x = nn.Dropout(0.3), jr.normal(KEY, (6, 7))
    gradient = jax.grad(lambda x: jnp.sum(layer(x, key=jr.key(1)) * x[::-1]))(x)
    mask = np.asarray(layer(jnp.ones((6, 7)), key=jr.key(1)))
    np.testing.assert_allclose(gradient, mask * x[::-1] + (mask * x)[::-1], rtol=1e-5, atol=1e-6)


def test_a_sequential_is_a_list_of_layers():
    first, last = nn.Projection(5, 4, key=KEY), nn.Projection(4, 3, key=KEY)
    net = nn.Sequential(first, jax.nn.relu, last)
    x = jr.normal(KEY, (2, 5))
    np.testing.assert_allclose(net(x), last(jax.nn.relu(first(x))), rtol=1e-6)
    assert (len(net), net[0], net[-1], list(net)) == (3, first, last, [first, jax.nn.relu, last])
    np.testing.assert_allclose(net[:2](x), jax.nn.relu(first(x)), rtol=1e-6)
    other = net.at[-1].set(nn.Identity())
    np.testing.assert_allclose(other(x), net[:-1](x), rtol=1e-6)
    assert net[-1] is last


def test_a_sequential_gives_each_layer_a_key_of_its_own():
    net = nn.Sequential(nn.Dropout(0.5), lambda x: x + 1, nn.Dropout(0.5))
    y = np.asarray(net(jnp.ones(4000), key=KEY))
    values, counts = np.unique(y, return_counts=True)
    np.testing.assert_array_equal(values, [0, 2, 6])
    np.testing.assert_allclose(counts / 4000, [0.5, 0.25, 0.25], atol=0.04)


def test_a_sequential_hands_states_on():
    net = nn.Sequential(jnp.sin, nn.Sequential(nn.EMA(jnp.ones(3), 0.5), jnp.cos), nn.EMA(jnp.ones(3), 0.5))
    state, x = net.init_state(), jnp.arange(3.0)
    y, state = net(x, state)
    np.testing.assert_allclose(y, jnp.cos(jnp.sin(x)), rtol=1e-6)
    y, state = net(2 * x, state)
    inner = jnp.sin(x) / 3 + 2 / 3 * jnp.sin(2 * x)
    np.testing.assert_allclose(y, jnp.cos(jnp.sin(x)) / 3 + 2 / 3 * jnp.cos(inner), rtol=1e-5)
    again, same = net(x, state, inference=True)
    assert eqx.tree_equal(same, state)
    np.testing.assert_allclose(again, y, rtol=1e-6)


def test_an_average_is_that_of_its_samples_by_age():
    samples = jr.normal(KEY, (7, 3))
    ages = 0.8 ** np.arange(6, -1, -1)
    for debias, total in ((True, ages.sum()), (False, 1 / (1 - 0.8))):
        ema = nn.EMA({"a": samples[0]}, 0.8, debias=debias)
        y, state = {"a": None}, ema.init_state()
        np.testing.assert_array_equal(ema({"a": samples[0]}, state, inference=True)[0]["a"], 0)
        for x in samples:
            y, state = ema({"a": x}, state)
        np.testing.assert_allclose(y["a"], ages @ samples / total, rtol=1e-5)
    ema = nn.EMA(samples[0], 0.8)
    mean, _ = jax.vmap(lambda x: ema(x, ema.init_state(), axis_name="batch"), axis_name="batch")(samples)
    np.testing.assert_allclose(mean[3], samples.mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", JOINT)
def test_a_jointformer_is_the_block_of_stable_diffusion_3(name):
    case = JOINT[name]
    options, arrays = json.loads(str(case["options"])), published(case["shapes"])
    last, normed = bool(options.get("context_pre_only")), "qk_norm" in options
    block = nn.Jointformer(16, 2, last=last, qk_norm=normed, key=KEY)
    names = {
        "image": ("norm1", "to_{}", "to_out.0", "ff", ""),
        "text": ("norm1_context", "add_{}_proj", "to_add_out", "ff_context", "added_"),
    }
    found = {}
    for stream, (norm, projected, out, mlp, added) in names.items():
        for kind in ("weight", "bias"):
            parts = [arrays[f"attn.{projected.format(part)}.{kind}"] for part in "qkv"]
            heads = [part.reshape(2, 1, 8, *part.shape[1:]) for part in parts]
            found[f"{stream}.attention.qkv.{kind}"] = np.concatenate(heads, 1).reshape(48, *parts[0].shape[1:])
            rows = np.split(arrays[f"{norm}.linear.{kind}"], 2 if last and stream == "text" else 6)
            first = rows[::-1] if last and stream == "text" else rows[:3]  # the last text's scale is before its shift
            found[f"{stream}.attention_norm.modulation.{kind}"] = np.concatenate(first)
            if not (last and stream == "text"):
                found[f"{stream}.mlp_norm.modulation.{kind}"] = np.concatenate(rows[3:])
                found[f"{stream}.attention.out.{kind}"] = arrays[f"attn.{out}.{kind}"]
                found[f"{stream}.mlp.up.{kind}"] = arrays[f"{mlp}.net.0.proj.{kind}"]
                found[f"{stream}.mlp.down.{kind}"] = arrays[f"{mlp}.net.2.{kind}"]
        for part in "qk" if normed else "":
            found[f"{stream}.attention.{part}_norm.scale"] = arrays[f"attn.norm_{added}{part}.weight"]
    put = lambda path, leaf: jnp.asarray(found.pop(jax.tree_util.keystr(path, simple=True, separator=".")))
    parts, rest = eqx.partition(block, eqx.is_inexact_array)
    block = eqx.combine(jax.tree_util.tree_map_with_path(put, parts), rest)
    assert not found
    x, text = jax.jit(jax.vmap(lambda *x: block(*x)))(*(jnp.asarray(case[name]) for name in ("x", "text", "condition")))
    np.testing.assert_allclose(x, case["out"], rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(text, case["text_out"], rtol=2e-5, atol=2e-5)


def of_two_stages(function):
    """`function(stack)` of a stack of four blocks, of which each of two devices has two; shapes alone."""
    norms = {"attention_norm": nn.LayerNorm(8), "mlp_norm": nn.LayerNorm(8)}
    block = lambda key: nn.TransformerBlock(nn.SelfAttention(8, 2, key=key), nn.MLP(8, key=key), **norms)
    stack = nn.Stack(block, 4, key=KEY)
    arrays, static = eqx.partition(stack, eqx.is_array)
    mesh, spec = jax.sharding.AbstractMesh((2,), ("stage",)), jax.sharding.PartitionSpec("stage")

    def local(arrays):
        with nn.split_over(blocks="stage"):
            return function(eqx.combine(arrays, static))

    return jax.eval_shape(jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec), arrays)


def test_blocks_of_several_stages_are_called_as_a_stack_alone():
    x = jnp.zeros((3, 5, 8))
    assert of_two_stages(lambda stack: jax.vmap(stack)(x)).shape == (6, 5, 8)
    with pytest.raises(ValueError, match="blocks split over the mesh axis 'stage' must be called as a Stack"):
        of_two_stages(lambda stack: stack.scan(lambda block, x, _: (block(x), None), x[0], None)[0])
    each = lambda stack: jax.tree.map(lambda leaf: jnp.stack([leaf] * 3) if eqx.is_array(leaf) else leaf, stack)
    with pytest.raises(ValueError, match="the blocks of a pipeline must be the same for all examples of a vmap"):
        of_two_stages(lambda stack: eqx.filter_vmap(lambda stack, x: stack(x))(each(stack), x))
