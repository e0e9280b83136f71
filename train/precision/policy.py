"""A precision policy: the types of stored parameters, of computation and of what comes out.

The text is jmp's: `params=float32,compute=bfloat16,output=float32`, or `p=f32,c=bf16,o=f32`. Importing this needs no
jax.
"""

import dataclasses
import difflib

from ..params.conventions import ISLANDS

DTYPES = {
    "float64": "float64",
    "float32": "float32",
    "bfloat16": "bfloat16",
    "float16": "float16",
    "f64": "float64",
    "f32": "float32",
    "bf16": "bfloat16",
    "f16": "float16",
    "full": "float32",
    "half": "bfloat16",
}
PARTS = {"params": "params", "compute": "compute", "output": "output", "p": "params", "c": "compute", "o": "output"}


@dataclasses.dataclass(frozen=True)
class Policy:
    """Types by name, and the parameters that stay in float32 all the same; `train.precision.layers` casts by it.

    Attributes:
        params: of the parameters that are stored and updated.
        compute: of the parameters and inputs that a model computes with.
        output: of what it gives.
        islands: path patterns (`train.params.paths.matches`) of parameters that are stored and used in float32,
            unless `compute` is wider.

    Raises:
        ValueError: a type is unknown.
    """

    params: str = "float32"
    compute: str = "float32"
    output: str = "float32"
    islands: tuple[str, ...] = ISLANDS

    def __post_init__(self):
        for part in ("params", "compute", "output"):
            object.__setattr__(self, part, _known(getattr(self, part), DTYPES, f"a policy's {part}"))

    @classmethod
    def parse(cls, text: str, *, on_cpu: bool = True) -> "Policy":
        """The policy of a text.

        `full` and `float32`: float32 throughout. `mixed` and `bfloat16`: float32 parameters, computation in bfloat16,
        float32 out; `float16` computes so in float16, which needs a loss scale. `half`: bfloat16 throughout, the
        parameters too. `auto`: `full` on a CPU, `mixed` elsewhere. Else parts as `compute=bfloat16`: without `params`
        they are float32, `compute` is by default as `params`, `output` as `compute`. jmp's `half` is float16 off TPU;
        here it is bfloat16 everywhere.

        Raises:
            ValueError: the text is none of these; the nearest is named.
        """
        if text == "auto":
            text = "full" if on_cpu else "mixed"
        if text in WORDS:
            return cls(*WORDS[text])
        if "=" not in text:
            raise _unknown(
                text, [*WORDS, "auto"], "precision", "; or parts as in params=float32,compute=bfloat16,output=float32"
            )
        given: dict[str, str] = {}
        for part in text.split(","):
            name, _, dtype = (word.strip() for word in part.partition("="))
            name = _known(name, PARTS, "a part of a precision")
            if name in given:
                raise ValueError(f"precision must name each part once: got {name} twice in {text!r}")
            given[name] = _known(dtype, DTYPES, f"precision's {name}")
        params = given.get("params", "float32")
        compute = given.get("compute", params)
        return cls(params, compute, given.get("output", compute))

    @property
    def needs_scale(self) -> bool:
        """True where small gradients would vanish: float16 has no numbers below 6e-8."""
        return "float16" in (self.params, self.compute)


def _mixed(compute: str) -> tuple[str, str, str]:
    return "float32", compute, "float32"


WORDS = {
    "full": _mixed("float32"),
    "mixed": _mixed("bfloat16"),
    "half": ("bfloat16",) * 3,
    "float32": _mixed("float32"),
    "bfloat16": _mixed("bfloat16"),
    "float16": _mixed("float16"),
    "float64": ("float64",) * 3,
    "f32": _mixed("float32"),
    "bf16": _mixed("bfloat16"),
    "f16": _mixed("float16"),
    "f64": ("float64",) * 3,
}
"""Params, compute and output of the texts that are one word."""


def _known(word: str, table: dict[str, str], what: str) -> str:
    if word not in table:
        raise _unknown(word, list(table), what)
    return table[word]


def _unknown(word: str, words: list[str], what: str, more: str = "") -> ValueError:
    near = difflib.get_close_matches(word, words, n=1, cutoff=0)[0]
    return ValueError(f"{what} must be one of {', '.join(words)}{more}: got {word!r}; nearest: {near}")
