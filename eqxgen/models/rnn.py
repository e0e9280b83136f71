"""Recurrent language model: an embedding, recurrent layers with dropout between them, a head (Graves 2013,
arXiv:1308.0850; Karpathy's char-rnn). Weights are initialised as torch's: uniform in ±1/sqrt(width), the embedding
normal with deviation 1.
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
from eqxgen.nn import GRU, LSTM, Dropout, Embedding, Projection, VanillaRNN, _check
from eqxgen.nn.linear import check_ids

CELLS = {"lstm": LSTM, "gru": GRU, "rnn": VanillaRNN}


class RNN(eqx.Module):
    """Logits of the token that follows each token of one sequence, of any length.

    Args:
        vocab: size of the vocabulary.
        config: the sizes.
    """

    embedding: Embedding
    layers: tuple[LSTM | GRU | VanillaRNN, ...]
    dropout: Dropout
    head: Projection
    context = None

    def __init__(self, vocab: int, config: RNNConfig, *, key: PRNGKeyArray):
        _check.positive(vocab=vocab)
        embed_key, head_key, *keys = jr.split(key, config.depth + 2)
        edge = 1 / math.sqrt(config.dim)
        init: Any = lambda key, shape, dtype=jnp.float32: jr.uniform(key, shape, dtype, -edge, edge)
        self.embedding = Embedding(vocab, config.dim, key=embed_key)
        self.layers = tuple(CELLS[config.cell](config.dim, config.dim, init=init, key=key) for key in keys)
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
        return x

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
        return self._logits(jax.lax.dynamic_slice_in_dim(x, last, 1))[0], tuple(states)

    def _logits(self, x: Float[Array, "seq dim"]) -> Float[Array, "seq vocab"]:
        y = self.head(x)
        return widen(y)


def _until(layer: LSTM | GRU | VanillaRNN, x: Array, state: PyTree, count: Array) -> tuple[Array, PyTree]:
    """Outputs of a layer, and its state after the first `count` entries."""

    def step(state: PyTree, entry: tuple[Array, Array]) -> tuple[PyTree, Array]:
        at, x = entry
        y, new = layer.step(x, state)
        return jax.tree.map(lambda new, old: jnp.where(at < count, new, old), new, state), y

    state, y = jax.lax.scan(step, state, (jnp.arange(len(x)), x))
    return y, state
