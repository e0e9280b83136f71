"""LPIPS of the package lpips on torchvision's nets, and the Inception of the package pytorch-fid, with drawn weights."""

import json

import numpy as np

from tests.oracles._drawn import drawn

NETS = ("alex", "squeeze", "vgg")


def cases():
    import lpips
    import pytorch_fid.inception as fid
    import torch

    images = np.random.default_rng(0).uniform(-1, 1, (2, 76, 75, 3)).astype(np.float32)
    first, second = torch.from_numpy(images.transpose(0, 3, 1, 2)).split(1)
    found = {"images": {"images": images}}
    for net in NETS:
        model = lpips.LPIPS(net=net, pnet_rand=True, lpips=True, verbose=False).eval()
        shapes = _give(model.net, "net.")
        heads = {f"head{n}": lin.model[1].weight.detach().numpy().ravel() for n, lin in enumerate(model.lins)}
        with torch.no_grad():
            found[net] = {"shapes": shapes, "distance": model(first, second).numpy().ravel(), **heads}
    download, fid.load_state_dict_from_url = fid.load_state_dict_from_url, lambda *_, **__: None
    load, torch.nn.Module.load_state_dict = torch.nn.Module.load_state_dict, lambda *_, **__: None
    try:
        model = fid.fid_inception_v3().eval()
    finally:
        fid.load_state_dict_from_url, torch.nn.Module.load_state_dict = download, load
    shapes, pooled = _give(model), []
    model.avgpool.register_forward_hook(lambda module, given, out: pooled.append(out.flatten(1).numpy()))
    with torch.no_grad():
        logits = model(torch.cat([first, second])).numpy()
    found["inception"] = {"shapes": shapes, "features": pooled[0], "logits": logits}
    return found


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Drawn arrays; kernels keep the size of activations after ReLU, variances are above 0."""
    arrays = drawn(shapes)
    return {name: array * (2**0.5 if array.ndim > 1 else 1) for name, array in arrays.items()}


def _give(module, prefix="") -> np.ndarray:
    import torch

    own = {name: x for name, x in module.state_dict().items() if x.is_floating_point()}
    shapes = {prefix + name: tuple(x.shape) for name, x in own.items()}
    arrays = weights(shapes)
    for name, x in own.items():
        x.copy_(torch.from_numpy(arrays[prefix + name]))
    return np.asarray(json.dumps(shapes))
