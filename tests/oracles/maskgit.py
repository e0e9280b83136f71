"""MaskGIT's published tokenizer and transformer as nets of the library flax, small and with drawn weights.

The nets are written anew, with the modules' names of the published checkpoints and their calls in the same order. They
are computed in float64, as flax's variances in float32 are good to 1e-4 alone.
"""

import json

import numpy as np

from tests.oracles._drawn import drawn

TOKENIZERS = {
    "tokenizer": {"filters": 32, "num_res_blocks": 2, "channel_multipliers": [1, 2], "embedding_dim": 6, "codes": 11},
    "tokenizer of three levels": {
        "filters": 32,
        "num_res_blocks": 1,
        "channel_multipliers": [1, 1, 3],
        "embedding_dim": 5,
        "codes": 7,
    },
}
TRANSFORMER = {"num_embeds": 24, "num_layers": 3, "num_heads": 4, "intermediate_size": 40}
TOKENS, CODES, CLASSES = 12, 13, 5


def flat(tree, above="params"):
    """Arrays of nested dictionaries by names with slashes."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{above}/{name}")
        else:
            yield f"{above}/{name}", value


def nested(arrays):
    """The nested dictionaries again."""
    tree = {}
    for name, array in arrays.items():
        within, (*folders, last) = tree, name.split("/")
        for folder in folders:
            within = within.setdefault(folder, {})
        within[last] = array
    return tree


def tokenizer(filters, num_res_blocks, channel_multipliers, embedding_dim, codes):
    """The net with calls for the latents, the ids and the image of some ids."""
    import jax.numpy as jnp
    from flax import linen as nn

    widths = [filters * each for each in channel_multipliers]

    class ResBlock(nn.Module):
        width: int

        @nn.compact
        def __call__(self, x):
            y = x
            for _ in range(2):
                y = nn.Conv(self.width, (3, 3), use_bias=False)(nn.swish(nn.GroupNorm()(y)))
            short = x if x.shape[-1] == self.width else nn.Conv(self.width, (1, 1), use_bias=False)(y)
            return y + short

    def stage(x, width):
        for _ in range(num_res_blocks):
            x = ResBlock(width)(x)
        return x

    class Encoder(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(filters, (3, 3), use_bias=False)(x)
            for level, width in enumerate(widths):
                x = nn.avg_pool(x, (2, 2), (2, 2)) if level else x
                x = stage(x, width)
            return nn.Conv(embedding_dim, (1, 1))(nn.swish(nn.GroupNorm()(stage(x, widths[-1]))))

    class Decoder(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = stage(nn.Conv(widths[-1], (3, 3))(x), widths[-1])
            for level, width in enumerate(widths[::-1]):
                x = nn.Conv(x.shape[-1], (3, 3))(x.repeat(2, 1).repeat(2, 2)) if level else x
                x = stage(x, width)
            return nn.Conv(3, (3, 3))(nn.swish(nn.GroupNorm()(x)))

    class Codebook(nn.Module):
        @nn.compact
        def __call__(self, x):
            table = self.param("codebook", nn.initializers.normal(), (codes, embedding_dim))
            ids = jnp.argmin(jnp.square(x[..., None, :] - table).sum(-1), -1)
            return ids, table[ids]

    class Tokenizer(nn.Module):
        def setup(self):
            self.quantizer, self.encoder, self.decoder = Codebook(), Encoder(), Decoder()

        def __call__(self, image):
            ids, vectors = self.quantizer(self.encoder(image))
            return ids, self.decoder(vectors)

    return Tokenizer()


def transformer():
    """The net of ids, the label's first, to logits of every row of the table."""
    import jax.numpy as jnp
    from flax import linen as nn

    dim = TRANSFORMER["num_embeds"]

    def norm(name):
        return nn.LayerNorm(epsilon=1e-12, name=name)

    class Attention(nn.Module):
        @nn.compact
        def __call__(self, x):
            y = nn.MultiHeadDotProductAttention(TRANSFORMER["num_heads"], name="self_attention")(x, x)
            return norm("attention_output_ln")(x + y)

    class Mlp(nn.Module):
        @nn.compact
        def __call__(self, x):
            y = nn.gelu(nn.Dense(TRANSFORMER["intermediate_size"], name="intermediate_output")(x))
            return norm("layer_output_ln")(x + nn.Dense(dim, name="layer_output")(y))

    class TransformerLayer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Mlp()(Attention()(x))

    class Embed(nn.Module):
        @nn.compact
        def __call__(self, ids):
            words = nn.Embed(CODES + CLASSES + 1, dim, name="word_embeddings")
            places = nn.Embed(TOKENS + 1, dim, name="position_embeddings")(jnp.arange(TOKENS + 1))
            return norm("embeddings_ln")(words(ids) + places), words.embedding

    class Bias(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x + self.param("bias", nn.initializers.zeros, x.shape[-1:])

    class MlmLayer(nn.Module):
        @nn.compact
        def __call__(self, x, table):
            return Bias(name="mlm_bias")(norm("mlm_ln")(nn.gelu(nn.Dense(dim, name="mlm_dense")(x))) @ table.T)

    class Transformer(nn.Module):
        @nn.compact
        def __call__(self, ids):
            x, table = Embed()(ids)
            for _ in range(TRANSFORMER["num_layers"]):
                x = TransformerLayer()(x)
            return MlmLayer()(x, table)

    return Transformer()


def with_drawn(net, *inputs):
    """The variables of a net, and their shapes as JSON."""
    import jax

    shapes = {name: array.shape for name, array in flat(jax.eval_shape(net.init, jax.random.key(0), *inputs)["params"])}
    variables = {name: array.astype(np.float64) for name, array in drawn(shapes).items()}
    return nested(variables), np.asarray(json.dumps(shapes))


def cases():
    import jax

    with jax.enable_x64(True):
        return {
            case: {
                name: np.float32(a) if np.asarray(a).dtype == np.float64 else np.asarray(a) for name, a in parts.items()
            }
            for case, parts in _answers().items()
        }


def _answers():
    found = {}
    for case, sizes in TOKENIZERS.items():
        net, image = tokenizer(**sizes), np.random.default_rng(0).random((1, 16, 24, 3)).astype(np.float32)
        variables, shapes = with_drawn(net, image)
        ids, out = net.apply(variables, image)
        found[case] = {"shapes": shapes, "image": image, "ids": ids, "out": out}
    rng = np.random.default_rng(1)
    codes, labels = rng.integers(0, CODES, (2, TOKENS)), rng.integers(0, CLASSES, 2)
    masked = rng.random(codes.shape) < 0.5
    ids = np.concatenate([CODES + labels[:, None], np.where(masked, CODES + CLASSES, codes)], axis=1)
    variables, shapes = with_drawn(net := transformer(), ids)
    logits = net.apply(variables, ids)
    run = {"codes": codes, "labels": labels, "masked": masked, "logits": logits}
    return found | {"transformer": {"shapes": shapes, **run}}
