"""The table's rows of blocks, stacks, conditioning, patches and glue."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from eqxgen import nn
from eqxgen.nn.transformer.blocks import PLACEMENTS
from tests.nn.layer_rows import Row, Wrong

KEY = jr.key(0)


def parts(**others):
    """The keyword arguments of a block that norms before each half."""
    return {"attention_norm": nn.LayerNorm(8), "mlp_norm": nn.LayerNorm(8), **others}


def block(**options):
    return nn.TransformerBlock(nn.SelfAttention(8, 2, key=KEY), nn.MLP(8, key=KEY), **options)


class Mean(eqx.Module):
    """Attention to a context of the simplest kind: all of it alike."""

    value: nn.Projection

    def __call__(self, x, context):
        return jnp.broadcast_to(jnp.mean(self.value(context), 0, keepdims=True), x.shape)


def decoder(key, placement="pre"):
    cross, mlp = Mean(nn.Projection(8, 8, key=key)), nn.MLP(8, dropout=0.2, key=key)
    attention = nn.SelfAttention(8, 2, causal=True, key=key)
    return nn.DecoderBlock(
        attention, cross, mlp, **parts(cross_norm=nn.LayerNorm(8)), placement=placement, drop_path=0.1
    )


def awake(layer):
    """A layer that starts at zero, with small numbers added to its parameters."""
    return jax.tree.map(lambda x: x + 0.1 * jr.normal(KEY, x.shape) if eqx.is_inexact_array(x) else x, layer)


X = jnp.ones((5, 8))
NET = nn.Sequential(nn.Identity(), nn.EMA(X))
LAYERS = {
    **{
        f"Selformer, {name}": Row(lambda key, name=name: nn.Selformer(8, 2, placement=name, key=key), (5, 8), ((5, 8),))
        for name in PLACEMENTS
    },
    "Selformer that drops": Row(lambda key: nn.Selformer(8, 2, dropout=0.2, key=key), (5, 8), ((5, 8),), draws=True),
    "TransformerBlock, parallel with two norms, dropping paths": Row(
        lambda key: nn.TransformerBlock(
            nn.SelfAttention(8, 4, kv_heads=2, causal=True, key=key),
            nn.MLP(8, 12, activation="swish", dropout=0.2, key=key),
            **parts(),
            placement="parallel",
            drop_path=0.3,
        ),
        (5, 8),
        ((5, 8),),
        draws=True,
    ),
    "DecoderBlock": Row(decoder, (5, 8), ((5, 8), (3, 8)), draws=True),
    "DecoderBlock, post-norm": Row(lambda key: decoder(key, placement="post"), (5, 8), ((5, 8), (3, 8)), draws=True),
    "Crossformer": Row(lambda key: nn.Crossformer(8, 6, 2, dropout=0.1, key=key), (5, 8), ((5, 8), (3, 6)), draws=True),
    "Stack": Row(lambda key: nn.Stack(lambda key: nn.Selformer(8, 2, key=key), 3, key=key), (5, 8), ((5, 8),)),
    "Stack that keeps products alone": Row(
        lambda key: nn.Stack(lambda key: nn.Selformer(8, 2, dropout=0.2, key=key), 3, remat="dots", key=key),
        (5, 8),
        ((5, 8),),
        draws=True,
    ),
    "LongSkipStack": Row(
        lambda key: nn.LongSkipStack(lambda key: nn.Selformer(8, 2, key=key), 5, dim=8, key=key), (5, 8), ((5, 8),)
    ),
    "LongSkipStack, conditioned, rematerialised": Row(
        lambda key: nn.LongSkipStack(
            lambda key: nn.Timeformer(8, 2, condition_dim=6, key=key), 3, dim=8, remat=True, key=key
        ),
        (5, 8),
        ((5, 8), (6,)),
    ),
    "MoE": Row(lambda key: nn.MoE(8, 12, experts=3, key=key), (5, 8), ((5, 8),)),
    "MoE, gated, with a capacity": Row(
        lambda key: nn.MoE(8, 12, experts=3, gated=True, capacity_factor=0.5, jitter=0.1, dropout=0.2, key=key),
        (5, 8),
        ((5, 8),),
        draws=True,
    ),
    "Timeformer": Row(lambda key: awake(nn.Timeformer(8, 2, key=key)), (5, 8), ((5, 8), (8,))),
    "Jointformer": Row(lambda key: awake(nn.Jointformer(8, 2, key=key)), (5, 8), ((5, 8), (3, 8), (8,))),
    "Timeformer that drops": Row(
        lambda key: awake(nn.Timeformer(8, 2, condition_dim=6, dropout=0.2, key=key)),
        (5, 8),
        ((5, 8), (6,)),
        draws=True,
    ),
    "AdaLN": Row(lambda key: awake(nn.AdaLN(8, key=key)), (5, 8), ((5, 8), (8,))),
    "AdaLN on an image": Row(lambda key: awake(nn.AdaLN(8, 6, key=key)), (3, 4, 8), ((3, 4, 8), (6,))),
    "AdaLNZero": Row(lambda key: awake(nn.AdaLNZero(8, 6, key=key)), (5, 8), ((5, 8), (6,))),
    "FiLM": Row(lambda key: nn.FiLM(8, 6, key=key), (3, 4, 8), ((3, 4, 8), (6,))),
    "PatchEmbed": Row(lambda key: nn.PatchEmbed(3, 8, patch=2, key=key), (6, 8), ((4, 6, 3),)),
    "Unpatch": Row(lambda key: nn.Unpatch(8, 3, patch=2, bias=False, key=key), (6, 6, 3), ((9, 8),)),
    "ClassToken": Row(lambda key: nn.ClassToken(8, key=key), (6, 8), ((5, 8),)),
    "Registers": Row(lambda key: nn.Registers(8, 3, key=key), (8, 8), ((5, 8),)),
    "DropPath": Row(lambda key: nn.DropPath(0.5), (7, 5), ((7, 5),), draws=True),
    "TokenDrop": Row(lambda key: nn.TokenDrop(4), (7, 5), ((7, 5),), draws=True),
    "Sequential": Row(
        lambda key: nn.Sequential(nn.Projection(5, 4, key=key), jax.nn.relu, nn.Dropout(0.4), jnp.tanh),
        (7, 4),
        ((7, 5),),
        draws=True,
    ),
    "Sequential of none": Row(lambda key: nn.Sequential(), (7, 5), ((7, 5),)),
    "Sequential with state": Row(
        lambda key: nn.Sequential(nn.Projection(5, 5, key=key), nn.EMA(jnp.ones((7, 5)))),
        (7, 5),
        ((7, 5),),
        stateful=True,
    ),
    "Identity": Row(lambda key: nn.Identity(key=key), (7, 5), ((7, 5),)),
    "Lambda": Row(lambda key: nn.Lambda(jnp.sin), (7, 5), ((7, 5),)),
    "Residual": Row(
        lambda key: nn.Residual(nn.LayerNorm(5), nn.MLP(5, dropout=0.2, key=key), drop_path=0.2),
        (7, 5),
        ((7, 5),),
        draws=True,
    ),
    "EMA": Row(lambda key: nn.EMA(jnp.ones((7, 5)), 0.9), (7, 5), ((7, 5),), stateful=True),
}

WRONG = [
    Wrong(
        lambda: nn.Selformer(8, 2, placement="middle", key=KEY),
        "placement must be one of parallel, post, pre, sandwich: got 'middle'",
    ),
    Wrong(lambda: nn.Selformer(8, 3, key=KEY), "heads must divide dim: got dim=8, heads=3"),
    Wrong(
        lambda: block(attention_norm=nn.LayerNorm(8)),
        "placement='pre' needs mlp_norm: only a parallel block shares one norm",
    ),
    Wrong(
        lambda: block(**parts(attention_out_norm=nn.LayerNorm(8))),
        "attention_out_norm is required by placement='sandwich' and by no other: got .*, placement='pre'",
    ),
    Wrong(
        lambda: block(**parts(attention_out_norm=nn.LayerNorm(8), placement="sandwich")),
        "mlp_out_norm is required by placement='sandwich' and by no other: got mlp_out_norm=None",
    ),
    Wrong(lambda: block(**parts(drop_path=1.0)), r"rate must be in \[0, 1\): got 1.0"),
    Wrong(lambda: decoder(KEY, placement="parallel"), "placement must be one of post, pre: got 'parallel'"),
    Wrong(
        lambda: nn.DropPath(0.5)(jr.normal(KEY, (3, 4))),
        "drop path needs key=... in training: pass one, or inference=True",
    ),
    Wrong(lambda: nn.DropPath(-1.0), r"rate must be in \[0, 1\): got -1.0"),
    Wrong(
        lambda: nn.TransformerBlock(nn.MLP(8, key=KEY), nn.MLP(8, key=KEY), **parts()).cache(4),
        "attention must have the methods cache and extend for decoding step by step: got MLP",
    ),
    Wrong(
        lambda: nn.Stack(lambda key: nn.MLP(4, key=key), 0, key=KEY), "depth must be an integer of at least 1: got 0"
    ),
    Wrong(
        lambda: nn.Stack(lambda key: nn.MLP(4, key=key), 2, remat="all", key=KEY),
        "remat must be one of dots, full, none: got 'all'",
    ),
    Wrong(
        lambda: nn.LongSkipStack(lambda key: nn.MLP(4, key=key), 4, dim=4, key=KEY),
        "depth must be odd and at least 3, for two halves .*: got 4",
    ),
    Wrong(lambda: nn.MoE(8, experts=2, top_k=3, key=KEY), "top_k must be at most experts: got top_k=3, experts=2"),
    Wrong(
        lambda: nn.MoE(8, experts=2, capacity_factor=0.0, key=KEY),
        "capacity_factor must be positive and finite: got 0.0",
    ),
    Wrong(lambda: nn.MoE(8, experts=2, jitter=1.0, key=KEY), r"jitter must be in \[0, 1\): got 1.0"),
    Wrong(
        lambda: nn.MoE(8, experts=2, jitter=0.1, key=KEY)(X),
        "jitter needs key=... in training: pass one, or inference=True",
    ),
    Wrong(lambda: nn.MoE(6, experts=2, key=KEY)(X), r"x must be \(seq, dim=6\): got shape \(5, 8\)"),
    Wrong(lambda: block(**parts()).routed(X), "routed needs a block whose mlp is an MoE: got MLP; call the block"),
    Wrong(
        lambda: nn.AdaLN(8, 6, key=KEY)(X, jnp.ones(8)),
        r"condition must be \(condition_dim=6,\): got shape \(8,\)",
    ),
    Wrong(
        lambda: nn.AdaLNZero(8, key=KEY)(jnp.ones((5, 4)), jnp.ones(8)),
        r"x must have dim=8 entries: got shape \(5, 4\)",
    ),
    Wrong(lambda: nn.AdaLN(8, epsilon=0.0, key=KEY), "epsilon must be positive and finite: got 0.0"),
    Wrong(lambda: nn.FiLM(8, 0, key=KEY), "in_dim must be an integer of at least 1: got 0"),
    Wrong(
        lambda: nn.FiLM(8, key=KEY)(jnp.ones((3, 5, 8)), jnp.ones(3)),
        r"condition must be \(condition_dim=8,\): got shape \(3,\)",
    ),
    Wrong(
        lambda: nn.PatchEmbed(3, 8, patch=2, key=KEY)(jnp.ones((4, 5, 3))),
        "patch must divide width: got width=5, patch=2",
    ),
    Wrong(
        lambda: nn.PatchEmbed(3, 8, patch=2, key=KEY)(jnp.ones((4, 4, 1))),
        r"x must be \(height, width, channels=3\): got shape \(4, 4, 1\)",
    ),
    Wrong(lambda: nn.PatchEmbed(3, 8, patch=0, key=KEY), "patch must be an integer of at least 1: got 0"),
    Wrong(
        lambda: nn.Unpatch(8, 3, patch=2, key=KEY)(X),
        r"x must have a multiple of rows=2 patches: got shape \(5, 8\); pass rows",
    ),
    Wrong(lambda: nn.Registers(8, 2, key=KEY)(jnp.ones((5, 4))), r"x must be \(seq, dim=8\): got shape \(5, 4\)"),
    Wrong(
        lambda: nn.Registers(8, 6, key=KEY).split(X),
        r"begin with the count=6 tokens of the layer: got shape \(5, 8\)",
    ),
    Wrong(lambda: nn.ClassToken(0, key=KEY), "dim must be an integer of at least 1: got 0"),
    Wrong(
        lambda: nn.TokenDrop(6)(X, key=KEY),
        r"x must have at least count=6 tokens: got shape \(5, 8\)",
    ),
    Wrong(lambda: nn.TokenDrop(4)(X), "token drop needs key=... in training: pass one, or inference=True"),
    Wrong(lambda: nn.Sequential(nn.Identity(), 3), r"layers\[1\] must be a layer or a function: got 3"),
    Wrong(
        lambda: nn.Sequential(jnp.sin)[1],
        r"index of a layer must be in \[-1, 1\): got 1",
        IndexError,
    ),
    Wrong(lambda: nn.Sequential(jnp.sin).at[-2].set(jnp.cos), r"in \[-1, 1\): got -2", IndexError),
    Wrong(lambda: NET(X), r"state is needed by EMA: call y, state = net\(x, state\), first with net.init_state\(\)"),
    Wrong(lambda: nn.Lambda(None), "function must be a layer or a function: got None"),
    Wrong(
        lambda: nn.Residual(nn.Projection(8, 4, key=KEY))(X), r"must keep the shape of x: got \(5, 4\) from \(5, 8\)"
    ),
    Wrong(lambda: nn.EMA(X, 1.0), r"decay must be in \[0, 1\): got 1.0"),
    Wrong(
        lambda: nn.EMA(X)(X[0], nn.EMA(X).init_state()),
        r"shapes \(\(5, 8\),\) of `like`: got \(8,\)",
    ),
]
