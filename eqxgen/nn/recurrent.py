"""Recurrent layers over one sequence, by scan.

Each computes the products with its inputs in one matrix product over the whole sequence, and scans over what has to wait its turn. There is
no `time_major`: one example has no batch axis that could come first; `jax.vmap` over whichever axis holds the batch. For several layers,
hand the outputs of one to the next.
"""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn.linear import Initializer, Projection, torch_uniform


class LSTMState(NamedTuple):
    """What an LSTM carries on."""

    output: Float[Array, " dim"]
    cell: Float[Array, " dim"]


class _Recurrent(eqx.Module):
    """What the three share. A subclass says how the state advances."""

    gates: ClassVar[int]
    bias_of_output: ClassVar[bool] = False

    from_input: Projection
    from_output: Projection
    dim: int = eqx.field(static=True)

    def __init__(self, in_dim: int, dim: int, *, bias: bool = True, init: Initializer = torch_uniform, key: PRNGKeyArray):
        _check.positive(in_dim=in_dim, dim=dim)
        input_key, output_key = jr.split(key)
        self.from_input = Projection(in_dim, self.gates * dim, bias=bias, init=init, key=input_key)
        self.from_output = Projection(dim, self.gates * dim, bias=bias and self.bias_of_output, init=init, key=output_key)
        self.dim = dim

    def init_state(self) -> Any:
        """Zeros."""
        return jnp.zeros(self.dim)

    def __call__(
        self, x: Float[Array, "*seq in_dim"], state: Any = None, *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "seq dim"], Any]:
        """The outputs for a sequence, and the state behind the last; `state=None` starts from zeros."""
        if x.ndim != 2:
            raise ValueError(f"x must be one sequence (seq, in_dim): got shape {x.shape}; jax.vmap the layer over a batch")
        state = self._checked(x, state)

        def step(state: Any, projected: Array):
            state = self._advanced(projected, state)
            return state, _output(state).astype(x.dtype)

        state, y = jax.lax.scan(step, state, self.from_input(x))
        return y, state

    def step(self, x: Float[Array, "*in_dim"], state: Any = None, *, key: PRNGKeyArray | None = None) -> tuple[Float[Array, " dim"], Any]:
        """The output for one more entry of a sequence, and the state behind it."""
        if x.ndim != 1:
            raise ValueError(f"x must be one entry (in_dim,) of a sequence: got shape {x.shape}; call the layer for a whole one")
        state = self._checked(x, state)
        state = self._advanced(self.from_input(x), state)
        return _output(state).astype(x.dtype), state

    def _checked(self, x: Array, state: Any) -> Any:
        _check.last_axis(x, "in_dim", self.from_input.in_dim)
        first = self.init_state()
        state = first if state is None else state
        if jax.tree.map(jnp.shape, state) != jax.tree.map(jnp.shape, first):
            raise ValueError(
                f"state must be as init_state() gives it, with shapes (dim,) = ({self.dim},): got {jax.tree.map(jnp.shape, state)}"
            )
        return jax.tree.map(lambda part: part.astype(jnp.promote_types(x.dtype, jnp.float32)), state)

    def _advanced(self, projected: Array, state: Any) -> Any:
        raise NotImplementedError


class VanillaRNN(_Recurrent):
    """`h' = tanh(W x + b + U h)` (Elman 1990), over a sequence `(seq, in_dim)`: outputs `(seq, dim)` and the last state `(dim,)`.

    Equal to torch's `RNN` of one layer, with its two biases added to one. The state is float32, and the sums into it; outputs have x's dtype.

    Args:
        in_dim: width of an entry of the sequence.
        dim: width of an output.
        bias: whether a bias, zero at first, is added.
        init: a `jax.nn.initializers` function for both weights, `(dim, in_dim)` and `(dim, dim)`. By default uniform in ±1/sqrt(its last
            axis); torch takes ±1/sqrt(dim) for all, biases too.

    Raises:
        ValueError: a number breaks its law; x is not one sequence of that width; the state is not like `init_state()`.
    """

    gates: ClassVar[int] = 1
    __init__ = _Recurrent.__init__  # inherited all the same, but type checkers give a dataclass a new one

    def _advanced(self, projected: Array, state: Array) -> Array:
        return jnp.tanh(projected.astype(state.dtype) + self.from_output(state.astype(projected.dtype)).astype(state.dtype))


class GRU(_Recurrent):
    """Gated recurrent units (Cho et al. 2014, arXiv:1406.1078), over a sequence `(seq, in_dim)`; arguments and errors of `VanillaRNN`.

        r = σ(W_r x + U_r h + b_r)    z = σ(W_z x + U_z h + b_z)    n = tanh(W_n x + b_n + r * (U_n h + c_n))    h' = (1 - z) * n + z * h

    Equal to torch's `GRU` of one layer: the reset gate comes after the product with U_n and its own bias, where the paper has it before. As
    there, both products have a bias for all three parts, in the order r, z, n.
    """

    gates: ClassVar[int] = 3
    bias_of_output: ClassVar[bool] = True
    __init__ = _Recurrent.__init__

    def _advanced(self, projected: Array, state: Array) -> Array:
        inputs = projected.astype(state.dtype)
        outputs = self.from_output(state.astype(projected.dtype)).astype(state.dtype)
        reset, update = jnp.split(jax.nn.sigmoid(inputs[: 2 * self.dim] + outputs[: 2 * self.dim]), 2)
        new = jnp.tanh(inputs[2 * self.dim :] + reset * outputs[2 * self.dim :])
        return new + update * (state - new)


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; with forget gates), over a sequence `(seq, in_dim)`.

        i, f, o = σ(W x + U h + b) of each    g = tanh(W_g x + U_g h + b_g)    c' = f * c + i * g    h' = o * tanh(c')

    Equal to torch's `LSTM` of one layer, the parts in its order i, f, g, o, with its two biases added to one. The state is an `LSTMState`;
    arguments and errors are those of `VanillaRNN`.
    """

    gates: ClassVar[int] = 4
    __init__ = _Recurrent.__init__

    def init_state(self) -> LSTMState:
        """Zeros."""
        return LSTMState(jnp.zeros(self.dim), jnp.zeros(self.dim))

    def _advanced(self, projected: Array, state: LSTMState) -> LSTMState:
        wide = state.cell.dtype
        parts = projected.astype(wide) + self.from_output(state.output.astype(projected.dtype)).astype(wide)
        write, forget, new, show = jnp.split(parts, 4)
        cell = jax.nn.sigmoid(forget) * state.cell + jax.nn.sigmoid(write) * jnp.tanh(new)
        return LSTMState(jax.nn.sigmoid(show) * jnp.tanh(cell), cell)


def _output(state: Array | LSTMState) -> Array:
    return state.output if isinstance(state, LSTMState) else state
