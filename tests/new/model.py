"""Skeleton of a model: config, network, exports, a row of tests, a row of docs."""

from tests.new.edits import Checkout, class_name

CONFIG = '''"""Sizes of NAME (author year, arXiv number)."""

import dataclasses

from eqxgen.configs._check import at_least_one, dropout


@dataclasses.dataclass(frozen=True)
class NAMEConfig:
    """Sizes of `eqxgen.models.MODULE.NAME`."""

    width: int = 16
    """Channels after the convolution."""
    dropout: float = 0.0
    """Rate before the last projection."""

    def __post_init__(self):
        at_least_one(self, "width")
        dropout(self)
'''

MODEL = '''"""NAME: one line that says what it is (author year, arXiv number, figure or table).

Where we differ: name each difference from the paper.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.configs.MODULE import NAMEConfig
from eqxgen.nn import Convolution, Dropout, Projection, _check
from eqxgen.rng import RNG


class NAME(eqx.Module):
    """Logits of an image: a convolution, the mean over places, a projection.

    Args:
        channels: of the image.
        classes: number of labels.
        config: the sizes.
    """

    stem: Convolution
    dropout: Dropout
    head: Projection

    def __init__(self, channels: int, classes: int, config: NAMEConfig, *, key: PRNGKeyArray):
        _check.positive(channels=channels, classes=classes)
        keys = RNG(key)
        self.stem = Convolution(channels, config.width, key=next(keys))
        self.dropout = Dropout(config.dropout)
        self.head = Projection(config.width, classes, key=next(keys))

    def __call__(
        self,
        image: Float[Array, "height width channels"],
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, " classes"]:
        """Logits of an image in [-1, 1].

        Args:
            key: of dropout; needed in training, where there is any.
            inference: no dropout, if true.
        """
        x = jnp.mean(jax.nn.gelu(self.stem(image)), axis=(0, 1))
        return self.head(self.dropout(x, key=key, inference=inference))
'''

ROW = """    Row(
        "NAME",
        lambda key: NAME(3, 4, NAMEConfig(width=8), key=key),
        image,
        (4,),
        train_image,
    ),
"""


def model(checkout: Checkout, name: str) -> str:
    """Writes the skeleton of a model; gives the arguments of pytest for its tests."""
    module = class_name(name).lower()
    fill = lambda text: text.replace("NAME", name).replace("MODULE", module)
    checkout.create(f"eqxgen/configs/{module}.py", fill(CONFIG))
    checkout.create(f"eqxgen/models/{module}.py", fill(MODEL))
    for package, exported in (("configs", f"{name}Config"), ("models", name)):
        path = f"eqxgen/{package}/__init__.py"
        indent = "    " if package == "models" else ""  # models are imported lazily
        checkout.add_import(path, f"eqxgen.{package}.{module}", exported, indent)
        checkout.add_name(path, "__all__", exported)
    table = "tests/models/test_models.py"
    checkout.add_import(table, f"eqxgen.configs.{module}", f"{name}Config")
    checkout.add_import(table, f"eqxgen.models.{module}", name)
    checkout.replace(table, r"(^MODELS = \[\n(?:.*\n)*?)\]\n", lambda found: f"{found[1]}{fill(ROW)}]\n")
    checkout.add_table_row("docs/models.md", "| model |", f"| `{name}` | one line that says what it is | |")
    return f"tests/models/test_models.py -k {name}"
