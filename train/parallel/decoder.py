"""A language model in parts over a mesh, for the decoders of `eqxgen.decoding`."""

from typing import Any

import equinox as eqx
import jax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Int, PyTree

from .gather import gathered, part_specs
from .mesh import manual_axes, mapped_axes


class Decoder(eqx.Module):
    """A `eqxgen.protocols.LanguageModel` whose parameters are gathered block by block at each token, as
    in training. Every device decodes the same sequences.

    Args:
        model: placed by `train.parallel.place`.
        mesh: of its arrays.
    """

    model: Any
    mesh: Mesh = eqx.field(static=True)

    @property
    def vocab(self) -> int:
        """Number of tokens."""
        return self.model.vocab

    @property
    def context(self) -> int | None:
        """Tokens that the memory holds; None: any number."""
        return self.model.context

    def cache(self) -> PyTree:
        """The memory before the first token."""
        return self.model.cache()

    def extend(
        self, ids: Int[Array, " new"], cache: PyTree, *, count: int | Int[Array, ""] | None = None
    ) -> tuple[Array, PyTree]:
        """Logits of the token after the first `count` of the new ones, and the memory with them."""
        arrays, static = eqx.partition(self.model, eqx.is_array)
        others, rest = eqx.partition((ids, cache, count), eqx.is_array)
        specs = part_specs(arrays, self.mesh)
        left: list[PyTree] = []

        def local(arrays: PyTree, others: PyTree) -> PyTree:
            ids, cache, count = eqx.combine(others, rest)
            model = gathered(eqx.combine(arrays, static), eqx.combine(specs, static))
            found, kept = eqx.partition(model.extend(ids, cache, count=count), eqx.is_array)
            left.append(kept)
            return found

        if manual_axes(self.mesh):
            whole, names = PartitionSpec(), mapped_axes(self.mesh)
            local = jax.shard_map(
                local, mesh=self.mesh, in_specs=(specs, whole), out_specs=whole, axis_names=names, check_vma=False
            )
        found = local(arrays, others)
        return eqx.combine(found, left[-1])


def decoder(model: Any, mesh: Mesh) -> Any:
    """The model itself where one device has all of it, a `Decoder` of it elsewhere."""
    return model if mesh.size == 1 else Decoder(model, mesh)
