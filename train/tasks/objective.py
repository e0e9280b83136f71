"""The program of an image tokenizer: its losses, its players, and changes of its codebook.

Reconstruction, quantisation and entropy terms train the tokenizer. With a discriminator there are two players, in one
turn that shares the forward pass, or one after another. The gradient penalty is a lazy turn. Terms that are no sum over
images, the entropy of the mean assignment and the adaptive weight, are of the whole batch over devices and
micro-batches.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array

from eqxgen.losses.adaptive import adaptive_weight, last_layer_gradient
from eqxgen.losses.adversarial import (
    Anchors,
    discriminator_loss,
    generator_loss,
    held,
    lecam_penalty,
    r1_penalty,
)
from eqxgen.losses.likelihood import absolute_error, logit_laplace, squared_error
from eqxgen.losses.perceptual import perceptual_loss
from eqxgen.losses.reconstruction import Assigned, tokenizer_losses
from eqxgen.models import Discriminator, PatchDiscriminator
from eqxgen.nn import GumbelQuantizer, synchronised
from eqxgen.nn.quantize import (
    Averages,
    Quantized,
    count_codes,
    data_start,
    has_codebook,
    kmeans,
    perplexity,
    restart_dead_codes,
    restart_rare_codes,
    usage,
    with_codebooks,
)

from ..engine.recipe import Change, Context, Player, Program, Sums, Turn
from .facts import ImageFacts


class States(NamedTuple):
    """Model state: of the codebook, and of the LeCam penalty."""

    codes: Any
    anchors: Anchors


class Seen(NamedTuple):
    """A forward pass of the tokenizer over a batch: input and result of the decoder's last layer, and more."""

    features: Array
    results: Array
    fakes: Array
    quantized: Quantized
    codes: Any


@dataclasses.dataclass(frozen=True)
class Objective:
    """Losses of a config of `train.vqgan`."""

    config: Any

    @property
    def adversarial(self) -> bool:
        return self.config.adversarial > 0

    def main(self, model: dict[str, Any], batch: dict[str, Array], keys: Array, context: Context) -> Sums:
        """The tokenizer's losses; with them those of the discriminator, unless it has a turn of its own."""
        config, images, weight = self.config, batch["image"], batch["weight"]
        seen, count = self.forward(model, batch, keys, context), jnp.sum(weight)
        whole = context.sum(self.own(model, seen, batch, context)) if context.whole is None else context.whole
        error, metrics = self.nll(seen.results, seen.fakes, images, context.frozen)
        weights = {"quantisation": config.quantisation, "entropy": config.entropy}
        found = tokenizer_losses(error, seen.quantized, whole["assigned"], **weights)
        losses, metrics = found.total, metrics | {"distance": found.distance}
        state = context.state._replace(codes=seen.codes) if isinstance(context.state, States) else seen.codes
        if self.adversarial:
            discriminator = model["discriminator"]
            generator = self.generator(discriminator, seen.fakes, weight, context)
            factor = config.adversarial * self.started(context)
            if config.adaptive:
                adaptive = adaptive_weight(
                    whole["nll"] / whole["weight"], whole["generator"] / whole["weight"], scale=1.0
                )
                factor, metrics = factor * adaptive, metrics | {"adaptive_weight": adaptive * jnp.ones_like(generator)}
            losses, metrics = losses + factor * generator, metrics | {"generator": generator}
            if not config.alternate:
                critic, more, anchors = self.critic(discriminator, images, seen.fakes, weight, context)
                losses, metrics = losses + critic, metrics | more
                state = States(seen.codes, anchors) if config.lecam else state
        sums = {name: weight @ each for name, each in metrics.items()}
        sums |= {"usage": count * usage(whole["counts"]), "perplexity": count * perplexity(whole["counts"])}
        return Sums(weight @ losses, count, sums, state)

    def judge(self, model: dict[str, Any], batch: dict[str, Array], keys: Array, context: Context) -> Sums:
        """The discriminator's losses in a turn of its own, after the tokenizer's update."""
        weight, codes = batch["weight"], _codes(context.state)
        fakes = held(self.forward(model, batch, keys, context).fakes)
        losses, metrics, anchors = self.critic(model["discriminator"], batch["image"], fakes, weight, context)
        state = States(codes, anchors) if self.config.lecam else None
        sums = {name: weight @ each for name, each in metrics.items()}
        return Sums(weight @ losses, jnp.sum(weight), sums, state)

    def penalty(self, model: dict[str, Any], batch: dict[str, Array], keys: Array, context: Context) -> Sums:
        """The gradient penalty of the discriminator on real images."""
        _, penalty = self.penalties(model["discriminator"], batch["image"])
        return Sums(batch["weight"] @ penalty, jnp.sum(batch["weight"]), {})

    def whole(self, model: dict[str, Any], batch: dict[str, Array], keys: Array, context: Context) -> dict[str, Any]:
        """Sums of a micro-batch for the terms of the whole batch."""
        model = held(model)
        return self.own(model, self.forward(model, batch, keys, context), batch, context)

    def forward(self, model: dict[str, Any], batch: dict[str, Array], keys: Array, context: Context) -> Seen:
        """Reconstructions of a batch."""
        tokenizer, codes = synchronised(model["tokenizer"], context.axes), _codes(context.state)
        draws = isinstance(tokenizer.quantizer, GumbelQuantizer)

        def one(image: Array, weight: Array, key: Any) -> tuple[Array, Quantized, Any]:
            options = {"key": key} if draws else {}
            quantized, state = tokenizer.quantised(tokenizer.latents(image), codes, weight=weight, **options)
            return tokenizer.decoder.features(quantized.vectors), quantized, state

        mapped = jax.vmap(one, out_axes=(0, 0, None), axis_name="batch")
        features, quantized, codes = mapped(batch["image"], batch["weight"], keys)
        results = jax.vmap(tokenizer.decoder.head)(features)
        return Seen(features, results, jax.vmap(tokenizer.image_of)(results), quantized, codes)

    def own(self, model: dict[str, Any], seen: Seen, batch: dict[str, Array], context: Context) -> dict[str, Any]:
        """Sums over some images, without a gradient: assignments, and gradients by the decoder's last layer."""
        images, weight = batch["image"], batch["weight"]
        each = jax.vmap(functools.partial(count_codes, codes=self.config.sizes.codes))(seen.quantized.ids)
        found: dict[str, Any] = {"assigned": Assigned.of(seen.quantized, weight), "counts": weight @ each}
        found["weight"] = jnp.sum(weight)
        if not (self.adversarial and self.config.adaptive):
            return found
        model, seen = held(model), held(seen)
        tokenizer = model["tokenizer"]
        image_of = jax.vmap(tokenizer.image_of)
        terms = {
            "nll": lambda results: self.nll(results, image_of(results), images, context.frozen)[0],
            "generator": lambda results: self.generator(model["discriminator"], image_of(results), weight, context),
        }
        for name, term in terms.items():
            slopes = jax.grad(lambda results, term=term: weight @ term(results))(seen.results)
            found[name] = last_layer_gradient(tokenizer.decoder.head, lambda head: head.weight, seen.features, slopes)
        return found

    def nll(self, results: Array, fakes: Array, images: Array, frozen: Any) -> tuple[Array, dict[str, Array]]:
        """The reconstruction loss of each image, and its parts."""
        config, metrics = self.config, {"mse": squared_error(fakes, images)}
        if config.pixel_loss == "logit-laplace":
            pixels = metrics["nll"] = logit_laplace(images, *jnp.split(results, 2, axis=-1))
        else:
            pixels = absolute_error(fakes, images) if config.pixel_loss == "l1" else metrics["mse"]
        pixels = pixels if config.pixel == 1 else config.pixel * pixels
        if not config.perceptual:
            return pixels, metrics
        metrics["perceptual"] = jax.vmap(functools.partial(perceptual_loss, frozen))(images, fakes)
        return pixels + config.perceptual * metrics["perceptual"], metrics

    def logits(self, discriminator: Any, images: Array, weight: Array, context: Context) -> Array:
        """Of each image, or of each of its patches; computed anew in the backward pass where the net's blocks are."""
        if self.config.sizes.remat in (True, "full"):
            run: Any = eqx.filter_checkpoint(lambda net, images, weight: self._logits(net, images, weight, context))
            return run(discriminator, images, weight)
        return self._logits(discriminator, images, weight, context)

    def _logits(self, discriminator: Any, images: Array, weight: Array, context: Context) -> Array:
        if isinstance(discriminator, Discriminator):
            return jax.vmap(discriminator)(images)
        own = synchronised(discriminator, context.axes)
        # Statistics of the batch alone: the running ones serve inference, which a run never makes.
        one = lambda image, weight: own(image, own.init_state(), weight=weight)[0]
        return jax.vmap(one, axis_name="batch")(images, weight)

    def generator(self, discriminator: Any, fakes: Array, weight: Array, context: Context) -> Array:
        """The generator's loss of each image; the discriminator is held."""
        # Each player's loss holds the other still, so that one gradient of their sum is the update of both.
        return _means(
            generator_loss(self.logits(held(discriminator), fakes, weight, context), self.config.adversarial_form)
        )

    def critic(
        self, discriminator: Any, images: Array, fakes: Array, weight: Array, context: Context
    ) -> tuple[Array, dict[str, Array], Any]:
        """The discriminator's loss of each image, its parts, and the anchors after the batch."""
        config, penalty, anchors = self.config, 0.0, None
        on_fake = self.logits(discriminator, held(fakes), weight, context)
        if self.penalised and config.r1_every == 1:
            on_real, penalty = self.penalties(discriminator, images)
        else:
            on_real = self.logits(discriminator, images, weight, context)
        losses = _means(discriminator_loss(on_real, on_fake, config.adversarial_form))
        metrics = {"discriminator": losses + penalty, "realness_gap": _means(on_real - on_fake)}
        if config.lecam:
            found = context.state.anchors
            metrics["lecam"] = _means(lecam_penalty(on_real, on_fake, found))
            losses = losses + config.lecam * metrics["lecam"]
            sums = context.sum((weight @ _means(on_real), weight @ _means(on_fake), jnp.sum(weight)))
            anchors = found.moved(sums[0] / sums[2], sums[1] / sums[2])
        return self.started(context) * losses + penalty, metrics, anchors

    @property
    def penalised(self) -> bool:
        """True with a gradient penalty."""
        return self.adversarial and self.config.r1 > 0 and self.config.critic == "style"

    def penalties(self, discriminator: Any, images: Array) -> tuple[Array, Array]:
        """Logits of real images, and their penalties."""
        on_real, penalty = jax.vmap(functools.partial(r1_penalty, discriminator))(images)
        return on_real, self.config.r1 * penalty

    def started(self, context: Context) -> Any:
        """0 before the adversarial losses start, then 1."""
        start = self.config.adversarial_start
        return (jnp.asarray(context.step) >= start).astype(jnp.float32) if start else 1.0


def tokenizer_program(
    config: Any, facts: ImageFacts, tokenizer: Callable[[Any], Any], frozen: Callable[[], Any]
) -> Program:
    """The players of a config of `train.vqgan`, their turns, and the changes of the codebook.

    Args:
        tokenizer: initialiser from a key.
        frozen: loads the perceptual net.
    """
    objective = Objective(config)
    two, moving = objective.adversarial, config.code.kind == "ema"

    def init(key: Array) -> dict[str, Any]:
        tokenizer_key, discriminator_key = jr.split(key)
        players: dict[str, Any] = {"tokenizer": tokenizer(tokenizer_key)}
        if two:
            players["discriminator"] = discriminator_of(config, facts, discriminator_key)
        return players

    def init_state(model: dict[str, Any]) -> Any:
        codes = model["tokenizer"].init_state()
        return States(codes, Anchors.zero()) if two and config.lecam else codes

    # The codes of averages are model state, and their start is no parameter.
    players = {"generator": Player(("tokenizer.encoder", "tokenizer.decoder") if moving else "tokenizer")}
    together = ("generator", "discriminator") if two and not config.alternate else ("generator",)
    # Without such terms the use of the codes is that of a micro-batch, and no pass is taken for it.
    whole = objective.whole if config.entropy or (two and config.adaptive) else None
    turns = {"main": Turn(objective.main, together, whole=whole)}
    if two:
        players["discriminator"] = Player("discriminator", config.discriminator)
        if config.alternate:
            turns["critic"] = Turn(objective.judge, ("discriminator",))
        if objective.penalised and config.r1_every > 1:
            turns["r1"] = Turn(objective.penalty, ("discriminator",), every=config.r1_every)
    return Program(
        init=init,
        turns=turns,
        shapes={"image": (facts.shape, "float32")},
        players=players,
        changes=changes(config, eqx.filter_eval_shape(tokenizer, jr.key(0)).quantizer),
        init_state=init_state,
        frozen=frozen,
        fixed=("tokenizer.quantizer",) if moving else (),
    )


def discriminator_of(config: Any, facts: ImageFacts, key: Array) -> Any:
    """The discriminator of a config."""
    height, _, channels = facts.shape
    if config.critic == "style":
        return Discriminator(height, channels, width=config.critic_width, key=key)
    options = {"width": config.critic_width, "layers": config.critic_layers, "norm": config.critic_norm}
    return PatchDiscriminator(channels, **options, key=key)


def settled(model: dict[str, Any], state: Any) -> Any:
    """The tokenizer that a run releases, with the codes of a moving codebook."""
    return model["tokenizer"].settled(_codes(state))


def changes(config: Any, quantizer: Any) -> dict[str, Change]:
    """The codebook placed on data before the first step, and its dead codes restarted every so often; the start of a
    discriminator's norms on data.
    """
    moving = config.code.kind == "ema"

    def placed(learned: Any, averages: Any) -> Any:
        def change(model: dict[str, Any], batch: dict[str, Array], key: Array, context: Context) -> Any:
            latents = jax.vmap(model["tokenizer"].latents)(batch["image"])
            latents = latents.reshape(-1, latents.shape[-1])
            if moving:
                codes = averages(_codes(context.state), latents, key=key)
                return model, codes if context.state is _codes(context.state) else context.state._replace(codes=codes)
            found = with_codebooks(learned, model["tokenizer"].quantizer, latents, key=key)
            return eqx.tree_at(lambda m: m["tokenizer"].quantizer, model, found), context.state

        return change

    def normed(model: dict[str, Any], batch: dict[str, Array], key: Array, context: Context) -> Any:
        fakes = Objective(config).forward(model, batch, jr.split(key, len(batch["image"])), context).fakes
        return model | {"discriminator": model["discriminator"].started(fakes)}, context.state

    every = config.restart_every
    restarts = lambda step: bool(every) and 0 < step < 0.8 * config.steps and step % every == 0
    places = ("state",) if moving else ("model.tokenizer.quantizer",)
    start = lambda state, z, *, key: Averages.of(kmeans(z, config.sizes.codes, key=key))
    first = lambda step: step == 0
    found: dict[str, Change] = {}
    if moving or has_codebook(quantizer):
        if config.data_start:
            found["start"] = Change(placed(data_start, start), first, places)
        rare = functools.partial(restart_rare_codes, least=1.0)
        found["restart"] = Change(placed(restart_dead_codes, rare), restarts)
    if config.adversarial and config.critic == "patch" and config.critic_norm == "act":
        found["norms"] = Change(normed, first, ("model.discriminator.norms",))
    return found


def _codes(state: Any) -> Any:
    """State of the codebook."""
    return state.codes if isinstance(state, States) else state


def _means(x: Array) -> Array:
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))
