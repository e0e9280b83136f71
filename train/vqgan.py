"""Train a VQGAN tokenizer (arXiv:2012.09841, in the form of MaskGIT, arXiv:2202.04200) on images.

  python -m train.vqgan                                      # digits
  python -m train.vqgan --preset mnist --data.root DATA      # from a folder that has mnist/
  python -m train.vqgan --preset imagenet256 --dry-run       # the MaskGIT paper's: 256 pixels, 16x16 tokens, 1,024 codes

Loss: squared error + quantisation + entropy, and with --adversarial above 0 the non-saturating loss of a discriminator
with an R1 penalty, both players in one update. Writes runs/vqgan-PRESET; `train.maskgit --tokenizer runs/vqgan-PRESET`
takes it from there. In summary.json, sample_accuracy and sample_frechet are of reconstructions.

Where we differ: no perceptual loss (the paper weighs an ImageNet classifier's features with 0.1).
"""

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqxgen.configs import VQGANConfig

from ._errors import require
from .config.base import TrainConfig, from_dict, parse
from .config.data import AugmentConfig, DataConfig
from .config.evals import CLASSIFIER, RECONSTRUCTION
from .config.optim import OptimConfig
from .config.options import option
from .engine.command import run
from .tasks.facts import facts_of
from .tasks.sampling import ImageSample

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from .engine.loop import Task
    from .engine.recipe import Program


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TrainConfig):
    """Every flag starts from the preset's value."""

    data: DataConfig = option(factory=DataConfig)
    """The images."""
    quantisation: float = 1.0
    """Weight of the codebook and commitment terms."""
    entropy: float = 0.1
    """Weight of the entropy loss: each latent sure of its code, all codes alike."""
    adversarial: float = option(0.0, first=True)
    """Weight of the discriminator's judgement; 0 trains without one."""
    r1: float = 10.0
    """Weight γ of the penalty γ/2 |gradient|² of the discriminator on real images."""
    restart_every: int = 50
    """Steps between restarts of codes that no latent of a batch chooses; 0: none. They end with four fifths of the
    run.
    """
    model: VQGANConfig = option(factory=VQGANConfig, first=("width", "multipliers", "codes"))
    """The tokenizer."""
    eval_samples: int = option(1000, free=True)
    """Held-out images whose reconstructions the evaluator `classifier` judges, at most as many as there are."""

    EVALS = (RECONSTRUCTION, CLASSIFIER)

    def __post_init__(self):
        super().__post_init__()
        require(self.eval_samples >= 2, f"eval_samples must be at least 2: got {self.eval_samples}")
        for name in ("quantisation", "entropy", "adversarial", "r1", "restart_every"):
            require(
                0 <= getattr(self, name) < float("inf"),
                f"{name} must be at least 0 and finite: got {getattr(self, name)}",
            )


def _preset(name: str, steps: int, model: VQGANConfig, flip: bool = False, **changes: Any) -> Config:
    values: dict[str, Any] = {
        "batch_size": 64,
        "entropy": 0.01,
        "data": DataConfig(name=name, augment=AugmentConfig(flip=flip)),
        "optim": OptimConfig(learning_rate=3e-3, warmup=50, beta2=0.99, weight_decay=0.0),
    }
    return Config(preset=name, steps=steps, model=model, **values | changes)


PRESETS = {
    "digits": _preset("digits", 500, VQGANConfig(width=32, multipliers=(1, 2), blocks=1, latent_dim=8, codes=64)),
    "mnist": _preset("mnist", 400, VQGANConfig(width=16, multipliers=(1, 2, 4), blocks=1, latent_dim=16, codes=128)),
    "fashion_mnist": _preset(
        "fashion_mnist", 800, VQGANConfig(width=16, multipliers=(1, 2, 4), blocks=1, latent_dim=16, codes=256)
    ),
    "cifar10": _preset(
        "cifar10", 30_000, VQGANConfig(width=64, multipliers=(1, 2, 2), latent_dim=64, codes=1024), flip=True
    ),
    "eurosat64": _preset(
        "eurosat64", 20_000, VQGANConfig(width=64, multipliers=(1, 2, 2), latent_dim=64, codes=1024), flip=True
    ),
    # Adam 1e-4 (0, 0.99), R1 10, batch 256, 1 M steps, average 0.999: the original code's.
    "imagenet256": Config(
        preset="imagenet256",
        steps=1_000_000,
        batch_size=256,
        precision="bfloat16",
        log_every=100,
        sample_every=10_000,
        checkpoint_every=5000,
        adversarial=0.1,
        data=DataConfig(name="./imagenet/train", image_size=256, augment=AugmentConfig(flip=True)),
        optim=OptimConfig(
            learning_rate=1e-4, warmup=0, decay="constant", beta1=0.0, beta2=0.99, weight_decay=0.0, clip=float("inf")
        ),
        model=VQGANConfig.maskgit(),
    ),
}


ABOUT = {
    "digits": "0.37 M parameters; 500 steps of 64",
    "mnist": "0.39 M parameters; 6 minutes on 2 CPU cores; psnr 23.8, codebook_usage 1.0",
    "fashion_mnist": "0.40 M parameters; 800 steps of 64",
    "cifar10": "4.3 M parameters; 30,000 steps of 64, for a GPU",
    "eurosat64": "4.3 M parameters; 20,000 steps of 64, for a GPU",
    "imagenet256": "54 M parameters; 1 M steps of 256, for a TPU slice",
}
"""Size, time and the number to expect of each preset, where it was measured; without the discriminator."""


def build(record: dict[str, Any]) -> Any:
    """The tokenizer of a run's config.json, with weights of no meaning yet."""
    import jax.random as jr

    from eqxgen.models.vqgan import VQGAN

    sizes = record["config"]["model"]
    height, width, channels = record["facts"]["image_shape"]
    config = VQGANConfig(**sizes | {"multipliers": tuple(sizes["multipliers"])})
    return VQGAN(height, width, channels, config, key=jr.key(0))


def program(config: Config, image_shape: tuple[int, int, int]) -> "Program":
    """The tokenizer with its discriminator, and their loss."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import jax.random as jr

    from eqxgen.models.discriminator import Discriminator
    from eqxgen.models.vqgan import VQGAN
    from eqxgen.nn.quantize import count_codes, entropy_of, perplexity, usage

    from .engine.recipe import Context, Program, Sums

    height, width, channels = image_shape

    def init(key: jax.Array) -> dict[str, Any]:
        tokenizer_key, discriminator_key = jr.split(key)
        model: dict[str, Any] = {"tokenizer": VQGAN(height, width, channels, config.model, key=tokenizer_key)}
        if config.adversarial:
            model["discriminator"] = Discriminator(height, channels, key=discriminator_key)
        return model

    def loss(model: dict[str, Any], batch: dict[str, jax.Array], keys: jax.Array, context: Context) -> Sums:
        images, weight = batch["image"], batch["weight"]
        fakes, quantized = jax.vmap(model["tokenizer"])(images)
        mse = jnp.mean((fakes.astype(jnp.float32) - images) ** 2, axis=(1, 2, 3))
        distance, entropy = jnp.mean(quantized.distance, axis=(1, 2)), jnp.mean(quantized.entropy, axis=(1, 2))
        count = jnp.sum(weight)
        # The entropy of a mean is no mean of entropies: the mean is taken over all devices first.
        spread = entropy_of(context.sum(weight @ quantized.assignment) / context.sum(count))
        counts = context.sum(weight @ jax.vmap(functools.partial(count_codes, codes=config.model.codes))(quantized.ids))
        losses = mse + config.quantisation * distance + config.entropy * (entropy - spread)
        metrics = {
            "mse": weight @ mse,
            "distance": weight @ distance,
            "usage": count * usage(counts),
            "perplexity": count * perplexity(counts),
        }
        if config.adversarial:
            generator, critic, gap = adversarial(model["discriminator"], images, fakes)
            losses = losses + config.adversarial * generator + critic
            metrics |= {"generator": weight @ generator, "discriminator": weight @ critic, "realness_gap": weight @ gap}
        return Sums(weight @ losses, count, metrics)

    def still(tree: Any) -> Any:
        return jax.tree.map(lambda x: jax.lax.stop_gradient(x) if eqx.is_array(x) else x, tree)

    def adversarial(
        discriminator: Discriminator, reals: jax.Array, fakes: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        # Each player's loss holds the other still, so that one gradient of their sum is the update of both.
        generator = jax.nn.softplus(-jax.vmap(still(discriminator))(fakes))
        on_real, slopes = jax.vmap(jax.value_and_grad(discriminator))(reals)
        on_fake = jax.vmap(discriminator)(still(fakes))
        penalty = config.r1 / 2 * jnp.sum(slopes.astype(jnp.float32) ** 2, axis=(1, 2, 3))
        return generator, jax.nn.softplus(-on_real) + jax.nn.softplus(on_fake) + penalty, on_real - on_fake

    return Program.of(init, loss, {"image": (image_shape, "float32")}, changes=changes(config))


def changes(config: Config) -> dict[str, Any]:
    """The codebook placed on data before the first step, and its dead codes restarted every so often."""
    import equinox as eqx
    import jax

    from eqxgen.nn.quantize import data_start, restart_dead_codes

    from .engine.recipe import Change, Context

    def placed(place: Any) -> Any:
        def change(model: dict[str, Any], batch: dict[str, jax.Array], key: jax.Array, context: Context) -> Any:
            latents = jax.vmap(model["tokenizer"].encoder)(batch["image"])
            quantizer = place(model["tokenizer"].quantizer, latents.reshape(-1, latents.shape[-1]), key=key)
            return eqx.tree_at(lambda m: m["tokenizer"].quantizer, model, quantizer), context.state

        return change

    every = config.restart_every
    restarts = lambda step: bool(every) and 0 < step < 0.8 * config.steps and step % every == 0
    return {
        "start": Change(placed(data_start), lambda step: step == 0),
        "restart": Change(placed(restart_dead_codes), restarts),
    }


def task(config: Config) -> "Task":
    """The program with its data, reconstructions and evaluation."""
    import numpy as np

    from .data import Part, image_grid, load, save_png
    from .data.images.augment import Augment
    from .engine.loop import Task
    from .evaluators.classifier import classifier
    from .evaluators.examples import held_out_images
    from .evaluators.reconstruction import compared, reconstructed, reconstruction
    from .evaluators.stream import Stream
    from .parallel.processes import is_first
    from .tasks.image_tokens import check_factor

    dataset = load(config.data).enough_for(config.batch_size)
    check_factor(config.model.factor, dataset.image_shape)
    augment = Augment.of(config.data.augment, config.seed, dataset)

    def batch(part: Part) -> dict[str, np.ndarray]:
        return {"image": dataset.normalise(augment(dataset.train_images[part.example], part))}

    images = held_out_images(dataset)

    def show(tokenizer: Any, frozen: Any, stream: Stream, path: Path) -> None:
        originals, fakes = stream.gather(compared, tokenizer, images.first(40))
        if is_first():
            rows = dataset.denormalise(rows_in_turn(originals, fakes, 10))
            save_png(path.with_suffix(".png"), image_grid(rows, 10))

    evaluators = (
        reconstruction(config.model.codes, images),
        classifier(dataset, reconstructed, images.first(config.eval_samples)),
    )
    facts = {"image_shape": dataset.image_shape, "classes": dataset.num_classes}
    released = lambda model, state: model["tokenizer"]
    core = program(config, dataset.image_shape)
    return Task(
        "vqgan",
        facts,
        core,
        dataset.train_images,
        batch,
        show,
        evaluators,
        released=released,
        fingerprint=dataset.fingerprint,
    )


SAMPLE = ImageSample


def sample(folder: Path, record: dict[str, Any], options: ImageSample) -> int:
    """Draws held-out images and their reconstructions, a row of each in turn, for `train.sample`."""
    from .data import load
    from .evaluators.examples import held_out_images
    from .evaluators.reconstruction import compared
    from .evaluators.stream import Stream
    from .parallel import make_mesh
    from .tasks.image_tokens import load_vqgan

    options.check_label(record["facts"]["classes"])
    mesh = make_mesh(options.mesh)
    tokenizer, _ = load_vqgan(folder, mesh)
    dataset = load(from_dict(Config, record["config"], folder / "config.json").data)
    of_label = None if options.label is None else dataset.test_labels == options.label
    count = max(options.columns, options.n // 2 // options.columns * options.columns)
    examples = held_out_images(dataset, of_label).first(count)
    originals, fakes = Stream(mesh).gather(compared, tokenizer, examples)
    return options.save(rows_in_turn(originals, fakes, options.columns))


def rows_in_turn(originals: Any, fakes: Any, columns: int) -> Any:
    """A row of the first, the same of the second below it, and so on; what does not fill a row is left out."""
    import numpy as np

    whole = len(originals) // columns * columns
    pairs = np.stack([x[:whole].reshape(-1, columns, *x.shape[1:]) for x in (originals, fakes)], axis=1)
    return pairs.reshape(-1, *originals.shape[1:])


def main(config: Config) -> int:
    if not config.on_paper:
        from .engine.loop import fit

        return fit(config, "vqgan", lambda: task(config))
    from .engine.dryrun import dry_run

    return dry_run(config, program(config, facts_of(config.data).image_shape))


if __name__ == "__main__":
    run(lambda: main(parse("vqgan", Config, PRESETS, __doc__ or "", about=ABOUT)))
