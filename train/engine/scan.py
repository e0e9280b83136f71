"""Several updates in one compiled call, `--scan`: a `jax.lax.scan` of the step over stacked batches."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32

from .recipe import Program
from .step import Inputs, Setup, State, make_update


@dataclasses.dataclass(frozen=True)
class Span:
    """Steps that one call makes, from `start` on."""

    start: int
    count: int


class Several(NamedTuple):
    """Arguments of several updates that they leave as they are.

    Attributes:
        inputs: with a batch for each update along a new first axis.
        kinds: for each update, the number of its turns in `kinds(program)`.
        before: the last metrics of turns that may not be due here; empty where all turns are due at every step.
    """

    inputs: Inputs
    kinds: Int32[Array, " updates"] | Int32[np.ndarray, " updates"]
    before: Mapping[str, Any]


def spans(first: int, last: int, scan: int, due: Callable[[int], bool] = lambda step: False) -> Iterator[Span]:
    """The calls of the steps from `first` to before `last`: of `scan` steps from its multiples on, of single steps
    where the run begins or ends between two.

    Args:
        due: true for a step before which the model is changed; it can only be the first of a call.
    """
    step = first
    while step < last:
        whole = step % scan == 0 and step + scan <= last and not any(map(due, range(step + 1, step + scan)))
        # Of steps with a change between them, none of the same multiple is scanned.
        end = step + scan if whole else min(last, step - step % scan + scan)
        if whole and scan > 1:
            yield Span(step, scan)
        else:
            yield from (Span(number, 1) for number in range(step, end))
        step = end


def kinds(program: Program) -> list[tuple[str, ...]]:
    """The different sets of turns that are due at a step; the first is all of them."""
    period = math.lcm(*(turn.every for turn in program.turns.values()))
    return list(dict.fromkeys(program.due(step) for step in range(period)))


def several(program: Program, span: Span, inputs: Inputs, latest: Mapping[str, Any]) -> Several:
    """The arguments of the updates of a span; `latest` are the last metrics of each turn."""
    known = kinds(program)
    numbers = np.asarray([known.index(program.due(span.start + number)) for number in range(span.count)], np.int32)
    return Several(inputs, numbers, {} if len(known) == 1 else {name: np.asarray(x) for name, x in latest.items()})


def make_updates(setup: Setup) -> Callable[[tuple, State], tuple[State, dict[str, Array]]]:
    """Several steps, to be compiled: (`Several`, state) -> (state, the last metrics of each turn).

    Each is the step of `make_update`, with the keys of its own number. Steps with different turns are branches of one
    program.
    """
    updates = [make_update(setup, due) for due in kinds(setup.program)]

    def run(given: tuple, state: State) -> tuple[State, dict[str, Array]]:
        given = Several(*given)
        inputs = Inputs(*given.inputs)
        arrays, static = eqx.partition(state, eqx.is_array)

        def one(number: int, batch: dict[str, Array], arrays: State) -> tuple[State, dict[str, Array]]:
            after, metrics = updates[number](inputs._replace(batch=batch), eqx.combine(arrays, static))
            return eqx.filter(after, eqx.is_array), metrics

        if len(updates) == 1:
            step = lambda arrays, batch: one(0, batch, arrays)
            arrays, metrics = jax.lax.scan(step, arrays, inputs.batch)
            return eqx.combine(arrays, static), jax.tree.map(lambda x: x[-1], metrics)

        first = jax.tree.map(lambda x: x[0], inputs.batch)
        shapes = eqx.filter_eval_shape(one, 0, first, arrays)[1]
        latest = {name: jnp.asarray(given.before.get(name, 0), shape.dtype) for name, shape in shapes.items()}

        def branch(number: int) -> Callable:
            def update(carry: Any, batch: dict[str, Array]) -> Any:
                arrays, latest = carry
                arrays, metrics = one(number, batch, arrays)
                return arrays, latest | metrics

            return update

        branches = [branch(number) for number in range(len(updates))]

        def chosen(carry: Any, given: Any) -> Any:
            kind, batch = given
            return jax.lax.switch(kind, branches, carry, batch), None

        (arrays, latest), _ = jax.lax.scan(chosen, (arrays, latest), (given.kinds, inputs.batch))
        return eqx.combine(arrays, static), latest

    return run


def make_scan(setup: Setup) -> Callable:
    """`make_updates`, compiled. It takes over the memory of the state it is given."""
    return eqx.filter_jit(make_updates(setup), donate="all-except-first")
