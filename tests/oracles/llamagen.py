"""LlamaGen's class-conditional transformer (FoundationVision/LlamaGen), small and with drawn weights.

The net is written anew from the published code's arithmetic, with its checkpoint's names. Rotary positions are those of
diffusers: pairs of a head are neighbours, the first half turned by the row, the second by the column; the class token's
cosines and sines are zero.
"""

import numpy as np

from tests.oracles._drawn import redraw

SIZES = {"three rows": (3, 24, 2, 2, 4), "four rows": (4, 32, 3, 1, 7)}
"""Side of the grid, width, blocks, heads and classes."""
CODES = 11


def make(side, dim, depth, heads, classes):
    import torch
    from diffusers.models.embeddings import apply_rotary_emb, get_1d_rotary_pos_embed
    from torch import nn

    width = dim // heads
    axes = np.divmod(np.arange(side**2), side)
    turns = [get_1d_rotary_pos_embed(width // 2, axis, use_real=True) for axis in axes]
    cos, sin = (torch.cat([torch.zeros(1, width), torch.cat(parts, dim=-1)]) for parts in zip(*turns))

    def turned(x):
        return apply_rotary_emb(x[None], (cos[: len(x)], sin[: len(x)]), sequence_dim=1)[0]

    class RMSNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(dim))

        def forward(self, x):
            return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5) * self.weight

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            hidden = 256 * -(-int(8 * dim / 3) // 256)
            self.attention, self.feed_forward = nn.Module(), nn.Module()
            self.attention.wqkv = nn.Linear(dim, 3 * dim, bias=False)
            self.attention.wo = nn.Linear(dim, dim, bias=False)
            self.feed_forward.w1 = nn.Linear(dim, hidden, bias=False)
            self.feed_forward.w3 = nn.Linear(dim, hidden, bias=False)
            self.feed_forward.w2 = nn.Linear(hidden, dim, bias=False)
            self.attention_norm, self.ffn_norm = RMSNorm(), RMSNorm()

        def forward(self, x):
            q, k, v = (y.unflatten(-1, (heads, -1)) for y in self.attention.wqkv(self.attention_norm(x)).chunk(3, -1))
            scores = torch.einsum("qhd,khd->hqk", turned(q), turned(k)) / width**0.5
            seen = torch.tril(torch.ones(len(x), len(x), dtype=torch.bool))
            y = torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v)
            x = x + self.attention.wo(y.flatten(1))
            y, mlp = self.ffn_norm(x), self.feed_forward
            return x + mlp.w2(nn.functional.silu(mlp.w1(y)) * mlp.w3(y))

    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.cls_embedding = nn.Module()
            self.cls_embedding.embedding_table = nn.Embedding(classes + 1, dim)
            self.tok_embeddings = nn.Embedding(CODES, dim)
            self.layers = nn.ModuleList(Block() for _ in range(depth))
            self.norm, self.output = RMSNorm(), nn.Linear(dim, CODES, bias=False)

        def forward(self, ids, label):
            x = torch.cat([self.cls_embedding.embedding_table(label)[None], self.tok_embeddings(ids[:-1])])
            for layer in self.layers:
                x = layer(x)
            return self.output(self.norm(x))

    return Transformer()


def cases():
    import torch

    found = {}
    for case, sizes in SIZES.items():
        net = make(*sizes)
        shapes = redraw(net)
        ids = np.random.default_rng(0).integers(0, CODES, (2, sizes[0] ** 2))
        labels = np.asarray([1, sizes[-1]])
        with torch.no_grad():
            logits = [net(*map(torch.tensor, row)).numpy() for row in zip(ids, labels)]
        found[case] = {"shapes": shapes, "ids": ids, "labels": labels, "logits": np.stack(logits)}
    return found
