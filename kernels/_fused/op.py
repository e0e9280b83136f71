"""The contract of a fused op."""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax

from .partition import Axes, Places
from .target import Target


class Op:
    """One call of a fused op: `outputs = forward(operands)`.

    A derivative depends on `primals`, of which the first few move, and on `saved`, further arrays that are functions of
    the primals and spare the backward pass their computation. They are the operands and the outputs unless `linearise`
    says otherwise. The first `results` outputs have a derivative.

    Axis 0 of every operand is the batch: full for the first `core` operands, full or 1 for all others. `vmap` folds the
    mapped axis into it, unless `mapped` gives the op with one more leading axis.

    Attributes:
        core: the number of primals whose cotangents the backward pass always computes.
        sparse: `backward` and `pullback` accept None for a cotangent that is zero.
        names: checkpoint names of the outputs, for `jax.checkpoint` policies.
        places: the mesh axes over which the call is divided, a field of an op that has `axes`; None to leave it to XLA.
    """

    core: ClassVar[int] = 1
    sparse: ClassVar[bool] = False
    names: ClassVar[tuple[str, ...]] = ()
    places: Places | None = None

    @property
    def results(self) -> int:
        """The number of leading outputs with a derivative."""
        return 1

    @property
    def movable(self) -> int:
        """The number of leading primals with a derivative, `core` or more."""
        return self.core

    def shapes(self, *primals: Any, **_: Any) -> Sequence[Any]:
        """The abstract outputs for abstract operands, and for abstract primals alike."""
        raise NotImplementedError

    def forward(self, target: Target, *operands: Any, **_: Any) -> Sequence[Any]:
        """The outputs, by the kernel chosen for `target`."""
        raise NotImplementedError

    def backward(self, target: Target, primals: tuple, saved: tuple, cotangents: tuple, count: int) -> Sequence[Any]:
        """Cotangents of the first `count` primals from those of the results, by the kernel chosen for `target`."""
        raise NotImplementedError

    def plain(self, *primals: Any, **_: Any) -> Sequence[Any]:
        """The results in ordinary JAX."""
        raise NotImplementedError

    def exported(self, *primals: Any, **_: Any) -> Sequence[Any]:
        """The results by operations that other runtimes have too."""
        return self.plain(*primals)

    def linearise(self, operands: tuple, outputs: tuple, tangents: tuple) -> tuple[tuple, tuple, tuple]:
        """`(primals, saved, tangents of the leading primals)`; a tangent of None is zero."""
        return operands, outputs, tangents[: self.movable]

    def tangent(self, primals: tuple, saved: tuple, moving: tuple) -> Sequence[Any]:
        """Tangents of the results from those of the leading primals, in ordinary JAX.

        It is differentiated further in the primals and the tangents, with `saved` fixed: an op that uses saved arrays
        states their derivative in the primals by a `jax.custom_jvp`.
        """
        count = len(moving)
        leading = lambda *first: tuple(self.plain(*first, *primals[count:]))
        return jax.jvp(leading, primals[:count], moving)[1]

    def pullback(self, primals: tuple, saved: tuple, cotangents: tuple, count: int) -> Sequence[Any]:
        """`backward` in ordinary JAX, which is differentiated as `tangent` is."""
        leading = lambda *first: tuple(self.plain(*first, *primals[count:]))
        return jax.vjp(leading, *primals[:count])[1](cotangents)

    def mapped(self) -> "Op | None":
        """This op on operands that all have one more leading axis, or None to fold that axis into the batch."""
        return None

    def axes(self, *operands: Any, **_: Any) -> Axes | None:
        """The axes along which the call may be divided over devices, for operands or primals; None where it may not.

        An op that has them saves the last of its outputs. XLA partitions it by them alone where its primitives have
        `partitioned=True`, and as any other program where not.
        """
        return None
