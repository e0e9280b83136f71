"""The models of `bench.gpu.steps` in PyTorch's own layers, with the same sizes and losses. Importing it does not import
PyTorch.
"""

from collections.abc import Callable
from typing import Any

from bench.race import Side, torch_side


def step(
    family: str, batch: int, sizes: tuple[int, ...], config: Any, rate: float, *, compiled: bool, half: bool = True
) -> Side:
    """A train step: loss, gradients and AdamW, with `half` under autocast to bfloat16."""
    import torch

    place = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    with torch.device(place):
        model, loss = {"dit": dit, "gpt": gpt, "maskgit": maskgit}[family](batch, sizes, config)
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=1e-4, fused=place == "cuda")
    forward = torch.compile(model) if compiled else model

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(place, torch.bfloat16, enabled=half):
            value = loss(forward)
        value.backward()
        optimizer.step()

    return torch_side(run)


def maskgit(batch: int, sizes: tuple[int, ...], config: Any) -> tuple[Any, Callable[[Any], Any]]:
    """(model, a random batch's loss given the model)."""
    import torch
    from torch import nn

    tokens, codes, classes = sizes

    class MaskGIT(nn.Module):
        def __init__(self):
            super().__init__()
            dim, norm = config.dim, lambda: nn.LayerNorm(config.dim, eps=1e-12)
            self.table = nn.Embedding(codes + classes + 2, dim)
            self.positions = nn.Parameter(0.02 * torch.randn(tokens + 1, dim))
            self.start = nn.Sequential(norm(), nn.Dropout(config.dropout))
            gelu = nn.GELU(approximate="tanh")
            layer = nn.TransformerEncoderLayer(
                dim,
                config.heads,
                config.hidden_dim,
                config.dropout,
                gelu,
                1e-12,
                batch_first=True,
                norm_first=config.placement == "pre",
            )
            self.stack = nn.TransformerEncoder(layer, config.depth, enable_nested_tensor=False)
            self.head = nn.Sequential(nn.Linear(dim, dim), gelu, norm())
            self.bias = nn.Parameter(torch.zeros(codes))

        def forward(self, ids, label):
            x = self.table(torch.cat([label[:, None] + codes + 1, ids], 1)) + self.positions
            x = self.head(self.stack(self.start(x))[:, 1:])
            return (x @ self.table.weight[:codes].T.to(x.dtype)).float() + self.bias

    ids, label = torch.randint(codes, (batch, tokens)), torch.randint(classes, (batch,))

    def loss(model):
        share = torch.cos(torch.rand(batch, 1, device=ids.device) * torch.pi / 2)
        rank = torch.rand(ids.shape, device=ids.device).argsort(1).argsort(1)
        masked = rank < (share * tokens).round().clamp(min=1)
        given = torch.where(torch.rand(batch, device=ids.device) < 0.1, classes, label)
        logits = model(torch.where(masked, codes, ids), given)
        each = nn.functional.cross_entropy(logits.transpose(1, 2), ids, reduction="none", label_smoothing=0.1)
        return ((each * masked).sum(1) / masked.sum(1)).mean()

    return MaskGIT().train(), loss


def dit(batch: int, sizes: tuple[int, ...], config: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The same for DiT."""
    import torch
    from torch import nn

    height, width, channels, classes = sizes
    dim, patch = config.dim, config.patch
    norm = lambda x, shift, scale: nn.functional.layer_norm(x, (dim,), eps=1e-6) * (1 + scale[:, None]) + shift[:, None]

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
            self.mlp = nn.Sequential(
                nn.Linear(dim, config.hidden_dim), nn.GELU(approximate="tanh"), nn.Linear(config.hidden_dim, dim)
            )
            self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))

        def forward(self, x, condition):
            shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(condition).chunk(6, -1)
            q, k, v = self.qkv(norm(x, shift, scale)).unflatten(-1, (3, config.heads, -1)).permute(2, 0, 3, 1, 4)
            y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = x + gate[:, None] * self.out(y)
            return x + mlp_gate[:, None] * self.mlp(norm(x, mlp_shift, mlp_scale))

    class DiT(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(channels, dim, patch, patch)
            self.time = nn.Sequential(nn.Linear(256, dim), nn.SiLU(), nn.Linear(dim, dim))
            self.labels = nn.Embedding(classes + 1, dim)
            self.blocks = nn.ModuleList(Block() for _ in range(config.depth))
            self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))
            self.out = nn.Linear(dim, patch**2 * channels * (2 if config.learn_variance else 1))
            self.register_buffer("positions", torch.randn(height * width // patch**2, dim))
            self.register_buffer("rates", torch.exp(-torch.arange(128) * (9.21 / 128)))

        def forward(self, x, time, label):
            tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
            angles = time[:, None] * self.rates
            condition = self.time(torch.cat([angles.cos(), angles.sin()], -1)) + self.labels(label)
            for block in self.blocks:
                tokens = block(tokens, condition)
            y = self.out(norm(tokens, *self.modulation(condition).chunk(2, -1)))
            y = y.unflatten(1, (height // patch, width // patch)).unflatten(-1, (patch, patch, -1))
            return y.permute(0, 5, 1, 3, 2, 4).reshape(len(x), -1, height, width)

    latent, label = torch.randn(batch, channels, height, width), torch.randint(classes, (batch,))
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)

    def loss(model):
        time, noise = torch.randint(1000, (batch,), device=latent.device), torch.randn_like(latent)
        share = kept[time][:, None, None, None]
        given = torch.where(torch.rand(batch, device=latent.device) < 0.1, classes, label)
        said = model(share.sqrt() * latent + (1 - share).sqrt() * noise, time.float(), given)[:, :channels]
        return (said.float() - noise).square().mean()

    return DiT().train(), loss


def gpt(batch: int, sizes: tuple[int, ...], config: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The same for GPT-2."""
    import torch
    from torch import nn

    (vocab,), dim, context = sizes, config.dim, config.context

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.qkv, self.out = nn.LayerNorm(dim), nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
            self.mlp = nn.Sequential(
                nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(approximate="tanh"), nn.Linear(4 * dim, dim)
            )

        def forward(self, x):
            q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, config.heads, -1)).permute(2, 0, 3, 1, 4)
            x = x + self.out(
                nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
            )
            return x + self.mlp(x)

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.positions = nn.Embedding(vocab, dim), nn.Embedding(context, dim)
            self.blocks, self.norm = nn.ModuleList(Block() for _ in range(config.depth)), nn.LayerNorm(dim)
            nn.init.normal_(self.table.weight, std=0.02)

        def forward(self, ids):
            x = self.table(ids) + self.positions.weight
            for block in self.blocks:
                x = block(x)
            return self.norm(x) @ self.table.weight.T

    ids = torch.randint(vocab, (batch, context + 1))

    def loss(model):
        logits = model(ids[:, :-1])
        return nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    return GPT().train(), loss
