"""The program of an image tokenizer: quantisation and entropy terms, and changes of its codebook."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array

from eqxgen.losses.reconstruction import Assigned, tokenizer_losses
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

from ...engine.recipe import Change, Context, Program
from ..facts import ImageFacts
from .losses import Judged, Seen, codes_of, judged_program


class QuantisedObjective(Judged):
    """Losses of a config of `train.vqgan`."""

    PLAYER = "tokenizer"

    @property
    def of_the_batch(self) -> bool:
        return bool(self.config.entropy) or super().of_the_batch

    def forward(self, model: dict[str, Any], batch: dict[str, Array], keys: Array, context: Context) -> Seen:
        tokenizer, codes = synchronised(model["tokenizer"], context.axes), codes_of(context.state)
        draws = isinstance(tokenizer.quantizer, GumbelQuantizer)

        def one(image: Array, weight: Array, key: Any) -> tuple[Array, Quantized, Any]:
            options = {"key": key} if draws else {}
            quantized, state = tokenizer.quantised(tokenizer.latents(image), codes, weight=weight, **options)
            return tokenizer.decoder.features(quantized.vectors), quantized, state

        mapped = jax.vmap(one, out_axes=(0, 0, None), axis_name="batch")
        features, quantized, codes = mapped(batch["image"], batch["weight"], keys)
        results = jax.vmap(tokenizer.decoder.head)(features)
        return Seen(features, results, jax.vmap(tokenizer.image_of)(results), quantized, codes)

    def image_of(self, net: Any, result: Array) -> Array:
        return net.image_of(result)

    def own(self, model: dict[str, Any], seen: Seen, batch: dict[str, Array], context: Context) -> dict[str, Any]:
        weight, codes = batch["weight"], self.config.sizes.codes
        each = jax.vmap(functools.partial(count_codes, codes=codes))(seen.latents.ids)
        found = {"assigned": Assigned.of(seen.latents, weight), "counts": weight @ each}
        return found | super().own(model, seen, batch, context)

    def terms(
        self, error: Array, seen: Seen, whole: dict[str, Any], batch: dict[str, Array]
    ) -> tuple[Array, dict[str, Array], dict[str, Array]]:
        weights = {"quantisation": self.config.quantisation, "entropy": self.config.entropy}
        found = tokenizer_losses(error, seen.latents, whole["assigned"], **weights)
        count, counts = jnp.sum(batch["weight"]), whole["counts"]
        of_codes = {"usage": count * usage(counts), "perplexity": count * perplexity(counts)}
        return found.total, {"distance": found.distance}, of_codes


def tokenizer_program(
    config: Any, facts: ImageFacts, tokenizer: Callable[[Any], Any], frozen: Callable[[], Any]
) -> Program:
    """The players of a config of `train.vqgan`, their turns, and the changes of the codebook.

    Args:
        tokenizer: initialiser from a key.
        frozen: loads the perceptual net.
    """
    # The codes of averages are model state, and their start is no parameter.
    moving = config.code.kind == "ema"
    return judged_program(
        QuantisedObjective(config),
        facts,
        tokenizer,
        frozen,
        trained=("tokenizer.encoder", "tokenizer.decoder") if moving else "tokenizer",
        init_codes=lambda net: net.init_state(),
        changes=changes(config, eqx.filter_eval_shape(tokenizer, jr.key(0)).quantizer),
        fixed=("tokenizer.quantizer",) if moving else (),
    )


def settled(model: dict[str, Any], state: Any) -> Any:
    """The tokenizer that a run releases, with the codes of a moving codebook."""
    return model["tokenizer"].settled(codes_of(state))


def changes(config: Any, quantizer: Any) -> dict[str, Change]:
    """The codebook placed on data before the first step, and its dead codes restarted every so often."""
    moving = config.code.kind == "ema"

    def placed(learned: Any, averages: Any, first: bool = False) -> Any:
        def change(model: dict[str, Any], batch: dict[str, Array], key: Array, context: Context) -> Any:
            latents = jax.vmap(model["tokenizer"].latents)(batch["image"])
            latents = latents.reshape(-1, latents.shape[-1])
            if moving:
                codes = averages(codes_of(context.state), latents, key=key)
                return model, codes if context.state is codes_of(context.state) else context.state._replace(codes=codes)
            found = with_codebooks(learned, model["tokenizer"].quantizer, latents, placed=not first, key=key)
            return eqx.tree_at(lambda m: m["tokenizer"].quantizer, model, found), context.state

        return change

    every = config.restart_every
    restarts = lambda step: bool(every) and 0 < step < 0.8 * config.steps and step % every == 0
    places = ("state",) if moving else ("model.tokenizer.quantizer",)
    start = lambda state, z, *, key: Averages.of(kmeans(z, config.sizes.codes, key=key))
    found: dict[str, Change] = {}
    if moving or has_codebook(quantizer):
        if config.data_start:
            found["start"] = Change(placed(data_start, start, first=True), lambda step: step == 0, places)
        rare = functools.partial(restart_rare_codes, least=1.0)
        found["restart"] = Change(placed(restart_dead_codes, rare), restarts)
    return found
