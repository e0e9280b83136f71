"""Parameter names with a meaning: sharded width, float32 islands, ends of a model. Imports no jax.

Patterns of paths as `train.params.paths.matches` reads them. A model whose fields are called otherwise gets the
defaults (whole under `model`, cast, decayed); a test asks of every matrix of every model for a row of WIDTH or WHOLE.
"""

EXPERTS: tuple[tuple[str, int], ...] = (("**.mlp.experts.*.weight", -3), ("**.mlp.experts.*.bias", -2))
"""Axis, from the last, of the experts, which `--mesh expert` splits, and `--mesh model` in whole experts too."""

WIDTH: tuple[tuple[str, int], ...] = (
    ("**.qkv.weight", -2),
    ("**.qkv.bias", -1),
    ("**.attention.out.weight", -1),
    ("**.mlp.up.weight", -2),
    ("**.mlp.up.bias", -1),
    ("**.mlp.down.weight", -1),
    *EXPERTS,
)
"""Axis, from the last, that `--mesh model` splits (Shoeybi et al. 2019, arXiv:1909.08053): of two projections in a row
the first is split by its outputs and the second by its inputs, so that one sum over the devices follows both."""

_ENDS = (
    "*embedding*",
    "*position*",
    "*codebook*",
    "*head*",
    "*stem*",
    "patches",
    "labels",
    "out.projection",
    "*token*",
    "probe",
)
ENDS = tuple(f"**.{name}" for name in _ENDS)
"""Parameters at a model's ends, whose matrices are not maps between hidden features."""

WHOLE = (
    *ENDS,
    *(
        f"**.{name}" for name in ("convs", "downs", "ups", "levels", "middle", "after", "before", "phi")
    ),  # kernels of convolutions
    *(f"**.{name}.weight" for name in ("shortcut", "last", "hidden", "pooler", "join")),
    *(f"**.{name}.weight" for name in ("from_input", "from_output")),  # recurrent cells
    *(f"**.mixer.{name}" for name in ("into.weight", "out.weight", "conv")),  # state spaces
    *(f"**.attention.*_{name}.weight" for name in ("down", "up")),  # latent attention
    "**.router.weight",  # of experts
    *(f"**.{name}" for name in ("*modulation*", "time", "span", "guide")),  # of a condition
    *(f"**.quantizer.{name}" for name in ("start", "logits.weight", "down.weight", "up.weight")),
    *(f"**.{name}" for name in ("encoder.down.weight", "decoder.up.weight", "encoder.latents", "decoder.mask")),
    "**.dense",  # hidden layers of variational autoencoders
    *(f"**.attention.{name}.weight" for name in ("q", "kv")),  # cross-attention
    *(f"**.{name}.weight" for name in ("types", "transform", "bias.table")),  # of BERT and T5
    *(f"**.{name}" for name in ("units", "features")),  # of nets whose maps are compared
    *(f"**.{name}" for name in ("mapping", "basis", "const")),  # of generators
)
"""Matrices and kernels that `--mesh model` leaves whole."""

ISLANDS = (
    "**.*norm*.**.scale",
    "**.*norm*.**.bias",
    "**.head_bias",
    "**.codebook",
    "**.tokenizer",
    "**.router.weight",
    "**.log_a",
    "**.dt_bias",
)
"""Parameters that stay float32 in a half-precision model: what norms and loss heads use in float32 anyway, codes that
are compared, and tokenizers within a model."""
