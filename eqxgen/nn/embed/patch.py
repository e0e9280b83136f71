"""Images as tokens and back; class and register tokens."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn._mesh import in_steps
from eqxgen.nn.linear import Initializer, Projection, torch_uniform


class PatchEmbed(eqx.Module):
    """Split an image into square patches, row by row, and project each to a token (Dosovitskiy et al. 2021,
    arXiv:2010.11929, equation 1).

    Equal to a convolution with kernel and stride `patch`.

    Args:
        channels: of the image.
        dim: width of a token.
        patch: side of a patch; it divides height and width.
        bias: adds a bias to the projection.
        init: initializer of its weights, of shape `(dim, patch * patch * channels)`.

    Raises:
        ValueError: a number violates its constraint; x is not one image of `channels` that `patch` divides.
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
        _check.image(x, channels=self.channels)
        _check.divides(patch=self.patch, height=x.shape[0])
        _check.divides(patch=self.patch, width=x.shape[1])
        patches = in_steps(x, "(h p) w c -> h p w c", "h p (w q) c -> h w p q c", p=self.patch, q=self.patch)
        return self.projection(in_steps(patches, "h w p q c -> (h w) p q c", "n p q c -> n (p q c)"))


class Unpatch(eqx.Module):
    """Project each token to a square patch and assemble the image, row by row: the inverse layout of `PatchEmbed`.

    Args:
        dim: width of a token.
        channels: of the image.
        patch: side of a patch.
        bias: adds a bias to the projection.
        init: initializer of its weights, of shape `(patch * patch * channels, dim)`.

    Raises:
        ValueError: a number violates its constraint; x is not one sequence of `dim`, or not a whole number of rows.
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
        """`rows` is the number of rows of patches; by default that of a square image."""
        _check.example(x, "patches", dim=self.projection.in_dim)
        rows = round(x.shape[0] ** 0.5) if rows is None else rows
        _check.positive(rows=rows)
        p = self.patch
        if x.shape[0] % rows:
            raise ValueError(f"x must have a multiple of rows={rows} patches: got shape {x.shape}; pass rows=...")
        patches = in_steps(self.projection(x), "(h w) f -> h w f", "h w (p q c) -> h p w q c", h=rows, p=p, q=p)
        return in_steps(patches, "h p w q c -> (h p) w q c", "r w q c -> r (w q) c")


class Registers(eqx.Module):
    """Learned tokens before a sequence, for information of no single position (Darcet et al. 2024, arXiv:2309.16588).

    Args:
        dim: width of a token.
        count: number of tokens.
        init: initializer of the tokens; normal with deviation 0.02 by default.
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
        _check.example(x, "seq", dim=self.dim)
        return jnp.concatenate([self.tokens.astype(x.dtype), x])

    def split(self, x: Float[Array, "longer dim"]) -> tuple[Float[Array, "count dim"], Float[Array, "seq dim"]]:
        """The leading `count` tokens, and the others."""
        if x.shape[0] < self.count:
            raise ValueError(f"x must begin with the count={self.count} tokens of the layer: got shape {x.shape}")
        return x[: self.count], x[self.count :]


class ClassToken(Registers):
    """One learned token before a sequence, whose result is the input of the classifier (BERT's [CLS]; Dosovitskiy et
    al. 2021, arXiv:2010.11929, equation 1). Zero at initialisation, as in the paper's code.

    Args:
        dim: width of a token.
        init: initializer of the token.
    """

    def __init__(self, dim: int, *, init: Initializer = jax.nn.initializers.zeros, key: PRNGKeyArray):
        super().__init__(dim, 1, init=init, key=key)
