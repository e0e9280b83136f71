"""What every mask is."""

from typing import Any, ClassVar

Touch = tuple[Any, Any]


class Mask:
    """A set of allowed (query, key) pairs."""

    axes: ClassVar[tuple[str, ...]] = ()

    def __and__(self, other: "Mask") -> "Mask":
        return _join("And", self, other)

    def __or__(self, other: "Mask") -> "Mask":
        return _join("Or", self, other)

    def __rand__(self, other) -> "Mask":
        return _join("And", other, self)

    def __ror__(self, other) -> "Mask":
        return _join("Or", other, self)

    def arrays(self) -> tuple[Any, ...]:
        """The arrays, in the order of `axes`."""
        return ()

    def replace(self, arrays: tuple[Any, ...]) -> "Mask":
        """The same mask with other arrays."""
        return self

    def check(self, q_seq: int, kv_seq: int) -> "Mask":
        """This mask for a problem of these lengths; a `ValueError` if it cannot be."""
        return self

    def allowed(self, *args: Any, **kwargs: Any) -> Any:
        """`allowed(i, j, *arrays)`, elementwise: may query `i` see key `j`? The arrays come cut to the tile and
        broadcast against both.
        """
        raise NotImplementedError

    def touch(self, *args: Any, **kwargs: Any) -> Touch:
        """`touch(i0, i1, j0, j1, *spans)` is `(some, every)` for the rectangle of queries `i0..i1` and keys `j0..j1`,
        both ends included.

        `some` may be False only where no pair is allowed, and `every` True only where all are. Each array comes as the
        pair of its least and greatest value over the rectangle.
        """
        raise NotImplementedError


def _join(name: str, left, right) -> "Mask":
    # The joints are masks themselves, in a file that needs this one.
    from . import algebra

    return getattr(algebra, name)(algebra.as_mask(left), algebra.as_mask(right))
