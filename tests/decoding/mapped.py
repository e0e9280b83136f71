"""Samplers and losses of one example as rows of a model with a function, for tests/models/model_meshes.py."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from eqxgen.configs import DiTConfig, ImageSampling, MaskedDecoding
from eqxgen.decoding import images, masked, scales
from eqxgen.diffusion.generate import generate
from eqxgen.losses.image_ar import image_ar_loss
from eqxgen.losses.mage import mage_loss
from eqxgen.losses.masked import masked_loss
from tests.arrays import integers
from tests.models.model_rows import ROWS, Row
from train import diffusion
from train.tasks.facts import ImageFacts

CODES = 7  # of the models in the table


class Mapped(eqx.Module):
    """A function of a model, an example and a key."""

    model: Any
    function: Callable[..., Any] = eqx.field(static=True)

    def __call__(self, *inputs: jax.Array, key: Any) -> jax.Array:
        return self.function(self.model, *inputs, key=key)


def row(name: str, function: Callable[..., Any], *kept: int) -> Row:
    """Of a model in its table, with those of its inputs."""
    model = ROWS[name]
    chosen = lambda seed: tuple(model.inputs(seed)[n] for n in kept)
    return Row(lambda key: Mapped(eqx.nn.inference_mode(model.make(key)), function), chosen, draws=True)


def masks(**options: Any) -> Callable[..., Any]:
    options = MaskedDecoding(**{"steps": 3, "guidance": 2.0} | options)
    return lambda model, condition, key: masked.generate(model, condition, options, key=key).astype(jnp.float32)


def tokens(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    options = ImageSampling(**{"guidance": 2.0, "top_k": 3} | options)
    return lambda model, condition, key: function(model, condition, options, key=key).astype(jnp.float32)


def denoised(sampler: str) -> Row:
    """A sampler of diffusion, guided by the class."""
    preset, facts = diffusion.PRESETS["digits"], ImageFacts((8, 8, 1), 10, 17)
    net = DiTConfig(dim=16, depth=1, heads=2, patch=4, learn_variance=False)
    options = dataclasses.replace(preset.sampling, steps=3, sampler=sampler)
    config = dataclasses.replace(preset, dit=net, sampling=options)
    made, rules = diffusion.model(config, facts), diffusion.rules(config, facts)
    run = lambda model, label, key: generate(model, rules, label, null=10, key=key).x
    return Row(
        lambda key: Mapped(eqx.nn.inference_mode(made(key)), run), lambda seed: (integers((), 10, seed),), draws=True
    )


MAPPED = {
    **{f"diffusion, {name}": denoised(name) for name in ("heun", "ddpm", "dpmpp_2m_sde", "unipc")},
    "masked": row("MaskGIT", masks(), 1),
    "masked, halton": row("MaskGIT", masks(order="halton", schedule="arccos"), 1),
    "masked, by text": row("Muse", masks(guidance_ramp=1.0), 1),
    "image tokens": row("ImageAR", tokens(images.generate), 1),
    "image tokens, candidates": row("ImageAR", tokens(images.generate, candidates=2), 1),
    "image tokens, by text": row("Parti", tokens(images.generate), 1),
    "scales": row("VAR", tokens(scales.generate, guidance_ramp=1.0), 1),
    # A token to predict is a code, and never the mask token, which the models' own examples have too.
    "masked loss": row("MaskGIT", lambda model, ids, *x, key: masked_loss(model, ids % CODES, *x, key=key).loss, 0, 1),
    "MAGE's loss": row("MAGE", lambda model, ids, *x, key: mage_loss(model, ids % CODES, *x, key=key).loss, 0, 1),
    "loss of image tokens": row("ImageAR", lambda model, *x, key: image_ar_loss(model, *x, key=key).loss, 0, 1),
}
