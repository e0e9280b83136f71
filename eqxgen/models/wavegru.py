"""WaveGRU and WaveRNN: samples of sound one by one, given a log-mel spectrogram (Kalchbrenner et al. 2018,
arXiv:1802.08435), by `eqxgen.configs.WaveGRUConfig`.

Convolutions on frames, transposed convolutions and repetition bring the spectrogram to the rate of the samples. A
recurrent layer gets the sum of that and of the embedded sample before. The convolutions do not pad: they take `context`
frames more on either side, so that frame t is that of the samples [t * hop, (t + 1) * hop).

Where we differ from WaveRNN: samples are embedded by tables in place of scalars, which are smooth at initialisation;
the bias of the recurrent weights is PyTorch's; each byte has a hidden layer of the same width.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.audio import QUIET, from_levels, to_levels
from eqxgen.configs import WaveGRUConfig
from eqxgen.losses.tokens import cross_entropy
from eqxgen.losses.waves import dual_cross_entropy, logistics_loss, split_logistics
from eqxgen.nn import GRU, Convolution1D, ConvolutionTranspose1D, Embedding, Projection, _check
from eqxgen.rng import RNG

CENTRE, SPREAD = -5.0, 3.0
"""Subtracted from a log-mel spectrogram, and divided by then: about the mean and the deviation of speech."""


def _smooth(key: PRNGKeyArray, shape: Any, dtype: Any = None, out_sharding: Any = None) -> Float[Array, "rows dim"]:
    """A table whose neighbouring rows are alike, as levels are: cosines of drawn frequencies and phases."""
    rows, dim = shape
    frequency_key, phase_key = jr.split(key)
    frequency, phase = 3.0 * jr.normal(frequency_key, (1, dim)), jr.uniform(phase_key, (1, dim), maxval=2 * math.pi)
    return math.sqrt(2) * jnp.cos(jnp.linspace(-1, 1, rows)[:, None] * frequency + phase)


class WaveState(NamedTuple):
    """Of the samples drawn so far.

    Attributes:
        output: state of the recurrent layer, in float32.
        past: the last sample, as a level.
    """

    output: Float[Array, " dim"]
    past: Int[Array, ""]


class WaveHead(eqx.Module):
    """A hidden layer with a rectifier, and outputs in float32 at least."""

    hidden: Projection
    head: Projection

    def __init__(self, in_dim: int, hidden: int, out_dim: int, *, key: PRNGKeyArray):
        hidden_key, head_key = jr.split(key)
        self.hidden = Projection(in_dim, hidden, key=hidden_key)
        self.head = Projection(hidden, out_dim, key=head_key)

    def __call__(self, x: Float[Array, "*leading in_dim"]) -> Float[Array, "*leading out_dim"]:
        y = self.head(jax.nn.relu(self.hidden(x)))
        return y.astype(jnp.promote_types(y.dtype, jnp.float32))


class WaveGRU(eqx.Module):
    """Distribution of each sample given those before it and a spectrogram.

    Args:
        mels: bands of the spectrogram.
        hop: samples of a frame.
        config: the sizes.

    Raises:
        ValueError: the factors of `config.upsample` do not divide the hop.
    """

    convs: tuple[Convolution1D, ...]
    ups: tuple[ConvolutionTranspose1D, ...]
    embedding: Embedding | Projection
    embedding_fine: Embedding | None
    embedding_coarse: Embedding | None
    cell: GRU
    heads: tuple[WaveHead, ...]
    mels: int = eqx.field(static=True)
    hop: int = eqx.field(static=True)
    repeats: int = eqx.field(static=True)
    config: WaveGRUConfig = eqx.field(static=True)

    def __init__(self, mels: int, hop: int, config: WaveGRUConfig, *, key: PRNGKeyArray):
        _check.positive(mels=mels, hop=hop)
        factor = math.prod(config.upsample)
        if hop % factor:
            raise ValueError(
                f"model.upsample must have factors whose product divides the hop of {hop} samples: got "
                f"{' * '.join(map(str, config.upsample))} = {factor}"
            )
        keys, width = RNG(key), config.width
        self.mels, self.hop, self.repeats, self.config = mels, hop, hop // factor, config
        self.convs, self.ups = (), ()
        if config.conditional:
            first = Convolution1D(mels, width, kernel=1, key=next(keys))
            self.convs = (
                first,
                *(Convolution1D(width, width, dilation=d, padding=0, key=next(keys)) for d in config.dilations),
            )
            self.ups = tuple(
                ConvolutionTranspose1D(width, width, kernel=f, stride=f, padding=0, key=next(keys))
                for f in config.upsample
            )
        dual, in_dim = config.head == "dual", width
        self.embedding_fine = self.embedding_coarse = None
        if config.head == "logistics":
            self.embedding = Projection(1, width, key=next(keys))
        else:
            self.embedding = Embedding(256, width, init=_smooth, key=next(keys))
        if dual:
            self.embedding_fine = Embedding(256, width, init=_smooth, key=next(keys))
            self.embedding_coarse = Embedding(256, width, init=_smooth, key=next(keys))
            in_dim = 2 * width
        self.cell = GRU(in_dim, config.dim, key=next(keys))
        outputs = 3 * config.mixtures if config.head == "logistics" else 256
        sizes = (config.dim // 2,) * 2 if dual else (config.dim,)
        self.heads = tuple(WaveHead(size, config.hidden, outputs, key=next(keys)) for size in sizes)

    @property
    def context(self) -> int:
        """Frames that a spectrogram has more on either side."""
        return self.config.context

    @property
    def levels(self) -> int:
        """Number of values of a sample."""
        return 2**self.config.bits

    def encode(self, wave: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
        """Samples in [-1, 1] as levels: by mu-law of 8 bits, or 16 bits."""
        return to_levels(wave, self.config.bits, self._mu)

    def decode(self, levels: Int[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Levels as samples in [-1, 1]."""
        return from_levels(levels, self.config.bits, self._mu)

    @property
    def _mu(self) -> int:
        return 255 if self.config.head == "mu_law" else 0

    def conditioning(self, mel: Float[Array, "padded_frames mels"]) -> Float[Array, "samples width"]:
        """Features of each sample of a spectrogram's inner frames.

        Args:
            mel: natural logarithms (`eqxgen.audio.log_mel`), with `context` frames more at either end.

        Raises:
            ValueError: there are no inner frames, or the bands are others.
        """
        _check.example(mel, "frames", mels=self.mels, name="mel")
        frames = len(mel) - 2 * self.context
        if frames < 1:
            raise ValueError(
                f"mel must have more than twice context={self.context} frames: got {len(mel)}; pad it by log({QUIET})"
            )
        if not self.config.conditional:
            return jnp.zeros((frames * self.hop, self.config.width), mel.dtype)
        first, *others = self.convs
        x = first((mel - CENTRE) / SPREAD)
        for conv in others:
            x = x[conv.dilation : len(x) - conv.dilation] + jax.nn.gelu(conv(x))
        for up in self.ups:
            x = jax.nn.gelu(up(x))
        return jnp.repeat(x, self.repeats, axis=0)

    def __call__(
        self,
        mel: Float[Array, "padded_frames mels"],
        levels: Int[Array, " samples"],
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "samples outputs"]:
        """Outputs for each sample, of the samples before it and of the spectrogram: 256 logits, 512 of two bytes, or
        the parts of a mixture (`eqxgen.losses.waves`); float32 at least.

        Args:
            mel: as in `conditioning`.
            levels: the samples, as `encode` gives them; hop for each inner frame.
            key, inference: unread; nothing is drawn.

        Raises:
            ValueError: the numbers of samples and of frames do not fit.
        """
        _check.example(levels, "samples", name="levels")
        samples = (len(mel) - 2 * self.context) * self.hop
        if len(levels) != samples:
            raise ValueError(
                f"levels must have hop={self.hop} samples for each of the {samples // self.hop} inner frames of mel: "
                f"got {len(levels)}"
            )
        # By padding: a constant beside examples would not be split over a mesh as they are.
        past = jnp.pad(levels[:-1], (1, 0), constant_values=self.levels // 2)
        x = self._embedded(past) + self.conditioning(mel)
        if self.embedding_coarse is not None:
            x = jnp.concatenate([x, self.embedding_coarse(levels >> 8)], axis=-1)
        return self._outputs(self._masked(x)[0])

    def losses(
        self, mel: Float[Array, "padded_frames mels"], levels: Int[Array, " samples"]
    ) -> Float[Array, " samples"]:
        """-log p of each sample in nats; the arguments are those of a call."""
        outputs = self(mel, levels)
        if self.config.head == "mu_law":
            return cross_entropy(outputs, levels)
        return (dual_cross_entropy if self.config.head == "dual" else logistics_loss)(outputs, levels)

    def start(self) -> WaveState:
        """The state before any sample."""
        return WaveState(self.cell.init_state(), jnp.asarray(self.levels // 2, jnp.int32))

    def step(
        self,
        conditioning: Float[Array, " width"],
        state: WaveState,
        temperature: Float[Array, ""] | float = 1.0,
        *,
        key: PRNGKeyArray,
    ) -> WaveState:
        """The state after one more sample, which is its `past`. The recurrent state stays float32.

        Args:
            conditioning: features of the sample.
            state: the state before it.
            temperature: divides logits, and multiplies the scales of a mixture.
        """
        first_key, second_key = jr.split(key)
        x = self._embedded(state.past[None])[0] + conditioning
        if self.embedding_coarse is None:
            y, output = self._masked.step(x, state.output)
            return WaveState(output, self._drawn(self._outputs(y[None])[0], temperature, first_key))
        half = self.config.dim // 2
        given = lambda coarse: jnp.concatenate([x, self.embedding_coarse(coarse[None])[0]])  # pyright: ignore[reportOptionalCall]
        # The half of the coarse byte is the same in both steps; XLA computes what they share once.
        y, _ = self._masked.step(given(jnp.zeros_like(state.past)), state.output)
        coarse = jr.categorical(first_key, self.heads[0](y[:half]) / temperature).astype(jnp.int32)
        y, output = self._masked.step(given(coarse), state.output)
        fine = jr.categorical(second_key, self.heads[1](y[half:]) / temperature).astype(jnp.int32)
        return WaveState(output, coarse * 256 + fine)

    def _drawn(self, outputs: Array, temperature: Array | float, key: PRNGKeyArray) -> Array:
        if self.config.head == "mu_law":
            return jr.categorical(key, outputs / temperature).astype(jnp.int32)
        share_key, noise_key = jr.split(key)
        shares, means, log_scales = split_logistics(outputs)
        chosen = jr.categorical(share_key, shares / temperature)
        noise = jr.logistic(noise_key, (), means.dtype)
        return self.encode(means[chosen] + temperature * jnp.exp(log_scales[chosen]) * noise)

    def _embedded(self, levels: Int[Array, " samples"]) -> Float[Array, "samples width"]:
        if isinstance(self.embedding, Projection):
            return self.embedding(self.decode(levels)[:, None].astype(self.embedding.weight.dtype))
        if self.embedding_fine is None:
            return self.embedding(levels)
        return self.embedding(levels >> 8) + self.embedding_fine(levels & 255)

    @property
    def _masked(self) -> GRU:
        """The recurrent layer; of the dual head, without weights from the coarse byte to its own half."""
        if self.config.head != "dual":
            return self.cell
        mask = np.ones((3, self.config.dim, 2 * self.config.width), np.float32)
        mask[:, : self.config.dim // 2, self.config.width :] = 0
        weight = self.cell.from_input.weight
        mask = jnp.asarray(mask.reshape(weight.shape), weight.dtype)
        return eqx.tree_at(lambda cell: cell.from_input.weight, self.cell, weight * mask)

    def _outputs(self, y: Float[Array, "samples dim"]) -> Float[Array, "samples outputs"]:
        if len(self.heads) == 1:
            return self.heads[0](y)
        half = self.config.dim // 2
        return jnp.concatenate([self.heads[0](y[:, :half]), self.heads[1](y[:, half:])], axis=-1)
