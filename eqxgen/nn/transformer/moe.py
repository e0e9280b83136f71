"""Mixture of experts: MLPs of which a router chooses a few for each token."""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from eqxgen import ops
from eqxgen._widen import widen
from eqxgen.nn import _check, _split
from eqxgen.nn._mesh import take_rows, varying
from eqxgen.nn.drop import Dropout
from eqxgen.nn.linear import Initializer, Projection, torch_uniform
from eqxgen.nn.transformer.mlp import GLU, MLP


class Routing(NamedTuple):
    """Counts and losses of one routing, in float32 at least.

    load: tokens that chose each expert, before any is dropped; the sum is seq * top_k.
    overflow: choices that were dropped because their expert was full.
    balance_loss: experts * sum over experts of (share of choices) * (mean probability), 1 when balanced (Fedus et al.
        2021, equation 4).
    z_loss: mean square of the logarithm of the router's normaliser (Zoph et al. 2022, equation 5).
    """

    load: Float[Array, " experts"]
    overflow: Float[Array, ""]
    balance_loss: Float[Array, ""]
    z_loss: Float[Array, ""]


class Routed(NamedTuple):
    """Result of a mixture of experts."""

    x: Float[Array, "seq dim"]
    routing: Routing


class MoE(eqx.Module):
    """A layer of MLPs, each token through the `top_k` of the highest probability: the sum of their results, weighted by
    the probabilities (Shazeer et al. 2017, arXiv:1701.06538; Fedus et al. 2021, arXiv:2101.03961, section 2.1; Jiang et
    al. 2024, arXiv:2401.04088, section 2.1).

    The router's softmax is in float32. The experts are stacked `MLP`s or `GLU`s; a single one gives that layer's
    result.

    A capacity holds in training alone. Places in an expert are given in the order of the tokens, so that no token
    depends on later ones. A choice without a place adds nothing to its token's result and is counted in
    `Routing.overflow`. Without a capacity no choice is dropped: rows are multiplied by their experts in
    `eqxgen.ops.grouped_matmul`.

    With `axis`, the layer runs in a `jax.shard_map` over that mesh axis, each device with its tokens and its part of
    the experts along their leading axis. Tokens go to their experts' devices and back by all-to-all. Without a capacity
    each exchange has room for every token at every expert. Under `split_over` all layers of a model have the
    option, and of a split sequence places, counts and losses are those of the whole one. On automatic mesh axes no
    option is needed: shard the experts along their leading axis, and XLA splits the products.

    Args:
        dim: width of a token, kept.
        hidden_dim: inner width of each expert; the defaults of `MLP` and `GLU`.
        experts: number of experts.
        top_k: experts of each token.
        capacity_factor: places in each expert, as a multiple of seq * top_k / experts; None for no limit.
        gated: experts are `GLU`s; else `MLP`s.
        activation: of the experts; by default those of `MLP` and `GLU`.
        renormalise: the weights of a token's experts sum to 1. By default for a top_k above 1: with one expert for each
            token the router would have no gradient (Fedus et al. do not).
        jitter: in training the router's input is multiplied by uniform noise in 1 ± jitter.
        dropout: rate after the sum.
        bias: biases in the experts; the defaults of `MLP` and `GLU`.
        axis: name of the manual mesh axis over which the experts are split.
        init: initializer of the experts' weights.

    Raises:
        ValueError: a number violates its constraint; x is not one sequence of tokens; bias has another shape;
            axis is no manual mesh axis; there is jitter without a key in training.
    """

    router: Projection
    experts: MLP | GLU  # each parameter with a leading axis of experts
    dropout: Dropout
    inference: bool
    count: int = eqx.field(static=True)
    top_k: int = eqx.field(static=True)
    capacity_factor: float | None = eqx.field(static=True)
    renormalise: bool = eqx.field(static=True)
    jitter: float = eqx.field(static=True)
    axis: str | None = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        hidden_dim: int | None = None,
        *,
        experts: int,
        top_k: int = 2,
        capacity_factor: float | None = None,
        gated: bool = False,
        activation: str | None = None,
        renormalise: bool | None = None,
        jitter: float = 0.0,
        dropout: float = 0.0,
        bias: bool | None = None,
        axis: str | None = None,
        init: Initializer = torch_uniform,
        key: PRNGKeyArray,
    ):
        _check.positive(dim=dim, experts=experts, top_k=top_k)
        if top_k > experts:
            raise ValueError(f"top_k must be at most experts: got top_k={top_k}, experts={experts}")
        if capacity_factor is not None:
            _check.above_zero(capacity_factor=capacity_factor)
        _check.rate(jitter=jitter)
        router_key, expert_key = jr.split(key)
        options = {"activation": activation or ("swish" if gated else "gelu"), "init": init}
        options["bias"] = not gated if bias is None else bias
        make = GLU if gated else MLP
        self.router = Projection(dim, experts, bias=False, key=router_key)
        self.experts = eqx.filter_vmap(lambda key: make(dim, hidden_dim, **options, key=key))(
            jr.split(expert_key, experts)
        )
        self.dropout, self.inference = Dropout(dropout), False
        self.count, self.top_k, self.capacity_factor = int(experts), int(top_k), capacity_factor
        self.renormalise = top_k > 1 if renormalise is None else renormalise
        self.jitter, self.axis = float(jitter), axis

    def __call__(
        self,
        x: Float[Array, "seq dim"],
        *,
        bias: Float[Array, " experts"] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Routed:
        """`bias` is added to the probabilities in the choice of experts alone, see `rebalanced`."""
        _check.example(x, "seq", dim=self.router.in_dim)
        _check.inexact(x, "x")
        if x.shape[0] == 0:
            raise ValueError(f"x must have one token or more: got shape {x.shape}")
        if bias is not None:
            _check.example(bias, name="bias", experts=self.count)
        if self.axis is not None and self.axis not in jax.sharding.get_abstract_mesh().manual_axes:
            raise ValueError(
                f"axis must be a manual mesh axis: got {self.axis!r}; call it inside jax.shard_map over it"
            )
        inference = self.inference if inference is None else inference
        jitter_key, drop_key = (None, None) if key is None else jr.split(key)
        chosen, gates, losses = self._route(x, bias, jitter_key, inference)
        places = jax.nn.one_hot(chosen, self.count, dtype=jnp.int32)  # (choices, experts)
        seq, dim = x.shape
        rows = jnp.broadcast_to(x[:, None], (seq, self.top_k, dim)).reshape(seq * self.top_k, dim)
        axis = self.axis or _split.experts_axis()
        room = self._room(seq * _split.devices(), inference, axis)
        if room is None:
            y, kept = self._grouped(rows, chosen), jnp.ones_like(chosen, bool)
        else:
            own = jnp.cumsum(places, axis=0)
            place, at = (jnp.sum(counts * places, 1) - 1 for counts in (own, own + _split.counted_before(places)))
            kept, room = at < room, min(room, seq)  # a device's own tokens need no more
            if axis is None and _split.devices() > 1:  # buffers of the whole sequence's places would be mostly empty
                y = jnp.where(kept[:, None], self._grouped(rows, chosen), 0)
            else:
                y = self._buffered(rows, jnp.where(kept, chosen * room + place, self.count * room), room, axis)
        y = widen(y.reshape(seq, self.top_k, dim))
        y = jnp.sum(y * gates.astype(y.dtype)[..., None], 1).astype(x.dtype)
        load = _split.over_tokens(jnp.sum(places, 0).astype(gates.dtype))
        overflow = _split.over_tokens(self._overflow(kept, gates))
        means, z_loss = (_split.over_tokens(loss) / _split.devices() for loss in losses)
        routing = Routing(load, overflow, means @ load / (chosen.shape[0] * _split.devices()), z_loss)
        return Routed(self.dropout(y, key=drop_key, inference=inference), routing)

    def _route(
        self, x: Array, bias: Array | None, key: PRNGKeyArray | None, inference: bool
    ) -> tuple[Int[Array, " choices"], Float[Array, "seq k"], tuple[Float[Array, " experts"], Float[Array, ""]]]:
        """Experts of each choice, their weights, and the two losses: the first as a vector to weigh by the load."""
        x = widen(x)
        if self.jitter and not inference:
            if key is None:
                raise ValueError("jitter needs key=... in training: pass one, or inference=True")
            whole = (x.shape[0] * _split.devices(), *x.shape[1:])
            x = x * _split.own_tokens(jr.uniform(key, whole, x.dtype, 1 - self.jitter, 1 + self.jitter))
        logits = self.router(x)
        probs = jax.nn.softmax(logits)
        order = probs if bias is None else probs + bias.astype(probs.dtype)[None]
        chosen = jax.lax.top_k(jax.lax.stop_gradient(order), self.top_k)[1]
        hit = jax.nn.one_hot(chosen, self.count, dtype=probs.dtype)
        gates = jnp.sum(hit * probs[:, None], -1)
        if self.renormalise:
            gates = gates / jnp.sum(gates, 1, keepdims=True)
        z_loss = jnp.mean(jax.nn.logsumexp(logits, 1) ** 2)
        return chosen.reshape(gates.size), gates, (self.count * jnp.mean(probs, 0), z_loss)

    def _room(self, seq: int, inference: bool, axis: str | None) -> int | None:
        """Places in each expert; None for as many as are chosen."""
        if self.capacity_factor is None or inference:
            return None if axis is None else seq
        return min(seq, math.ceil(self.capacity_factor * seq * self.top_k / self.count))

    def _grouped(self, rows: Array, chosen: Array) -> Array:
        """Results of the experts for rows in any order, none left out."""
        parts = [Grouped(part, chosen) for part in (self.experts.up, self.experts.down)]
        return eqx.tree_at(lambda experts: (experts.up, experts.down), self.experts, parts)(rows)

    def _buffered(self, rows: Array, slots: Int[Array, " choices"], room: int, axis: str | None) -> Array:
        """The same by a buffer of `room` places for each expert; zero for a slot outside it."""
        total = self.count * room
        owner = jnp.full(total, len(rows), jnp.int32) + varying(jnp.zeros(total, jnp.int32), slots)
        owner = owner.at[slots].set(jnp.arange(len(rows), dtype=jnp.int32), mode="drop", unique_indices=True)
        buffers = rows.at[owner].get(mode="fill", fill_value=0)
        y = self._exchanged(rearrange(buffers, "(experts room) dim -> experts room dim", room=room), axis)
        return rearrange(y, "experts room dim -> (experts room) dim").at[slots].get(mode="fill", fill_value=0)

    def _exchanged(
        self, buffers: Float[Array, "experts room dim"], axis: str | None
    ) -> Float[Array, "experts room dim"]:
        run = eqx.filter_vmap(lambda expert, x: expert(x))
        if axis is None:
            return run(self.experts, buffers)
        own, devices = len(self.experts.up.weight), jax.lax.axis_size(axis)
        if own * devices != self.count:
            raise ValueError(
                f"axis={axis!r} of {devices} devices must split the experts={self.count} evenly along their "
                f"leading axis: got {own} on each"
            )
        there = jax.lax.all_to_all(buffers, axis, split_axis=0, concat_axis=1, tiled=True)
        return jax.lax.all_to_all(run(self.experts, there), axis, split_axis=1, concat_axis=0, tiled=True)

    def _overflow(self, kept: Bool[Array, " choices"], like: Array) -> Float[Array, ""]:
        return jnp.sum(~kept).astype(like.dtype)


class Grouped(eqx.Module):
    """The projections of all experts on rows, each by that of its expert."""

    projection: Projection
    groups: Int[Array, " rows"]

    def __call__(self, x: Float[Array, "rows in_dim"]) -> Float[Array, "rows out_dim"]:
        y = ops.grouped_matmul(x, self.projection.weight, self.groups)
        bias = self.projection.bias
        return y if bias is None else y + take_rows(bias.astype(x.dtype), self.groups)


def rebalanced(
    bias: Float[Array, " experts"], load: Float[Array, " experts"], speed: float | Float[Array, ""] = 0.001
) -> Float[Array, " experts"]:
    """The next bias of `MoE`'s choice: raised by `speed` for experts below the mean load, lowered for those above
    (Wang et al. 2024, arXiv:2408.15664, algorithm 1; DeepSeek-V3's speed is 0.001).

    Args:
        bias: zeros at first.
        load: tokens that chose each expert, summed over the batch.
        speed: of the change.

    Raises:
        ValueError: bias and load are of different shapes.
    """
    _check.same_shape(bias=bias, load=load)
    return bias + speed * jnp.sign(jnp.mean(load) - load)
