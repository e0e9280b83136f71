"""Protocols: the members that a loss or a decoder asks of a model. Any module that has them can be trained and decoded;
`isinstance(model, LanguageModel)` tells.

TokenModel     trained by `eqxgen.losses.tokens`
RoutedModel    with experts, trained by `eqxgen.losses.tokens`
MaskedModel    trained by `eqxgen.losses.masked`, decoded by `eqxgen.decoding.masked`
ImageTokenModel  trained by `eqxgen.losses.image_ar`, decoded by `eqxgen.decoding.images`
ScaleTokenModel  trained by `eqxgen.losses.image_ar`, decoded by `eqxgen.decoding.scales`
LanguageModel  decoded by `eqxgen.decoding.autoregressive` and `eqxgen.decoding.beam`
LatentModel    trained by `eqxgen.losses.elbo`
Denoiser       trained by `eqxgen.diffusion.losses`, sampled by `eqxgen.diffusion.solvers`
"""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, PRNGKeyArray, PyTree


@runtime_checkable
class TokenModel(Protocol):
    """A trained model of next tokens: `eqxgen.models.GPT`, `eqxgen.models.RNN`, or any other with these members."""

    def hidden(self, ids: Array, *, key: PRNGKeyArray | None = None, inference: bool | None = None) -> Array:
        """States (seq, dim) after each token, the input of the output projection."""
        ...

    @property
    def unembedding(self) -> tuple[Array, Array | None]:
        """Weight (vocab, dim) and bias (vocab) of the output projection."""
        ...


@runtime_checkable
class RoutedModel(TokenModel, Protocol):
    """A trained model of next tokens with experts: an `eqxgen.models.GPT` of some, or any other with these members."""

    def routed(
        self, ids: Array, *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> tuple[Array, Any]:
        """As `hidden`, and the `eqxgen.nn.Routing` of every block, stacked."""
        ...


@runtime_checkable
class LanguageModel(Protocol):
    """A model that can be decoded: `eqxgen.models.GPT`, `eqxgen.models.RNN`, or any other with these members."""

    @property
    def vocab(self) -> int:
        """Size of the vocabulary."""
        ...

    @property
    def context(self) -> int | None:
        """Capacity of the memory in tokens; None if it is unlimited."""
        ...

    def cache(self) -> PyTree:
        """The empty memory."""
        ...

    def extend(self, ids: Array, cache: Any, *, count: Any = None) -> tuple[Array, Any]:
        """Logits of the token after the first `count` of `ids` (all by default), and the memory with these added."""
        ...


@runtime_checkable
class MaskedModel(Protocol):
    """A model of masked tokens with a condition: a label, `eqxgen.models.MaskGIT`, or a text, `eqxgen.models.Muse`.

    A model that reads its condition apart has `conditioned(condition) -> (ids -> logits)` too, without dropout: the
    sampler then reads it once.
    """

    @property
    def tokens(self) -> int:
        """Tokens of one example."""
        ...

    @property
    def codes(self) -> int:
        """Number of codes; ids are in [0, codes)."""
        ...

    @property
    def mask_id(self) -> int:
        """Id of a masked token."""
        ...

    @property
    def null_label(self) -> int | None:
        """Value that fills the condition of an example without one; None for a model that has none."""
        ...

    def check_condition(self, condition: Any) -> Array:
        """The condition as an array of integers; `ValueError` where it is none of the model's."""
        ...

    def __call__(
        self, ids: Array, condition: Array, *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> Array:
        """Logits (tokens, codes) of one example; a call without `inference=True` may need the key."""
        ...


@runtime_checkable
class ConditionalTokenModel(Protocol):
    """A model of all tokens of an image, with a condition: a label or a text."""

    @property
    def tokens(self) -> int:
        """Tokens of one image."""
        ...

    @property
    def codes(self) -> int:
        """Number of codes; ids are in [0, codes)."""
        ...

    @property
    def null_label(self) -> int | None:
        """Value that fills the condition of an example without one; None for a model that has none."""
        ...

    def check_condition(self, condition: Any) -> Array:
        """The condition as an array of integers; `ValueError` where it is none of the model's."""
        ...

    def __call__(
        self, ids: Array, condition: Array, *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> Array:
        """Logits (tokens, codes) of one example; a call without `inference=True` may need the key."""
        ...


@runtime_checkable
class ImageTokenModel(ConditionalTokenModel, Protocol):
    """A model of image tokens one by one, with a condition: a label, `eqxgen.models.ImageAR`, or a text,
    `eqxgen.models.Parti`.
    """

    def start(self, condition: Array) -> tuple[Array, Any]:
        """Logits (codes) of the first token, and the memory of the condition."""
        ...

    def extend(self, token: Array, cache: Any) -> tuple[Array, Any]:
        """Logits of the next token, and the memory with the token added."""
        ...


@runtime_checkable
class ScaleTokenModel(ConditionalTokenModel, Protocol):
    """A model of image tokens scale by scale, with a condition: `eqxgen.models.VAR`."""

    @property
    def scales(self) -> tuple[int, ...]:
        """Sides of the token maps."""
        ...

    def start(self, condition: Array) -> tuple[Array, Any]:
        """Logits (tokens of the scale, codes) of the first scale, and the memory of the condition."""
        ...

    def extend(self, ids: Array, memory: Any) -> tuple[Array, Any]:
        """Logits of the next scale, and the memory with the ids of the one before."""
        ...


@runtime_checkable
class Denoiser(Protocol):
    """A model of clean examples: those of `eqxgen.diffusion.precondition`, a guided one, or any other with these.

    A denoiser with learned variances has `variance(x, t, condition, *, key, inference) -> (x_0, fraction)` too.
    """

    @property
    def schedule(self) -> Any:
        """The `eqxgen.diffusion.schedules.Schedule` of its times."""
        ...

    def __call__(
        self,
        x: Array,
        t: Array,
        condition: Any = None,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Array:
        """The expected x_0, of the shape of x, of one example x_t."""
        ...


@runtime_checkable
class LatentModel(Protocol):
    """A model of examples with latents that have a standard normal prior: `eqxgen.models.VAE`."""

    def encode(self, image: Array) -> Any:
        """Approximate posterior of an example's latents, an `eqxgen.nn.distributions.DiagonalGaussian`."""
        ...

    def log_likelihood(self, image: Array, latents: Array) -> Array:
        """log p(example | latents) in nats."""
        ...
