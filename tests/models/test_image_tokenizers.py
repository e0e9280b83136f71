"""Tokenizers of images: ViT-VQGAN is the published one; every net takes every quantiser; bad sizes are one line."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import QUANTIZERS, QuantizerConfig, TamingConfig, TiTokConfig, ViTVQGANConfig, VQGANConfig
from eqxgen.models import VQGAN, Taming, TiTok, ViTVQGAN
from eqxgen.models.tokenizers.quantizers import chosen
from eqxgen.models.tokenizers.taming import published as as_autoencoder
from eqxgen.nn import VectorQuantizer
from eqxgen.nn.quantize import count_codes, data_start, usage, with_codebooks
from eqxgen.pretrained import table
from eqxgen.pretrained.formats.stored import held
from eqxgen.pretrained.images import vit_vqgan
from tests import oracles
from tests.full import rows
from tests.oracles._drawn import published
from tests.oracles.image_tokenizers import CODE_DIM, CODES, VITS, images

CASES = oracles.load("image_tokenizers")
NETS = {
    "maskgit": (VQGAN, VQGANConfig(width=8, multipliers=(1, 2), blocks=1, latent_dim=6, codes=16), 6),
    "taming": (
        Taming,
        TamingConfig(widths=(8, 8), blocks=1, latent_dim=6, attention=(1,), groups=4, codes=16, code_dim=5),
        5,
    ),
    "vit": (ViTVQGAN, ViTVQGANConfig(patch=4, dim=16, depth=2, heads=2, codes=16, code_dim=4), 4),
    "titok": (TiTok, TiTokConfig(patch=4, latents=3, dim=16, depth=1, heads=2, codes=16, code_dim=4), 4),
}


def values_of(name: str) -> dict:
    """The published configuration of a case."""
    options = dict(VITS[name])
    inner = options | options.pop("decoder", {})
    sizes = lambda values: {name: values[name] for name in vit_vqgan.SIZES}
    values = {"encoder": sizes(options), "decoder": sizes(inner), "n_embed": CODES, "embed_dim": CODE_DIM}
    values |= {"image_size": list(options["image_size"]), "patch_size": options["patch_size"]}
    return values | {"channels": options.get("channels", 3), "dim_head": options["dim_head"]}


@pytest.mark.parametrize("name", rows(VITS, "vit"))
def test_vit_vqgan_has_the_published_codes_images_losses_and_gradients(name):
    case, (make, mapping) = CASES[name], vit_vqgan.build(values_of(name))
    arrays = published(case["shapes"])
    stored = {name: held(array) for name, array in arrays.items()}
    model, _ = table.read(mapping, stored, eqx.filter_eval_shape(make, jr.key(0)))
    height, width = VITS[name]["image_size"]
    unit = jnp.asarray(images(2, height, width, model.channels))

    def loss(model):
        made, quantized = jax.vmap(model)(2 * unit - 1)
        made = (made + 1) / 2
        return jnp.mean((made - unit) ** 2) + jnp.mean(quantized.distance), (made, quantized)

    (_, (made, quantized)), slopes = eqx.filter_jit(eqx.filter_value_and_grad(loss, has_aux=True))(model)
    np.testing.assert_array_equal(quantized.ids.reshape(2, -1), case["ids"])
    np.testing.assert_allclose(jnp.mean(quantized.distance), case["loss"], rtol=1e-4)
    np.testing.assert_allclose(made, case["image"], atol=1e-4 * np.abs(case["image"]).max())
    for found, right in (
        (slopes.encoder.down.weight, case["slope of pre_quant"]),
        (slopes.quantizer.quantizer.codebook, case["slope of codes"]),
    ):
        np.testing.assert_allclose(found, right, atol=1e-4 * np.abs(right).max())
    values, mapping = vit_vqgan.describe(model)
    assert json.loads(json.dumps(values))["encoder"] == values_of(name)["encoder"]
    written = table.written(mapping, model)
    assert all(np.array_equal(written[path].read(...), arrays[path]) for path in written)
    seen = vit_vqgan.infer(stored, {"dim_head": values["dim_head"], "image_size": values["image_size"]})
    assert {key: seen[key] for key in values} == values


@pytest.mark.parametrize("net", rows(NETS, *(name for name in NETS if name != "vit")))
def test_every_net_takes_every_quantiser(net):
    kind, config, dim = NETS[net]

    def run(quantizer: str):
        options = {"quantizer": QuantizerConfig(quantizer, 16, dim), "laplace": quantizer == "fsq"}
        model = kind(8, 12, 1, config, key=jr.key(0), **options)
        image, state = jnp.zeros((2, 8, 12, 1)), model.init_state()
        one = lambda x: model.reconstruct(x, state, key=jr.key(1))
        made, quantized, state = jax.vmap(one, axis_name="batch", out_axes=(0, 0, None))(image)
        settled = model.settled(state)
        ids = settled.encode(image[0])
        return made, quantized, ids, settled.decode(ids)

    for quantizer in set(QUANTIZERS) - {"multiscale"}:
        made, quantized, ids, image = eqx.filter_eval_shape(run, quantizer)
        assert (made.shape, image.shape) == ((2, 8, 12, 1), (8, 12, 1))
        places = 3 if net == "titok" else 6 if net == "vit" else 24
        assert ids.shape == (places * (4 if quantizer == "residual" else 1),)
        assert quantized.assignment.shape[-1] == 16


@pytest.mark.parametrize("net", rows(NETS, "taming", "titok"))
def test_scales_end_at_the_grid_of_a_net(net):
    kind, config, dim = NETS[net]
    make = lambda *scales: kind(
        8, 8, 1, config, quantizer=QuantizerConfig("multiscale", 16, dim, scales=scales), key=jr.key(0)
    )
    if net == "titok":
        with pytest.raises(ValueError, match=r"the last of scales must be both sides of the grid, 3: got \(1, 3\)"):
            make(1, 3)
        return
    side = 2 if net == "vit" else 4
    with pytest.raises(ValueError, match=rf"both sides of the grid, {side} x {side}: got \(1, 3\)"):
        make(1, 3)

    def run():
        model = make(1, side)
        ids = model.encode(jnp.zeros((8, 8, 1)))
        return model(jnp.zeros((8, 8, 1)))[0], ids, model.decode(ids)

    made, ids, image = eqx.filter_eval_shape(run)
    assert made.shape == image.shape == (8, 8, 1)
    assert ids.shape == (1 + side * side,)


@pytest.mark.parametrize("kind", ["vq", "cosine", "residual"])
def test_a_start_from_data_places_every_codebook_that_vectors_reach(kind):
    quantizer = chosen(QuantizerConfig(kind, 8, 3, stages=2), key=jr.key(0))
    z = 2 + jr.normal(jr.key(1), (64, 3))
    placed = with_codebooks(data_start, quantizer, z, key=jr.key(2))
    used = lambda q: [float(usage(count_codes(ids, 8))) for ids in jnp.atleast_2d(q.nearest(z).T)]
    assert min(used(placed)) == 1.0
    assert min(used(quantizer)) < 1.0
    grid = chosen(QuantizerConfig("fsq", 16, 3), key=jr.key(0))
    assert with_codebooks(data_start, grid, z, key=jr.key(2)) is grid


def test_the_legacy_loss_has_the_value_but_not_the_gradients_of_the_right_one():
    z = jr.normal(jr.key(0), (7, 3))
    make = lambda legacy: VectorQuantizer(5, 3, commitment=0.25, legacy=legacy, key=jr.key(1))
    slope = lambda q: eqx.filter_grad(lambda q: jnp.sum(q(z).distance))(q).codebook
    pull = lambda q: jax.grad(lambda z: jnp.sum(q(z).distance))(z)
    right, old = make(False), make(True)
    np.testing.assert_allclose(right(z).distance, old(z).distance, rtol=1e-6)
    np.testing.assert_allclose(slope(old), 0.25 * slope(right), rtol=1e-5)
    np.testing.assert_allclose(0.25 * pull(old), pull(right), rtol=1e-5)


def test_tamings_tokenizer_is_the_published_autoencoder():
    kind, config, _ = NETS["taming"]
    model = kind(8, 12, 1, config, key=jr.key(0))
    other = as_autoencoder(model, config)
    image = jr.uniform(jr.key(1), (8, 12, 1))
    np.testing.assert_array_equal(model(image)[0], other(image)[0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "fsq", "codes": 1024, "levels": (8, 5, 5, 5)}, r"levels must multiply to model\.codes: .* 1000"),
        ({"kind": "fsq", "codes": 1000}, r"levels must be given for a number of codes that is no power of 2: .*1000"),
        ({"kind": "fsq", "codes": 8, "levels": (8, 1)}, "levels must be integers of at least 2"),
        ({"kind": "lfq", "codes": 1000}, r"model\.codes must be a power of 2 .* lfq: got 1000; give --model.codes 512"),
        ({"kind": "lfq", "codes": 64, "bits": 7}, r"bits must be log2 of model\.codes: got bits=7 .* 128"),
        (
            {"kind": "wave"},
            "quantizer.kind must be one of vq, cosine, ema, fsq, lfq, residual, multiscale, gumbel: got 'wave'",
        ),
        ({"scales": (2, 1)}, r"scales must be integers of at least 1 that increase: got \(2, 1\)"),
        ({"stages": 0}, "stages must be at least 1: got 0"),
        ({"kind": "gumbel", "gumbel_temperature": 0.0}, "gumbel_temperature must be positive: got 0"),
        ({"kind": "ema", "legacy": True}, "legacy must be false for quantizer ema"),
    ],
)
def test_sizes_of_a_quantiser_that_do_not_match_are_one_line(values, message):
    with pytest.raises(ValueError, match=message) as caught:
        QuantizerConfig(**values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("net", "message"), [("taming", "factor must divide width"), ("vit", "factor must divide width")]
)
def test_a_side_that_the_factor_does_not_divide_is_one_line(net, message):
    kind, config, _ = NETS[net]
    with pytest.raises(ValueError, match=message):
        kind(8, 13, 1, config, key=jr.key(0))
