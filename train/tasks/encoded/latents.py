"""Latents of a model of latents: their autoencoder, their normalisation, draws of their posteriors."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from eqxgen.configs import AutoencoderConfig

from ..._errors import UsageError, UserError
from ..._files import read_json
from ..facts import ImageFacts, LatentFacts

if TYPE_CHECKING:  # jax is imported where it is used, so that --help does not wait for it
    from ...data.encoded import Encoded

SCALE = 0.18215
"""Factor that gives latents of Stable Diffusion a deviation of about 1 (Rombach et al. 2022, arXiv:2112.10752,
appendix G).
"""


class Latents(NamedTuple):
    """Latents as a model has them: (latent - mean) / deviation, for each channel."""

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def normalised(self, latent: Any) -> Any:
        """The model's view of an autoencoder's latent."""
        mean, scale = self._numbers(latent.dtype)
        return (latent - mean) * scale

    def restored(self, x: Any) -> Any:
        """The autoencoder's latent of the model's, in float32."""
        import jax.numpy as jnp

        mean, scale = self._numbers(jnp.float32)
        return x.astype(jnp.float32) / scale + mean

    def _numbers(self, dtype: Any) -> tuple[Any, Any]:
        import jax.numpy as jnp
        import numpy as np

        each = lambda values: jnp.asarray(np.asarray(values)[None, None], dtype)
        return each(self.mean), each(1 / np.asarray(self.deviation))


def latents_of(autoencoder: str, facts: ImageFacts) -> Latents | None:
    """The latents that a model is of; None for a model of pixels.

    Args:
        autoencoder: --autoencoder. Facts without latents, of older runs and of dry runs, then mean Stable Diffusion's.
    """
    if isinstance(facts, LatentFacts) and facts.latent_shape is not None:
        return Latents(facts.latent_shape, facts.latent_mean, facts.latent_deviation)
    if not autoencoder:
        return None
    sizes, (height, width, _) = AutoencoderConfig.stable_diffusion(), facts.shape
    if height % sizes.factor or width % sizes.factor:
        raise UsageError(f"--autoencoder: {sizes.factor} must divide the sides of the images: got {facts.shape}")
    shape = height // sizes.factor, width // sizes.factor, sizes.latent_dim
    return Latents(shape, (0.0,) * shape[2], (1 / SCALE,) * shape[2])


def drawn(latents: Latents, example: dict[str, Any], autoencoder: Any, *, key: Any) -> Any:
    """A draw of an example's posterior, normalised; a function of the key alone.

    Args:
        example: `image`, which is encoded, or the posterior's `mean` and `deviation`, which were prepared.
    """
    import jax.random as jr

    if "image" in example:
        return latents.normalised(autoencoder.encode(example["image"]).sample(key=key))
    mean, deviation = example["mean"], example["deviation"]
    return latents.normalised(mean + deviation * jr.normal(key, mean.shape, mean.dtype))


def example_shapes(facts: ImageFacts) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of the arrays of an example: an image, or the posterior of prepared latents; and its label."""
    shapes: dict[str, tuple[tuple[int, ...], str]] = {"label": ((), "int32")}
    if isinstance(facts, LatentFacts) and facts.autoencoder is not None:
        assert facts.latent_shape is not None
        shapes["mean"] = shapes["deviation"] = facts.latent_shape, "float32"
    else:
        shapes["image"] = facts.shape, "float32"
    return shapes


def untrained(facts: ImageFacts) -> Any:
    """The autoencoder of Stable Diffusion without weights, for a dry run; None for prepared latents, whose step needs
    none.
    """
    import jax.random as jr

    from eqxgen.models.autoencoder import KLAutoencoder

    if "image" not in example_shapes(facts):
        return None
    return KLAutoencoder(facts.shape[2], AutoencoderConfig.stable_diffusion(), key=jr.key(0))


def open_autoencoder(where: str, flag: str = "--autoencoder") -> Any:
    """The KL autoencoder of a run or of a published folder.

    Raises:
        UserError: there is none, or the model is of another kind.
    """
    from eqxgen.models.autoencoder import KLAutoencoder

    from .encoders import is_run, open_encoder

    found = open_encoder(where, flag, None if is_run(Path(where).expanduser()) else "autoencoder_kl")
    if not isinstance(found, KLAutoencoder):
        raise UserError(f"{flag} {where}: must be a KL autoencoder: got {type(found).__name__}")
    return found


def autoencoder_of(where: str, facts: ImageFacts) -> Any:
    """The frozen autoencoder of a run's latents.

    Args:
        where: --autoencoder; empty for the one that prepared latents name.

    Raises:
        UserError: there is none; or prepared latents are of another.
    """
    from ...run.weights import digest
    from .encoders import latents_shape

    recorded = facts if isinstance(facts, LatentFacts) else LatentFacts(facts.shape, facts.classes, facts.levels)
    path = where or str(recorded.autoencoder)
    found = open_autoencoder(path)
    if recorded.tokenizer is not None and (sha256 := digest(found)) != recorded.tokenizer:
        raise UserError(
            f"--autoencoder {path}: the latents were made by another (SHA-256 {recorded.tokenizer}, and this has "
            f"{sha256}): give the one that they were prepared with, or prepare them again"
        )
    shape, latents = latents_shape(found, facts.shape, "--autoencoder", path), latents_of(where, facts)
    if latents is not None and shape != latents.shape:
        raise UserError(
            f"--autoencoder {path}: must make latents of {latents.shape} of images of {facts.shape}: got {shape}; it "
            "is another's"
        )
    return found


def autoencoder_of_run(folder: Path, where: str, facts: ImageFacts) -> Any:
    """The autoencoder that a run was trained with.

    Raises:
        UserError: that of the path is another now.
    """
    from ...run.weights import digest

    found, known = autoencoder_of(where, facts), read_json(folder / "config.json").get("frozen")
    if digest(found) != known:
        raise UserError(
            f"--run {folder}: its latents are of another autoencoder than {where} is now (SHA-256 {known} and not "
            f"{digest(found)}): give back the file that it was trained with"
        )
    return found


def facts_on_the_fly(where: str, scale: float | None, facts: ImageFacts, folder: Path) -> LatentFacts:
    """Facts of latents that training makes of images itself.

    Args:
        where: --autoencoder.
        scale: --autoencoder-scale; by default the `scaling_factor` of a published folder, else Stable Diffusion's.
        folder: of the run. One that was begun without these facts has Stable Diffusion's factor.

    Raises:
        UserError: there is no such autoencoder, or the images do not fit it.
        UsageError: it is of a run, whose factor is not known.
    """
    from ...data.encoded import Statistics
    from .encoders import latents_shape

    shape = latents_shape(open_autoencoder(where), facts.shape, "--autoencoder", where)
    factor = scale if scale is not None else SCALE if _older(folder) else _published_scale(Path(where).expanduser())
    if factor is None:
        raise UsageError(
            f"--autoencoder {where}: is of a run, whose latents have no known deviation: give --autoencoder-scale, or "
            "train on latents that `python -m train.data prepare --tokenizer` has made and measured"
        )
    found = Statistics.of_scale(factor, shape[2])
    plain = facts.shape, facts.classes, facts.levels
    return LatentFacts(*plain, shape, found.mean, found.deviation, found.sha256)


def _older(folder: Path) -> bool:
    record = folder / "config.json"
    return record.exists() and "latent_shape" not in read_json(record).get("facts", {})


def _published_scale(where: Path) -> float | None:
    from .encoders import is_run

    if is_run(where):
        return None
    record = where / "config.json" if where.is_dir() else where.with_name("config.json")
    return float(read_json(record).get("scaling_factor", SCALE)) if record.is_file() else SCALE


def facts_of_prepared(found: "Encoded", folder: Path | None, data: str) -> LatentFacts:
    """Facts of prepared latents.

    Args:
        folder: of the run, if there is one.
        data: --data.name, for errors.

    Raises:
        UserError: the run was begun on latents of other statistics, or of another autoencoder.
    """
    statistics = found.statistics
    assert statistics is not None
    facts = LatentFacts(
        found.image_shape,
        found.num_classes,
        found.levels,
        latent_shape=found.latent_shape,
        latent_mean=statistics.mean,
        latent_deviation=statistics.deviation,
        statistics=statistics.sha256,
        autoencoder=found.tokenizer,
        tokenizer=found.sha256,
    )
    if folder is not None:
        refuse_others(folder, data, {"statistics": facts.statistics, "tokenizer": facts.tokenizer})
    return facts


def refuse_others(folder: Path, data: str, now: dict[str, Any]) -> None:
    """Raises `UserError` where a run's facts, such as the hash of its tokenizer, are there and are others."""
    record = folder / "config.json"
    before = read_json(record).get("facts", {}) if record.exists() else {}
    for name, value in now.items():
        if name in before and before[name] != value:
            raise UserError(
                f"--data.name {data}: must have the {name} that {folder} was begun with ({before[name]}): got {value}; "
                "prepare the data as they were, or give another --run-dir"
            )
