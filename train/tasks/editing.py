"""Edits that `train.sample` makes with a run of denoising: flags, pictures, and their files. Imports nothing heavy."""

import dataclasses
from collections.abc import Callable
from typing import Any

from .._errors import UsageError, UserError, require
from ..engine.recipes import Finished
from . import images
from .sampling import ImageSample, at_most

EDITS = ("inpaint", "edit", "upscale", "invert", "interpolate", "likelihood")
COUNT = 8
"""Images of an edit, by default."""
OF = {
    "mask": ("inpaint",),
    "jump": ("inpaint",),
    "repeats": ("inpaint",),
    "strength": ("edit",),
    "iterations": ("invert", "interpolate"),
    "probes": ("likelihood",),
}
"""Flags that go with an edit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenoisingSample(ImageSample):
    """Images of a denoiser, or edits by it: one of EDITS."""

    text: tuple[str, ...] = ()
    """With --matcher: what the images are of, several in turn; the network is given no class unless --label is."""
    matcher: str | None = None
    """With --text: folder of a run of train.clip, by whose score of each image and its text they are guided."""
    match: float | None = None
    """Scale of that guidance, of the gradient of the logit; 1 by default, 0 is none."""
    inpaint: str | None = None
    """Picture of the run's size, whose part under --mask is painted to fit the rest, by RePaint with the steps of
    ddim; --eta is 1 by default. Edits are of no class and without guidance unless --label is given, and make 8 images
    by default.
    """
    mask: str | None = None
    """Picture of the same size: white is painted, black is kept."""
    repeats: int | None = None
    """Passes of RePaint over each stretch of its steps; 10 by default."""
    jump: int | None = None
    """Steps of a stretch of RePaint; a tenth of --steps by default."""
    edit: str | None = None
    """Picture of the run's size that is changed: noised and denoised again, by SDEdit."""
    strength: float | None = None
    """Share of the noise levels that an edit goes through, in (0, 1]; 0.5 by default, 1 is the most change."""
    upscale: str | None = None
    """Small picture, of the run's sides divided by a whole number, that is enlarged to the run's size. Each of its
    pixels is the mean of a block of the result.
    """
    invert: str | None = None
    """Picture of the run's size whose noise is found, by the probability flow in Euler's steps. A grid has the picture,
    the noise and the reconstruction; .npz the arrays `noise`, of deviation 1, and `images`.
    """
    interpolate: tuple[str, ...] = ()
    """Two pictures of the run's size: --n images between them, both ends included, by their noises."""
    iterations: int | None = None
    """Evaluations of a step of an inversion; 5 by default. More bring the reconstruction nearer."""
    likelihood: bool = False
    """Print the bits per dimension of --n held-out images, given their classes, by the probability flow."""
    probes: int | None = None
    """Random products with the Jacobian that estimate a likelihood; 1 by default, 0 for the exact number."""

    def __post_init__(self):
        super().__post_init__()
        asked = [name for name in EDITS if getattr(self, name)]
        require(bool(self.text) == (self.matcher is not None), "text goes with matcher, a run of train.clip")
        require(not (asked and self.text), f"text goes without {asked[0] if asked else ''}: give one of them")
        require(self.match is None or bool(self.text), "match goes with text, which was not given")
        match = 1.0 if self.match is None else self.match
        require(0 <= match < float("inf"), f"match must be at least 0 and finite: got {self.match}")
        per_class = not self.text or (not self.labels and self.per_class is None)
        require(per_class, "labels and per_class go without text: give --label for a class of all images")
        require(len(asked) < 2, f"{' goes without '.join(asked[:2])}: give one of them")
        for name, edits in OF.items():
            require(
                getattr(self, name) is None or not set(edits).isdisjoint(asked),
                f"{name} must have --{' or --'.join(edits)}",
            )
        for name, least in (("repeats", 1), ("jump", 1), ("iterations", 1), ("probes", 0)):
            value = getattr(self, name)
            require(value is None or value >= least, f"{name} must be at least {least}: got {value}")
        require(self.inpaint is None or self.mask is not None, "inpaint must have --mask, white where it is painted")
        strength = 1.0 if self.strength is None else self.strength
        require(0 < strength <= 1, f"strength must be in (0, 1]: got {strength:g}; 0 would be the picture itself")
        count = len(self.interpolate)
        require(count in (0, 2), f"interpolate must be two pictures: got {count}")
        require(not count or self.n is None or self.n >= 2, f"n must be at least 2 with --interpolate: got {self.n}")
        require(not (self.invert and self.n), f"n goes without invert, which makes one image: got {self.n}")
        require(
            not (self.invert and self.out.endswith("/")),
            f"out must be a picture or .npz with --invert: got {self.out!r}",
        )
        require(
            not self.likelihood or self.out == ImageSample.out,
            f"out goes without likelihood, which writes no file: got {self.out!r}",
        )
        require(
            not (self.invert or count) or (not self.labels and self.per_class is None),
            f"labels and per_class go without {'interpolate' if count else 'invert'}, of one class: give --label",
        )

    @property
    def asked(self) -> str | None:
        """The edit that is asked for; None: samples."""
        return next((name for name in EDITS if getattr(self, name)), None)

    @property
    def of_class(self) -> bool:
        """A class is given."""
        return self.label is not None or bool(self.labels) or self.per_class is not None


def sampling_of(asked: Any, options: Any) -> Any:
    """Options of a sampler, as the edit takes them.

    Args:
        asked: `DenoisingSample` with the flags of `options`.
        options: `DiffusionSampling` with the flags that were given.

    Raises:
        UsageError: the edit does not take a flag.
    """
    if asked.asked is None and not asked.text:
        return options
    painted, flow = asked.asked == "inpaint", asked.asked in ("invert", "interpolate", "likelihood")
    name = {"inpaint": "ddim", "likelihood": "rk4"}.get(asked.asked or "", "euler")
    if (painted or flow) and asked.sampler not in (None, name):
        raise UsageError(f"--sampler must be {name} with --{asked.asked}, or left out: got {asked.sampler}")
    if asked.upscale and options.sampler == "average":
        raise UsageError("--sampler must be another than average with --upscale, which takes x_0")
    if asked.upscale and options.sampler == "ddpm" and options.variance == "learned":
        raise UsageError("--variance must be small or large with --upscale, which takes x_0 alone: got learned")
    guidance = options.guidance if asked.guidance is not None or not flow else 1.0
    if asked.likelihood and guidance != 1:
        raise UsageError(f"--guidance must be 1 with --likelihood, of the model's own density: got {guidance:g}")
    if not asked.of_class and not asked.likelihood:
        if asked.guidance not in (None, 1):
            raise UsageError(f"--guidance must be 1 without --label, as there is no class: got {asked.guidance:g}")
        guidance = 1.0
    momentum = options.apg_momentum if options.guidance_rule == "apg" and guidance != 1 else 0.0
    if flow and momentum:
        raise UsageError(f"--apg-momentum must be 0 with --{asked.asked}, whose steps have no order: got {momentum:g}")
    changes: dict[str, Any] = {"guidance": guidance}
    if painted or flow:
        changes["sampler"] = name
    if painted and asked.eta is None:
        changes["eta"] = 1.0
    return dataclasses.replace(options, **changes)


def edit(run: Finished, asked: Any, rules: Any, tree: Callable[[Any], Any]) -> int:
    """Makes the edit that is asked for; gives the exit status.

    Args:
        rules: of `sampling_of`.
        tree: rules -> what functions of `train.tasks.denoised` take.

    Raises:
        UserError: a picture cannot be read or is of another size.
    """
    _check_class(run, asked)
    kind = {"inpaint": _inpaint, "edit": _edit, "upscale": _upscale, "invert": _invert, "interpolate": _interpolate}
    return kind.get(asked.asked, _likelihood)(run, asked, rules, tree)


def _inpaint(run: Finished, asked: Any, rules: Any, tree: Callable[[Any], Any]) -> int:
    from eqxgen.diffusion.editing import path_of

    from .edits import Inpaint

    steps = len(rules.times) - 1
    jump, repeats = asked.jump or max(1, steps // 10), asked.repeats or 10
    try:
        path_of(steps, jump, repeats)
    except ValueError as error:
        raise UsageError(f"--{error}") from None
    picture, mask = images.picture_of(run, "inpaint", asked.inpaint), images.mask_of(run, asked.mask)
    return _variants(run, asked, Inpaint(jump, repeats), tree(rules), picture, image=picture, mask=mask)


def _edit(run: Finished, asked: Any, rules: Any, tree: Callable[[Any], Any]) -> int:
    from eqxgen.diffusion.editing import strength

    from .edits import Change

    share = 0.5 if asked.strength is None else asked.strength
    try:
        times = strength(rules.times, share)
    except ValueError as error:
        hint = "--steps must be at least 2 with --edit" if len(rules.times) < 3 else f"--strength: {error}"
        raise UsageError(hint) from None
    picture = images.picture_of(run, "edit", asked.edit)
    parts = tree(dataclasses.replace(rules, times=times))
    return _variants(run, asked, Change(), parts, picture, image=picture)


def _upscale(run: Finished, asked: Any, rules: Any, tree: Callable[[Any], Any]) -> int:
    from .edits import Upscale
    from .encoded.latents import latents_of

    if latents_of(run.config.autoencoder, run.facts) is not None:
        raise UsageError("--upscale: the run is of latents, whose means are not those of the images")
    small = images.small_of(run, asked.upscale)
    factor = run.facts.shape[0] // small.shape[0]
    return _variants(run, asked, Upscale(), tree(rules), small.repeat(factor, 0).repeat(factor, 1), small=small)


def _variants(run: Finished, asked: Any, function: Any, tree: Any, picture: Any, **given: Any) -> int:
    """Images of one picture, in a grid after it.

    Args:
        picture: of the run's size.
        given: what the function takes of an example.
    """
    import numpy as np

    labels = _labels(run, asked, asked.n)
    repeated = {name: _rows(value, labels) for name, value in given.items()}
    made, evaluations = _gathered(asked, function, tree, label=labels, **repeated)
    print(f"{int(np.mean(evaluations)):,} evaluations of the network an image")
    first = [picture[None]] if asked.as_grid else []
    return _wide(asked, len(labels) + len(first)).save([*first, made], labels)


def _invert(run: Finished, asked: Any, rules: Any, tree: Callable[[Any], Any]) -> int:
    import numpy as np

    picture, labels = images.picture_of(run, "invert", asked.invert)[None], _labels(run, asked, 1)
    found = _inverted(asked, tree(rules), picture, labels)
    off = float(np.sqrt(np.mean(np.square(found.image - picture))))
    print(f"reconstruction: root mean squared error {off:.4g} in a range of 2")
    print(f"noise: mean {np.mean(found.noise):.3f}, deviation {np.std(found.noise):.3f} of 1")
    if asked.as_grid:
        # A noise of four channels is no picture.
        shown = [found.noise / 3] if found.noise.shape == picture.shape else []
        rows = [picture, *shown, found.image]
        return _wide(asked, len(rows)).save([np.concatenate(rows)], np.repeat(labels, len(rows)))
    return asked.save_arrays(found.image, labels, noise=found.noise)


def _interpolate(run: Finished, asked: Any, rules: Any, tree: Callable[[Any], Any]) -> int:
    import numpy as np

    from .edits import Between

    both = np.stack([images.picture_of(run, "interpolate", path) for path in asked.interpolate])
    labels, parts = _labels(run, asked, asked.n), tree(rules)
    a, b = _inverted(asked, parts, both, labels[:2]).noise
    shares = np.linspace(0, 1, len(labels), dtype=np.float32)
    made = _gathered(asked, Between(), parts, label=labels, share=shares, a=_rows(a, labels), b=_rows(b, labels))
    return _wide(asked, len(labels)).save([made], labels)


def _likelihood(run: Finished, asked: Any, rules: Any, tree: Callable[[Any], Any]) -> int:
    import numpy as np

    from ..data import load
    from ..evaluators.examples import held_out_images
    from ..evaluators.stream import Stream
    from ..parallel import make_mesh
    from .edits import Bits
    from .encoded.latents import latents_of

    if latents_of(run.config.autoencoder, run.facts) is not None:
        raise UsageError("--likelihood: the run is of latents, whose density is not that of the images")
    if len(rules.times) < 3:
        raise UsageError("--steps must be at least 2 with --likelihood: got 1")
    dataset = load(run.config.data)
    rows = images.rows_of(asked, dataset.test_labels, run.facts.classes)
    chosen = held_out_images(dataset, np.isin(np.arange(len(dataset.test_labels)), rows))
    count = at_most("--n", asked.n, len(rows), "held-out images", usual=64)
    function = Bits(run.facts.levels, 1 if asked.probes is None else asked.probes)
    examples = chosen.first(count)._replace(batch=50)
    bits, evaluations = Stream(make_mesh(asked.mesh)).gather(function, tree(rules), examples)
    if not np.isfinite(bits).all():
        raise UserError(f"--run {run.folder}: the likelihood is not a number: its weights are damaged")
    error = f" ± {np.std(bits, ddof=1) / np.sqrt(len(bits)):.4f}" if len(bits) > 1 else ""
    print(f"{np.mean(bits):.4f}{error} bits per dimension, {len(bits):,} held-out images of {run.facts.levels} levels")
    print(f"{int(np.mean(evaluations)):,} evaluations of the network an image")
    return 0


def _check_class(run: Finished, asked: Any) -> None:
    """Raises `UsageError` where the model lacks a class that is asked for, or that of no class."""
    config = run.config
    images.classes_of(asked, run.facts.classes)
    if config.conditional and not asked.of_class and not asked.likelihood and config.label_dropout == 0:
        raise UsageError(f"--label must be given with --{asked.asked}: the model was trained on classes alone")


def _labels(run: Finished, asked: Any, count: int | None) -> Any:
    """Labels of an edit's images."""
    import numpy as np

    from .denoised import NO_CLASS

    if asked.per_class is not None:
        return images.labels_of(asked, run.facts.classes)
    chosen = images.classes_of(asked, run.facts.classes) if asked.of_class else np.asarray([NO_CLASS], np.int32)
    return np.resize(chosen, count or COUNT)


def _rows(value: Any, labels: Any) -> Any:
    import numpy as np

    return np.broadcast_to(value, (len(labels), *value.shape))


def _gathered(asked: Any, function: Any, tree: Any, **arrays: Any) -> Any:
    """Results of a function of examples, over the devices."""
    from ..evaluators.examples import Examples
    from ..evaluators.stream import Stream
    from ..parallel import make_mesh

    return Stream(make_mesh(asked.mesh)).gather(function, tree, Examples.of(50, **arrays))


def _inverted(asked: Any, tree: Any, pictures: Any, labels: Any) -> Any:
    from .edits import Invert

    function = Invert(5 if asked.iterations is None else asked.iterations)
    return _gathered(asked, function, tree, label=labels, image=pictures)


def _wide(asked: Any, count: int) -> Any:
    """The flags with a row that holds all of a few images."""
    return asked if asked.columns else dataclasses.replace(asked, columns=min(count, COUNT + 1))
