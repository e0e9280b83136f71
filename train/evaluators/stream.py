"""Examples streamed through a function over the devices of a mesh, with parameters in parts as in training."""

import dataclasses
import functools
import io
import time
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Int, PyTree

from ..data.feed.feed import to_devices
from ..parallel.gather import gathered, part_specs
from ..parallel.mesh import EXAMPLES, local_rows, manual_axes, mapped_axes, parts, split
from ..parallel.processes import from_each, on_host
from ..parallel.rules import place
from ..report.log import time_left
from .examples import Examples

PATIENCE = 10.0
"""Seconds between lines on the progress of an evaluation."""

Function = Callable[[Any, dict[str, Array]], PyTree]
"""(tree, one example) -> arrays. Programs are kept for equal functions: a module's function, or an `eqx.Module` of
static fields. The example's `index` is its number; a draw from `fold_in(key, index)` depends on neither batches nor
devices."""


class Stopped(Exception):
    """A signal ended an evaluation."""


@dataclasses.dataclass(frozen=True)
class Stream:
    """Functions over examples on a mesh. Every process of a run makes the same calls.

    Attributes:
        mesh: as `train.parallel.make_mesh` makes it; examples are split over its `EXAMPLES` axes, each of them whole.
        stopping: asked before each batch in every process; true raises `Stopped`.
        say: takes a line for the reader.
    """

    mesh: Mesh
    stopping: Callable[[], bool] = lambda: False
    say: Callable[[str], object] = print

    def check(self) -> None:
        """Raises `Stopped` where a signal came."""
        if self.stopping():
            raise Stopped

    def map(self, function: Function, tree: PyTree, examples: Examples) -> Iterator[PyTree]:
        """Results of each batch, as NumPy arrays with rows in order. Of several processes, each gets the results of its
        own devices' examples, and every example is of one process.

        A device holds its part of the parameters, whatever training gathers of them at a time, and two batches.

        Args:
            function: of one example.
            tree: models, keys and other arrays that the function needs; they are split by the rules of training.
            examples: the last batch is filled up, and the results of its filling are left out.

        Raises:
            Stopped: `stopping` said so.
        """
        for start, result in self._batches(function, tree, examples):
            rows = _own_rows(jax.tree.leaves(result)[0])
            kept = start + rows < examples.size
            yield jax.tree.map(lambda leaf, kept=kept: _own(leaf)[kept], result)

    def gather(self, function: Function, tree: PyTree, examples: Examples) -> PyTree:
        """Results of all examples in every process, for as many as a picture shows. See `map`."""
        found = [
            jax.tree.map(lambda leaf, left=examples.size - start: on_host(leaf)[:left], result)
            for start, result in self._batches(function, tree, examples)
        ]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)

    def total(self, *metrics: Any) -> Any:
        """Streams of `eqxgen.metrics`, each merged with those of the other processes."""
        if jax.process_count() == 1:
            return metrics
        leaves, structure = jax.tree.flatten(metrics)
        file = io.BytesIO()
        np.savez(file, *leaves, allow_pickle=False)
        first, *others = (jax.tree.unflatten(structure, _leaves(data)) for data in from_each(file.getvalue()))
        return tuple(functools.reduce(lambda a, b: a.merge(b), each) for each in zip(first, *others))

    def _batches(self, function: Function, tree: PyTree, examples: Examples) -> Iterator[tuple[int, PyTree]]:
        """First number and results of each batch; a line every `PATIENCE` seconds says how many are done."""
        first, said, size = 0.0, 0.0, 0
        for start, result in self._started(function, tree, examples):
            yield start, result
            now = time.perf_counter()
            if start == 0:
                first = said = now  # after the compilation
                size = len(jax.tree.leaves(result)[0])
            elif now - said > PATIENCE:
                left = (now - first) / start * (examples.size - start - size)
                self.say(f"{start + size:,} of {examples.size:,} examples, {time_left(max(left, 0))} left")
                said = now

    def _started(self, function: Function, tree: PyTree, examples: Examples) -> Iterator[tuple[int, PyTree]]:
        """First number and results of each batch, while the next one runs."""
        unit = parts(self.mesh, EXAMPLES)
        size = -(-min(examples.batch, examples.size) // unit) * unit
        rows, to = local_rows(self.mesh, size, EXAMPLES), to_devices(split(self.mesh, EXAMPLES), size)
        tree, before = place(tree, self.mesh), None
        for start in range(0, examples.size, size):
            self.check()
            numbers = np.where(start + rows < examples.size, start + rows, start)
            batch = {**examples.read(numbers), "index": numbers.astype(np.int32)}
            running = start, apply(function, tree, to(batch), self.mesh)
            if before is not None:
                yield before
            before = running
        if before is not None:
            yield before


@eqx.filter_jit
def apply(function: Function, tree: PyTree, batch: dict[str, Array], mesh: Mesh) -> PyTree:
    """`function(tree, example)` for each example of a batch that is split over the mesh, as arrays split likewise."""
    arrays, static = eqx.partition(tree, eqx.is_array)
    specs, axes = part_specs(arrays, mesh), manual_axes(mesh, EXAMPLES)

    def local(arrays: PyTree, batch: dict[str, Array]) -> PyTree:
        whole = gathered(eqx.combine(arrays, static), eqx.combine(specs, static))
        return jax.vmap(functools.partial(function, whole))(batch)

    if axes:
        names, spec = mapped_axes(mesh), PartitionSpec(axes)
        # Loops that begin with constants and go on with examples are no error: nothing here is differentiated.
        local = jax.shard_map(
            local, mesh=mesh, in_specs=(specs, spec), out_specs=spec, axis_names=names, check_vma=False
        )
    return jax.lax.with_sharding_constraint(local(arrays, batch), split(mesh, EXAMPLES))


def _leaves(data: bytes) -> list[Any]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return [arrays[name][()] for name in arrays.files]


def _shards(array: Array) -> list[Any]:
    """The parts of the first axis that this process has first, in order."""
    return sorted((s for s in array.addressable_shards if s.replica_id == 0), key=lambda s: s.index[0].start or 0)


def _own_rows(array: Array) -> Int[np.ndarray, " rows"]:
    return np.concatenate([np.zeros(0, int), *(np.arange(len(array))[s.index[0]] for s in _shards(array))])


def _own(array: Array) -> np.ndarray:
    empty = np.zeros((0, *array.shape[1:]), array.dtype)
    return np.concatenate([empty, *(np.asarray(s.data) for s in _shards(array))])
