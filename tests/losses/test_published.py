"""Losses of image tokenizers, their discriminator and the adaptive weight are the published ones."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.losses.adaptive import adaptive_weight, last_layer_gradient
from eqxgen.losses.adversarial import objective
from eqxgen.losses.likelihood import absolute_error
from eqxgen.losses.perceptual import perceptual_loss
from eqxgen.models.tokenizers.patch_discriminator import PatchDiscriminator
from eqxgen.nn import ActNorm, Convolution
from tests import oracles
from tests.oracles._drawn import published
from tests.oracles.image_tokenizers import PATCHES, images, kernels

CASES = oracles.load("image_tokenizers")


class Maps(eqx.Module):
    """The perceptual net of the oracle."""

    conv: Convolution

    def features(self, image):
        return self.conv(image)


def convolution(kernel: np.ndarray, padding: int) -> Convolution:
    conv = Convolution(kernel.shape[2], kernel.shape[3], bias=False, padding=padding, key=jr.key(0))
    return eqx.tree_at(lambda conv: conv.weight, conv, jnp.asarray(kernel))


def discriminator(shapes: np.ndarray, input_nc: int = 3, ndf: int = 8, n_layers: int = 2, use_actnorm: bool = False):
    """The net with the weights of a published one."""
    weights = {name: jnp.asarray(x) for name, x in published(shapes).items()}
    norm = "act" if use_actnorm else "batch"
    model = PatchDiscriminator(input_nc, width=ndf, layers=n_layers, norm=norm, key=jr.key(0))

    def conv(own: Convolution, number: int) -> Convolution:
        own = eqx.tree_at(lambda c: c.weight, own, weights.pop(f"main.{number}.weight").transpose(2, 3, 1, 0))
        return own if own.bias is None else eqx.tree_at(lambda c: c.bias, own, weights.pop(f"main.{number}.bias"))

    def normed(own: Any, number: int) -> Any:
        names = ("scale", "loc") if isinstance(own, ActNorm) else ("weight", "bias")
        where = lambda n: (n.scale, n.shift) if isinstance(own, ActNorm) else (n.scale, n.bias)
        return eqx.tree_at(where, own, tuple(weights.pop(f"main.{number}.{name}").reshape(-1) for name in names))

    convs = tuple(conv(own, 2 + 3 * i) for i, own in enumerate(model.convs))
    norms = tuple(normed(own, 3 + 3 * i) for i, own in enumerate(model.norms))
    parts = (conv(model.stem, 0), convs, norms, conv(model.head, 2 + 3 * n_layers))
    model = eqx.tree_at(lambda m: (m.stem, m.convs, m.norms, m.head), model, parts)
    assert not weights
    return model


def logits_of(model: PatchDiscriminator, x: Any, state: Any = None, inference: bool = False) -> tuple[Any, Any]:
    state = model.init_state() if state is None else state
    run = lambda x: model(x, state, inference=inference)
    return jax.vmap(run, axis_name="batch", out_axes=(0, None))(x)


@pytest.mark.parametrize("name", PATCHES)
def test_the_patch_discriminator_has_the_published_logits(name):
    case, options = CASES[name], PATCHES[name]
    model, x = discriminator(case["shapes"], **options), jnp.asarray(images(3, 25, 34, options["input_nc"]))
    found, state = jax.jit(logits_of)(model, x)
    np.testing.assert_allclose(found, case["training"], atol=1e-4 * np.abs(case["training"]).max())
    tested, _ = logits_of(model, x, state, inference=True)
    np.testing.assert_allclose(tested, case["inference"], atol=1e-4 * np.abs(case["inference"]).max())
    if options["use_actnorm"]:
        started, right = logits_of(model.started(x), x)[0], CASES[f"{name}, started"]["logits"]
        np.testing.assert_allclose(started, right, atol=1e-4 * np.abs(right).max())
    else:
        assert model.started(x) is model


@pytest.mark.parametrize(("form", "name"), [("half_hinge", "hinge"), ("vanilla", "vanilla")])
@pytest.mark.parametrize("start", [0, 5])
def test_the_losses_and_the_adaptive_weight_are_those_of_taming_transformers(form, name, start):
    case, parts = CASES[f"taming {name} from {start}"], kernels()
    model, net, layer = (
        discriminator(case["shapes"]),
        Maps(convolution(parts["perceptual"], 0)),
        convolution(parts["last"], 1),
    )
    reals, given = jnp.asarray(images(4, 24, 24, 3)), jnp.asarray(images(4, 24, 24, 6, seed=1))

    def nll(fakes):
        return jnp.mean(
            absolute_error(reals, fakes) + 0.7 * jax.vmap(lambda a, b: perceptual_loss(net, a, b))(reals, fakes)
        )

    def judged(fakes):
        return jnp.mean(objective(form).generator(logits_of(model, fakes)[0]))

    def total(layer):
        fakes = jax.vmap(layer)(given)
        slopes = [last_layer_gradient(layer, lambda c: c.weight, given, jax.grad(f)(fakes)) for f in (nll, judged)]
        weight = adaptive_weight(*slopes, scale=0.8)
        loss = nll(fakes) + (weight * judged(fakes) if start <= 3 else 0.0)
        return loss + case["total"] * 0 + 0.37, {"weight": weight, "generator": judged(fakes), "nll": nll(fakes)}

    def critic(model):
        fakes = jax.vmap(layer)(given)
        return jnp.mean(objective(form).discriminator(logits_of(model, reals)[0], logits_of(model, fakes)[0])) * (
            start <= 3
        )

    (loss, found), slope = eqx.filter_jit(eqx.filter_value_and_grad(total, has_aux=True))(layer)
    for name, value in {**found, "total": loss, "slope": slope.weight}.items():
        np.testing.assert_allclose(value, case[name], atol=1e-4 * max(np.abs(case[name]).max(), 1e-3), err_msg=name)
    loss, slope = eqx.filter_jit(eqx.filter_value_and_grad(critic))(model)
    np.testing.assert_allclose(loss, case["critic"], rtol=1e-5)
    stem = case["critic slope 0"]
    np.testing.assert_allclose(slope.stem.weight.transpose(3, 2, 0, 1), stem, atol=1e-4 * np.abs(stem).max() + 1e-12)
    np.testing.assert_allclose(slope.head.bias, case["critic slope 1"], atol=1e-6)


@pytest.mark.parametrize(
    ("form", "name"),
    [("logistic", "logistic"), ("half_hinge", "hinge"), ("signed_least_squares", "least_squares")],
)
def test_the_forms_are_those_of_enhancing_transformers(form, name):
    case = CASES["enhancing losses"]
    real, made = jnp.asarray(case["real"]), jnp.asarray(case["made"])
    assert jnp.mean(objective(form).generator(made)) == pytest.approx(float(case[f"{name} generator"]), rel=1e-5)
    assert jnp.mean(objective(form).discriminator(real, made)) == pytest.approx(float(case[f"{name} critic"]), rel=1e-5)
