"""The PatchGAN and the losses of taming transformers, ViT-VQGAN and the losses of enhancing transformers, small and
with drawn weights. EQXGEN_TAMING names a checkout of github.com/CompVis/taming-transformers, EQXGEN_ENHANCING one of
github.com/thuanz123/enhancing-transformers.
"""

import os
import sys
import types
from typing import Any

import numpy as np

from tests.oracles._drawn import drawn, redraw

PATCHES = {
    "patches": {"input_nc": 3, "ndf": 8, "n_layers": 2, "use_actnorm": False},
    "patches, act norm": {"input_nc": 1, "ndf": 6, "n_layers": 3, "use_actnorm": True},
}
VITS = {
    "vit": {"image_size": (24, 16), "patch_size": 4, "dim": 16, "depth": 2, "heads": 2, "mlp_dim": 24, "dim_head": 8},
    "vit, deeper decoder": {
        "image_size": (8, 8),
        "patch_size": 2,
        "dim": 12,
        "depth": 1,
        "heads": 3,
        "mlp_dim": 20,
        "channels": 1,
        "dim_head": 4,
        "decoder": {"dim": 20, "depth": 3, "heads": 2, "mlp_dim": 32},
    },
}
CODES, CODE_DIM = 11, 5


def cases():
    if "EQXGEN_TAMING" in os.environ:
        sys.path.insert(0, os.environ["EQXGEN_TAMING"])
    if "EQXGEN_ENHANCING" in os.environ:
        # The package's own __init__ imports its trainer.
        package: Any = types.ModuleType("enhancing")
        package.__path__ = [f"{os.environ['EQXGEN_ENHANCING']}/enhancing"]
        sys.modules["enhancing"] = package
    return dict([*_patches(), *_taming_losses(), *_enhancing_losses(), *_vits()])


def images(*shape: int, seed: int = 0) -> np.ndarray:
    """Images in [-1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def nchw(array: np.ndarray) -> Any:
    """Channels first, as a tensor."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))


def _patches():
    import torch
    from taming.modules.discriminator.model import NLayerDiscriminator

    for name, options in PATCHES.items():
        model = NLayerDiscriminator(**options)
        shapes = redraw(model)
        x = images(3, 25, 34, options["input_nc"])
        if options["use_actnorm"]:
            for module in model.modules():
                if hasattr(module, "initialized"):
                    module.initialized.fill_(1)
        with torch.no_grad():
            trained, tested = (f().forward(nchw(x))[:, 0].numpy() for f in (model.train, model.eval))
        yield name, {"shapes": shapes, "training": trained, "inference": tested}
        if options["use_actnorm"]:
            for module in model.modules():
                if hasattr(module, "initialized"):
                    module.initialized.fill_(0)
            with torch.no_grad():
                started = model.train()(nchw(x))[:, 0].numpy()
            yield f"{name}, started", {"logits": started}


def features(kernel):
    """A perceptual distance of one convolution: the mean squared difference of its results, of each image."""
    import torch

    class Distance(torch.nn.Module):
        def forward(self, first, second):
            one, other = (torch.nn.functional.conv2d(x, nchw_kernel(kernel)) for x in (first, second))
            return ((one - other) ** 2).mean(dim=(1, 2, 3), keepdim=True)

    return Distance


def nchw_kernel(kernel: np.ndarray) -> Any:
    """A kernel (height, width, in, out) as a tensor (out, in, height, width)."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))


def kernels() -> dict[str, np.ndarray]:
    """Weights of the perceptual distance and of the decoder's last layer."""
    return drawn({"perceptual": (3, 3, 3, 4), "last": (3, 3, 6, 3)})


def _taming_losses():
    import torch

    parts = kernels()
    stub: Any = types.ModuleType("taming.modules.losses.lpips")
    stub.LPIPS = features(parts["perceptual"])
    sys.modules["taming.modules.losses.lpips"] = stub
    from taming.modules.losses.vqperceptual import VQLPIPSWithDiscriminator

    inputs, given = images(4, 24, 24, 3), images(4, 24, 24, 6, seed=1)
    codebook = torch.tensor(0.37)
    for form in ("hinge", "vanilla"):
        for start in (0, 5):
            loss = VQLPIPSWithDiscriminator(
                disc_start=start, disc_weight=0.8, perceptual_weight=0.7, disc_ndf=8, disc_num_layers=2, disc_loss=form
            )
            shapes = redraw(loss.discriminator)
            last = torch.nn.Parameter(nchw_kernel(parts["last"]))
            made = torch.nn.functional.conv2d(nchw(given), last, padding=1)
            total, log = loss(codebook, nchw(inputs), made, 0, 3, last_layer=last)
            slope = torch.autograd.grad(total, last, retain_graph=True)[0]
            critic, _ = loss(codebook, nchw(inputs), made, 1, 3, last_layer=last)
            names = ("main.0.weight", "main.8.bias")
            weights = dict(loss.discriminator.named_parameters())
            slopes = torch.autograd.grad(critic, [weights[name] for name in names], allow_unused=True)
            yield (
                f"taming {form} from {start}",
                {
                    "shapes": shapes,
                    "total": total.detach(),
                    "weight": log["train/d_weight"],
                    "generator": log["train/g_loss"],
                    "nll": log["train/nll_loss"],
                    "slope": slope.numpy().transpose(2, 3, 1, 0),
                    "critic": critic.detach(),
                }
                | {f"critic slope {i}": slope.numpy() for i, slope in enumerate(slopes)},
            )


def _enhancing_losses():
    import torch

    for name in ("kornia", "kornia.filters", "omegaconf", "lpips", "enhancing.losses.op"):
        stub: Any = types.ModuleType(name)
        for part in ("filter2d", "OmegaConf", "FusedLeakyReLU", "fused_leaky_relu", "upfirdn2d", "conv2d_gradfix"):
            setattr(stub, part, object)
        stub.__path__ = []
        sys.modules[name] = stub
    from enhancing.losses import layers

    real, made = (torch.from_numpy(images(7, seed=seed) * 3) for seed in (2, 3))
    found = {"real": real, "made": made}
    for ours, theirs in {"logistic": "vanilla", "hinge": "hinge", "least_squares": "least_square"}.items():
        loss = getattr(layers, f"{theirs}_d_loss")
        found |= {f"{ours} generator": loss(made), f"{ours} critic": loss(made, real)}
    yield "enhancing losses", found


def _vits():
    import torch

    setattr(np, "float", float)  # noqa: B010  (a name of older versions)
    from enhancing.modules.stage1.layers import ViTDecoder, ViTEncoder
    from enhancing.modules.stage1.quantizers import VectorQuantizer

    for name, options in VITS.items():
        options = dict(options)
        inner = options | options.pop("decoder", {})
        inner.pop("decoder", None)
        encoder, decoder = ViTEncoder(**options), ViTDecoder(**inner)
        net = torch.nn.ModuleDict(
            {
                "encoder": encoder,
                "decoder": decoder,
                "pre_quant": torch.nn.Linear(options["dim"], CODE_DIM),
                "post_quant": torch.nn.Linear(CODE_DIM, inner["dim"]),
                "quantizer": VectorQuantizer(CODE_DIM, CODES),
            }
        )
        positions = {n: p.clone() for n, p in net.named_parameters() if "pos_embedding" in n}
        shapes = redraw(net)
        with torch.no_grad():
            for parameter, value in positions.items():
                net.get_parameter(parameter).copy_(value)
        x = images(2, *options["image_size"], options.get("channels", 3))
        quantized, loss, ids = net["quantizer"](net["pre_quant"](encoder(nchw(x))))
        made = decoder(net["post_quant"](quantized))
        slopes = torch.autograd.grad(
            ((made - nchw(x)) ** 2).mean() + loss, [net["pre_quant"].weight, net["quantizer"].embedding.weight]
        )
        yield (
            name,
            {
                "shapes": shapes,
                "ids": ids,
                "loss": loss.detach(),
                "image": made.detach().numpy().transpose(0, 2, 3, 1),
                "slope of pre_quant": slopes[0],
                "slope of codes": slopes[1],
            },
        )
