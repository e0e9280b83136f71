"""What is particular to blocks, stacks and glue; their common properties are in tests/test_layers.py."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen import nn
from eqxgen.nn.blocks import PLACEMENTS

KEY = jr.key(0)


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
