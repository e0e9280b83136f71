"""Every model, from one table: shapes, transformations, gradients, dtypes, files."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import (
    AutoencoderConfig,
    BERTConfig,
    CLIPConfig,
    DiTConfig,
    MAEConfig,
    MaskGITConfig,
    ResNetConfig,
    T5Config,
    TextTowerConfig,
    ViTConfig,
    VQGANConfig,
)
from eqxgen.models.autoencoder import KLAutoencoder, VQAutoencoder
from eqxgen.models.bert import BERTClassifier, BERTMaskedLM
from eqxgen.models.convnet import ConvNet
from eqxgen.models.denoisers.dit import DiT
from eqxgen.models.maskgit import MaskGIT
from eqxgen.models.t5 import T5
from eqxgen.models.tokenizers.discriminator import Discriminator
from eqxgen.models.vit import ViT
from eqxgen.models.vqgan import VQGAN
from eqxgen.nn import GroupNorm
from tests.arrays import drawn, filled
from tests.full import FULL, REASON, full
from tests.models.model_rows import ROWS, SMALL_VIT, hidden, image, labelled, noised, pair, sound, text
from train.precision import cast
from train.run.weights import load_model, save_model

BF16 = jnp.dtype("bfloat16")
KEY = jr.key(0)
SIZES = MaskGITConfig(dim=16, depth=2, heads=2, hidden_dim=24, dropout=0.1, placement="pre")
VQ = VQGANConfig(width=8, multipliers=(1, 2), blocks=1, latent_dim=5, codes=7)
AUTOENCODER = AutoencoderConfig(widths=(4, 8), blocks=1, latent_dim=3, groups=2, attention=(1,))
BERT = BERTConfig(dim=16, depth=2, heads=2, hidden_dim=24, context=9)
T5_SIZES = T5Config(dim=16, depth=2, heads=2, head_dim=6, hidden_dim=24, buckets=8, max_distance=20)


@dataclasses.dataclass(frozen=True)
class Row:
    """A model: how it is made from a key, an input for it of a seed, how it is called, and the shape that comes out."""

    name: str
    make: Callable[[Any], Any]
    example: Callable[[Any], Any]
    shape: tuple[int, ...]
    call: Callable[..., Any] = lambda model, *x, key=None: model(*x)

    def __repr__(self):
        return self.name


def train_maskgit(model, tokens, label, key=None):
    return model(tokens, label, key=key, inference=key is None)


def train_text(model, *ids, key=None):
    return model(*ids, key=key, inference=key is None)


def train_image(model, image, key=None):
    return model(image, key=key, inference=key is None)


def sampled(model, image, key=None):
    return model(image, key=key)[0]


def decoded(model, image, key=None):
    return model(image)[0]


DRAWING = (train_maskgit, train_text, train_image, sampled)
"""Calls that draw where there is a key."""


def maskgit(**changes):
    return lambda key: MaskGIT(9, 7, 3, dataclasses.replace(SIZES, **changes), key=key)


def dit(key):
    return DiT(6, 4, 3, 5, DiTConfig(dim=16, depth=2, heads=2, hidden_dim=24), key=key)


def row_of(name):
    return ROWS[name].make


MODELS = [
    Row("MaskGIT", maskgit(), labelled, (9, 7), train_maskgit),
    Row("MaskGIT, post-norm", maskgit(placement="post"), labelled, (9, 7), train_maskgit),
    Row("MaskGIT, rematerialised", maskgit(remat=True), labelled, (9, 7), train_maskgit),
    Row("MAGE", row_of("MAGE"), labelled, (9, 7), train_maskgit),
    Row("ImageAR", row_of("ImageAR"), labelled, (9, 8), train_maskgit),
    Row("VAR", row_of("VAR"), ROWS["VAR"].inputs, (14, 8), train_maskgit),
    Row("Muse", row_of("Muse"), ROWS["Muse"].inputs, (9, 7), train_maskgit),
    Row("Parti", row_of("Parti"), ROWS["Parti"].inputs, (9, 7), train_maskgit),
    Row("BERTMaskedLM", lambda key: BERTMaskedLM(7, BERT, key=key), text, (9, 7), train_text),
    Row("BERTClassifier", lambda key: BERTClassifier(7, 3, BERT, key=key), text, (3,), train_text),
    Row("T5", lambda key: T5(7, T5_SIZES, key=key), lambda seed: (*text(seed), *text(seed, 5)), (5, 7), train_text),
    *(
        Row(name, row_of(name), sound, (12, outputs))
        for name, outputs in {"WaveGRU": 256, "WaveGRU, dual": 512, "WaveGRU, logistics": 6}.items()
    ),
    Row("DiT", dit, noised, (6, 4, 6)),
    Row("DiT, modern", row_of("DiT, modern"), noised, (6, 4, 3)),
    Row("UViT", row_of("UViT"), noised, (6, 4, 3)),
    Row("PaxUNet", row_of("PaxUNet"), noised, (6, 4, 3)),
    Row("UNetClassifier", row_of("UNetClassifier"), lambda seed: noised(seed)[:2], (5,)),
    Row("UNet", row_of("UNet, NCSN++"), noised, (6, 4, 3)),
    Row("UNet, ADM", row_of("UNet, ADM"), noised, (6, 4, 6)),
    Row(
        "VQGAN",
        lambda key: VQGAN(12, 12, 3, VQ, key=key),
        image,
        (12, 12, 3),
        decoded,
    ),
    Row(
        "KLAutoencoder",
        lambda key: KLAutoencoder(3, AUTOENCODER, key=key),
        image,
        (12, 12, 3),
        sampled,
    ),
    Row("VAE", row_of("VAE"), image, (12, 12, 3), sampled),
    Row(
        "VAE, convolutional",
        row_of("VAE, convolutional"),
        image,
        (12, 12, 3),
        sampled,
    ),
    Row(
        "VQAutoencoder",
        lambda key: VQAutoencoder(3, 7, AUTOENCODER, key=key),
        image,
        (12, 12, 3),
        decoded,
    ),
    *(Row(name, row_of(name), image, (12, 12, 3), decoded) for name in ("Taming", "ViTVQGAN", "TiTok")),
    Row("PatchDiscriminator", row_of("PatchDiscriminator"), image, (4, 4)),
    Row("ViT", row_of("ViT, DINOv2's"), hidden, (16,)),
    Row(
        "ViT, pooled by class and mean",
        lambda key: ViT(12, 12, 3, 4, dataclasses.replace(SMALL_VIT, pool="class+mean", pooler=True), key=key),
        image,
        (4,),
    ),
    Row("CLIP", row_of("CLIP"), pair, ()),
    Row("CLIP, SigLIP's", row_of("CLIP, SigLIP's"), pair, ()),
    Row("MAE", row_of("MAE"), hidden, (9, 48)),
    Row("Discriminator", lambda key: Discriminator(12, 3, width=8, max_width=16, key=key), image, ()),
    Row(
        "ConvNet",
        lambda key: ConvNet(3, 4, width=8, levels=2, features=6, key=key),
        image,
        (4,),
        train_image,
    ),
]


LONG = (
    "UNet, ADM",
    "UNetClassifier",
    "PaxUNet",
    "MaskGIT, post-norm",
    "MaskGIT, rematerialised",
    "VQAutoencoder",
    "Taming",
    "CLIP, SigLIP's",
)
"""Rows whose like is in the suite."""


@pytest.fixture(
    scope="module", params=[pytest.param(row, marks=full if row.name in LONG else ()) for row in MODELS], ids=repr
)
def row(request):
    return request.param


@pytest.fixture(scope="module")
def model(row):
    return filled(row.make)


@pytest.fixture(scope="module")
def output(row, model):
    return np.asarray(run(row.call, model, *row.example(1)))


@eqx.filter_jit
def run(call, model, *x, key=None):
    return call(model, *x, key=key)


def test_the_output_has_its_shape_and_is_finite(row, output):
    assert output.shape == row.shape
    assert output.dtype == np.float32
    assert np.isfinite(output).all()


@full
def test_the_same_key_makes_the_same_model_of_finite_numbers_and_another_another(row):
    leaves = lambda m: [np.asarray(x) for x in jax.tree.leaves(eqx.filter(m, eqx.is_array))]
    first, again, other = (leaves(row.make(jr.key(seed))) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other))
    assert all(np.isfinite(array).all() for array in first)


def test_a_batch_is_each_example_by_itself(row, model, output):
    examples = [row.example(seed) for seed in (1, 2, 3)]
    batch = [np.stack(parts) for parts in zip(*examples)]
    together = eqx.filter_jit(eqx.filter_vmap(lambda m, *x: row.call(m, *x), in_axes=(None, *(0,) * len(batch))))(
        model, *batch
    )
    for i, alone in enumerate([output, *(run(row.call, model, *x) for x in examples[1:])]):
        np.testing.assert_allclose(together[i], alone, rtol=2e-4, atol=2e-5)


@functools.cache
def half_gradient(row, dtype=BF16):
    """The model's result and its gradients, computed in a type from float32 parameters."""
    weight = drawn(row.shape, 3)

    @eqx.filter_jit
    def gradient(model, *x):
        def loss(model):
            y = row.call(cast(model, dtype), *cast(x, dtype), key=jr.key(4))
            return jnp.sum(y.astype(jnp.float32) * weight), y

        return eqx.filter_grad(loss, has_aux=True)(model)

    return gradient(filled(row.make), *row.example(1))


GRADIENTS = ("MaskGIT", "WaveGRU", "DiT", "UNet", "VQGAN", "ViT", "CLIP")
"""Rows whose gradients are in the suite: one of each kind of net."""


@pytest.mark.parametrize("dtype", [pytest.param(jnp.dtype("float32"), marks=full), BF16], ids=str)
def test_gradients_are_finite_and_every_parameter_has_one(row, dtype):
    if not FULL and row.name not in GRADIENTS:
        pytest.skip(REASON)
    grads, _ = half_gradient(row, dtype)
    for path, leaf in jax.tree_util.tree_flatten_with_path(grads)[0]:
        name, leaf = jax.tree_util.keystr(path, simple=True, separator="."), np.asarray(leaf)
        assert np.isfinite(leaf).all(), name
        assert leaf.dtype == np.float32, name
        # The straight-through estimator passes the codebook by, and softmax hides a shift of all keys.
        assert np.any(leaf != 0) or name.endswith(("quantizer.codebook", "qkv.bias")), name


def test_the_type_of_the_weights_is_the_type_inside(row, model, output):
    if row.call in DRAWING or not (FULL or row.name in GRADIENTS):
        half = eqx.filter_jit(lambda model, *x: row.call(cast(model, BF16), *cast(x, BF16)))(model, *row.example(1))
    else:
        _, half = half_gradient(row, BF16)
    assert half.dtype in (jnp.bfloat16, jnp.float32)  # logits are float32 whatever the weights
    scale = np.abs(output).max() + 1e-3
    if not row.name.startswith("VQ"):  # where a rounding may choose another code
        np.testing.assert_allclose(np.asarray(half, np.float32), output, atol=0.1 * scale)


def test_a_saved_model_is_the_same_when_loaded(row, model, output, tmp_path):
    save_model(tmp_path / "model.safetensors", model, {"row": row.name})
    loaded, description = load_model(tmp_path / "model.safetensors", lambda description: row.make(jr.key(9)))
    assert description == {"row": row.name}
    np.testing.assert_array_equal(run(row.call, loaded, *row.example(1)), output)


def test_dropout_needs_a_key_and_draws_from_it():
    model, x = filled(maskgit()), labelled(1)
    with pytest.raises(ValueError, match="dropout needs key"):
        model(*x)
    one, same, other = (run(train_maskgit, model, *x, key=jr.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_rematerialisation_changes_no_number():
    plain, remat = (filled(maskgit(remat=flag)) for flag in (False, True))
    gradient = eqx.filter_jit(eqx.filter_grad(lambda m: jnp.sum(train_maskgit(m, *labelled(1), key=jr.key(2)) ** 2)))
    for a, b in zip(jax.tree.leaves(gradient(plain)), jax.tree.leaves(gradient(remat))):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_the_program_does_not_grow_with_depth():
    def lines(depth):
        model = eqx.filter_eval_shape(maskgit(depth=depth), jr.key(0))
        gradient = lambda m: eqx.filter_grad(lambda m: jnp.sum(train_maskgit(m, *labelled(1), key=jr.key(2))))(m)
        arrays, rest = eqx.partition(model, lambda x: isinstance(x, jax.ShapeDtypeStruct))
        return len(jax.jit(lambda a: gradient(eqx.combine(a, rest))).lower(arrays).as_text().splitlines())

    assert lines(24) <= 1.02 * lines(8), "short stacks are compiled block by block"


@pytest.mark.parametrize(("group_width", "groups"), [(1, {8, 16}), (4, {2, 4}), (64, {1})])
def test_groups_of_a_tokenizers_norms_have_the_channels_asked_for(group_width, groups):
    sizes = VQGANConfig(width=8, multipliers=(1, 2), blocks=1, latent_dim=4, codes=5, group_width=group_width)
    nets = jax.tree.leaves(VQGAN(8, 8, 3, sizes, key=KEY), is_leaf=lambda part: isinstance(part, GroupNorm))
    norms = [part for part in nets if isinstance(part, GroupNorm)]
    assert {norm.groups for norm in norms} == groups
    assert len(norms) == 14


def test_the_paper_model_has_its_size():
    shapes = eqx.filter_eval_shape(lambda key: MaskGIT(256, 1024, 1000, MaskGITConfig.base(), key=key), jr.key(0))
    assert sum(x.size for x in jax.tree.leaves(shapes) if isinstance(x, jax.ShapeDtypeStruct)) == 172_456_960
    vqgan = eqx.filter_eval_shape(lambda key: VQGAN(256, 256, 3, VQGANConfig.maskgit(), key=key), jr.key(0))
    assert (vqgan.tokens, vqgan.codes) == (256, 1024)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: MaskGIT(9, 7, 0, SIZES, key=jr.key(0)), "classes must be an integer of at least 1: got 0"),
        (
            lambda: dataclasses.replace(SIZES, heads=3),
            r"model.heads must divide model.dim: got model.dim=16, model.heads=3",
        ),
        (lambda: dataclasses.replace(SIZES, dropout=1.0), r"model.dropout must be in \[0, 1\): got 1.0"),
        (lambda: dataclasses.replace(SIZES, placement="middle"), "model.placement must be pre or post"),
        (lambda: dataclasses.replace(SIZES, depth=0), "model.depth must be at least 1: got 0"),
        (lambda: VQGANConfig(multipliers=()), "model.multipliers"),
        (
            lambda: VQGANConfig(width=24, multipliers=(1, 2)),
            "model.width times each .* got 48 channels .* in 32 groups",
        ),
        (lambda: VQGANConfig(width=14, multipliers=(1,), group_width=4), "14 channels of 14 and .* in 3 groups"),
        (lambda: VQGANConfig(group_width=0), "model.group_width must be at least 1: got 0"),
        (lambda: ViTConfig(pool="first"), "model.pool must be one of class, mean, class.mean, attention: got 'first'"),
        (lambda: ViTConfig(class_token=False), "model.pool='class' needs model.class_token=True: got False"),
        (lambda: ViTConfig(registers=-1), "model.registers must be at least 0: got -1"),
        (lambda: ViTConfig.dinov2("huge"), "size must be one of small, base, large, giant: got 'huge'"),
        (lambda: MAEConfig(masked=1.0), r"model.masked must be in \(0, 1\): got 1.0"),
        (lambda: CLIPConfig(dim=9, sigmoid=True), "model.dim must be model.vision.dim=768 with sigmoid=True: got 9"),
        (lambda: TextTowerConfig(pool="end"), "model.text.end must be given with pool='end' alone: got None"),
        (lambda: ResNetConfig.imagenet(20), "depth must be one of 18, 34, 50, 101, 152: got 20"),
        (lambda: ResNetConfig(depths=(1, 2)), r"model.depths must be 3 integers of at least 1, or none: got \(1, 2\)"),
        (lambda: ResNetConfig(2, block="bottleneck"), "model.width must give 4 channels at least .*: got 2"),
        (lambda: ViT(12, 10, 3, 4, SMALL_VIT, key=KEY), "patch must divide width: got width=10, patch=4"),
        (
            lambda: ViT(12, 12, 3, 4, SMALL_VIT, key=KEY)(jnp.ones((12, 16, 3))),
            r"image must be \(height=12, width=12, channels=3\): got shape \(12, 16, 3\)",
        ),
        (
            lambda: ViT(12, 12, 3, 4, SMALL_VIT, key=KEY)(jnp.ones((12, 12, 3)), mask=jnp.ones(9, bool)),
            "mask needs a model of config.mask_token=True: got False",
        ),
        (
            lambda: ROWS["CLIP"].make(KEY).text(jnp.zeros(10, jnp.int32)),
            "ids must be at most context=9 tokens: got 10",
        ),
        (lambda: VQGANConfig(temperature=0.0), "model.temperature must be positive: got 0.0"),
        (lambda: DiTConfig(dim=18, heads=2), "model.dim must be a multiple of 4: got 18"),
        (lambda: DiTConfig(heads=7), "model.heads must divide model.dim: got model.dim=768, model.heads=7"),
        (lambda: DiT(6, 5, 3, 5, DiTConfig(), key=KEY), "patch must divide width: got width=5, patch=2"),
        (
            lambda: dit(KEY)(jnp.ones((4, 6, 3)), jnp.asarray(0.0), jnp.asarray(0)),
            r"x must be \(height=6, width=4, channels=3\): got shape \(4, 6",
        ),
        (
            lambda: dit(KEY)(jnp.ones((6, 4, 3)), jnp.asarray(0.0), jnp.asarray(6)),
            r"label must be in \[0, classes \+ 1 null=6\)",
        ),
        (lambda: VQGAN(13, 12, 3, VQ, key=jr.key(0)), "factor must divide height: got height=13, factor=2"),
        (
            lambda: BERTMaskedLM(7, BERT, key=KEY)([1, 2, 3], places=jnp.asarray([3]), inference=True),
            r"places must be in \[0, tokens=3\): got values from 3",
        ),
        (lambda: ConvNet(3, 4, width=12, key=jr.key(0)), "groups must divide width: got width=12, groups=8"),
        (
            lambda: maskgit()(jr.key(0))(jnp.zeros(8, jnp.int32), jnp.asarray(0), inference=True),
            r"ids must be \(tokens=9,\): got shape \(8,\)",
        ),
        (
            lambda: maskgit()(jr.key(0))(jnp.full(9, 8), jnp.asarray(0), inference=True),
            r"ids must be in \[0, codes \+ 1 mask=8\): got values from 8",
        ),
        (
            lambda: maskgit()(jr.key(0))(jnp.full(9, -1), jnp.asarray(0), inference=True),
            "ids must be in .*: got values from -1",
        ),
        (
            lambda: maskgit()(jr.key(0))(jnp.zeros(9, jnp.int32), jnp.asarray(4), inference=True),
            r"label must be in \[0, classes \+ 1 null=4\)",
        ),
    ],
)
def test_a_wrong_argument_is_an_error_with_the_law(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


@pytest.mark.parametrize(("tokens", "label"), [(8, 0), (-1, 0), (0, 4), (0, -1)])
def test_inside_a_compiled_program_an_id_out_of_range_gives_nan_and_no_other_token(tokens, label):
    logits = run(train_maskgit, maskgit()(jr.key(0)), jnp.full(9, tokens), jnp.asarray(label))
    assert jnp.isnan(logits).all()


@pytest.mark.parametrize(
    ("config", "millions"),
    [(DiTConfig.small(), 33), (DiTConfig.base(), 130), (DiTConfig.large(), 458), (DiTConfig.xlarge(), 675)],
)
def test_a_dit_has_the_papers_number_of_parameters(config, millions):
    model = eqx.filter_eval_shape(lambda: DiT(32, 32, 4, 1000, config, key=KEY))
    count = sum(x.size for x in jax.tree.leaves(model) if isinstance(x, jax.ShapeDtypeStruct))
    assert round(count / 1e6) == millions


def test_a_fresh_dit_is_zero_and_each_of_its_blocks_the_identity():
    model, (x, time, label) = dit(KEY), noised(1)
    assert not np.any(run(lambda m, *x, key: m(*x), model, x, time, label))
    tokens = drawn((7, 16))
    np.testing.assert_array_equal(eqx.filter_jit(model.stack)(tokens, np.ones(16, np.float32)), tokens)


def test_a_dit_tells_times_labels_and_places_apart():
    model, (x, time, label) = filled(dit), noised(1)
    call = eqx.filter_jit(lambda *args: model(*args))
    y = call(x, time, label)
    assert float(jnp.abs(call(x, time + 100, label) - y).max()) > 1e-3
    assert float(jnp.abs(call(x, time, (label + 1) % 6) - y).max()) > 1e-3
    # Without positions, moving every patch by one would move the output alike.
    moved = jnp.roll(call(jnp.roll(x, 2, 0), time, label), -2, 0)
    assert float(jnp.abs(moved - y).max()) > 1e-3
