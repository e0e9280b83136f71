"""Features by name: a score that depends on features says of which network."""

import hashlib
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PyTree

# Names that a score has with the weights of its paper alone, by the beginning of the SHA-256 of their published files.
_OWN_WEIGHTS = {
    ("fd", "inception"): ("FID", ("6726825d",)),
    ("sfd", "inception"): ("sFID", ("6726825d",)),
    ("class_score", "inception"): ("IS", ("6726825d",)),
    ("lpips", "alex"): ("LPIPS_alex", ("7be5be79",)),
    ("lpips", "vgg"): ("LPIPS_vgg", ("397923af",)),
    ("path_length", "vgg"): ("PPL", ("397923af",)),
    ("lpips", "squeeze"): ("LPIPS_squeeze", ("b8a52dc0", "f364aa15")),
}


class Features(NamedTuple):
    """The network that features are of.

    Attributes:
        name: short, such as `judge`; part of a score's name.
        sha256: of the weights, in hexadecimal: of the published file, or `weights_sha256` of a network of one's own;
            empty where unknown.
    """

    name: str = "features"
    sha256: str = ""

    def __str__(self) -> str:
        return f"{self.name} (sha256 {self.sha256[:12] or 'unknown'})"

    def score(self, kind: str) -> str:
        """Name of a score of these features: `fd_judge`. `FID`, `LPIPS_...` and `PPL` are said with their own
        weights alone.

        Args:
            kind: `fd`, `kid`, `precision`, `lpips` and so on.
        """
        name, prefixes = _OWN_WEIGHTS.get((kind, self.name), ("", ()))
        own = len(self.sha256) == 64 and self.sha256.lower().startswith(prefixes or ("-",))
        return name if own else f"{kind}_{self.name}"

    def same(self, other: "Features") -> "Features":
        """These features, where the other ones may be the same.

        Raises:
            ValueError: names or hashes differ.
        """
        hashes = {self.sha256.lower(), other.sha256.lower()} - {""}
        if self.name != other.name or len(hashes) > 1:
            raise ValueError(f"both sets must have the same features: got {self} and {other}")
        return self if self.sha256 else other


def weights_sha256(model: PyTree) -> str:
    """SHA-256 of a network's arrays: paths, shapes, dtypes and bytes, in the order of the tree."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(model):
        if isinstance(leaf, jax.Array | np.ndarray):
            array = np.ascontiguousarray(leaf)
            digest.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


class FeatureRows(NamedTuple):
    """Features that come batch by batch and are kept, for the scores of neighbours, kernels and resamples.

    `FeatureRows(features=Features("judge", sha256))` has seen none. Rows keep their dtype, float32 of most networks:
    50,000 of 2,048 take 400 MB. `Moments` keeps means and covariances alone.
    """

    parts: tuple[Float[np.ndarray, "_ dim"], ...] = ()
    features: Features = Features()

    def update(self, rows: Float[np.ndarray, "n dim"]) -> "FeatureRows":
        """With more rows.

        Raises:
            ValueError: a feature is not finite, or the width is another than before.
        """
        values = checked("rows", rows)
        if self.parts and self.parts[0].shape[1] != values.shape[1]:
            widths = self.parts[0].shape[1], values.shape[1]
            raise ValueError(f"rows must have features of one size: got {widths[0]} and {widths[1]}")
        return self._replace(parts=(*self.parts, values))

    def merge(self, other: "FeatureRows") -> "FeatureRows":
        """With what another one has seen."""
        joined = self._replace(features=self.features.same(other.features))
        for part in other.parts:
            joined = joined.update(part)
        return joined

    def result(self) -> Float[np.ndarray, "n dim"]:
        """All rows.

        Raises:
            ValueError: none were seen.
        """
        if not self.parts:
            raise ValueError("rows must be seen before their result: got none")
        return self.parts[0] if len(self.parts) == 1 else np.concatenate(self.parts)


def checked(name: str, rows: Any, least: int = 0) -> Float[np.ndarray, "n dim"]:
    """Rows of features as a NumPy array of floats.

    Raises:
        ValueError: they are not a table of finite real numbers, or fewer than the least; the message has the name.
    """
    values = np.asarray(rows)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"{name} must have the shape (rows, features): got {values.shape}")
    if values.dtype.kind not in "fiu":
        # bfloat16 and the other small floats of JAX have no kind of their own.
        if not np.can_cast(values.dtype, np.float64):
            raise ValueError(f"{name} must be real numbers: got {values.dtype}")
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise ValueError(f"{name} must be finite: got {values[bad][~np.isfinite(values[bad])][0]} in row {bad}")
    if len(values) < least:
        raise ValueError(f"{name} must be at least {least} rows: got {len(values)}")
    return values if values.dtype.kind == "f" else values.astype(np.float64)


def one_width(first: str, a: Float[np.ndarray, "n d1"], second: str, b: Float[np.ndarray, "m d2"]) -> None:
    """Raises `ValueError` where two tables have other widths."""
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{first} and {second} must have features of one size: got {a.shape[1]} and {b.shape[1]}")
