"""Recurrent language model: an embedding, recurrent layers with dropout between them, a head (Graves 2013,
arXiv:1308.0850; Karpathy's char-rnn). Weights are initialised as torch's: uniform in ±1/sqrt(width), the embedding
normal with deviation 1.

With the cell mamba2 each layer is `x + mamba2(rms_norm(x))`, and a norm precedes the head (Dao and Gu 2024,
arXiv:2405.21060; the published language models tie the head to the embedding, ours does not). It trains by the scan in
chunks and is decoded by the recurrence.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from eqxgen._widen import widen
from eqxgen.configs import RNNConfig
from eqxgen.nn import GRU, LSTM, Dropout, Embedding, Mamba2, Mamba2State, Projection, RMSNorm, VanillaRNN, _check
from eqxgen.nn.linear import check_ids

CELLS = {"lstm": LSTM, "gru": GRU, "rnn": VanillaRNN}


class MambaBlock(eqx.Module):
    """`x + mamba2(rms_norm(x))`, with the methods of a recurrent layer."""

    norm: RMSNorm
    mixer: Mamba2

    def __init__(self, dim: int, *, state_dim: int, head_dim: int, key: PRNGKeyArray):
        self.norm = RMSNorm(dim)
        self.mixer = Mamba2(dim, state_dim=state_dim, head_dim=head_dim, key=key)

    def init_state(self) -> Mamba2State:
        """Zeros."""
        return self.mixer.init_state()

    def __call__(self, x: Float[Array, "seq dim"], state: Mamba2State) -> tuple[Float[Array, "seq dim"], Mamba2State]:
        """The outputs of a sequence, and the state after it."""
        y, state = self.mixer(self.norm(x), state)
        return x + y, state

    def step(self, x: Float[Array, " dim"], state: Mamba2State) -> tuple[Float[Array, " dim"], Mamba2State]:
        """The output for the next entry of a sequence, and the state after it."""
        y, state = self.mixer.step(self.norm(x), state)
        return x + y, state


Layer = LSTM | GRU | VanillaRNN | MambaBlock


class RNN(eqx.Module):
    """Logits of the token that follows each token of one sequence, of any length.

    Args:
        vocab: size of the vocabulary.
        config: the sizes.
    """

    embedding: Embedding
    layers: tuple[Any, ...]  # of `Layer`
    norm: RMSNorm | None
    dropout: Dropout
    head: Projection
    context = None

    def __init__(self, vocab: int, config: RNNConfig, *, key: PRNGKeyArray):
        _check.positive(vocab=vocab)
        embed_key, head_key, *keys = jr.split(key, config.depth + 2)
        edge = 1 / math.sqrt(config.dim)
        init: Any = lambda key, shape, dtype=jnp.float32: jr.uniform(key, shape, dtype, -edge, edge)
        self.embedding = Embedding(vocab, config.dim, key=embed_key)
        if config.cell == "mamba2":
            sizes = {"state_dim": config.state_dim or 64, "head_dim": config.head_dim or 32}
            self.layers = tuple(MambaBlock(config.dim, **sizes, key=key) for key in keys)
            self.norm = RMSNorm(config.dim)
        else:
            self.layers = tuple(CELLS[config.cell](config.dim, config.dim, init=init, key=key) for key in keys)
            self.norm = None
        self.dropout = Dropout(config.dropout)
        self.head = Projection(config.dim, vocab, init=init, key=head_key)

    @property
    def vocab(self) -> int:
        """Size of the vocabulary."""
        return self.embedding.vocab

    def __call__(
        self, ids: _check.Ids, *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> Float[Array, "seq vocab"]:
        """Logits, in float32 at least.

        Args:
            ids: tokens in [0, vocab): an array (seq,) of integers, or a list.
            key: of dropout; needed in training, where there is any.
            inference: no dropout, if true.

        Raises:
            ValueError: the ids are no sequence of integers, or one is out of range (inside a compiled program it gives
                NaN instead).
        """
        return self._logits(self.hidden(ids, key=key, inference=inference))

    def hidden(
        self, ids: _check.Ids, *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> Float[Array, "seq dim"]:
        """Input of the head; the arguments are those of a call."""
        ids = check_ids(ids, self.vocab, "ids", "vocab")
        _check.example(ids, "seq", name="ids")
        keys = [None] * (len(self.layers) + 1) if key is None else list(jr.split(key, len(self.layers) + 1))
        x = self.dropout(self.embedding(ids), key=keys[0], inference=inference)
        for layer, key in zip(self.layers, keys[1:]):
            x, _ = layer(x, layer.init_state())
            x = self.dropout(x, key=key, inference=inference)
        return x if self.norm is None else self.norm(x)

    @property
    def unembedding(self) -> tuple[Float[Array, "vocab dim"], Float[Array, " vocab"] | None]:
        """Weight and bias of the output projection."""
        return self.head.weight, self.head.bias

    def cache(self) -> PyTree:
        """The layers' states before any token."""
        return tuple(layer.init_state() for layer in self.layers)

    def extend(
        self, ids: _check.Ids, cache: PyTree, *, count: int | Int[Array, ""] | None = None
    ) -> tuple[Float[Array, " vocab"], PyTree]:
        """Logits of the next token, and the states after the new ones; without dropout.

        Args:
            ids: the tokens after those of the states.
            cache: from `cache` or the call before.
            count: number of tokens among `ids`, before padding; all by default. With 0 the logits are undefined.
        """
        ids = check_ids(ids, self.vocab, "ids", "vocab")
        _check.example(ids, "new", name="ids")
        count = jnp.asarray(len(ids) if count is None else count, jnp.int32)
        x, last = self.embedding(ids), jnp.maximum(count - 1, 0)
        states = []
        for layer, state in zip(self.layers, cache):
            x, state = _until(layer, x, state, count)
            states.append(state)
        x = jax.lax.dynamic_slice_in_dim(x, last, 1)
        return self._logits(x if self.norm is None else self.norm(x))[0], tuple(states)

    def _logits(self, x: Float[Array, "seq dim"]) -> Float[Array, "seq vocab"]:
        y = self.head(x)
        return widen(y)


def _until(layer: Layer, x: Array, state: PyTree, count: Array) -> tuple[Array, PyTree]:
    """Outputs of a layer, and its state after the first `count` entries."""

    def step(state: PyTree, entry: tuple[Array, Array]) -> tuple[PyTree, Array]:
        at, x = entry
        y, new = layer.step(x, state)
        return jax.tree.map(lambda new, old: jnp.where(at < count, new, old), new, state), y

    state, y = jax.lax.scan(step, state, (jnp.arange(len(x)), x))
    return y, state
