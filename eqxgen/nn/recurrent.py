"""Recurrent layers over one sequence, by scan.

The products with the inputs are one matrix product over the whole sequence; the scan computes only what depends on the
state. There is no `time_major`, as one example has no batch axis: `jax.vmap` over the axis of the batch. For several
layers, pass the outputs of one to the next.
"""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn._mesh import on_mesh_of, varying
from eqxgen.nn.linear import Initializer, Projection, torch_uniform


class LSTMState(NamedTuple):
    """The state of an LSTM."""

    output: Float[Array, " dim"]
    cell: Float[Array, " dim"]


class _Recurrent(eqx.Module):
    """Shared code of the three layers. A subclass defines how the state advances."""

    gates: ClassVar[int]
    bias_of_output: ClassVar[bool] = False

    from_input: Projection
    from_output: Projection
    dim: int = eqx.field(static=True)

    def __init__(
        self, in_dim: int, dim: int, *, bias: bool = True, init: Initializer = torch_uniform, key: PRNGKeyArray
    ):
        _check.positive(in_dim=in_dim, dim=dim)
        input_key, output_key = jr.split(key)
        self.from_input = Projection(in_dim, self.gates * dim, bias=bias, init=init, key=input_key)
        self.from_output = Projection(
            dim, self.gates * dim, bias=bias and self.bias_of_output, init=init, key=output_key
        )
        self.dim = dim

    def init_state(self) -> Any:
        """Zeros."""
        return jnp.zeros(self.dim)

    def __call__(
        self, x: Float[Array, "seq in_dim"], state: Any = None, *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "seq dim"], Any]:
        """The outputs for a sequence, and the state after the last; `state=None` starts from zeros."""
        _check.example(x, "seq", in_dim=self.from_input.in_dim)
        state = self._checked(x, state)

        def step(state: Any, inputs: list[Array]):
            state = self._advanced(inputs, state)
            return state, _output(state).astype(x.dtype)

        # Split into gates before the scan: XLA on a CPU does not vectorise a slice of a slice.
        inputs = self._gates(self.from_input(x))
        with on_mesh_of(x):
            state, y = jax.lax.scan(step, state, inputs)
        return y, state

    def step(
        self, x: Float[Array, " in_dim"], state: Any = None, *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, " dim"], Any]:
        """The output for the next entry of a sequence, and the state after it."""
        _check.example(x, in_dim=self.from_input.in_dim)
        state = self._checked(x, state)
        state = self._advanced(self._gates(self.from_input(x)), state)
        return _output(state).astype(x.dtype), state

    def _checked(self, x: Array, state: Any) -> Any:
        first = self.init_state()
        state = first if state is None else state
        if jax.tree.map(jnp.shape, state) != jax.tree.map(jnp.shape, first):
            raise ValueError(
                f"state must be as init_state() gives it, with shapes (dim,) = ({self.dim},): got "
                f"{jax.tree.map(jnp.shape, state)}"
            )
        wide = jnp.promote_types(x.dtype, jnp.float32)
        return jax.tree.map(
            lambda part: varying(part.astype(wide), x, self.from_input.weight, self.from_output.weight), state
        )

    def _gates(self, projected: Array) -> list[Array]:
        return jnp.split(projected, self.gates, axis=-1)

    def _sums(self, inputs: list[Array], output: Array) -> list[tuple[Array, Array]]:
        """For each gate the products with the input and with the last output, in the state's type."""
        outputs = self._gates(self.from_output(output.astype(inputs[0].dtype)))
        return [(a.astype(output.dtype), b.astype(output.dtype)) for a, b in zip(inputs, outputs)]

    def _advanced(self, inputs: list[Array], state: Any) -> Any:
        raise NotImplementedError


class VanillaRNN(_Recurrent):
    """`h' = tanh(W x + b + U h)` (Elman 1990), over a sequence `(seq, in_dim)`: outputs `(seq, dim)` and the last state
    `(dim,)`.

    Equal to torch's `RNN` of one layer, with its two biases added to one. The state and the sums into
    it are float32; outputs have x's dtype.

    Args:
        in_dim: width of an entry of the sequence.
        dim: width of an output.
        bias: adds a bias, zero at initialisation.
        init: a `jax.nn.initializers` function for both weights, `(dim, in_dim)` and `(dim, dim)`. By default uniform in
            ±1/sqrt(its last axis); torch uses ±1/sqrt(dim) for all, including the biases.

    Raises:
        ValueError: a number violates its constraint; x is not one sequence of that width; the state is not like
            `init_state()`.
    """

    gates: ClassVar[int] = 1
    __init__ = _Recurrent.__init__  # inherited; repeated for type checkers, which give a dataclass a new one

    def _advanced(self, inputs: list[Array], state: Array) -> Array:
        ((a, b),) = self._sums(inputs, state)
        return jnp.tanh(a + b)


class GRU(_Recurrent):
    """Gated recurrent units (Cho et al. 2014, arXiv:1406.1078), over a sequence `(seq, in_dim)`; arguments and errors
    of `VanillaRNN`.

        r = σ(W_r x + U_r h + b_r)                 z = σ(W_z x + U_z h + b_z)
        n = tanh(W_n x + b_n + r * (U_n h + c_n))  h' = (1 - z) * n + z * h

    Equal to torch's `GRU` of one layer: the reset gate is applied after the product with U_n and its bias, in the
    paper before. As in torch, both products have a bias for all three parts, in the order r, z, n.
    """

    gates: ClassVar[int] = 3
    bias_of_output: ClassVar[bool] = True
    __init__ = _Recurrent.__init__

    def _advanced(self, inputs: list[Array], state: Array) -> Array:
        (a, b), (c, d), (e, f) = self._sums(inputs, state)
        reset, update = jax.nn.sigmoid(a + b), jax.nn.sigmoid(c + d)
        new = jnp.tanh(e + reset * f)
        return new + update * (state - new)


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; with forget gates), over a sequence `(seq, in_dim)`.

        i, f, o = σ(W x + U h + b) of each    g = tanh(W_g x + U_g h + b_g)    c' = f * c + i * g    h' = o * tanh(c')

    Equal to torch's `LSTM` of one layer, the parts in its order i, f, g, o, with its two biases added to one. The state
    is an `LSTMState`; arguments and errors are those of `VanillaRNN`.
    """

    gates: ClassVar[int] = 4
    __init__ = _Recurrent.__init__

    def init_state(self) -> LSTMState:
        """Zeros."""
        return LSTMState(jnp.zeros(self.dim), jnp.zeros(self.dim))

    def _advanced(self, inputs: list[Array], state: LSTMState) -> LSTMState:
        write, forget, new, show = (a + b for a, b in self._sums(inputs, state.output))
        cell = jax.nn.sigmoid(forget) * state.cell + jax.nn.sigmoid(write) * jnp.tanh(new)
        return LSTMState(jax.nn.sigmoid(show) * jnp.tanh(cell), cell)


def _output(state: Array | LSTMState) -> Array:
    return state.output if isinstance(state, LSTMState) else state
