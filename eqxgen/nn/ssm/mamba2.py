"""Mamba-2's layer."""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen import ops
from eqxgen._widen import widen
from eqxgen.nn import _check
from eqxgen.nn._mesh import varying
from eqxgen.nn.linear import Initializer, Projection, torch_uniform
from eqxgen.nn.ssm.ssd import ssd, ssd_step

A_RANGE = (1.0, 16.0)
DT_RANGE = (1e-3, 0.1)
"""Decay rates and time steps at initialisation, uniform and log-uniform; those of the published layer."""


class Mamba2State(NamedTuple):
    """The state of a `Mamba2`: the convolution's last inputs, and the state of the scan in float32 at least."""

    conv: Float[Array, "past channels"]
    ssm: Float[Array, "heads head_dim state_dim"]


class GatedRMSNorm(eqx.Module):
    """`rms_norm(x * silu(gate)) * scale`, over each of `groups` parts of the last axis."""

    scale: Float[Array, " dim"]
    groups: int = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)

    def __init__(self, dim: int, *, groups: int = 1, epsilon: float = 1e-5):
        _check.positive(dim=dim, groups=groups)
        _check.divides(groups=groups, dim=dim)
        _check.epsilon(epsilon)
        self.scale, self.groups, self.epsilon = jnp.ones(dim), groups, epsilon

    def __call__(
        self, x: Float[Array, "*leading dim"], gate: Float[Array, "*leading dim"]
    ) -> Float[Array, "*leading dim"]:
        y = widen(x) * jax.nn.silu(widen(gate))
        y = ops.rms_norm(y.reshape(*x.shape[:-1], self.groups, x.shape[-1] // self.groups), epsilon=self.epsilon)
        scale = jnp.expand_dims(self.scale.astype(y.dtype), tuple(range(x.ndim - 1)))
        return (y.reshape(x.shape) * scale).astype(x.dtype)


class Mamba2(eqx.Module):
    """Mamba-2's layer over one sequence (Dao and Gu 2024, arXiv:2405.21060, section 7; the published `Mamba2`).

    A projection gives gate, inputs, input and output maps and time steps; inputs and maps go through a causal depthwise
    convolution and SiLU, the scan `ssd` and a skip connection; a gated RMS norm and a projection follow. The scan is
    float32 at least, in chunks for a sequence and as a recurrence in `step`, which gives the same.

    Args:
        dim: width of a token, kept.
        state_dim: columns of the state of each head.
        head_dim: width of a head; must divide expand * dim.
        expand: inner width as a multiple of dim.
        groups: input and output maps, shared by the heads of each group; must divide the number of heads.
        kernel: entries that the convolution sees.
        chunk: entries of the scan at a time.
        epsilon: of the norm.
        init: initializer of the two projections' weights, which have no biases.

    Raises:
        ValueError: a number violates its constraint; x is not one sequence; the state is another layer's.
    """

    into: Projection
    conv: Float[Array, "channels kernel"]
    conv_bias: Float[Array, " channels"]
    dt_bias: Float[Array, " heads"]
    log_a: Float[Array, " heads"]
    skip: Float[Array, " heads"]
    norm: GatedRMSNorm
    out: Projection
    state_dim: int = eqx.field(static=True)
    head_dim: int = eqx.field(static=True)
    chunk: int = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        *,
        state_dim: int = 128,
        head_dim: int = 64,
        expand: int = 2,
        groups: int = 1,
        kernel: int = 4,
        chunk: int = 64,
        epsilon: float = 1e-5,
        init: Initializer = torch_uniform,
        key: PRNGKeyArray,
    ):
        _check.positive(
            dim=dim, state_dim=state_dim, head_dim=head_dim, expand=expand, groups=groups, kernel=kernel, chunk=chunk
        )
        inner = expand * dim
        if inner % head_dim:
            raise ValueError(f"head_dim must divide expand * dim: got {expand} * {dim}, head_dim={head_dim}")
        heads = inner // head_dim
        _check.divides(groups=groups, heads=heads)
        into_key, conv_key, dt_key, a_key, out_key = jr.split(key, 5)
        channels, edge = inner + 2 * groups * state_dim, 1 / math.sqrt(kernel)
        self.into = Projection(dim, inner + channels + heads, bias=False, init=init, key=into_key)
        self.conv = jr.uniform(conv_key, (channels, kernel), jnp.float32, -edge, edge)
        self.conv_bias = jnp.zeros(channels)
        low, high = map(math.log, DT_RANGE)
        dt = jnp.exp(jr.uniform(dt_key, (heads,), jnp.float32, low, high))
        self.dt_bias = dt + jnp.log(-jnp.expm1(-dt))  # the inverse of softplus
        self.log_a = jnp.log(jr.uniform(a_key, (heads,), jnp.float32, *A_RANGE))
        self.skip = jnp.ones(heads)
        self.norm = GatedRMSNorm(inner, groups=groups, epsilon=epsilon)
        self.out = Projection(inner, dim, bias=False, init=init, key=out_key)
        self.state_dim, self.head_dim, self.chunk = state_dim, head_dim, chunk

    def init_state(self) -> Mamba2State:
        """Zeros."""
        channels, kernel = self.conv.shape
        return Mamba2State(
            jnp.zeros((kernel - 1, channels)), jnp.zeros((len(self.skip), self.head_dim, self.state_dim))
        )

    def __call__(
        self, x: Float[Array, "seq dim"], state: Mamba2State | None = None, *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "seq dim"], Mamba2State]:
        """The outputs of a sequence, and the state after it; `state=None` starts from zeros."""
        _check.example(x, "seq", dim=self.into.in_dim)
        state = self._checked(x, state)
        gate, mixed, dt = self._split(self.into(x))
        past = jnp.concatenate([state.conv.astype(mixed.dtype), mixed])
        inputs, b, c = self._maps(past, x.shape[0])
        y, last = ssd(inputs, self._dt(dt), self._a(), b, c, state=state.ssm, chunk=self.chunk)
        y = y + self.skip.astype(y.dtype)[None, :, None] * inputs
        y = self.out(self.norm(y.reshape(gate.shape).astype(x.dtype), gate))
        return y, Mamba2State(past[x.shape[0] :].astype(widen(past).dtype), last)

    def step(
        self, x: Float[Array, " dim"], state: Mamba2State | None = None, *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, " dim"], Mamba2State]:
        """The output for the next entry of a sequence, and the state after it."""
        _check.example(x, dim=self.into.in_dim)
        state = self._checked(x, state)
        gate, mixed, dt = self._split(self.into(x))
        past = jnp.concatenate([state.conv.astype(mixed.dtype), mixed[None]])
        inputs, b, c = (part[0] for part in self._maps(past, 1))
        y, last = ssd_step(inputs, self._dt(dt), self._a(), b, c, widen(state.ssm))
        y = y + self.skip.astype(y.dtype)[:, None] * inputs
        y = self.out(self.norm(y.reshape(gate.shape).astype(x.dtype), gate))
        return y, Mamba2State(past[1:].astype(widen(past).dtype), last)

    def _checked(self, x: Array, state: Mamba2State | None) -> Mamba2State:
        first = self.init_state()
        state = first if state is None else state
        if jax.tree.map(jnp.shape, state) != jax.tree.map(jnp.shape, first):
            raise ValueError(
                f"state must be as init_state() gives it, with shapes {tuple(map(jnp.shape, first))}: got "
                f"{jax.tree.map(jnp.shape, tuple(state))}"
            )
        return Mamba2State(*(varying(part, x) for part in state))

    def _split(self, x: Float[Array, "*leading projected"]) -> tuple[Array, Array, Array]:
        """Gate, what is convolved, and time steps."""
        inner, channels = self.out.in_dim, len(self.conv)
        return x[..., :inner], x[..., inner : inner + channels], x[..., inner + channels :]

    def _maps(self, past: Float[Array, "entries channels"], seq: int) -> tuple[Array, Array, Array]:
        """Inputs, input maps and output maps of the last `seq` entries."""
        taps = [past[i : i + seq] * self.conv[:, i].astype(past.dtype)[None] for i in range(self.conv.shape[1])]
        x = jax.nn.silu(sum(taps) + self.conv_bias.astype(past.dtype)[None])
        inner, size = self.out.in_dim, self.norm.groups * self.state_dim
        maps = lambda part: part.reshape(seq, self.norm.groups, self.state_dim)
        inputs = x[:, :inner].reshape(seq, len(self.skip), self.head_dim)
        return inputs, maps(x[:, inner : inner + size]), maps(x[:, inner + size :])

    def _dt(self, dt: Float[Array, "*leading heads"]) -> Float[Array, "*leading heads"]:
        dt = widen(dt)
        return jax.nn.softplus(dt + jnp.expand_dims(self.dt_bias.astype(dt.dtype), tuple(range(dt.ndim - 1))))

    def _a(self) -> Float[Array, " heads"]:
        return -jnp.exp(widen(self.log_a))
