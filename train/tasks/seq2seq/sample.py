"""Targets that a run writes after sources, for `train.sample`. Imports nothing heavy."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqxgen.configs import Sampling

from ..._errors import UsageError, UserError, require
from ...engine.recipes import Finished
from ..sampling import Sample, write_out

if TYPE_CHECKING:
    from ...data.text.pair_vocabulary import PairVocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairSample(Sampling, Sample):
    """Flags of targets; those of the draws are `eqxgen.configs.Sampling`."""

    text: tuple[str, ...] = ()
    """Source; several, for a target of each."""
    n: int = 1
    """Targets of each source."""
    length: int | None = None
    """Tokens of a target at most; by default as many as the model has memory for."""
    temperature: float = 0.0
    """Divides the logits; 0 takes the likeliest token (greedy)."""
    beams: int | None = None
    """Write the best target that a search with so many candidates finds, in place of drawing one."""
    length_penalty: float | None = None
    """With --beams: exponent of the length by which candidates are compared; 0 compares log probabilities. By default
    as the run's config says."""
    out: str | None = None
    """File to write, in place of the screen: .tsv, or .jsonl with a line for each target."""

    def __post_init__(self):
        Sample.__post_init__(self)
        Sampling.__post_init__(self)
        require(bool(self.text), 'text must be given, as in --text "hello"')
        require(all(text.strip() for text in self.text), "text must be one or more characters: got ''")
        require(self.n >= 1, f"n must be at least 1: got {self.n}")
        require(self.length is None or self.length >= 1, f"length must be at least 1: got {self.length}")
        require(self.beams is None or self.beams >= 1, f"beams must be at least 1: got {self.beams}")
        penalty = self.length_penalty
        require(penalty is None or self.beams is not None, "length_penalty goes with beams, which was not given")
        require(
            penalty is None or 0 <= penalty < float("inf"),
            f"length_penalty must be at least 0 and finite: got {penalty}",
        )
        plain = {field.name: field.default for field in dataclasses.fields(PairSample)}
        drawing = [name for name in ("n", *_DRAWING) if getattr(self, name) != plain[name]]
        require(
            self.beams is None or not drawing,
            f"beams goes without {drawing[0] if drawing else ''}: a search draws nothing",
        )
        require(
            self.out is None or Path(self.out).suffix.lower() in (".tsv", ".jsonl"),
            f"out must be a .tsv or .jsonl file: got {self.out!r}",
        )

    @property
    def sampling(self) -> Sampling:
        """Options of the draws alone."""
        return Sampling(**{name: getattr(self, name) for name in _DRAWING})


_DRAWING = tuple(field.name for field in dataclasses.fields(Sampling))


def write_answers(run: Finished, asked: PairSample) -> int:
    """Targets of a run, a line each.

    Raises:
        UserError: the run has no model, or a source cannot be encoded or is longer than the context.
    """
    from ...parallel import make_mesh
    from ..language import vocabulary_of_run

    vocabulary: Any = vocabulary_of_run(run.folder, run.facts)
    context = run.config.model.context
    sources = [_source(vocabulary, text, context) for text in asked.text]
    length = context - 1 if asked.length is None else asked.length
    if length >= context:
        raise UsageError(f"--length must be below the model's {context} tokens: got {length}")
    if asked.beams is not None and asked.beams > run.facts.vocab:
        raise UsageError(f"--beams must be at most the vocabulary's {run.facts.vocab}: got {asked.beams}")
    model = run.model(make_mesh(asked.mesh))
    found: list[tuple[str, str]] = []
    try:
        for text, source in zip(asked.text, sources):
            found += [(text, answer) for answer in _answers(model, vocabulary, source, length, asked, run.config)]
    except FloatingPointError as error:
        raise UserError(f"--run {asked.run}: {error}") from None
    return _write(asked, found)


def _source(vocabulary: "PairVocabulary", text: str, context: int) -> Any:
    """Ids as a row of the context, so that every source runs the same program."""
    import numpy as np

    from ...data.text.pair_vocabulary import PAD

    try:
        ids = vocabulary.source(text)
    except ValueError as error:
        raise UserError(f"--text: {error}") from None
    if len(ids) > context:
        raise UserError(f"--text must be at most the model's {context} tokens with the end: got {len(ids)}; shorten it")
    return np.pad(ids, (0, context - len(ids)), constant_values=PAD)


def _answers(
    model: Any, vocabulary: "PairVocabulary", source: Any, length: int, asked: PairSample, config: Any
) -> list[str]:
    import equinox as eqx
    import jax.numpy as jnp
    import jax.random as jr

    from eqxgen.decoding.autoregressive import generate
    from eqxgen.decoding.beam import beam_search

    from ...data.text.pair_vocabulary import END, PAD
    from ...evaluators.answers import text_of_ids

    written = eqx.nn.inference_mode(model).conditioned(source, mask=jnp.asarray(source != PAD))
    if asked.beams is not None:
        penalty = config.length_penalty if asked.length_penalty is None else asked.length_penalty
        rows = [beam_search(written, [PAD], length, asked.beams, stop=[END], length_penalty=penalty)[0]]
    else:
        rows = generate(written, [[PAD]] * asked.n, length, asked.sampling, stop=[END], key=jr.key(asked.seed))
    return [text_of_ids(vocabulary, row) for row in rows]


def _write(asked: PairSample, found: list[tuple[str, str]]) -> int:
    records = [{"source": source, "target": target, "seed": asked.seed} for source, target in found]
    if asked.out is not None and asked.out.lower().endswith(".jsonl"):
        whole = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    else:
        whole = "".join(f"{source}\t{target}\n" for source, target in found)
    return write_out(asked.out, whole, f"{len(found)} targets")
