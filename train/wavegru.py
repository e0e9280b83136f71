"""Train a WaveGRU or WaveRNN: sound from a mel spectrogram (Kalchbrenner et al. 2018, arXiv:1802.08435).

  python -m train.wavegru --data.root DATA              # fsdd: spoken digits of 8 kHz, from a folder that has fsdd/
  python -m train.wavegru --model.head dual             # coarse and fine byte of 16 bits; logistics: a mixture
  python -m train.wavegru --model.no-conditional --run-dir runs/alone      # without the spectrogram, to compare with
  python -m train.wavegru --preset ljspeech --data.name ./LJSpeech-1.1
  python -m train.sample --run runs/wavegru-fsdd --wavs recordings/ --out sounds/

Net: convolutions on the frames, a GRU on the samples. Loss: -log p of each sample given those before it. Held-out
speakers are in no training cut. Writes runs/wavegru-PRESET with samples/ (each recording and its resynthesis as .wav,
their spectrograms as .png); summary.json has eval_bits, bits of a held-out sample, and mel_distance, the mean
difference in dB between the spectrograms of recordings and of their resynthesis.
"""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from eqxgen.configs import MelConfig, WaveGRUConfig

from ._errors import require
from .config.optim import EmaConfig, OptimConfig
from .config.options import option
from .config.sounds import SoundConfig
from .tasks.audio.recipe import SoundTrainConfig, sound_recipe
from .tasks.facts import AudioFacts

if TYPE_CHECKING:  # jax is imported where it is used, so that --help does not wait for it
    from .engine.recipe import Change, Program


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(SoundTrainConfig):
    """Every flag starts from the preset's value."""

    model: WaveGRUConfig = option(factory=WaveGRUConfig, first=("head", "dim", "width", "conditional"))
    """The net."""

    def __post_init__(self):
        super().__post_init__()
        factor = math.prod(self.model.upsample)
        require(
            self.mel.hop % factor == 0,
            f"model.upsample must have a product that divides mel.hop: got {factor} and mel.hop={self.mel.hop}",
        )
        require(
            self.sparse.sparsity == 0 or 3 * self.model.dim % self.sparse.block == 0,
            f"sparse.block must divide the rows of the recurrent layer, 3 * model.dim: got {self.sparse.block} and "
            f"{3 * self.model.dim}",
        )


PRESETS = {
    "fsdd": Config(
        steps=5000,
        batch_size=16,
        frames=6,
        log_every=100,
        sample_every=2500,
        checkpoint_every=1000,
        model=WaveGRUConfig(96, 48, 96),
        optim=OptimConfig(learning_rate=3e-3, warmup=100, beta2=0.99, weight_decay=0.01, final=0.02),
        ema=EmaConfig(decay=0.99),
    ),
    # Pax's sizes, at LJSpeech's own rate.
    "ljspeech": Config(
        data=SoundConfig(name="./LJSpeech-1.1", peak=0.0),
        mel=MelConfig(rate=22_050, n_fft=1024, hop=256, mels=80),
        steps=200_000,
        batch_size=128,
        frames=16,
        eval_frames=64,
        precision="bfloat16",
        model=WaveGRUConfig.pax(),
        optim=OptimConfig(learning_rate=5e-4, warmup=1000, beta2=0.99, weight_decay=0.0),
        log_every=100,
        sample_every=10_000,
        checkpoint_every=5000,
    ),
}
PRESETS = {name: dataclasses.replace(preset, preset=name) for name, preset in PRESETS.items()}

ABOUT = {
    "fsdd": "0.13 M parameters; 16 minutes of CPU time; eval_bits 5.15, mel_distance 5.5",
    "ljspeech": "7.4 M parameters; 200,000 steps of 128 cuts of 4,096 samples, for a GPU or TPU",
}
"""Size, time and the number to expect of each preset, where it was measured."""


def model(config: Config, facts: AudioFacts) -> Any:
    """Initialiser of the net."""
    from eqxgen.models import WaveGRU

    return lambda key: WaveGRU(facts.mels, facts.hop, config.model, key=key)


def program(config: Config, facts: AudioFacts) -> "Program":
    """The net and its loss; with --sparse.sparsity, masks of its weights are model state."""
    import jax
    import jax.numpy as jnp

    from .engine.recipe import Context, Program, Sums
    from .evaluators.sounds import Teacher
    from .tasks.audio.cuts import Cut
    from .tasks.audio.pruning import all_kept, pruned

    def loss(model: Any, batch: dict[str, jax.Array], keys: jax.Array, context: Context) -> Sums:
        net, weight = pruned(model, context.state), batch["weight"]
        cuts = {name: batch[name] for name in ("wave", "length")}
        nats, samples = jax.vmap(lambda cut: Teacher(config.mel)(net, cut))(cuts)
        total = weight @ nats
        return Sums(total, weight @ samples, {"bits": total / jnp.log(2.0)}, context.state)

    cut = Cut.of(config.frames, config.model.context, config.mel)
    sparse = config.sparse.sparsity > 0
    return Program.of(
        model(config, facts),
        loss,
        {"wave": ((cut.padded,), "int16"), "length": ((), "int32")},
        init_state=all_kept if sparse else lambda model: None,
        changes={"pruning": _pruning(config)} if sparse else {},
    )


def _pruning(config: Config) -> "Change":
    """New masks from the magnitudes of the weights."""
    from .engine.recipe import Change
    from .tasks.audio.pruning import masks_of

    def change(model: Any, batch: dict[str, Any], key: Any, context: Any) -> tuple[Any, Any]:
        return model, masks_of(model, context.step, config.sparse)

    return Change(change, config.sparse.due)


RECIPE = sound_recipe("wavegru", "Vocoder", Config, PRESETS, model, program)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
