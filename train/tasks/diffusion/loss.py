"""The loss of a denoiser of images, and the noised examples that every objective of `train.diffusion` starts from."""

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

from ..._errors import UsageError
from ..encoded.latents import Latents, drawn, example_shapes, latents_of
from ..facts import ImageFacts

if TYPE_CHECKING:
    import jax

    from ...engine.recipe import Loss


class Example(NamedTuple):
    """An image or its latent, its condition, noise of its shape, and a key for the rest."""

    x0: Any
    condition: Any
    noise: Any
    key: Any


def prepared(
    config: Any, null: Any, latents: Latents | None, example: "dict[str, jax.Array]", autoencoder: Any, key: Any
) -> Example:
    """An example of a batch: augmented, encoded, its label dropped for guidance.

    Args:
        null: the network's label of no class; None for one without classes.
        latents: what is denoised; None: pixels.
        autoencoder: encodes images; None where latents are prepared.
    """
    import jax.random as jr

    from eqxgen.augment.non_leaking import augment
    from eqxgen.diffusion.losses import dropped
    from eqxgen.diffusion.precondition import WithLabels

    noise_key, label_key, augment_key, latent_key, key = jr.split(key, 5)
    condition = None if null is None else dropped(example["label"], null, config.label_dropout, key=label_key)
    if config.non_leaking:
        image, labels = augment(example["image"], config.non_leaking, key=augment_key)
        example, condition = example | {"image": image}, WithLabels(condition, labels)
    if latents is None:
        x0 = example["image"]
    else:
        x0 = drawn(latents, example, autoencoder, key=latent_key)
    return Example(x0, condition, jr.normal(noise_key, x0.shape), key)


def denoising(config: Any, facts: ImageFacts, side: int) -> "Loss":
    """Loss of {"denoiser": ...} with or without "uncertainty", of a batch; see `eqxgen.diffusion.losses`.

    Args:
        side: of what is denoised.
    """
    import jax
    import jax.numpy as jnp
    import jax.random as jr

    from eqxgen.diffusion.losses import denoising_loss
    from eqxgen.diffusion.times import time_of_uniform, uniforms

    from ...engine.recipe import Context, Sums

    rules, sigma_data = config.loss, config.denoiser.sigma_data
    latents, names = latents_of(config.autoencoder, facts), example_shapes(facts)
    if config.non_leaking and "image" not in names:
        raise UsageError(f"--non-leaking must be 0 with latents, as it moves pixels: got {config.non_leaking}")

    def total(model: dict[str, Any], batch: dict[str, jax.Array], keys: jax.Array, context: Context) -> Sums:
        denoiser, head = model["denoiser"], model.get("uncertainty")
        used = rules if head is not None or rules.weight != "uncertainty" else dataclasses.replace(rules, weight="edm")

        def one(example: dict[str, jax.Array], t: jax.Array, key: jax.Array) -> Any:
            null = denoiser.null_label
            x0, condition, noise, key = prepared(config, null, latents, example, context.frozen, key)
            return denoising_loss(
                denoiser,
                x0,
                t,
                condition,
                noise=noise,
                rules=used,
                sigma_data=sigma_data,
                uncertainty=head,
                levels=facts.levels,
                key=key,
            )

        own = jax.vmap(lambda key: jr.fold_in(key, 7))(keys)
        u = uniforms(own, rules.stratified, places=batch["index"], size=config.batch_size)
        t = time_of_uniform(denoiser.schedule, u, rules, sigma_data=sigma_data, side=side)
        found, weight = jax.vmap(one)({name: batch[name] for name in names}, t, keys), batch["weight"]
        metrics = {"error": weight @ found.error}
        if rules.variance:
            metrics["bound"] = weight @ found.bound
        return Sums(weight @ found.loss, jnp.sum(weight), metrics)

    return total
