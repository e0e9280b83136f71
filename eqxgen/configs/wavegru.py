"""Sizes of WaveGRU and WaveRNN (Kalchbrenner et al. 2018, arXiv:1802.08435), and of the spectrograms they are given."""

import dataclasses

from eqxgen.configs._check import at_least_one, one_of, require

HEADS = ("mu_law", "dual", "logistics")


@dataclasses.dataclass(frozen=True)
class MelConfig:
    """Log-mel spectrogram of a waveform."""

    rate: int = 8000
    """Samples a second."""
    n_fft: int = 512
    """Samples of a frame's Fourier transform."""
    hop: int = 100
    """Samples between frames."""
    mels: int = 40
    """Bands of the mel scale."""
    low: float = 0.0
    """Lower edge of the first band, in Hz."""
    high: float = 0.0
    """Upper edge of the last band, in Hz; 0: half the rate."""

    def __post_init__(self):
        at_least_one(self, "rate", "n_fft", "hop", "mels")
        require(
            self.hop <= self.n_fft and (self.n_fft - self.hop) % 2 == 0,
            "mel.n_fft must be at least mel.hop and an even number more, so that a frame is centred on its samples: "
            f"got mel.n_fft={self.n_fft}, mel.hop={self.hop}",
        )
        require(
            0 <= self.low < self.top <= self.rate / 2,
            f"mel.low and mel.high must rise from 0 to at most half of mel.rate: got mel.low={self.low:g}, "
            f"mel.high={self.top:g}, mel.rate={self.rate}",
        )

    @property
    def top(self) -> float:
        """Upper edge of the last band, in Hz."""
        return self.high or self.rate / 2

    @property
    def margin(self) -> int:
        """Samples of a frame's transform before, and after, the `hop` that it is the frame of."""
        return (self.n_fft - self.hop) // 2


@dataclasses.dataclass(frozen=True)
class WaveGRUConfig:
    """Sizes of `eqxgen.models.wavegru.WaveGRU`."""

    dim: int = 256
    """Width of the recurrent layer."""
    width: int = 128
    """Channels of the net on the spectrogram, and of the embedded samples."""
    hidden: int = 256
    """Width of the hidden layer between the recurrent layer and the outputs."""
    head: str = "mu_law"
    """mu_law: 256 classes; dual: coarse and fine byte of 16 bits, WaveRNN's; logistics: a mixture, of 16 bits."""
    mixtures: int = 10
    """Logistic distributions of the mixture."""
    dilations: tuple[int, ...] = (1, 2, 4)
    """Dilations of the convolutions of three frames; their sum is the context in frames on either side."""
    upsample: tuple[int, ...] = (5, 5)
    """Factors of the transposed convolutions; what is left of the hop is repeated."""
    conditional: bool = True
    """Without it the spectrogram is not read: a language model of samples, to compare with."""

    def __post_init__(self):
        at_least_one(self, "dim", "width", "hidden", "mixtures")
        one_of(self, "head", HEADS)
        for name in ("dilations", "upsample"):
            factors = getattr(self, name)
            require(
                len(factors) >= 1 and min(factors) >= 1,
                f"model.{name} must be one or more integers of at least 1: got {factors}",
            )
        require(
            self.head != "dual" or self.dim % 2 == 0,
            f"model.dim must be even with model.head=dual, as each byte has a half of it: got {self.dim}",
        )

    @property
    def bits(self) -> int:
        """Of a sample."""
        return 8 if self.head == "mu_law" else 16

    @property
    def context(self) -> int:
        """Frames on either side that a frame's samples depend on."""
        return sum(self.dilations)

    @classmethod
    def pax(cls) -> "WaveGRUConfig":
        """Pax's sizes: 512 units, 8 bits by mu-law, factors 4 and 4 of a hop of 256, 31 frames."""
        return cls(512, 512, 512, dilations=(1, 2, 4, 8), upsample=(4, 4))
