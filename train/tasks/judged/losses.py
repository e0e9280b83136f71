"""What the programs of judged autoencoders share: losses of a reconstruction, of a generator and of a discriminator.

With a discriminator there are two players, in one turn that shares the forward pass, or one after another. The gradient
penalty is a lazy turn. Terms that are no sum over images, such as the adaptive weight, are of the whole batch over
devices and micro-batches.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array

from eqxgen.losses.adaptive import adaptive_weight, last_layer_gradient
from eqxgen.losses.adversarial import Objective, held, objective
from eqxgen.losses.likelihood import absolute_error, logit_laplace, squared_error
from eqxgen.losses.penalties import Anchors, lecam_penalty, slopes, zero_centred
from eqxgen.losses.perceptual import perceptual_loss

from ...engine.recipe import Change, Context, Player, Program, Sums, Turn
from ..facts import ImageFacts
from .nets import discriminator_of, logits

PUBLISHED: dict[str, str] = {"hinge": "half_hinge", "least_squares": "signed_least_squares"}
"""What published tokenizers mean by the names of two forms."""


class States(NamedTuple):
    """Model state: of the codebook, and of the LeCam penalty."""

    codes: Any
    anchors: Anchors


class Seen(NamedTuple):
    """A forward pass over a batch: input and result of the decoder's last layer, images, latents, the codebook's
    state.
    """

    features: Array
    results: Array
    fakes: Array
    latents: Any
    codes: Any = None


@dataclasses.dataclass(frozen=True)
class Judged(abc.ABC):
    """Losses of a config of an autoencoder that is judged.

    Args:
        config: a `JudgedConfig` with `pixel_loss`, `pixel` and `sizes`.
        values: the reconstruction loss counts as many times for an image: 1, or the number of its values.
    """

    config: Any
    values: int = 1
    PLAYER: ClassVar[str]
    """Name of the autoencoder in the model."""

    @abc.abstractmethod
    def forward(self, model: dict[str, Any], batch: dict[str, Array], keys: Array, context: Context) -> Seen:
        """Reconstructions of a batch."""

    @abc.abstractmethod
    def image_of(self, net: Any, result: Array) -> Array:
        """Image of a result of the decoder's last layer."""

    @abc.abstractmethod
    def terms(
        self, error: Array, seen: Seen, whole: dict[str, Any], batch: dict[str, Array]
    ) -> tuple[Array, dict[str, Array], dict[str, Array]]:
        """The autoencoder's own loss of each image, metrics of each image, and sums of metrics."""

    def own(self, model: dict[str, Any], seen: Seen, batch: dict[str, Array], context: Context) -> dict[str, Any]:
        """Sums over some images, without a gradient: gradients by the decoder's last layer."""
        images, weight = batch["image"], batch["weight"]
        found: dict[str, Any] = {"weight": jnp.sum(weight)}
        if not (self.adversarial and self.config.adaptive):
            return found
        model, seen = held(model), held(seen)
        net = model[self.PLAYER]
        image_of = jax.vmap(functools.partial(self.image_of, net))
        terms = {
            "nll": lambda results: self.nll(results, image_of(results), images, context.frozen)[0],
            "generator": lambda results: self.generator(model["discriminator"], image_of(results), weight, context),
        }
        for name, term in terms.items():
            slopes = jax.grad(lambda results, term=term: weight @ term(results))(seen.results)
            found[name] = last_layer_gradient(net.decoder.head, lambda head: head.weight, seen.features, slopes)
        return found

    @property
    def adversarial(self) -> bool:
        """True with a discriminator."""
        return self.config.adversarial > 0

    @property
    def of_the_batch(self) -> bool:
        """True with a term of the whole batch, for which a pass is taken where there are micro-batches."""
        return self.adversarial and self.config.adaptive

    def main(self, model: dict[str, Any], batch: dict[str, Array], keys: Array, context: Context) -> Sums:
        """The autoencoder's losses; with them those of the discriminator, unless it has a turn of its own."""
        config, images, weight = self.config, batch["image"], batch["weight"]
        seen = self.forward(model, batch, keys, context)
        whole = context.sum(self.own(model, seen, batch, context)) if context.whole is None else context.whole
        error, metrics = self.nll(seen.results, seen.fakes, images, context.frozen)
        losses, more, sums = self.terms(error, seen, whole, batch)
        metrics = metrics | more
        state = context.state._replace(codes=seen.codes) if isinstance(context.state, States) else seen.codes
        if self.adversarial:
            discriminator = model["discriminator"]
            generator = self.generator(discriminator, seen.fakes, weight, context)
            factor, more = self.factor(whole, context)
            metrics |= {name: each * jnp.ones_like(generator) for name, each in more.items()}
            losses, metrics = losses + factor * generator, metrics | {"generator": generator}
            if not config.alternate:
                critic, more, anchors = self.critic(discriminator, images, seen.fakes, weight, context)
                losses, metrics = losses + critic, metrics | more
                state = States(seen.codes, anchors) if config.lecam else state
        return Sums(weight @ losses, jnp.sum(weight), _summed(weight, metrics) | sums, state)

    def judge(self, model: dict[str, Any], batch: dict[str, Array], keys: Array, context: Context) -> Sums:
        """The discriminator's losses in a turn of its own, after the autoencoder's update."""
        weight, codes = batch["weight"], codes_of(context.state)
        fakes = held(self.forward(model, batch, keys, context).fakes)
        losses, metrics, anchors = self.critic(model["discriminator"], batch["image"], fakes, weight, context)
        state = States(codes, anchors) if self.config.lecam else None
        return Sums(weight @ losses, jnp.sum(weight), _summed(weight, metrics), state)

    def penalty(self, model: dict[str, Any], batch: dict[str, Array], keys: Array, context: Context) -> Sums:
        """The gradient penalty of the discriminator on real images."""
        _, penalty = self.penalties(model["discriminator"], batch["image"])
        return Sums(batch["weight"] @ penalty, jnp.sum(batch["weight"]), {})

    def whole(self, model: dict[str, Any], batch: dict[str, Array], keys: Array, context: Context) -> dict[str, Any]:
        """Sums of a micro-batch for the terms of the whole batch."""
        model = held(model)
        return self.own(model, self.forward(model, batch, keys, context), batch, context)

    def nll(self, results: Array, fakes: Array, images: Array, frozen: Any) -> tuple[Array, dict[str, Array]]:
        """The reconstruction loss of each image, and its parts."""
        config, metrics = self.config, {"mse": squared_error(fakes, images)}
        if config.pixel_loss == "logit_laplace":
            pixels = metrics["nll"] = logit_laplace(images, *jnp.split(results, 2, axis=-1))
        elif config.pixel_loss == "l1":
            pixels = metrics["absolute_error"] = absolute_error(fakes, images)
        else:
            pixels = metrics["mse"]
        pixels = pixels if config.pixel == 1 else config.pixel * pixels
        if config.perceptual:
            metrics["perceptual"] = jax.vmap(functools.partial(perceptual_loss, frozen))(images, fakes)
            pixels = pixels + config.perceptual * metrics["perceptual"]
        return (pixels if self.values == 1 else self.values * pixels), metrics

    def factor(self, whole: dict[str, Any], context: Context) -> tuple[Any, dict[str, Array]]:
        """Weight of the generator's loss, and its parts."""
        factor = self.config.adversarial * self.started(context)
        if not self.config.adaptive:
            return (factor if self.values == 1 else self.values * factor), {}
        mean = {name: whole[name] / whole["weight"] for name in ("nll", "generator")}
        adaptive = adaptive_weight(mean["nll"], mean["generator"], scale=1.0)
        return factor * adaptive, {"adaptive_weight": adaptive}

    def logits(self, discriminator: Any, images: Array, weight: Array, context: Context) -> Array:
        """Of each image, or of each of its patches; computed anew in the backward pass where the net's blocks are."""
        run: Any = functools.partial(logits, context=context)
        run = eqx.filter_checkpoint(run) if self.config.sizes.remat in (True, "full") else run
        return run(discriminator, images, weight)

    def generator(self, discriminator: Any, fakes: Array, weight: Array, context: Context) -> Array:
        """The generator's loss of each image; the discriminator is held."""
        # Each player's loss holds the other still, so that one gradient of their sum is the update of both.
        return _means(self.form.generator(self.logits(held(discriminator), fakes, weight, context)))

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
        losses = _means(self.form.discriminator(on_real, on_fake))
        metrics = {"discriminator": losses + penalty, "realness_gap": _means(on_real - on_fake)}
        if config.lecam:
            found = context.state.anchors
            metrics["lecam"] = _means(lecam_penalty(on_real, on_fake, found))
            losses = losses + config.lecam * metrics["lecam"]
            sums = context.sum((weight @ _means(on_real), weight @ _means(on_fake), jnp.sum(weight)))
            anchors = found.moved(sums[0] / sums[2], sums[1] / sums[2])
        return self.started(context) * losses + penalty, metrics, anchors

    @property
    def form(self) -> Objective:
        """The losses of both players' logits."""
        name: str = self.config.adversarial_form
        return objective(PUBLISHED.get(name, name))

    @property
    def penalised(self) -> bool:
        """True with a gradient penalty."""
        return self.adversarial and self.config.r1 > 0 and self.config.critic == "style"

    def penalties(self, discriminator: Any, images: Array) -> tuple[Array, Array]:
        """Logits of real images, and their penalties."""
        on_real, _, gradient = slopes(lambda images: (jax.vmap(discriminator)(images), None), images)
        return on_real, self.config.r1 * zero_centred(gradient)

    def started(self, context: Context) -> Any:
        """0 before the adversarial losses start, then 1."""
        start = self.config.adversarial_start
        return (jnp.asarray(context.step) >= start).astype(jnp.float32) if start else 1.0


def judged_program(
    objective: Judged,
    facts: ImageFacts,
    make: Callable[[Array], Any],
    frozen: Callable[[], Any],
    *,
    trained: str | tuple[str, ...],
    init_codes: Callable[[Any], Any] = lambda net: None,
    changes: Mapping[str, Change] = {},
    fixed: tuple[str, ...] = (),
) -> Program:
    """The players of a judged autoencoder and their turns.

    Args:
        make: initialiser of the autoencoder from a key.
        frozen: loads the perceptual net.
        trained: paths of the autoencoder's trained parts.
        init_codes: (autoencoder) -> state of its codebook.
        changes: of its codebook.
        fixed: paths of parts that no player trains.
    """
    config, two = objective.config, objective.adversarial

    def init(key: Array) -> dict[str, Any]:
        own, other = jr.split(key)
        players: dict[str, Any] = {objective.PLAYER: make(own)}
        return players | ({"discriminator": discriminator_of(config, facts, other)} if two else {})

    def init_state(model: dict[str, Any]) -> Any:
        codes = init_codes(model[objective.PLAYER])
        return States(codes, Anchors.zero()) if two and config.lecam else codes

    def normed(model: dict[str, Any], batch: dict[str, Array], key: Array, context: Context) -> Any:
        fakes = objective.forward(model, batch, jr.split(key, len(batch["image"])), context).fakes
        return model | {"discriminator": model["discriminator"].started(fakes)}, context.state

    players = {"generator": Player(trained)}
    together = ("generator", "discriminator") if two and not config.alternate else ("generator",)
    # Without such terms the use of the codes is that of a micro-batch, and no pass is taken for it.
    turns = {"main": Turn(objective.main, together, whole=objective.whole if objective.of_the_batch else None)}
    changes = dict(changes)
    if two:
        players["discriminator"] = Player("discriminator", config.discriminator)
        if config.alternate:
            turns["critic"] = Turn(objective.judge, ("discriminator",))
        if objective.penalised and config.r1_every > 1:
            turns["r1"] = Turn(objective.penalty, ("discriminator",), every=config.r1_every)
        if config.critic == "patch" and config.critic_norm == "act":
            changes["norms"] = Change(normed, lambda step: step == 0, ("model.discriminator.norms",))
    return Program(
        init=init,
        turns=turns,
        shapes={"image": (facts.shape, "float32")},
        players=players,
        changes=changes,
        init_state=init_state,
        frozen=frozen,
        fixed=fixed,
    )


def codes_of(state: Any) -> Any:
    """State of the codebook."""
    return state.codes if isinstance(state, States) else state


def _summed(weight: Array, metrics: dict[str, Array]) -> dict[str, Array]:
    return {name: weight @ each for name, each in metrics.items()}


def _means(x: Array) -> Array:
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))
