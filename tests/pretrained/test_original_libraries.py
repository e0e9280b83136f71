"""Tiny random models of the original libraries, open_clip, timm and torchvision, in their own layouts: read with their
outputs, and written back to the bit. `nox -s parity` has these libraries.

torchvision 0.16 is the newest that imports beside a CPU build of PyTorch without its compiled operators.
"""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from eqxgen.pretrained import clip, dinov2, files, resnet, vit
from eqxgen.pretrained.table import written
from tests.full import FULL, rows


def needed(name):
    """A library, or a skip where it or what it imports is absent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, exc_type=ImportError)


def randomised(model, seed=0):
    """The module with parameters and running statistics of moderate size in every place."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, x in model.state_dict().items():
            if x.is_floating_point() and not name.endswith(("logit_scale", "attn_mask")):
                noise = torch.randn(x.shape, generator=draw)
                if name.endswith("running_var"):
                    x.copy_(1 + 0.3 * torch.rand(x.shape, generator=draw))
                elif x.ndim > 1 and "embed" not in name:
                    fan = x[0].numel()
                    x.copy_(noise * (1.4 if x.ndim == 4 else 1) / fan**0.5)
                else:
                    x.copy_((1 if name.endswith(("bn1.weight", "bn2.weight")) else x) + 0.1 * noise)
    return model.eval()


def arrays_of(model):
    return {name: np.asarray(x.detach().numpy()).copy() for name, x in model.state_dict().items()}


def original(mapping, model):
    """Arrays under the last names that a table has for each parameter, which are the original library's."""
    kept = tuple(row for row in reversed(mapping.rows) if row.all_names)
    return {name: stored.read(...) for name, stored in written(dataclasses.replace(mapping, rows=kept), model).items()}


def check_written(family, model, arrays, ignored=()):
    """The model's arrays under the original names are those of the file, to the bit."""
    again = original(family.describe(model)[1], model)
    assert again.keys() == arrays.keys() - set(ignored)
    for name, array in again.items():
        assert array.dtype == arrays[name].dtype, name
        np.testing.assert_array_equal(array, arrays[name], err_msg=name)
    return again


def close(found, wanted, atol=1e-5):
    wanted = wanted.detach().numpy()
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(np.asarray(found) / scale, wanted / scale, atol=atol)


IMAGES = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)


def channels_first(images):
    import torch

    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


TOWERS = {
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 128, "patch_size": 8},
    "text_cfg": {"context_length": 9, "vocab_size": 50, "width": 64, "heads": 1, "layers": 2},
}


@pytest.mark.parametrize("layout", ["OpenAI", "LAION"])
def test_clip_of_open_clip(layout, tmp_path):
    open_clip, torch = needed("open_clip"), needed("torch")
    quick = layout == "OpenAI"
    towers = TOWERS if quick else {**TOWERS, "text_cfg": {**TOWERS["text_cfg"], "heads": 4}}
    theirs = randomised(open_clip.model.CLIP(24, **towers, quick_gelu=quick))
    if quick:  # whose files have kernels in half precision, which their reader makes of any
        open_clip.model.convert_weights_to_lp(theirs, torch.float16)
    arrays = arrays_of(theirs)
    if quick:
        sizes = {"input_resolution": 32, "context_length": 9, "vocab_size": 50}
        torch.save({**theirs.state_dict(), **{k: torch.tensor(v) for k, v in sizes.items()}}, tmp_path / "ViT.pt")
        file = tmp_path / "ViT.pt"
        config = clip.sizes(files.open_arrays(file))
        ours, stored = clip.from_pretrained(file, jnp.float32, config=config), clip.from_pretrained(file, config=config)
        theirs = theirs.float()
    else:
        save_file(arrays, tmp_path / "model.safetensors")
        ours = stored = clip.from_pretrained(tmp_path, config={"model_cfg": {"embed_dim": 24, **towers}})
    ids = np.random.default_rng(1).integers(1, 48, (3, 9)).astype(np.int32)
    ids[np.arange(3), [4, 8, 6]] = 49
    given = channels_first(IMAGES), torch.from_numpy(ids.astype(np.int64))
    with torch.no_grad():
        image, text = theirs.encode_image(given[0]), theirs.encode_text(given[1])
        logits = theirs.get_logits(*given)[0]
    found = jax.jit(jax.vmap(lambda x, ids: (ours.image_features(x), ours.text_features(ids))))(IMAGES, ids)
    close(found[0], image)
    close(found[1], text)
    close(jax.jit(lambda image, text: ours.similarity(image, text))(*found), logits)
    again = check_written(clip.CLIP, stored, arrays)
    state = {name: torch.from_numpy(array.copy()) for name, array in again.items()}
    if quick:
        back = open_clip.model.build_model_from_openai_state_dict(state, cast_dtype=torch.float32).float()
    else:
        back = open_clip.model.CLIP(24, **towers)
        back.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(back.eval().encode_image(given[0]), image)
        assert torch.equal(back.encode_text(given[1]), text)


@pytest.mark.parametrize("name", ["classifier", "features", "three channels in one"])
def test_vit_of_timm(name, tmp_path):
    timm, torch = needed("timm"), needed("torch")
    classes, channels = {"classifier": (5, 3), "features": (0, 3), "three channels in one": (7, 1)}[name]
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 4, "in_chans": channels}
    theirs = randomised(timm.models.vision_transformer.VisionTransformer(**sizes, num_classes=classes))
    arrays = arrays_of(theirs)
    save_file(arrays, tmp_path / "model.safetensors")
    config = {
        "model_type": "vit",
        "architectures": ["ViTForImageClassification" if classes else "ViTModel"],
        "image_size": 32, "patch_size": 8, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 192, "layer_norm_eps": 1e-6, "num_channels": channels, "num_labels": classes,
        "add_pooling_layer": False,
    }  # fmt: skip
    ours = vit.from_pretrained(tmp_path, config=config)
    images = IMAGES[..., :channels]
    with torch.no_grad():
        wanted = theirs(channels_first(images))
    close(jax.jit(jax.vmap(lambda x: ours(x) if classes else ours.pooled(ours.tokens(x))))(images), wanted)
    again = check_written(vit.VIT, ours, arrays)
    back = timm.models.vision_transformer.VisionTransformer(**sizes, num_classes=classes).eval()
    back.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in again.items()})
    with torch.no_grad():
        assert torch.equal(back(channels_first(images)), wanted)


def test_dinov2_of_timm(tmp_path):
    timm, torch = needed("timm"), needed("torch")
    sizes = {"img_size": 28, "patch_size": 7, "embed_dim": 48, "depth": 2, "num_heads": 4, "num_classes": 0}
    theirs = randomised(timm.models.vision_transformer.VisionTransformer(**sizes, init_values=1.0))
    arrays = arrays_of(theirs)
    save_file(arrays, tmp_path / "model.safetensors")
    config = {
        "model_type": "dinov2", "architectures": ["Dinov2Model"], "image_size": 28, "patch_size": 7,
        "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "use_mask_token": False,
    }  # fmt: skip
    ours = dinov2.from_pretrained(tmp_path, config=config)
    images = IMAGES[:, :28, :28]
    with torch.no_grad():
        wanted = theirs(channels_first(images))
    close(jax.jit(jax.vmap(lambda x: ours.pooled(ours.tokens(x))))(images), wanted)
    check_written(dinov2.DINOV2, ours, arrays)


DEPTHS = {
    "torchvision 18": ("basic", [1, 2, 1, 1]),
    "torchvision 50": ("bottleneck", [1, 1, 2, 1]),
    "torchvision, whole 34": ("basic", [3, 4, 6, 3]),
    "torchvision, whole 50": ("bottleneck", [3, 4, 6, 3]),
    "torchvision, whole 101": ("bottleneck", [3, 4, 23, 3]),
    "torchvision, whole 152": ("bottleneck", [3, 8, 36, 3]),
    "timm 18": ("basic", [1, 1, 1, 2]),
    "timm 50": ("bottleneck", [1, 1, 1, 2]),
}


@pytest.mark.parametrize("name", rows(DEPTHS, *(name for name in DEPTHS if "whole" in name)))
def test_resnet_of_torchvision_and_timm(name, tmp_path):
    torch = needed("torch")
    block, depths = DEPTHS[name]
    kind = {"basic": "BasicBlock", "bottleneck": "Bottleneck"}[block]
    library = needed(f"{name.split()[0].rstrip(',')}.models.resnet")
    make = lambda: library.ResNet(getattr(library, kind), depths, num_classes=6)
    theirs = randomised(make())
    arrays = arrays_of(theirs)
    torch.save(theirs.state_dict(), tmp_path / "resnet.pth")
    if FULL and name.startswith("torchvision, whole"):
        values = resnet.torchvision(int(name.split()[-1]), 6)
    else:
        wide = 4 if block == "bottleneck" else 1
        widths = [wide * width for width in (64, 128, 256, 512)]
        values = {"model_type": "resnet", "num_labels": 6, "embedding_size": 64, "hidden_sizes": widths}
        values |= {"depths": depths, "layer_type": block}
    ours = resnet.from_pretrained(tmp_path / "resnet.pth", config=values)
    images = np.random.default_rng(2).normal(size=(2, 70, 65, 3)).astype(np.float32)
    with torch.no_grad():
        wanted = theirs(channels_first(images))
    close(jax.jit(jax.vmap(lambda x: ours(x)))(jnp.asarray(images)), wanted)
    again = check_written(resnet.RESNET, ours, arrays)
    back = make().eval()
    back.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in again.items()})
    with torch.no_grad():
        assert torch.equal(back(channels_first(images)), wanted)
