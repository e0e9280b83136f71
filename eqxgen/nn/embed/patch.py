"""Images as tokens and back, and tokens that stand for no patch."""

import equinox as eqx
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn.linear import Initializer, Projection, torch_uniform


class PatchEmbed(eqx.Module):
    """Cuts an image into squares, row by row, and projects each to a token (Dosovitskiy et al. 2021, arXiv:2010.11929,
    equation 1).

    Equal to a convolution whose kernel and stride are the patch.

    Args:
        channels: of the image.
        dim: width of a token.
        patch: side of a square; it divides height and width.
        bias: whether the projection has one.
        init: how its weights, of shape `(dim, patch * patch * channels)`, are drawn.
    """

    projection: Projection
    channels: int = eqx.field(static=True)
    patch: int = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        dim: int,
        *,
        patch: int,
        bias: bool = True,
        init: Initializer = torch_uniform,
        key: PRNGKeyArray,
    ):
        _check.positive(channels=channels, dim=dim, patch=patch)
        self.projection = Projection(patch**2 * channels, dim, bias=bias, init=init, key=key)
        self.channels, self.patch = channels, patch

    def __call__(
        self, x: Float[Array, "height width channels"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "patches dim"]:
        if x.ndim != 3 or x.shape[-1] != self.channels:
            raise ValueError(f"x must be (height, width, channels={self.channels}): got shape {x.shape}")
        _check.divides(patch=self.patch, height=x.shape[0])
        _check.divides(patch=self.patch, width=x.shape[1])
        return self.projection(rearrange(x, "(h p) (w q) c -> (h w) (p q c)", p=self.patch, q=self.patch))


class Unpatch(eqx.Module):
    """Projects each token to a square of an image and puts them together: what `PatchEmbed` cut, row by row.

    Args:
        dim: width of a token.
        channels: of the image.
        patch: side of a square.
        bias: whether the projection has one.
        init: how its weights, of shape `(patch * patch * channels, dim)`, are drawn.
    """

    projection: Projection
    channels: int = eqx.field(static=True)
    patch: int = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        patch: int,
        bias: bool = True,
        init: Initializer = torch_uniform,
        key: PRNGKeyArray,
    ):
        _check.positive(dim=dim, channels=channels, patch=patch)
        self.projection = Projection(dim, patch**2 * channels, bias=bias, init=init, key=key)
        self.channels, self.patch = channels, patch

    def __call__(
        self, x: Float[Array, "patches dim"], *, rows: int | None = None, key: PRNGKeyArray | None = None
    ) -> Float[Array, "height width channels"]:
        """`rows` is the number of patches one above another; by default that of a square image."""
        rows = round(x.shape[0] ** 0.5) if rows is None else rows
        _check.positive(rows=rows)
        if x.ndim != 2 or x.shape[0] % rows:
            raise ValueError(
                f"x must be (patches, dim) with a multiple of rows={rows} patches: got shape {x.shape}; give rows=..."
            )
        return rearrange(self.projection(x), "(h w) (p q c) -> (h p) (w q) c", h=rows, p=self.patch, q=self.patch)


class Registers(eqx.Module):
    """Learned tokens in front of a sequence, which hold what belongs to no place (Darcet et al. 2024,
    arXiv:2309.16588).

    Args:
        dim: width of a token.
        count: how many.
        init: how they are drawn; normal with deviation 0.02 by default.
    """

    tokens: Float[Array, "count dim"]
    dim: int = eqx.field(static=True)
    count: int = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        count: int = 4,
        *,
        init: Initializer = jax.nn.initializers.normal(0.02),  # noqa: B008
        key: PRNGKeyArray,
    ):
        _check.positive(dim=dim, count=count)
        self.tokens = init(key, (count, dim), jnp.float32)
        self.dim, self.count = dim, count

    def __call__(self, x: Float[Array, "seq dim"], *, key: PRNGKeyArray | None = None) -> Float[Array, "longer dim"]:
        if x.ndim != 2 or x.shape[-1] != self.dim:
            raise ValueError(f"x must be (seq, dim={self.dim}): got shape {x.shape}")
        return jnp.concatenate([self.tokens.astype(x.dtype), x])

    def split(self, x: Float[Array, "longer dim"]) -> tuple[Float[Array, "count dim"], Float[Array, "seq dim"]]:
        """What became of these tokens, and of the others."""
        if x.shape[0] < self.count:
            raise ValueError(
                f"x must begin with the count={self.count} tokens that were put there: got shape {x.shape}"
            )
        return x[: self.count], x[self.count :]


class ClassToken(Registers):
    """One learned token in front of a sequence, from which the class is read (BERT's [CLS]; Dosovitskiy et al. 2021,
    arXiv:2010.11929, equation 1). Zero at first, as the paper's code has it.

    Args:
        dim: width of a token.
        init: how it is drawn.
    """

    def __init__(self, dim: int, *, init: Initializer = jax.nn.initializers.zeros, key: PRNGKeyArray):
        super().__init__(dim, 1, init=init, key=key)
