"""MaskGIT: a bidirectional transformer over image tokens (Chang et al. 2022, arXiv:2202.04200).

One table embeds codes, the mask and the labels; the sequence is the label's token followed by the image's, with learned
positions, a norm and dropout; the head is dense, gelu, norm, and a product with the table's code rows plus a bias, as
BERT's. Weights are drawn from a truncated normal of deviation 0.02, norms have epsilon 1e-12.

The loss is `eqxgen.losses.masked`, the sampler `eqxgen.decoding.masked`.

Differences: a null label is added, so that classifier-free guidance (arXiv:2207.12598) can be trained by label dropout
(`config.null=False`, as in the published weights, is without); logits are of the codes alone, not of the mask and the
labels; `placement="pre"` is pre-norm, with which small models train faster.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.configs import MaskGITConfig
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
    head_bias: Float[Array, " entries"]  # of the codes; without a null label, of every row of the table
    tokens: int = eqx.field(static=True)
    codes: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    null: bool = eqx.field(static=True)

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

        rows = codes + 1 + classes + config.null
        self.embedding = Embedding(rows, dim, init=_normal, key=next(keys))
        self.positions = _normal(next(keys), (tokens + 1, dim), jnp.float32)
        self.norm = LayerNorm(dim, epsilon=1e-12)
        self.dropout = Dropout(config.dropout)
        self.stack = Stack(block, config.depth, remat=config.remat, key=next(keys))
        self.head = Projection(dim, dim, init=_normal, key=next(keys))
        self.head_norm = LayerNorm(dim, epsilon=1e-12)
        self.head_bias = jnp.zeros(codes if config.null else rows)
        self.tokens, self.codes, self.classes, self.null = tokens, codes, classes, config.null

    @property
    def mask_id(self) -> int:
        """The id of a masked token."""
        return self.codes

    @property
    def null_label(self) -> int | None:
        """Label of an example without one; None with `config.null=False`."""
        return self.classes if self.null else None

    def check_condition(self, label: _check.Ids) -> Int[Array, ""]:
        """The label as an array.

        Raises:
            ValueError: it is no integer, no scalar or out of range; inside a compiled program a label out of the range
                gives NaN logits instead.
        """
        return _check.label(label, self.classes, self.null)

    def __call__(
        self,
        ids: _check.Ids,
        label: _check.Ids,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "tokens codes"]:
        """Logits, in float32 at least.

        Args:
            ids: codes in [0, codes), or `mask_id`: an array (tokens,) of integers, or a list.
            label: in [0, classes), or `null_label`.
            key: of dropout; needed in training.
            inference: no dropout, if true.

        Raises:
            ValueError: an id or a label is no integer, of another shape, or out of range; under jit a token out of
                range gives NaN logits instead.
        """
        ids = check_ids(ids, self.codes + 1, "ids", "codes + 1 mask")
        labels = self.classes + self.null
        label = self.check_condition(label)
        _check.example(ids, name="ids", tokens=self.tokens)
        # Under jit, ids and labels out of range become NaN instead of a token of another kind.
        label_id = jnp.where((label >= 0) & (label < labels), self.codes + 1 + label, -1)
        ids = jnp.where((ids >= 0) & (ids <= self.codes), ids, -1)
        embed_key, stack_key = (None, None) if key is None else jax.random.split(key)
        x = self.embedding(jnp.concatenate([label_id[None], ids])) + self.positions
        x = self.dropout(self.norm(x), key=embed_key, inference=inference)
        x = self.stack(x, key=stack_key, inference=inference)[1:]
        x = self.head_norm(Activation("gelu_tanh")(self.head(x)))
        table = self.embedding.weight[: self.codes].astype(x.dtype)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        return (x @ table.T).astype(wide) + self.head_bias[None, : self.codes].astype(wide)
