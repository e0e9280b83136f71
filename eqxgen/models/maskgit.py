"""MaskGIT: a bidirectional transformer over image tokens (Chang et al. 2022, arXiv:2202.04200).

One table embeds codes, the mask and the labels; the sequence is the label's token followed by the image's, with learned
positions, a norm and dropout; the head is dense, gelu, norm, and a product with the table's code rows plus a bias, as
BERT's. Weights are drawn from a truncated normal of deviation 0.02, norms have epsilon 1e-12.

Where we differ: a null label is added, so that classifier-free guidance (arXiv:2207.12598) can be trained by label
dropout; logits are made for the codes alone and not for the mask and the labels; `placement="pre"` puts the norms
first, which small models train faster with.
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from eqxgen.configs import MaskGITConfig
from eqxgen.decoding.masked import mask_schedule, masked_decode
from eqxgen.nn import Dropout, Embedding, LayerNorm, Projection, Selformer, Stack, TransformerBlock, _check
from eqxgen.nn.activation import Activation
from eqxgen.nn.linear import check_ids
from eqxgen.rng import RNG

_normal = jax.nn.initializers.truncated_normal(0.02)


class MaskGIT(eqx.Module):
    """Logits for every token of one image, from a sequence in which some are masked.

    Args:
        tokens: tokens of one image.
        codes: size of the tokenizer's codebook.
        classes: number of labels.
        config: the sizes.
    """

    embedding: Embedding
    positions: Float[Array, "length dim"]
    norm: LayerNorm
    dropout: Dropout
    stack: Stack
    head: Projection
    head_norm: LayerNorm
    head_bias: Float[Array, " codes"]
    tokens: int = eqx.field(static=True)
    codes: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)

    def __init__(self, tokens: int, codes: int, classes: int, config: MaskGITConfig, *, key: PRNGKeyArray):
        _check.positive(tokens=tokens, codes=codes, classes=classes)
        keys = RNG(key)
        dim = config.dim

        def block(key: PRNGKeyArray) -> TransformerBlock:
            return Selformer(
                dim,
                config.heads,
                hidden_dim=config.hidden_dim,
                placement=config.placement,
                activation="gelu_tanh",
                dropout=config.dropout,
                epsilon=1e-12,
                init=_normal,
                key=key,
            )

        self.embedding = Embedding(codes + 1 + classes + 1, dim, init=_normal, key=next(keys))
        self.positions = _normal(next(keys), (tokens + 1, dim), jnp.float32)
        self.norm = LayerNorm(dim, epsilon=1e-12)
        self.dropout = Dropout(config.dropout)
        self.stack = Stack(block, config.depth, remat=config.remat, key=next(keys))
        self.head = Projection(dim, dim, init=_normal, key=next(keys))
        self.head_norm = LayerNorm(dim, epsilon=1e-12)
        self.head_bias = jnp.zeros(codes)
        self.tokens, self.codes, self.classes = tokens, codes, classes

    @property
    def mask_id(self) -> int:
        """The id of a masked token."""
        return self.codes

    @property
    def null_label(self) -> int:
        """The label that stands for none."""
        return self.classes

    def __call__(
        self,
        ids: Int[Array, " tokens"],
        label: Int[Array, ""],
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "tokens codes"]:
        """Logits, in float32 at least.

        Args:
            ids: codes in [0, codes), or `mask_id`.
            label: in [0, classes), or `null_label`.
            key: of dropout; needed in training.
            inference: no dropout, if true.

        Raises:
            ValueError: an id or a label is out of range (inside a compiled program such a token gives NaN logits
                instead).
        """
        if ids.shape != (self.tokens,):
            raise ValueError(f"ids must have the shape of one image's tokens, ({self.tokens},): got {ids.shape}")
        check_ids(ids, self.codes + 1, "ids", "codes + 1 mask")
        check_ids(label, self.classes + 1, "label", "classes + 1 null")
        # Where the values are not known: a label or an id outside its range must not turn into a token of another kind,
        # but into NaN.
        label_id = jnp.where((label >= 0) & (label <= self.classes), self.codes + 1 + label, -1)
        ids = jnp.where((ids >= 0) & (ids <= self.codes), ids, -1)
        embed_key, stack_key = (None, None) if key is None else jax.random.split(key)
        x = self.embedding(jnp.concatenate([label_id[None], ids])) + self.positions
        x = self.dropout(self.norm(x), key=embed_key, inference=inference)
        x = self.stack(x, key=stack_key, inference=inference)[1:]
        x = self.head_norm(Activation("gelu_tanh")(self.head(x)))
        table = self.embedding.weight[: self.codes].astype(x.dtype)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        return (x @ table.T).astype(wide) + self.head_bias[None].astype(wide)


def guided(
    model: MaskGIT, label: Int[Array, ""], guidance: float
) -> Callable[[Int[Array, " tokens"]], Float[Array, "tokens codes"]]:
    """Logits of a label pushed away from those of no label: `null + guidance * (label - null)`; 1 is without guidance
    (one pass).
    """
    if not (math.isfinite(guidance) and guidance >= 0):
        raise ValueError(f"guidance must be at least 0: got {guidance}")

    def predict(ids: Int[Array, " tokens"]) -> Float[Array, "tokens codes"]:
        logits = model(ids, label, inference=True)
        if guidance == 1:
            return logits
        null = model(ids, jnp.full_like(label, model.null_label), inference=True)
        return null + guidance * (logits - null)

    return predict


def generate(
    model: MaskGIT,
    label: Int[Array, ""],
    *,
    ids: Int[Array, " tokens"] | None = None,
    unknown: Bool[Array, " tokens"] | None = None,
    steps: int = 8,
    guidance: float = 1.0,
    schedule: str = "cosine",
    choice_temperature: float = 4.5,
    temperature: float = 1.0,
    key: PRNGKeyArray,
) -> Int[Array, " tokens"]:
    """Ids of a new image of a class; or, with `ids` and `unknown`, of that image with the unknown tokens filled in.

    Inpainting keeps the label, class editing gives another: `unknown` is the token mask of the region, see `region`.

    Args:
        label: the class, or `model.null_label`.
        ids: an image's tokens; only with `unknown`.
        unknown: which of them to make anew; only with `ids`.
        steps, schedule, choice_temperature, temperature, key: see `eqxgen.decoding.masked.masked_decode`.
        guidance: see `guided`.
    """
    if (ids is None) != (unknown is None):
        raise ValueError("ids and unknown go together: give both for inpainting, neither for generation")
    check_ids(label, model.classes + 1, "label", "classes + 1 null")
    if ids is None or unknown is None:
        ids, unknown = jnp.zeros(model.tokens, jnp.int32), jnp.ones(model.tokens, bool)
    check_ids(ids, model.codes, "ids", "codes")
    return masked_decode(
        guided(model, label, guidance),
        ids,
        unknown,
        mask_id=model.mask_id,
        steps=steps,
        schedule=schedule,
        choice_temperature=choice_temperature,
        temperature=temperature,
        key=key,
    )[-1]


def region(rows: int, columns: int, *, top: int, left: int, height: int, width: int) -> Bool[Array, " tokens"]:
    """The token mask of a rectangle in a grid of `rows` x `columns` tokens, row by row: true inside."""
    if not (0 <= top < top + height <= rows and 0 <= left < left + width <= columns):
        raise ValueError(
            f"the rectangle must lie inside {rows} x {columns} tokens: got {top=}, {left=}, {height=}, {width=}"
        )
    inside = jnp.zeros((rows, columns), bool).at[top : top + height, left : left + width].set(True)
    return inside.reshape(-1)


def masked_loss(
    model: MaskGIT,
    ids: Int[Array, " tokens"],
    label: Int[Array, ""],
    *,
    schedule: str = "cosine",
    label_smoothing: float = 0.1,
    label_dropout: float = 0.1,
    key: PRNGKeyArray,
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Training loss of one image: (summed cross-entropy over masked tokens, correct guesses among them, how many were
    masked).

    A share schedule(u), u uniform in [0, 1), of the tokens is masked, at least one (the paper's section 3.1). Sums and
    not means, so that a batch weighs every masked token alike however it is split over devices.

    Args:
        label_smoothing: weight of the uniform distribution in the target; 0.1 in the paper.
        label_dropout: how often the label is replaced by the null label.
        key: of the mask, the label dropout and the model's dropout.
    """
    keys = RNG(key)
    count = jnp.maximum(
        1, jnp.round(mask_schedule(schedule, model.tokens)(jax.random.uniform(next(keys))) * model.tokens)
    )
    rank = jnp.argsort(jnp.argsort(jax.random.uniform(next(keys), ids.shape)))
    masked = rank < count
    label = jnp.where(jax.random.uniform(next(keys)) < label_dropout, model.null_label, label)
    logits = model(jnp.where(masked, model.mask_id, ids), label, key=next(keys))
    log_prob = jax.nn.log_softmax(logits)
    hit = jnp.take_along_axis(log_prob, ids[:, None], axis=-1)[:, 0]
    cross_entropy = -(1 - label_smoothing) * hit - label_smoothing * jnp.mean(log_prob, axis=-1)
    correct = jnp.argmax(logits, axis=-1) == ids
    return (
        jnp.sum(cross_entropy * masked),
        jnp.sum(correct & masked).astype(jnp.float32),
        jnp.sum(masked).astype(jnp.float32),
    )
