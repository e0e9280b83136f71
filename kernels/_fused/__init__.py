"""Fused ops as JAX primitives: every derivative, `vmap`, the kernel of each platform, and programs on several devices.

An op is a frozen dataclass derived from `Op`, whose fields are the static part of the call, and one `Primitives` for
its family of calls:

    @dataclasses.dataclass(frozen=True)
    class Square(Op):
        def shapes(self, x):
            return (x,)

        def forward(self, target, x):
            return (x * x,)

        def backward(self, target, primals, saved, cotangents, count):
            return (2 * primals[0] * cotangents[0],)

        def plain(self, x):
            return (x * x,)

    SQUARE = Primitives("square")
    (y,) = SQUARE.bind(Square(), x)

`forward` and `backward` choose a kernel for `target`; `plain` is ordinary JAX and gives all other derivatives.
"""

from .op import Op
from .partition import Axes, Places
from .primitives import Primitives, vary_alike
from .target import Target, interpreted, refusal

__all__ = ["Axes", "Op", "Places", "Primitives", "Target", "interpreted", "refusal", "vary_alike"]
