"""StyleGAN2, R3GAN and DCGAN in PyTorch as the papers write them: kernels for each example of a batch, filters as
two-dimensional kernels on images with zeros between their pixels. Weights have the names and layouts of our parameters.
"""

import math

import torch
from torch.nn import functional as f


def filtered(x, *, up=1, down=1, pads=(0, 0), gain=1.0, taps=(1.0, 3.0, 3.0, 1.0)):
    """Zeros between pixels, padding, a filter, every down-th pixel."""
    batch, channels, height, width = x.shape
    if up > 1:
        wide = x.new_zeros(batch, channels, height * up, width * up)
        wide[:, :, ::up, ::up] = x
        x = wide
    kernel = torch.tensor(taps, dtype=x.dtype)
    kernel = gain * torch.outer(kernel, kernel) / kernel.sum() ** 2
    x = f.pad(x, (pads[0], pads[1], pads[0], pads[1]))
    kernel = kernel.flip(0, 1)[None, None].repeat(channels, 1, 1, 1)
    return f.conv2d(x, kernel, groups=channels)[:, :, ::down, ::down]


def oihw(w):
    return w.permute(3, 2, 0, 1)


def activated(x, bias, *, linear=False, gain=1.0, clamp=0.0):
    x = x if bias is None else x + bias.reshape(1, -1, *(1,) * (x.ndim - 2))
    x = x * gain if linear else f.leaky_relu(x, 0.2) * (math.sqrt(2) * gain)
    return x.clamp(-clamp * gain, clamp * gain) if clamp else x


def dense(w, name, x, *, linear=False, rate=1.0):
    weight = w[f"{name}.weight"]
    return activated(x @ weight.T * (rate / math.sqrt(weight.shape[1])), w[f"{name}.bias"] * rate, linear=linear)


def normalised(x):
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def embedded(w, labels):
    hot = f.one_hot(labels, len(w["label_embedding.weight"])).to(w["label_embedding.weight"].dtype)
    return hot @ w["label_embedding.weight"] / math.sqrt(hot.shape[1]) + w["label_embedding.bias"]


def mapped(w, *parts):
    x = torch.cat([normalised(part) for part in parts], 1)
    for layer in range(sum(name.startswith("mapping.layers") for name in w) // 2):
        x = dense(w, f"mapping.layers.{layer}", x, rate=0.01)
    return x


def style(w, latents, labels):
    return mapped(w, latents, *(() if labels is None else (embedded(w, labels),)))


def modulated(x, weight, styles, *, demodulate=True, up=False):
    """A kernel for each example."""
    batch, channels = x.shape[:2]
    kernels = oihw(weight)[None] * styles[:, None, :, None, None]
    if demodulate:
        kernels = kernels * (kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    border = weight.shape[0] // 2
    if up:
        x, kernels, border = filtered(x, up=2, pads=(3, 2), gain=4.0), kernels.flip(3, 4), 0
    x = x.reshape(1, batch * channels, *x.shape[2:])
    y = f.conv2d(x, kernels.reshape(-1, *kernels.shape[2:]), padding=border, groups=batch)
    return y.reshape(batch, -1, *y.shape[2:])


def styled(w, name, x, styles, noise, *, up=False, gain=1.0, clamp=0.0):
    y = modulated(x, w[f"{name}.weight"], dense(w, f"{name}.modulation", styles, linear=True), up=up)
    return activated(y + noise * w[f"{name}.strength"], w[f"{name}.bias"], gain=gain, clamp=clamp)


def synthesis(w, styles, noise, clamp=256.0):
    """Images of style vectors (batch, layers, dim), with the noise of each convolution."""
    levels = 1 + max(int(name[7]) for name in w if name.startswith("levels."))
    x, image, at = w["const"].permute(2, 0, 1)[None].repeat(len(styles), 1, 1, 1), None, 0
    for level in range(levels):
        name, before, count = f"levels.{level}", x, 1 if level == 0 else 2
        residual = f"{name}.shortcut.weight" in w
        for conv in range(count):
            gain = math.sqrt(0.5) if residual and conv else 1.0
            up = level > 0 and conv == 0
            x = styled(w, f"{name}.convs.{conv}", x, styles[:, at], noise[at], up=up, gain=gain, clamp=clamp)
            at += 1
        if residual:
            kernel = oihw(w[f"{name}.shortcut.weight"]) / math.sqrt(before.shape[1])
            x = x + filtered(f.conv2d(before, kernel), up=2, pads=(2, 1), gain=4.0) * math.sqrt(0.5)
        if f"{name}.to_image.weight" in w:
            own = w[f"{name}.to_image.weight"]
            scale = dense(w, f"{name}.to_image.modulation", styles[:, at], linear=True) / math.sqrt(own.shape[2])
            more = modulated(x, own, scale, demodulate=False)
            more = activated(more, w[f"{name}.to_image.bias"], linear=True, clamp=clamp)
            image = more if image is None else filtered(image, up=2, pads=(2, 1), gain=4.0) + more
    return image


def convolved(w, name, x, *, down=False, linear=False, gain=1.0, clamp=0.0):
    weight = oihw(w[f"{name}.weight"])
    kernel = weight.shape[-1]
    weight = weight / math.sqrt(weight[0].numel())
    if down:
        border = kernel // 2
        y = f.conv2d(filtered(x, pads=(border + 1, border + 1)), weight, stride=2)
    else:
        y = f.conv2d(x, weight, padding=kernel // 2)
    return activated(y, w.get(f"{name}.bias"), linear=linear, gain=gain, clamp=clamp)


def judged(w, image, labels, *, group, skip, clamp=256.0):
    """Logits of StyleGAN2's discriminator."""
    levels = 1 + max(int(name[7]) for name in w if name.startswith("levels."))
    x = None
    for level in range(levels):
        name = f"levels.{level}"
        if f"{name}.stem.weight" in w:
            seen = convolved(w, f"{name}.stem", image, clamp=clamp)
            x = seen if x is None else x + seen
            image = filtered(image, down=2, pads=(1, 1)) if skip else image
        h = convolved(w, f"{name}.convs.0", x, clamp=clamp)
        if f"{name}.shortcut.weight" in w:
            half = math.sqrt(0.5)
            more = convolved(w, f"{name}.shortcut", x, down=True, linear=True, gain=half)
            x = convolved(w, f"{name}.convs.1", h, down=True, gain=half, clamp=clamp) + more
        else:
            x = convolved(w, f"{name}.convs.1", h, down=True, clamp=clamp)
    if "stem.weight" in w:
        x = x + convolved(w, "stem", image, clamp=clamp)
    if group:
        size = group if group <= len(x) and len(x) % group == 0 else len(x)
        apart = len(x) // size
        rows = [[x[i + apart * j] for j in range(size)] for i in range(apart)]  # each a strided group
        spread = [torch.stack(row).var(0, unbiased=False).add(1e-8).sqrt().mean() for row in rows]
        found = torch.stack([spread[i % apart] for i in range(len(x))])[:, None, None, None]
        x = torch.cat([x, found.expand(-1, 1, 4, 4)], 1)
    x = convolved(w, "last", x, clamp=clamp).permute(0, 2, 3, 1).flatten(1)
    x = dense(w, "head", dense(w, "hidden", x), linear=True)
    if labels is None:
        return x[:, 0]
    return (x * mapped(w, embedded(w, labels))).sum(1) / math.sqrt(x.shape[1])


def r3gan_block(w, name, x, groups):
    h = f.conv2d(x, oihw(w[f"{name}.convs.0.weight"]))
    h = f.leaky_relu(h + w[f"{name}.biases.0"].reshape(1, -1, 1, 1), 0.2)
    h = f.conv2d(h, oihw(w[f"{name}.convs.1.weight"]), padding=1, groups=groups)
    h = f.leaky_relu(h + w[f"{name}.biases.1"].reshape(1, -1, 1, 1), 0.2)
    return x + f.conv2d(h, oihw(w[f"{name}.convs.2.weight"]))


def r3gan_image(w, latents, labels, groups):
    x = torch.cat([latents, w["label_embedding.weight"][labels]], 1) @ w["stem.weight"].T
    x = w["basis"].permute(2, 0, 1)[None] * x[:, :, None, None]
    for level, count in enumerate(groups):
        if level:
            if (name := f"stages.convs.{level - 1}.weight") in w:
                x = f.conv2d(x, oihw(w[name]))
            x = filtered(x, up=2, pads=(2, 0), gain=4.0, taps=(1.0, 2.0, 1.0))
        x = r3gan_block(w, f"stages.levels.{level}.0", x, count)
    return f.conv2d(x, oihw(w["head.weight"]))


def r3gan_logit(w, images, labels, groups):
    x = f.conv2d(images, oihw(w["stem.weight"]))
    for level, count in enumerate(groups[::-1]):
        if level:
            x = filtered(x, down=2, pads=(1, 0), taps=(1.0, 2.0, 1.0))
            if (name := f"stages.convs.{level - 1}.weight") in w:
                x = f.conv2d(x, oihw(w[name]))
        x = r3gan_block(w, f"stages.levels.{level}.0", x, count)
    x = f.conv2d(x, w["basis"].permute(2, 0, 1)[:, None], groups=x.shape[1])[:, :, 0, 0] @ w["head.weight"].T
    return (x * w["label_embedding.weight"][labels]).sum(1)


def normed(w, name, x):
    return f.batch_norm(x, None, None, w[f"{name}.scale"], w[f"{name}.bias"], training=True)


def dcgan_image(w, latents, labels, base):
    x = torch.cat([latents, w["label_embedding.weight"][labels]], 1) @ w["stem.weight"].T
    x = x.reshape(len(x), base, base, -1).permute(0, 3, 1, 2)
    for level in range(sum(name.startswith("ups") and name.endswith("weight") for name in w)):
        x = torch.relu(normed(w, f"norms.{level}", x))
        kernel = w[f"ups.{level}.weight"].permute(2, 3, 0, 1)
        x = f.conv_transpose2d(x, kernel, w.get(f"ups.{level}.bias"), stride=2, padding=1)
    return torch.tanh(x)


def dcgan_logit(w, images, labels):
    x = f.leaky_relu(f.conv2d(images, oihw(w["downs.0.weight"]), w["downs.0.bias"], stride=2, padding=1), 0.2)
    for level in range(1, sum(name.startswith("downs") and name.endswith("weight") for name in w)):
        x = f.conv2d(x, oihw(w[f"downs.{level}.weight"]), stride=2, padding=1)
        x = f.leaky_relu(normed(w, f"norms.{level - 1}", x), 0.2)
    flat = x.permute(0, 2, 3, 1).flatten(1)
    logit = (flat @ w["head.weight"].T + w["head.bias"])[:, 0]
    return logit + (w["label_embedding.weight"][labels] * x.sum((2, 3))).sum(1)


def colored_moved_and_cut(x, color, shift, hole):
    """DiffAugment's three parts of images (batch, channels, height, width) by given numbers, by loops."""
    found = []
    for image, (brightness, saturation, contrast), (down, right), (row, column) in zip(x, color, shift, hole):
        _, height, width = image.shape
        image = image + brightness
        grey = image.mean(0, keepdim=True)
        image = (image - grey) * saturation + grey
        image = (image - image.mean()) * contrast + image.mean()
        moved = torch.zeros_like(image)
        for i in range(height):
            for j in range(width):
                if 0 <= i + down < height and 0 <= j + right < width:
                    moved[:, i, j] = image[:, i + down, j + right]
        for i in range(int(height / 2 + 0.5)):
            for j in range(int(width / 2 + 0.5)):
                a, b = (i + row - int(height / 2 + 0.5) // 2), (j + column - int(width / 2 + 0.5) // 2)
                moved[:, min(max(a, 0), height - 1), min(max(b, 0), width - 1)] = 0
        found.append(moved)
    return torch.stack(found)
