"""StyleGAN2, R3GAN and DCGAN as `_gan_torch` writes them in PyTorch, with drawn weights: images, logits, R1 and path
length with their gradients, DiffAugment of given numbers.
"""

import json

import numpy as np

from tests.oracles._drawn import drawn

BATCH, DIM, CLASSES, SIDE, WIDTHS = 6, 8, 3, 16, (12, 8, 4)
GROUPS = (4, 2)


def dense(name, inner, outer):
    return {f"{name}.weight": (outer, inner), f"{name}.bias": (outer,)}


def conv(name, kernel, old, new, bias=True):
    return {f"{name}.weight": (kernel, kernel, old, new)} | ({f"{name}.bias": (new,)} if bias else {})


def mapping(inner, dim, layers):
    parts = [dense(f"mapping.layers.{i}", dim if i else inner, dim) for i in range(layers)]
    return {name: shape for part in parts for name, shape in part.items()}


def classes(dim, bias=True):
    return {"label_embedding.weight": (CLASSES, dim)} | ({"label_embedding.bias": (dim,)} if bias else {})


def generator(form, labelled):
    shapes = mapping(2 * DIM if labelled else DIM, DIM, 2) | (classes(DIM) if labelled else {})
    shapes |= {"const": (4, 4, WIDTHS[0])}
    for level, (old, new) in enumerate(zip((0, *WIDTHS), WIDTHS)):
        name = f"levels.{level}"
        for place, inner in enumerate((new,) if level == 0 else (old, new)):
            own = f"{name}.convs.{place}"
            shapes |= conv(own, 3, inner, new) | {f"{own}.strength": ()} | dense(f"{own}.modulation", DIM, inner)
        if form == "skip" or level == len(WIDTHS) - 1:
            own = f"{name}.to_image"
            shapes |= conv(own, 1, new, 3) | dense(f"{own}.modulation", DIM, new)
        if form == "residual" and level:
            shapes |= conv(f"{name}.shortcut", 1, old, new, bias=False)
    return shapes


def discriminator(form, labelled):
    shapes = {}
    for level, (old, new) in enumerate(zip(WIDTHS[::-1], WIDTHS[-2::-1])):
        name = f"levels.{level}"
        shapes |= conv(f"{name}.stem", 1, 3, old) if form == "skip" or level == 0 else {}
        shapes |= conv(f"{name}.convs.0", 3, old, old) | conv(f"{name}.convs.1", 3, old, new)
        shapes |= conv(f"{name}.shortcut", 1, old, new, bias=False) if form == "residual" else {}
    width = WIDTHS[0]
    shapes |= conv("stem", 1, 3, width) if form == "skip" else {}
    shapes |= conv("last", 3, width + 1, width) | dense("hidden", 16 * width, width)
    shapes |= dense("head", width, width if labelled else 1)
    return shapes | (classes(width) | mapping(width, width, 8) if labelled else {})


def block(name, width):
    inner = 2 * width
    kernels = {
        f"{name}.convs.0.weight": (1, 1, width, inner),
        f"{name}.convs.2.weight": (1, 1, inner, width),
    }
    return kernels | {f"{name}.biases.{i}": (inner,) for i in range(2)}


def r3gan(judge):
    widths = (6, 8) if judge else (8, 6)  # in the order in which they run
    shapes = {"basis": (4, 4, 8), "label_embedding.weight": (CLASSES, 5)}
    for level, width in enumerate(widths):
        name = f"stages.levels.{level}.0"
        groups = (GROUPS[::-1] if judge else GROUPS)[level]
        shapes |= block(name, width) | {f"{name}.convs.1.weight": (3, 3, 2 * width // groups, 2 * width)}
    shapes |= {"stages.convs.0.weight": (1, 1, *widths)}
    if judge:
        return shapes | {"stem.weight": (1, 1, 3, 6), "head.weight": (5, 8)}
    return shapes | {"stem.weight": (8, DIM + 5), "head.weight": (1, 1, 6, 3)}


def dcgan(judge):
    norms = lambda widths: {
        f"norms.{i}.{name}": (width,) for i, width in enumerate(widths) for name in ("scale", "bias")
    }
    if judge:
        shapes = conv("downs.0", 4, 3, 4) | conv("downs.1", 4, 4, 8, bias=False) | norms((8,))
        return shapes | dense("head", 16 * 8, 1) | classes(8, bias=False)
    shapes = {"stem.weight": (16 * 8, DIM + 5)} | norms((8, 4)) | classes(5, bias=False)
    return shapes | conv("ups.0", 4, 8, 4, bias=False) | conv("ups.1", 4, 4, 3)


def weights(shapes):
    """Drawn weights; those of mappings are 100 times as large, as their learning rate is a hundredth."""
    found = drawn(shapes)
    return {name: 100 * array if "mapping" in name else array for name, array in found.items()}


def inputs():
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    return {
        "latents": normal(BATCH, DIM),
        "images": np.tanh(normal(BATCH, SIDE, SIDE, 3)),
        "labels": np.arange(BATCH) % CLASSES,
        "mean": normal(DIM),
        "path_noise": normal(BATCH, SIDE, SIDE, 3) / SIDE,
    } | {f"noise{place}": normal(side, side) for place, side in enumerate((4, 8, 8, 16, 16))}


def cases():
    import torch

    from tests.oracles import _gan_torch as nets

    given = inputs()
    torch_of = lambda array: torch.from_numpy(np.ascontiguousarray(array))
    tensors = {name: torch_of(array) for name, array in given.items()}
    images = tensors["images"].permute(0, 3, 1, 2)
    nhwc = lambda x: x.detach().permute(0, 2, 3, 1).numpy()
    found = {}
    for form, labelled in (("skip", True), ("residual", False)):
        shapes = generator(form, labelled)
        w = {name: torch_of(array).requires_grad_() for name, array in weights(shapes).items()}
        labels = tensors["labels"] if labelled else None
        noise = [tensors[f"noise{place}"] for place in range(5)]
        style = nets.style(w, tensors["latents"], labels)
        cut = tensors["mean"] + 0.7 * (style - tensors["mean"])
        styles = style.detach()[:, None].repeat(1, 6, 1).requires_grad_()
        image = nets.synthesis(w, styles, noise)
        (slope,) = torch.autograd.grad(
            (image * tensors["path_noise"].permute(0, 3, 1, 2)).sum(), styles, create_graph=True
        )
        lengths = slope.square().sum(2).mean(1).sqrt()
        mean = 0.01 * lengths.mean()
        penalty = (lengths - mean).square().mean()
        penalty.backward()
        truncated = nets.synthesis(w, cut[:, None].repeat(1, 6, 1), noise)
        found[f"generator, {form}"] = {
            "shapes": np.asarray(json.dumps(shapes)),
            "style": style.detach().numpy(),
            "image": nhwc(image)[:2],
            "truncated": nhwc(truncated)[:2],
            "lengths": lengths.detach().numpy(),
            "penalty": penalty.detach().numpy(),
            "slope_first": w["levels.1.convs.0.weight"].grad.numpy(),
            "slope_style": w["levels.0.convs.0.modulation.weight"].grad.numpy(),
        }
    for form, labelled, group in (("residual", True, 2), ("skip", False, 4), ("plain", False, 3)):
        shapes = discriminator(form, labelled)
        w = {name: torch_of(array).requires_grad_() for name, array in weights(shapes).items()}
        x = images.clone().requires_grad_()
        labels = tensors["labels"] if labelled else None
        logits = nets.judged(w, x, labels, group=group, skip=form == "skip")
        (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        penalty = slope.square().sum((1, 2, 3)) / 2
        penalty.mean().backward()
        found[f"discriminator, {form}"] = {
            "shapes": np.asarray(json.dumps(shapes)),
            "group": np.asarray(group),
            "logits": logits.detach().numpy(),
            "penalty": penalty.detach().numpy(),
            "slope_first": w["levels.0.convs.0.weight"].grad.numpy(),
            "slope_last": w["last.weight"].grad.numpy(),
        }
    half = images[:, :, ::2, ::2]
    for judge in (False, True):
        name = "discriminator" if judge else "generator"
        w = {key: torch_of(array) for key, array in weights(r3gan(judge)).items()}
        more = {"shapes": np.asarray(json.dumps(r3gan(judge)))}
        if judge:
            out = nets.r3gan_logit(w, half, tensors["labels"], GROUPS).numpy()
        else:
            out = nhwc(nets.r3gan_image(w, tensors["latents"], tensors["labels"], GROUPS))[:2]
        found[f"r3gan {name}"] = more | {"out": out}
        w = {key: torch_of(array) for key, array in weights(dcgan(judge)).items()}
        more = {"shapes": np.asarray(json.dumps(dcgan(judge)))}
        if judge:
            out = nets.dcgan_logit(w, images, tensors["labels"]).numpy()
        else:
            out = nhwc(nets.dcgan_image(w, tensors["latents"], tensors["labels"], 4))[:2]
        found[f"dcgan {name}"] = more | {"out": out}
    rng = np.random.default_rng(1)
    color = rng.uniform([-0.5, 0, 0.5], [0.5, 2, 1.5], (BATCH, 3)).astype(np.float32)
    shift, hole = rng.integers(-2, 3, (BATCH, 2)), np.asarray([[0, 0], [16, 16], [5, 9], [1, 15], [8, 8], [16, 0]])
    out = nets.colored_moved_and_cut(images, color, shift, hole)
    found["diffaugment"] = {"color": color, "shift": shift, "hole": hole, "out": nhwc(out)}
    return found
