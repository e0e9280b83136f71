"""Published vision models give transformers' outputs, and are written back to the bit."""

import dataclasses
import json
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from eqxgen.configs import ResNetConfig, TextTowerConfig, ViTConfig
from eqxgen.models import CLIP, MAE, ResNet, ViT
from eqxgen.models.clip import TextTower
from eqxgen.nn import WithState, resized_positions
from eqxgen.pretrained import clip, dinov2, from_pretrained, resnet, siglip, to_pretrained, vit
from eqxgen.pretrained.family import kind_of
from tests import oracles
from tests.oracles._drawn import published as drawn_files
from tests.oracles.vision import MODELS

CASES = oracles.load("vision")
FAMILIES = {"ViT": "vit", "DINOv2": "dinov2", "CLIP": "clip", "SigLIP": "siglip", "ViT-MAE": "mae", "ResNet": "resnet"}
OLD_BLOCKS = "decoder.decoder_encoder.layer."  # transformers' own name for what hub files call decoder_layers


def family(name):
    return FAMILIES[name.split(",")[0]]


def published(name):
    return drawn_files(CASES[name]["shapes"])


def write(folder, values, arrays):
    folder.mkdir(exist_ok=True)
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def outputs(model, case):
    image = jnp.asarray(case["image"])
    if isinstance(model, MAE):
        return jax.jit(jax.vmap(lambda x, noise: model(x, noise=noise)[0]))(image, jnp.asarray(case["noise"]))
    if not isinstance(model, CLIP):
        return jax.jit(jax.vmap(lambda x: model(x)))(image)

    @jax.jit
    def logits(image, ids):
        return model.similarity(jax.vmap(model.image_features)(image), jax.vmap(model.text_features)(ids))

    return logits(image, jnp.asarray(case["ids"]))


def close(found, wanted, atol=1e-5):
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(np.asarray(found) / scale, wanted / scale, atol=atol)


@pytest.mark.parametrize("name", MODELS)
def test_a_published_model_has_its_outputs_and_is_written_to_the_bit(name, tmp_path):
    case, arrays = CASES[name], published(name)
    values = json.loads(str(case["config"]))
    model = from_pretrained(write(tmp_path / "in", values, arrays))
    close(outputs(model, case), case["out"])
    to_pretrained(model, tmp_path / "out", family(name))
    again = load_file(tmp_path / "out" / "model.safetensors")
    arrays = {key.replace(OLD_BLOCKS, "decoder.decoder_layers."): array for key, array in arrays.items()}
    assert again.keys() == arrays.keys()
    for key, array in arrays.items():
        assert again[key].dtype == array.dtype, key
        assert np.array_equal(again[key], array), key
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    kept = {
        key: value for key, value in values.items() if key in config and key not in ("vision_config", "text_config")
    }
    assert {key: config[key] for key in kept} == kept


def test_the_loss_of_masked_patches_is_the_published_one(tmp_path):
    case = CASES["ViT-MAE"]
    model = from_pretrained(write(tmp_path, json.loads(str(case["config"])), published("ViT-MAE")))
    image, noise = jnp.asarray(case["image"]), jnp.asarray(case["noise"])
    both = lambda x, noise: (model.loss(x, noise=noise), model(x, noise=noise)[1])
    losses, mask = jax.jit(jax.vmap(both))(image, noise)
    np.testing.assert_allclose(jnp.mean(losses), case["loss"], rtol=1e-5)
    np.testing.assert_array_equal(mask, case["mask"])
    with pytest.raises(ValueError, match="noise or key must be given"):
        model(image[0])


@pytest.mark.parametrize("name", [name for name in CASES["bicubic"] if name != "table"])
def test_resized_positions_are_torchs_bicubic_interpolation(name):
    rows, columns, antialias = map(int, name.split())
    table = jnp.asarray(CASES["bicubic"]["table"])
    found = resized_positions(table, rows, columns, antialias=bool(antialias))
    close(found, CASES["bicubic"][name], atol=2e-6)


def renamed(arrays, rules, joined=()):
    """Arrays under other names: regular expressions in order; those of `joined` with queries, keys and values as one."""
    found = {}
    for name, array in arrays.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        found[name] = array
    for pattern, new in joined:
        for name in [name for name in found if re.search(pattern.format("q"), name)]:
            parts = [name.replace(pattern.format("q"), pattern.format(each)) for each in "qkv"]
            found[name.replace(pattern.format("q"), new)] = np.concatenate([found.pop(part) for part in parts])
    return found


TIMM = (
    (r"^(vit|dinov2)\.", ""),
    (r"^embeddings\.cls_token", "cls_token"),
    (r"^embeddings\.mask_token", "mask_token"),
    (r"^embeddings\.position_embeddings", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"^encoder\.layer\.", "blocks."),
    (r"attention\.attention\.(q|k|v)(uery|ey|alue)", r"attn.\1"),
    (r"attention\.output\.dense", "attn.proj"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"(\d)\.output\.dense", r"\1.mlp.fc2"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"^layernorm\.", "norm."),
    (r"layer_scale(\d)\.lambda1", r"ls\1.gamma"),
    (r"weights_in", "w12"),
    (r"weights_out", "w3"),
    (r"^classifier\.", "head."),
)
OPENAI = (
    (r"^text_model\.embeddings\.token_embedding", "token_embedding"),
    (r"^text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"^text_model\.encoder\.layers", "transformer.resblocks"),
    (r"^text_model\.final_layer_norm", "ln_final"),
    (r"^vision_model\.embeddings\.class_embedding", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.position_embedding\.weight", "visual.positional_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding", "visual.conv1"),
    (r"^vision_model\.pre_layrnorm", "visual.ln_pre"),
    (r"^vision_model\.post_layernorm", "visual.ln_post"),
    (r"^vision_model\.encoder\.layers", "visual.transformer.resblocks"),
    (r"^visual_projection\.weight", "visual.proj"),
    (r"^text_projection\.weight", "text_projection"),
    (r"self_attn\.([qkv])_proj", r"attn.\1"),
    (r"self_attn\.out_proj", "attn.out_proj"),
    (r"layer_norm(\d)", r"ln_\1"),
    (r"mlp\.fc1", "mlp.c_fc"),
    (r"mlp\.fc2", "mlp.c_proj"),
)
TORCHVISION = (
    (r"^resnet\.embedder\.embedder\.convolution", "conv1"),
    (r"^resnet\.embedder\.embedder\.normalization", "bn1"),
    (r"^resnet\.encoder\.stages\.0\.layers", "layer1"),
    (r"^resnet\.encoder\.stages\.1\.layers", "layer2"),
    (r"layer\.0\.convolution", "conv1"),
    (r"layer\.0\.normalization", "bn1"),
    (r"layer\.1\.convolution", "conv2"),
    (r"layer\.1\.normalization", "bn2"),
    (r"layer\.2\.convolution", "conv3"),
    (r"layer\.2\.normalization", "bn3"),
    (r"shortcut\.convolution", "downsample.0"),
    (r"shortcut\.normalization", "downsample.1"),
    (r"^classifier\.1", "fc"),
)
QKV = (("attn.{}.", "attn.qkv."),)
NAMINGS = {
    "ViT, classifier": (TIMM, QKV),
    "DINOv2, SwiGLU": (TIMM, QKV),
    "ResNet, bottleneck": (TORCHVISION, ()),
    "CLIP, largest id": (OPENAI, (("attn.{}.", "attn.in_proj_"),)),
}


@pytest.mark.parametrize("name", NAMINGS)
def test_the_original_names_give_the_same_model(name, tmp_path):
    case, arrays = CASES[name], renamed(published(name), *NAMINGS[name])
    if family(name) == "clip":
        arrays |= {key: np.ascontiguousarray(arrays[key].T) for key in ("visual.proj", "text_projection")}
        arrays["input_resolution"] = np.asarray(12, np.int64)
    if family(name) == "resnet":  # files from before torch counted batches
        arrays = {key: array for key, array in arrays.items() if not key.endswith("num_batches_tracked")}
    close(outputs(from_pretrained(write(tmp_path, json.loads(str(case["config"])), arrays)), case), case["out"])


def test_sizes_of_a_clip_are_read_from_openais_arrays():
    shape = lambda *sizes: np.zeros(sizes, np.float32)
    arrays = {
        "visual.conv1.weight": shape(128, 3, 4, 4),
        "visual.positional_embedding": shape(10, 128),
        "visual.transformer.resblocks.0.mlp.c_fc.weight": shape(512, 128),
        "visual.transformer.resblocks.0.attn.in_proj_weight": shape(384, 128),
        "transformer.resblocks.0.mlp.c_fc.weight": shape(256, 64),
        "transformer.resblocks.0.attn.in_proj_weight": shape(192, 64),
        "transformer.resblocks.1.attn.in_proj_weight": shape(192, 64),
        "token_embedding.weight": shape(30, 64),
        "positional_embedding": shape(9, 64),
        "text_projection": shape(64, 48),
    }
    values = clip.sizes(arrays)
    model = eqx.filter_eval_shape(clip.build(values)[0], jr.key(0))
    assert (model.vision.height, model.config.dim, model.text.embedding.vocab) == (12, 48, 30)
    assert (model.vision.config.heads, model.text.config.depth, model.text.config.pool) == (2, 2, "largest")
    open_clip = {
        "model_cfg": {
            "embed_dim": 48,
            "vision_cfg": {"image_size": 12, "layers": 1, "width": 128, "patch_size": 4},
            "text_cfg": {"context_length": 9, "vocab_size": 30, "width": 64, "heads": 1, "layers": 2},
        }
    }
    assert kind_of(open_clip) in clip.CLIP.types
    other = eqx.filter_eval_shape(clip.build(open_clip)[0], jr.key(0))
    assert other.text.config == dataclasses.replace(model.text.config, activation="gelu")
    assert other.vision.config == dataclasses.replace(model.vision.config, activation="gelu")


def test_published_sizes_have_their_number_of_parameters():
    count = lambda make: sum(
        x.size for x in jax.tree.leaves(eqx.filter_eval_shape(make, jr.key(0))) if isinstance(x, jax.ShapeDtypeStruct)
    )
    timm = vit.build({"architecture": "vit_base_patch16_224", "num_classes": 1000})[0]
    assert count(timm) == 86_567_656
    assert count(clip.build({"model_type": "clip", "vision_config": {}, "text_config": {}})[0]) == 151_277_313
    assert count(siglip.build({"vision_config": {}, "text_config": {}})[0]) == 203_155_970
    base = {"model_type": "dinov2", "image_size": 518, "patch_size": 14, "architectures": ["Dinov2Model"]}
    assert count(dinov2.build(base)[0]) == 86_580_480
    assert count(lambda key: ViT(518, 518, 3, None, ViTConfig.dinov2("giant"), key=key)) == 1_136_480_768
    for depth, size in {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}.items():
        net = eqx.filter_eval_shape(resnet.build(resnet.torchvision(depth))[0], jr.key(0)).model
        assert count(lambda key, net=net: net) == size, depth


def test_a_pooled_text_without_an_end_is_its_first_token():
    tower = TextTower(10, TextTowerConfig(dim=16, depth=1, heads=2, context=5, pool="end", end=9), key=jr.key(0))
    one, every = jax.jit(lambda ids: (tower(ids), tower.tokens(ids)))(jnp.asarray([3, 4, 5]))
    np.testing.assert_array_equal(one, every[0])


def shaped(make):
    return eqx.filter_eval_shape(make, jr.key(0))


def stateful(net):
    return WithState(net, net.init_state())


SMALL = ViTConfig(patch=4, dim=8, depth=1, heads=2)
MEAN = dataclasses.replace(SMALL, pool="mean")
VIT = {"model_type": "vit", "architectures": ["ViTModel"], "hidden_size": 8}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vit.build(VIT | {"qkv_bias": False}), "qkv_bias must be True, as ViT's: got False"),
        (lambda: vit.build(VIT | {"hidden_act": "mish"}), "hidden_act must be one of gelu, .*: got 'mish'"),
        (lambda: vit.build(VIT | {"architectures": ["ViTForMaskedImageModeling"]}), "architectures must be one of ViT"),
        (lambda: vit.build({"architecture": "vit_so400m_patch14_224"}), "architecture must be such as .*so400m"),
        (lambda: dinov2.build({"architectures": ["Dinov2Backbone"]}), "architectures must be one of Dinov2Model, "),
        (
            lambda: siglip.build({"vision_config": {"vision_use_head": False}}),
            "vision_use_head must be True, as SigLIP's: got False",
        ),
        (
            lambda: siglip.build({"text_config": {"projection_size": 5}}),
            "projection_size must be vision_config.hidden_size=768: got 5",
        ),
        (lambda: resnet.build({"hidden_act": "gelu"}), "hidden_act must be 'relu', as ResNet's: got 'gelu'"),
        (
            lambda: to_pretrained(
                shaped(lambda key: stateful(ResNet(3, 4, ResNetConfig(), key=key))), "nowhere", "resnet"
            ),
            "model must be of ResNet's architecture",
        ),
        (
            lambda: to_pretrained(shaped(lambda key: ViT(8, 8, 3, 2, MEAN, key=key)), "nowhere", "vit"),
            "model must be of ViT's architecture to be written as one",
        ),
        (
            lambda: to_pretrained(shaped(lambda key: ViT(8, 8, 3, 2, SMALL, key=key)), "nowhere", "dinov2"),
            "of DINOv2's architecture",
        ),
    ],
)
def test_what_cannot_be_read_or_written_is_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_resnet_is_trained_on_from_published_weights(tmp_path):
    case = CASES["ResNet, basic"]
    loaded = from_pretrained(write(tmp_path, json.loads(str(case["config"])), published("ResNet, basic")))
    assert isinstance(loaded, WithState)
    assert int(loaded.state[0].batches) == 7
    net = lambda image, state: loaded.model(image, state)
    run = jax.vmap(net, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    logits, state = jax.jit(run)(jnp.asarray(case["image"]), loaded.state)
    assert logits.shape == (2, 2)
    assert int(state[0].batches) == 8
    assert not np.array_equal(state[0].mean, loaded.state[0].mean)
