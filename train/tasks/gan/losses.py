"""Losses of a generator and a discriminator that alternate, with augmentation, penalties and model state."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key

from eqxgen.losses.adversarial import objective
from eqxgen.losses.penalties import between, one_centred, path_lengths, path_penalty, slopes, zero_centred
from eqxgen.nn import synchronised

from ...engine.recipe import Context, Sums
from ..facts import ImageFacts

LEAST = 0.02
"""Share of the deviation of real images below which generated ones are all alike."""
Batch = dict[str, Array]
Keys = Key[Array, " batch"]


class Adversaries:
    """The losses of one run; each is a `train.engine.recipe.Loss` of {"generator": ..., "discriminator": ...}.

    Model state: `generator` and `discriminator` (statistics of batch norms, mean style vector), `p` and `signs` of the
    adaptive augmentation, `path`, the mean path length.

    Args:
        config: of `train.gan`.
        parts: of the augmentation, in their order.
    """

    def __init__(self, config: Any, facts: ImageFacts, parts: tuple[str, ...]):
        self.config, self.facts, self.parts = config, facts, parts
        self.form = objective(config.objective)
        penalty = config.penalty
        self.penalised = bool(penalty.r1 or penalty.r2 or penalty.wgan_gp)
        self.lazy = penalty.every > 1
        self.latent_dim = getattr(config, config.family).latent_dim

    def generator(self, model: dict[str, Any], batch: Batch, keys: Keys, context: Context) -> Sums:
        """The generator's loss; its state moves."""
        model, weight, labels, state = self._parts(model, batch, context)
        fakes, own = self._fakes(model, labels, weight, keys, context)
        judge = self._judge(model, state, labels, weight, context)
        on_fake, _ = judge(fakes, _fold(keys, 1))
        on_real = judge(batch["image"], _fold(keys, 2))[0] if self.form.paired else None
        losses = self.form.generator(on_fake, on_real)
        count = jnp.sum(weight)
        diversity = self._diversity(batch, fakes, context)
        return Sums(weight @ losses, count, {"diversity": count * diversity}, {**state, "generator": own})

    def discriminator(self, model: dict[str, Any], batch: Batch, keys: Keys, context: Context) -> Sums:
        """The discriminator's loss, with the penalties that are due at every step; its state and p move."""
        model, weight, labels, state = self._parts(model, batch, context)
        fakes = jax.lax.stop_gradient(self._fakes(model, labels, weight, keys, context)[0])
        found, own = 0.0, state["discriminator"]
        logits = []
        weights = self.config.penalty
        for images, each, gamma in ((batch["image"], 1, weights.r1), (fakes, 2, weights.r2)):
            judge = self._judge(model, {**state, "discriminator": own}, labels, weight, context)
            run = lambda images, judge=judge, each=each: judge(images, _fold(keys, each))
            if gamma and not self.lazy:
                logit, own, gradient = slopes(run, images)
                found += self._gamma(gamma, context) * zero_centred(gradient)
            else:
                logit, own = run(images)
            logits.append(logit)
        if weights.wgan_gp and not self.lazy:
            found += self._wgan_gp(model, batch["image"], fakes, keys, context, weight, labels, state)
        on_real, on_fake = logits
        losses = self.form.discriminator(on_real, on_fake) + found
        count, sign = jnp.sum(weight), jnp.sign(jax.lax.stop_gradient(on_real))
        metrics = {
            "real_logit": weight @ on_real,
            "fake_logit": weight @ on_fake,
            "r_t": weight @ sign,
            "augmentation_p": count * self._p(state, context),
        }
        after = {**state, "discriminator": own}
        if self.config.augmentation == "ada" and self.config.target:
            after |= self._moved_p(state, context.sum(weight @ sign) / context.sum(count), context)
        return Sums(weight @ losses, count, metrics, after)

    def penalty(self, model: dict[str, Any], batch: Batch, keys: Keys, context: Context) -> Sums:
        """The penalties of the discriminator as a loss of their own."""
        model, weight, labels, state = self._parts(model, batch, context)
        weights, judge = self.config.penalty, self._judge(model, state, labels, weight, context)
        found = jnp.zeros(len(weight))
        fakes = None
        if weights.r2 or weights.wgan_gp:
            fakes = jax.lax.stop_gradient(self._fakes(model, labels, weight, keys, context)[0])
        for images, each, gamma in ((batch["image"], 1, weights.r1), (fakes, 2, weights.r2)):
            if gamma and images is not None:
                gradient = slopes(lambda images, each=each: judge(images, _fold(keys, each)), images)[2]
                found += self._gamma(gamma, context) * zero_centred(gradient)
        if weights.wgan_gp and fakes is not None:
            found += self._wgan_gp(model, batch["image"], fakes, keys, context, weight, labels, state)
        return Sums(weight @ found, jnp.sum(weight), {})

    def path(self, model: dict[str, Any], batch: Batch, keys: Keys, context: Context) -> Sums:
        """The path length penalty of every other example of the batch; its running mean moves."""
        model, weight, labels, state = self._parts(model, batch, context)
        # Every other one, not the first half: on devices of an even number of examples these are the same.
        weight, keys, labels = weight[::2], keys[::2], None if labels is None else labels[::2]
        net, latents = model["generator"], self._latents(keys)
        styles, _ = net.styles(latents, labels)
        noise = _fold(keys, 4)
        synthesis = lambda styles: jax.vmap(lambda styles, key: net.synthesis(styles, key=key))(styles, noise)
        draw = lambda key: jr.normal(jr.fold_in(key, 5), self.facts.shape)
        lengths = path_lengths(synthesis, styles, jax.vmap(draw)(keys))
        count = jnp.sum(weight)
        average = context.sum(weight @ lengths) / context.sum(count)
        losses, mean = path_penalty(lengths, state["path"], average, decay=_moving(0.01, context))
        metrics = {"path_length": weight @ lengths}
        return Sums(self.config.penalty.path * (weight @ losses), count, metrics, {**state, "path": mean})

    def _parts(self, model: dict[str, Any], batch: Batch, context: Context) -> tuple[dict[str, Any], Array, Any, Any]:
        labels = batch["label"] if self.config.conditional else None
        return synchronised(model, context.axes), batch["weight"], labels, context.state

    def _latents(self, keys: Keys) -> Float[Array, "batch latent"]:
        return jax.vmap(lambda key: jr.normal(jr.fold_in(key, 3), (self.latent_dim,)))(keys)

    def _fakes(
        self, model: dict[str, Any], labels: Any, weight: Array, keys: Keys, context: Context
    ) -> tuple[Array, Any]:
        """Generated images, and the generator's state after them."""
        net, latents, own = model["generator"], self._latents(keys), context.state["generator"]
        if self.config.family != "stylegan2":
            return net.batch(latents, labels, own, weight=weight)
        images, styles = net.batch(latents, labels, mixing=self.config.mixing, keys=keys)
        mean = context.sum(weight @ styles.astype(own.dtype)) / context.sum(jnp.sum(weight))
        return images, own + _moving(1 - self.config.w_decay, context) * (jax.lax.stop_gradient(mean) - own)

    def _judge(
        self, model: dict[str, Any], state: Any, labels: Any, weight: Array, context: Context
    ) -> Callable[[Array, Keys], tuple[Array, Any]]:
        """(images, keys of the augmentation) -> logits and the discriminator's state."""
        p = self._p(state, context)

        def judge(images: Array, keys: Keys) -> tuple[Array, Any]:
            images = self._augmented(images, keys, p)
            return model["discriminator"].batch(images, labels, state["discriminator"], weight=weight)

        return judge

    def _augmented(self, images: Array, keys: Keys, p: Array) -> Array:
        if self.config.augmentation == "diffaugment":
            from eqxgen.augment.differentiable import diff_augment

            return jax.vmap(lambda image, key: diff_augment(image, self.parts, key=key))(images, keys)
        if self.config.augmentation == "ada":
            from eqxgen.augment.adaptive import ada_augment

            return jax.vmap(lambda image, key: ada_augment(image, p, self.parts, key=key))(images, keys)
        return images

    def _p(self, state: Any, context: Context) -> Array:
        if self.config.augmentation == "ada" and not self.config.target:
            return jnp.float32(self.config.probability) * (1 - _cosine(self._share(context)))
        return state["p"]

    def _share(self, context: Context) -> Array:
        """Share of the ramp that is over."""
        if not self.config.ramp:
            return jnp.float32(1)
        return jnp.minimum(context.step * (self.config.batch_size / self.config.ramp), 1.0).astype(jnp.float32)

    def _gamma(self, gamma: float, context: Context) -> Array:
        final = self.config.penalty.final
        return gamma * (final + (1 - final) * _cosine(self._share(context)))

    def _moved_p(self, state: Any, sign: Array, context: Context) -> dict[str, Array]:
        """p and the sum of signs; p moves after each fourth batch (Karras et al. 2020, arXiv:2006.06676, section 3)."""
        signs = state["signs"] + sign / context.parts
        due = ((context.step + 1) % PERIOD == 0) & (context.part == context.parts - 1)
        stride = PERIOD * self.config.batch_size / self.config.speed
        moved = jnp.maximum(state["p"] + stride * jnp.sign(signs / PERIOD - self.config.target), 0)
        return {"p": jnp.where(due, moved, state["p"]), "signs": jnp.where(due, 0.0, signs)}

    def _wgan_gp(
        self,
        model: dict[str, Any],
        reals: Array,
        fakes: Array,
        keys: Keys,
        context: Context,
        weight: Array,
        labels: Any,
        state: Any,
    ) -> Array:
        share = jax.vmap(lambda key: jr.uniform(jr.fold_in(key, 6)))(keys)
        judge = self._judge(model, state, labels, weight, context)
        gradient = slopes(lambda images: judge(images, _fold(keys, 1)), between(reals, fakes, share))[2]
        return self.config.penalty.wgan_gp * one_centred(gradient)

    def _diversity(self, batch: Batch, fakes: Array, context: Context) -> Array:
        """Deviation of generated images over that of real ones; within the classes where a batch has a few of each."""
        weight, count = batch["weight"], self.facts.classes
        few = self.config.conditional and 4 * count * context.parts <= self.config.batch_size
        groups = jax.nn.one_hot(batch["label"] if few else jnp.zeros_like(batch["label"]), count if few else 1)
        groups = groups * weight[:, None]
        sizes = context.sum(jnp.sum(groups, axis=0))

        def variance(images: Array) -> Array:
            flat = images.reshape(len(images), -1).astype(jnp.float32)
            means = context.sum(groups.T @ flat) / jnp.maximum(sizes, 1)[:, None]
            return context.sum(jnp.sum(weight[:, None] * (flat - jnp.where(groups > 0, 1.0, 0.0) @ means) ** 2))

        fake, real = (variance(jax.lax.stop_gradient(images)) for images in (fakes, batch["image"]))
        return jnp.sqrt(fake / jnp.maximum(real, 1e-12))


PERIOD = 4
"""Batches between moves of p."""


def start(model: dict[str, Any], config: Any) -> dict[str, Any]:
    """The model state before the first step."""
    return {
        "generator": model["generator"].init_state(),
        "discriminator": model["discriminator"].init_state(),
        "p": jnp.float32(config.probability if config.target else 0.0),
        "signs": jnp.float32(0),
        "path": jnp.float32(0),
    }


def collapsed(metrics: Mapping[str, float]) -> str:
    """Reason for which the metrics of a step show that all samples are alike; empty where they do not."""
    if not metrics["diversity"] < LEAST:
        return ""
    return (
        f"the generator has collapsed: the deviation of its samples is {metrics['diversity']:.1g} of that of the data, "
        f"under {LEAST}"
    )


def _fold(keys: Keys, number: int) -> Keys:
    return jax.vmap(lambda key: jr.fold_in(key, number))(keys)


def _moving(share: float, context: Context) -> float:
    """Share of the new in a running mean after each micro-batch, which is `share` after all of them."""
    return 1 - (1 - share) ** (1 / context.parts)


def _cosine(share: Array) -> Array:
    """From 1 to 0 along half a cosine."""
    return 0.5 * (1 + jnp.cos(jnp.pi * share))
