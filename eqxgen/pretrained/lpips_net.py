"""The package lpips 0.1.4's state dictionary of a whole net, `LPIPS(net=...).state_dict()`, which has no config.json.

    model = from_pretrained("vgg.pth", config={"net": "vgg"})

`with_files` puts the same net together from torchvision's file and the package's heads.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.random as jr
from jaxtyping import PRNGKeyArray

from eqxgen.models.lpips import LPIPS, NETS, TAP, convolutions
from eqxgen.pretrained import files
from eqxgen.pretrained.family import Family
from eqxgen.pretrained.table import Row, Table, Tied, read
from eqxgen.pretrained.transforms import CONV, layout

HEAD = layout("1 channels 1 1 -> channels")
IGNORED = {
    "scaling_layer.*": "constants of the preprocessing",
    "classifier.*": "the classifier after the features",
    "fc*": "the classifier after the features",
}


def table(net: str) -> Table:
    """Names of the package's modules, then torchvision's of the features."""
    heads = NETS[net].count(TAP)
    tied = tuple(Tied(f"lins.{n}.model.1.weight", f"lin{n}.model.1.weight", written=True) for n in range(heads))
    return Table("LPIPS", tuple(_rows(net)), tied=tied, ignored=IGNORED)


def _rows(net: str) -> Iterator[Row]:
    part = 1
    for layer in NETS[net]:
        part += layer == TAP
        for name in convolutions(layer):
            for theirs in (f"net.slice{part}.{name}", f"features.{name}"):
                yield Row(f"features.{name}.weight", f"{theirs}.weight", CONV)
                yield Row(f"features.{name}.bias", f"{theirs}.bias")
    for n in range(NETS[net].count(TAP)):
        yield Row(f"heads.{n}", f"lin{n}.model.1.weight", HEAD)


def with_files(net: str, features: str | Path, heads: str | Path) -> LPIPS:
    """The distance on torchvision's weights of a net, with the package's heads.

    Args:
        net: alex, vgg or squeeze.
        features: torchvision's file, such as vgg16-397923af.pth.
        heads: the package's file of that net in `lpips/weights/v0.1`.

    Raises:
        ValueError: a file is damaged, or of another net.
    """
    arrays = files.open_arrays(Path(features)) | files.open_arrays(Path(heads))
    shapes = eqx.filter_eval_shape(lambda key: LPIPS(net, key=key), jr.key(0))
    return read(table(net), arrays, shapes, features)[0]


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], LPIPS], Table]:
    """The model of `{"net": ...}`, and its table."""
    net = str(values["net"])
    return lambda key: LPIPS(net, key=key), table(net)


def describe(model: LPIPS) -> tuple[dict[str, Any], Table]:
    """Values for `build`, and the table."""
    return {"net": model.net}, table(model.net)


LPIPS_NET = Family("LPIPS", (), build, describe)
from_pretrained, to_pretrained = LPIPS_NET.from_pretrained, LPIPS_NET.to_pretrained

__all__ = ["from_pretrained", "to_pretrained", "with_files"]
