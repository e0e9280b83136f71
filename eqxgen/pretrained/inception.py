"""Inception-v3 of the Fréchet inception distance: the file of the package pytorch-fid, which has no config.json.

model = from_pretrained("pt_inception-2015-12-05-6726825d.pth")
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxtyping import PRNGKeyArray

from eqxgen.models.inception import SIZES, Inception
from eqxgen.pretrained.family import Family
from eqxgen.pretrained.table import Row, Table
from eqxgen.pretrained.transforms import CONV

PARTS = {"scale": "bn.weight", "bias": "bn.bias", "mean": "bn.running_mean", "variance": "bn.running_var"}


def table() -> Table:
    """Names of torchvision's modules."""
    ignored = {"*num_batches_tracked": "counters of training", "AuxLogits.*": "a head of training"}
    return Table("Inception", tuple(_rows()), ignored=ignored)


def _rows() -> Iterator[Row]:
    for name in SIZES:
        yield Row(f"units.{name}.weight", f"{name}.conv.weight", CONV)
        for ours, theirs in PARTS.items():
            yield Row(f"units.{name}.{ours}", f"{name}.{theirs}")
    yield Row("head.weight", "fc.weight")
    yield Row("head.bias", "fc.bias")


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], Inception], Table]:
    """The model, and its table."""
    return lambda key: Inception(key=key), table()


def describe(model: Inception) -> tuple[dict[str, Any], Table]:
    """No values, and the table."""
    return {}, table()


INCEPTION = Family("Inception", (), build, describe)
from_pretrained, to_pretrained = INCEPTION.from_pretrained, INCEPTION.to_pretrained

__all__ = ["from_pretrained", "to_pretrained"]
