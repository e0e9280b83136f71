"""Train a class-conditional MaskGIT (arXiv:2202.04200) on image tokens.

  python -m train.maskgit                                    # digits, 8x8 pixels as tokens
  python -m train.vqgan --preset mnist                       # a tokenizer, and
  python -m train.maskgit --preset mnist                     # a model of its tokens
  python -m train.maskgit --preset imagenet256 --dry-run     # the paper's: 24 layers, 768 wide, batch 256, 2 M steps

Writes runs/maskgit-PRESET: config.json, metrics.jsonl, samples/, checkpoints/, TensorBoard events, model.safetensors,
and summary.json with the accuracy of a classifier on samples. The same command again resumes.
"""

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqxgen.configs import MaskGITConfig, VQGANConfig, parse_schedule

from ._errors import require
from .config.base import TrainConfig, from_dict, parse
from .config.data import AugmentConfig, DataConfig
from .config.evals import CLASSIFIER, HELD_OUT
from .config.optim import OptimConfig
from .config.options import option
from .engine.command import run
from .tasks.facts import facts_of
from .tasks.sampling import ImageSample

if TYPE_CHECKING:  # jax and NumPy are imported where they are used, so that --help does not wait for them
    from .engine.loop import Task
    from .engine.recipe import Program


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """How samples are drawn."""

    steps: int = 8
    """Parallel guesses per image, at most as many as tokens."""
    guidance: float = 1.0
    """Classifier-free guidance; 1 is none."""
    choice_temperature: float = 4.5
    """Randomness of the order in which tokens are accepted."""
    temperature: float = 1.0
    """Temperature of each token's draw."""
    schedule: str = "cosine"
    """Mask schedule: cosine, linear, power (power3: another exponent), log, exp, sqrt, arccos. Training masks by it
    too.
    """

    def __post_init__(self):
        require(self.steps >= 1, f"decode.steps must be at least 1: got {self.steps}")
        for name in ("guidance", "choice_temperature", "temperature"):
            require(
                0 <= getattr(self, name) < float("inf"),
                f"decode.{name} must be at least 0 and finite: got {getattr(self, name)}",
            )
        parse_schedule(self.schedule)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TrainConfig):
    """Every flag starts from the preset's value."""

    data: DataConfig = option(factory=DataConfig)
    """The images."""
    tokenizer: str = option("pixels", first=True)
    """pixels, or the folder of a finished train.vqgan run."""
    label_smoothing: float = 0.1
    """Weight of the uniform distribution in the targets."""
    label_dropout: float = 0.1
    """How often training hides the label, for guidance."""
    model: MaskGITConfig = option(factory=MaskGITConfig, first=("dim", "depth", "heads"))
    """The transformer."""
    eval_samples: int = option(1000, free=True)
    """Samples that the evaluator `classifier` judges."""
    decode: DecodeConfig = option(factory=DecodeConfig, first=("steps", "guidance"))
    """Sampling."""

    EVALS = (HELD_OUT, CLASSIFIER)

    def __post_init__(self):
        super().__post_init__()
        require(self.eval_samples >= 2, f"eval_samples must be at least 2: got {self.eval_samples}")
        for name in ("label_smoothing", "label_dropout"):
            require(0 <= getattr(self, name) < 1, f"{name} must be in [0, 1): got {getattr(self, name)}")
        cure = "train.maskgit makes the tokens of every image once, so of --data.augment it takes flip alone"
        require(
            not self.data.augment.beyond_flip,
            f"data.augment must change nothing but the side: got {self.data.augment}; {cure}",
        )


def _preset(name: str, dim: int, depth: int, decode: DecodeConfig, flip: bool = False, **changes: Any) -> Config:
    values: dict[str, Any] = {
        "tokenizer": f"runs/vqgan-{name}",
        "batch_size": 64,
        "data": DataConfig(name=name, augment=AugmentConfig(flip=flip)),
        "optim": OptimConfig(learning_rate=3e-3, warmup=50),
        "model": MaskGITConfig(dim=dim, depth=depth, heads=dim // 32, hidden_dim=4 * dim, dropout=0.0, placement="pre"),
    }
    return Config(preset=name, decode=decode, **values | changes)


PRESETS = {
    "digits": _preset(
        "digits", 96, 4, DecodeConfig(guidance=2.0, choice_temperature=2.0), steps=320, tokenizer="pixels"
    ),
    "mnist": _preset("mnist", 128, 4, DecodeConfig(guidance=2.0, choice_temperature=2.0), steps=800),
    "fashion_mnist": _preset("fashion_mnist", 128, 4, DecodeConfig(guidance=2.0, choice_temperature=2.0), steps=2000),
    "cifar10": _preset("cifar10", 384, 8, DecodeConfig(steps=12, guidance=2.0), steps=50_000, flip=True),
    "eurosat64": _preset("eurosat64", 384, 8, DecodeConfig(steps=12, guidance=2.0), steps=20_000, flip=True),
    # The paper's model and the original code's optimisation: AdamW 1e-4 (0.9, 0.96), decay 0.045, warm-up 5,000,
    # average 0.999.
    "imagenet256": Config(
        preset="imagenet256",
        steps=2_000_000,
        batch_size=256,
        precision="bfloat16",
        log_every=100,
        sample_every=10_000,
        checkpoint_every=5000,
        tokenizer="runs/vqgan-imagenet256",
        data=DataConfig(name="./imagenet/train", image_size=256, augment=AugmentConfig(flip=True)),
        optim=OptimConfig(learning_rate=1e-4, warmup=5000, decay="constant"),
        model=dataclasses.replace(
            MaskGITConfig.base(), remat=True
        ),  # 32 images a device fit the 16 GB of a TPU v5e only so
        decode=DecodeConfig(steps=12),
    ),
}


ABOUT = {
    "digits": "0.47 M parameters; 2 minutes on 2 CPU cores; sample_accuracy 0.958",
    "mnist": "0.83 M parameters; 6 minutes on 2 CPU cores after train.vqgan --preset mnist; sample_accuracy 0.997",
    "fashion_mnist": "0.85 M parameters; 2,000 steps after train.vqgan --preset fashion_mnist",
    "cifar10": "15 M parameters; 50,000 steps, for a GPU, after train.vqgan --preset cifar10",
    "eurosat64": "15 M parameters; 20,000 steps, for a GPU, after train.vqgan --preset eurosat64",
    "imagenet256": "172 M parameters; 2 M steps of 256, for a TPU slice; the paper's FID is 6.18",
}
"""Size, time and the number to expect of each preset, where it was measured."""


def build(record: dict[str, Any]) -> Any:
    """The model of a run's config.json, with weights of no meaning yet."""
    import jax.random as jr

    from eqxgen.models.maskgit import MaskGIT

    facts = record["facts"]
    return MaskGIT(
        facts["tokens"], facts["codes"], facts["classes"], MaskGITConfig(**record["config"]["model"]), key=jr.key(0)
    )


def program(config: Config, tokens: int, codes: int, classes: int) -> "Program":
    """The model and its loss."""
    import jax

    from eqxgen.models.maskgit import MaskGIT, masked_loss

    from .engine.recipe import Context, Program, Sums

    def loss(model: MaskGIT, batch: dict[str, jax.Array], keys: jax.Array, context: Context) -> Sums:
        def one(ids, label, key):
            smoothing, dropout = config.label_smoothing, config.label_dropout
            return masked_loss(
                model,
                ids,
                label,
                schedule=config.decode.schedule,
                label_smoothing=smoothing,
                label_dropout=dropout,
                key=key,
            )

        total, correct, masked = jax.vmap(one)(batch["ids"], batch["label"], keys)
        weight = batch["weight"]
        return Sums(weight @ total, weight @ masked, {"accuracy": weight @ correct})

    shapes = {"ids": ((tokens,), "int32"), "label": ((), "int32")}
    return Program.of(lambda key: MaskGIT(tokens, codes, classes, config.model, key=key), loss, shapes)


def task(config: Config) -> "Task":
    """The program with its data, samples and evaluation."""
    import jax.random as jr
    import numpy as np

    from .data import Part, image_grid, load, save_png, uniforms
    from .engine.loop import Task
    from .evaluators.classifier import classifier
    from .evaluators.examples import Examples
    from .evaluators.held_out import held_out
    from .evaluators.stream import Stream
    from .parallel.processes import is_first
    from .run.folder import path_of
    from .tasks.draw import Draw, check_steps, labelled
    from .tasks.image_tokens import keep_tokenizer, open_tokenizer, tokenize

    dataset = load(config.data).enough_for(config.batch_size)
    tokenizer = open_tokenizer(config.tokenizer, dataset, path_of(config, "maskgit"))
    check_steps(config.decode.steps, tokenizer.tokens, "--decode.steps")
    core = program(config, tokenizer.tokens, tokenizer.codes, dataset.num_classes)
    sides = (False, True) if config.data.augment.flip else (False,)
    ids = np.stack([tokenize(tokenizer, dataset.train_images, dataset, mirrored=side) for side in sides])
    tested = Examples.of(ids=tokenize(tokenizer, dataset.test_images, dataset), label=dataset.test_labels)
    draw = Draw(config.decode)

    def batch(part: Part) -> dict[str, np.ndarray]:
        side = (uniforms(config.seed, part.step, part.index, 1)[:, 0] * len(ids)).astype(np.int32)
        return {"ids": ids[side, part.example], "label": dataset.train_labels[part.example]}

    def show(model: Any, frozen: Any, stream: Stream, path: Path) -> None:
        labels = np.repeat(np.arange(dataset.num_classes)[:10], 8)
        samples = stream.gather(draw, (model, tokenizer, jr.key(config.seed)), labelled(labels))
        if is_first():
            save_png(path.with_suffix(".png"), image_grid(dataset.denormalise(samples), 8))

    judged = labelled(np.arange(config.eval_samples) % dataset.num_classes)
    evaluators = (
        held_out(core.loss, tested),
        classifier(dataset, draw, judged, lambda model, frozen: (model, tokenizer, jr.key(config.seed + 1))),
    )

    facts = {
        "image_shape": dataset.image_shape,
        "tokens": tokenizer.tokens,
        "codes": tokenizer.codes,
        "classes": dataset.num_classes,
    }
    prepare = functools.partial(keep_tokenizer, config.tokenizer)
    return Task(
        "maskgit", facts, core, dataset.train_labels, batch, show, evaluators, prepare, fingerprint=dataset.fingerprint
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SAMPLE(ImageSample):
    """What `train.sample` takes of such runs; what is left out is as the run's `DecodeConfig` says."""

    steps: int | None = None
    """Parallel guesses per image, at most as many as tokens."""
    guidance: float | None = None
    """Classifier-free guidance; 1 is none."""
    choice_temperature: float | None = None
    """Randomness of the order in which tokens are accepted."""
    temperature: float | None = None
    """Temperature of each token's draw."""
    schedule: str | None = None
    """Mask schedule."""

    def __post_init__(self):
        super().__post_init__()
        require(self.steps is None or self.steps >= 1, f"steps must be at least 1: got {self.steps}")


def sample(folder: Path, record: dict[str, Any], options: SAMPLE) -> int:
    """Draws images of a run, for `train.sample`."""
    import jax.random as jr
    import numpy as np

    from .evaluators.stream import Stream
    from .parallel import make_mesh
    from .run.weights import load_model
    from .tasks.draw import Draw, check_steps, labelled
    from .tasks.image_tokens import tokenizer_of_run

    facts = record["facts"]
    options.check_label(facts["classes"])
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(DecodeConfig)}
    config = from_dict(Config, record["config"], folder / "config.json")
    decode = dataclasses.replace(config.decode, **{name: value for name, value in given.items() if value is not None})
    check_steps(decode.steps, facts["tokens"], "--steps")
    mesh = make_mesh(options.mesh)
    model, _ = load_model(folder / "model.safetensors", build, mesh)
    labels = np.arange(options.n) % facts["classes"] if options.label is None else np.full(options.n, options.label)
    tree = model, tokenizer_of_run(folder, record), jr.key(options.seed)
    return options.save(Stream(mesh).gather(Draw(decode), tree, labelled(labels)))


def main(config: Config) -> int:
    if not config.on_paper:
        from .engine.loop import fit

        return fit(config, "maskgit", lambda: task(config))
    from .engine.dryrun import dry_run
    from .vqgan import PRESETS as TOKENIZERS

    facts = facts_of(config.data)
    (height, width, channels), sizes = (
        facts.image_shape,
        TOKENIZERS[config.preset].model if config.preset in TOKENIZERS else VQGANConfig(),
    )
    if config.tokenizer == "pixels":
        tokens, codes = height * width * channels, facts.levels
    else:
        tokens, codes = (height // sizes.factor) * (width // sizes.factor), sizes.codes
    return dry_run(config, program(config, tokens, codes, facts.classes))


if __name__ == "__main__":
    run(lambda: main(parse("maskgit", Config, PRESETS, __doc__ or "", about=ABOUT)))
