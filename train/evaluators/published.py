"""Scores by published networks: FID's Inception of samples, LPIPS of reconstructions, lengths of paths of latents."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from einops import reduce
from jaxtyping import Array, PyTree

from eqxgen.metrics import (
    SSIM,
    FeatureRows,
    Features,
    Mean,
    Statistics,
    class_score,
    frechet,
    frechet_infinity,
    frechet_interval,
    path_length,
    read_statistics,
    ssim,
    write_statistics,
)
from eqxgen.metrics import fidelity as scores
from eqxgen.metrics.frechet import statistics_of
from eqxgen.pretrained import inception as inception_files
from eqxgen.pretrained import lpips_net

from .._errors import UsageError, UserError
from ..config.evals import Evaluation
from ..parallel.processes import is_first
from .base import Evaluator
from .examples import Examples, held_out_images, training_images
from .fidelity import Judged, Rounded, enough
from .stream import Function, Stream

_BATCH = 16  # images of 299 x 299 at a time on a device
_WINDOW = 11  # of the structural similarity
_HEADS = {"alex": "df73285e", "squeeze": "4a5350f2", "vgg": "a78928a0"}  # SHA-256 of lpips 0.1.4's files
_REAL = {"held_out": held_out_images, "training": training_images}


def inception_scores(
    judged: Judged,
    file: Path,
    *,
    reference: str = "held_out",
    statistics: Path | None = None,
    written: Path | None = None,
) -> Evaluator:
    """Fréchet distance by FID's Inception with its bootstrap interval and its extrapolation, and the score of classes
    in ten parts; against images also the distance of spatial features, the kernel distance, precision, recall, density
    and coverage. They are called FID, sFID and IS with the published file alone, and `..._inception` otherwise.

    Grey images are given to the three channels alike.

    Args:
        file: of pytorch-fid's Inception.
        reference: held_out or training images.
        statistics: a file of `mu` and `sigma` in the place of images.
        written: the file that `mu` and `sigma` of the reference images are written to.

    Raises:
        UserError: a file is missing, damaged, or of something else.
    """
    net, sha256 = _opened("--inception", file, lambda: inception_files.from_pretrained(file))
    features = Features("inception", sha256)
    given = None if statistics is None else _statistics(statistics, features)
    if given is None:
        enough(
            "--inception", len(net.head.weight[0]), judged.samples.size, _REAL[reference](judged.dataset).size,
            "give --reference training, or another tool's file by --statistics",
        )  # fmt: skip
    else:
        enough("--inception", len(given.mean), judged.samples.size)

    def seen(draw: Function, tree: PyTree, images: Examples, stream: Stream) -> tuple[FeatureRows, ...]:
        rows = tuple(FeatureRows(features=features) for _ in range(3))
        few = images._replace(batch=min(images.batch, _BATCH * stream.mesh.size))
        for found in stream.map(_Seen(draw), (tree, net), few):
            rows = tuple(kept.update(part) for kept, part in zip(rows, found))
        return stream.total(*rows)

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        stream.say(f"features: {features}")
        made = Rounded(judged.draw, judged.dataset.levels)
        pool, spatial, logits = seen(made, judged.parts(model, frozen), judged.samples, stream)
        if given is None:
            images = _REAL[reference](judged.dataset)
            real, real_spatial, _ = seen(_image, None, images, stream)
            found = {k: v for score in scores(pool, real) for k, v in score.numbers().items()}
            found[features.score("sfd")] = frechet(spatial, real_spatial).value
            if written is not None and is_first():
                _write(written, statistics_of("reference", real))
        else:
            found = _against(pool, given)
        classes = class_score(logits.result(), splits=min(10, judged.samples.size))
        name = features.score("class_score")
        return found | {name: classes.value, f"{name}_deviation": classes.deviation}

    return Evaluator(Evaluation("inception", ()), run, notes={"inception_sha256": sha256})


def pair_scores(judged: Judged, net: str, file: Path, heads: Path) -> Evaluator:
    """Perceptual distance of images to their reconstructions by LPIPS' net, a mean over images; and their structural
    similarity, where a side has 11 pixels or more. It is called LPIPS with the published weights of the net alone.

    Args:
        net: alex, vgg or squeeze.
        file: torchvision's of the net.
        heads: the package's of the net.

    Raises:
        UsageError: the run reconstructs no images, or they are too small for the net.
        UserError: a file is missing, damaged, or of something else.
    """
    if not judged.paired:
        raise UsageError(
            "--lpips goes with runs that reconstruct images, such as those of train.vqgan, or have paths of latents, "
            "train.gan"
        )
    model, sha256 = _distance(judged, net, file, heads)
    similar = min(judged.dataset.image_shape[:2]) >= _WINDOW
    name = Features(net, sha256).score("lpips")

    def run(tokenizer: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        distance, similarity = Mean(), SSIM()
        images = judged.samples._replace(batch=min(judged.samples.batch, _BATCH * stream.mesh.size))
        made = _Pair(Rounded(judged.draw, judged.dataset.levels), similar)
        for far, near in stream.map(made, (judged.parts(tokenizer, frozen), model), images):
            distance, similarity = distance.update(far), similarity.update(near)
        distance, similarity = stream.total(distance, similarity)
        return {name: distance.result()} | ({"ssim": similarity.result()} if similar else {})

    return Evaluator(Evaluation("lpips", ()), run, notes={"lpips_sha256": sha256})


def path_scores(
    judged: Judged,
    net: str,
    file: Path,
    heads: Path,
    *,
    space: str | None = None,
    sampling: str = "end",
    epsilon: float = 1e-4,
) -> Evaluator:
    """Perceptual path length of a generator by LPIPS' net, of as many paths as there are samples, and its deviation.

    It is called PPL with the published weights of vgg alone, then space and sampling: `PPL_wend`. The nets run in
    float32 on every device, as a step of epsilon changes an image by little. Images above 256 pixels are made smaller
    by means, as the authors do.

    Args:
        net: alex, vgg or squeeze.
        file: torchvision's of the net.
        heads: the package's of the net.
        space: w or z; by default w where the generator has style vectors.
        sampling: end or full.
        epsilon: step along the path.

    Raises:
        UsageError: the generator has no such space, or its images are too small for the net.
        UserError: a file is missing, damaged, or of something else.

    Source: Karras et al. 2019 (arXiv:1812.04948, section 4.1), and 2020 (arXiv:1912.04958) for w and its ends.
    """
    assert judged.path is not None
    path = judged.path(space, sampling)
    model, sha256 = _distance(judged, net, file, heads)
    name = f"{Features(net, sha256).score('path_length')}_{path.space}{sampling}"

    def run(generator: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        paths = judged.samples._replace(batch=min(judged.samples.batch, _BATCH * stream.mesh.size))
        tree = (judged.parts(generator, frozen), jnp.float32(epsilon)), model
        found = path_length(np.concatenate([*stream.map(_Near(path), tree, paths)]), epsilon)
        return {name: found.value, f"{name}_deviation": found.deviation}

    notes = {"lpips_sha256": sha256, "path_length": f"{judged.samples.size} paths, epsilon {epsilon:g}"}
    return Evaluator(Evaluation("path_length", ()), run, notes=notes)


def _distance(judged: Judged, net: str, file: Path, heads: Path) -> tuple[Any, str]:
    """LPIPS of the run's images, and the SHA-256 of its features, or of both files where the heads are not published.

    Raises:
        UsageError: the images are too small for the net.
        UserError: a file is missing, damaged, or of something else.
    """
    model, sha256 = _opened("--lpips", file, lambda: lpips_net.with_files(net, file, heads))
    own = heads.read_bytes()
    if not hashlib.sha256(own).hexdigest().startswith(_HEADS[net]):
        sha256 = hashlib.sha256(file.read_bytes() + own).hexdigest()
    try:
        eqx.filter_eval_shape(lambda x: model(x, x), jnp.zeros((*judged.dataset.image_shape[:2], 3)))
    except ValueError as error:
        raise UsageError(f"--lpips {net}: the run's images: {error}") from None
    return model, sha256


class _Seen(eqx.Module):
    draw: Function = eqx.field(static=True)

    def __call__(self, tree: PyTree, example: dict[str, Array]) -> tuple[Array, Array, Array]:
        parts, net = tree
        return net.judged(_coloured(self.draw(parts, example)))


class _Pair(eqx.Module):
    made: Function = eqx.field(static=True)
    similar: bool = eqx.field(static=True)

    def __call__(self, tree: PyTree, example: dict[str, Array]) -> tuple[Array, Array]:
        parts, net = tree
        made, image = self.made(parts, example), example["image"].astype(jnp.float32)
        near = ssim(made, image) if self.similar else jnp.zeros(())
        return net(_coloured(made), _coloured(image)), near


class _Near(eqx.Module):
    path: Function = eqx.field(static=True)

    def __call__(self, tree: PyTree, example: dict[str, Array]) -> Array:
        parts, net = tree
        with jax.default_matmul_precision("highest"):
            return net(*(_coloured(_small(image)) for image in self.path(parts, example)))


def _small(image: Array) -> Array:
    """Means of blocks of an image whose least side is 512 pixels or more."""
    by = min(image.shape[:2]) // 256
    return image if by < 2 else reduce(image, "(h a) (w b) c -> h w c", "mean", a=by, b=by)


def _image(tree: PyTree, example: dict[str, Array]) -> Array:
    return example["image"]


def _coloured(image: Array) -> Array:
    """Three channels of a grey image."""
    return jnp.broadcast_to(image, (*image.shape[:2], 3)) if image.shape[2] == 1 else image


def _against(rows: FeatureRows, given: Statistics) -> dict[str, float]:
    found = frechet(rows, given)
    low, high = frechet_interval(rows.result(), given)
    far = frechet_infinity(rows.result(), given)
    return {
        **found._replace(low=low, high=high).numbers(),
        **found._replace(name=f"{found.name}_infinity", value=far.value, low=far.low, high=far.high).numbers(),
    }


def _opened(flag: str, file: Path, read: Callable[[], Any]) -> tuple[Any, str]:
    """A net, and the SHA-256 of its file."""
    try:
        return read(), hashlib.sha256(file.read_bytes()).hexdigest()
    except (ValueError, OSError) as error:
        raise UserError(f"{flag} {error}") from None


def _statistics(path: Path, features: Features) -> Statistics:
    try:
        return read_statistics(path, features)
    except (ValueError, OSError) as error:
        raise UserError(f"--statistics {error}") from None


def _write(path: Path, found: Statistics) -> None:
    try:
        write_statistics(path, found)
    except OSError as error:
        raise UserError(f"--write-statistics {path}: cannot be written: {error}") from None
