"""Decoding of masked token models (Chang et al. 2022, arXiv:2202.04200, section 3.2).

Orders by name: `confidence`, MaskGIT's; `halton` and `random`, which are drawn before the first step. Tokens that were
accepted stay, unless `remask` masks some again, `edit` draws some anew, or a critic judges all of them.
"""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from eqxgen.configs import MaskedDecoding, parse_schedule
from eqxgen.decoding.logits import tempered, undrawable
from eqxgen.decoding.orders import check_grid, halton_places, rolled
from eqxgen.decoding.traced import NO_TOKEN, check_drawn, number
from eqxgen.nn import _check
from eqxgen.nn._mesh import on_mesh_of, varying
from eqxgen.nn.linear import check_ids
from eqxgen.protocols import MaskedModel

Schedule = Callable[[Float[Array, ""]], Float[Array, ""]]
Critic = Callable[[Int[Array, " seq"]], Float[Array, " seq"]]
"""Logits, for each token of a complete sequence, that it is right."""
PLAIN = MaskedDecoding()


class MaskedRules(eqx.Module):
    """`MaskedDecoding` with its numbers as arrays: other numbers run the same program. A rule that is None is left out
    of it.

    Attributes:
        guidance: None for the conditional model alone.
        temperature: None for the likeliest tokens.
        places: of each token in the Halton order; None for another order.
        schedule, order: static names.
    """

    steps: Int[Array, ""]
    guidance: Float[Array, ""] | None
    choice_temperature: Float[Array, ""]
    temperature: Float[Array, ""] | None
    guidance_ramp: Float[Array, ""] | None
    remask: Float[Array, ""] | None
    edit: Float[Array, ""] | None
    places: Int[Array, " seq"] | None
    schedule: str = eqx.field(static=True)
    order: str = eqx.field(static=True)

    @classmethod
    def of(cls, options: MaskedDecoding, tokens: int, grid: tuple[int, int] | None = None) -> "MaskedRules":
        """The rules of a sampler's options.

        Args:
            grid: rows and columns of the tokens, for the Halton order; by default a square.

        Raises:
            ValueError: there are more steps than tokens, they are not those of the grid, or the options are of another
            kind.
        """
        if not isinstance(options, MaskedDecoding):
            raise ValueError(f"options must be a MaskedDecoding or MaskedRules: got {type(options).__name__}")
        check_steps(options, tokens)
        check_grid(tokens, grid)
        return cls(
            jnp.asarray(options.steps, jnp.int32),
            number(options.guidance, neutral=1),
            jnp.asarray(options.choice_temperature, jnp.float32),
            number(options.temperature, neutral=0),
            number(options.guidance_ramp, neutral=0),
            number(options.remask, neutral=0),
            number(options.edit, neutral=0),
            halton_places(tokens, grid) if options.order == "halton" else None,
            options.schedule,
            options.order,
        )

    def guidance_at(self, progress: Float[Array, ""]) -> Float[Array, ""] | None:
        """Guidance of a step that ends at a progress in (0, 1]: 1 + (guidance - 1) progress^ramp."""
        if self.guidance is None or self.guidance_ramp is None:
            return self.guidance
        return 1 + (self.guidance - 1) * progress**self.guidance_ramp


def mask_schedule(name: str, tokens: int | Int[Array, ""]) -> Schedule:
    """Mask schedule of a name: from the progress r in [0, 1] to the share of tokens that is still masked.

    cosine cos(πr/2) · linear 1 - r · power 1 - r² (`power3`: 1 - r³) · sqrt 1 - √r · log -log2(r) / log2(tokens) ·
    exp 1 - 2^(-log2(tokens) (1 - r)), the original's and those of its comparison (table 3) · arccos 2 arccos(r) / π
    (Besnier and Chen 2023, arXiv:2310.14400). Each is 1 at r = 0 and 0 at r = 1; the original's clip to at least 1e-6
    is left out, because `masked_decode` counts whole tokens.

    Args:
        name: of the schedule.
        tokens: that are masked at the start: of inpainting, the unknown ones.

    Raises:
        ValueError: the name is unknown, or the exponent is not positive.
    """
    kind, exponent = parse_schedule(name)
    bits = math.log2(max(tokens, 2)) if isinstance(tokens, int) else jnp.log2(jnp.maximum(tokens, 2))
    share: Schedule = {
        "cosine": lambda r: jnp.cos(jnp.pi / 2 * r),
        "linear": lambda r: 1 - r,
        "power": lambda r: 1 - r**exponent,
        "sqrt": lambda r: 1 - jnp.sqrt(r),
        "log": lambda r: -jnp.log2(jnp.maximum(r, 2.0**-bits)) / bits,
        "exp": lambda r: 1 - jnp.exp2(-bits * (1 - r)),
        "arccos": lambda r: jnp.arccos(r) / (jnp.pi / 2),
    }[kind]

    def schedule(r: Float[Array, ""]) -> Float[Array, ""]:
        # The ends are exact by definition, but only approximate by some formulas: cos(π/2) and 1 - 2^(-log2 n) in
        # float32.
        return jnp.where(r >= 1, 0.0, jnp.where(r <= 0, 1.0, jnp.clip(share(jnp.clip(r, 0, 1)), 0.0, 1.0)))

    return schedule


def check_steps(options: MaskedDecoding, tokens: int) -> None:
    """Raises `ValueError` if there are more steps than tokens."""
    if options.steps > tokens:
        raise ValueError(f"decode.steps must be from 1 to the number of tokens, {tokens}: got {options.steps}")


def masked_decode(
    predict: Callable[[Int[Array, " seq"]], Float[Array, "seq codes"]],
    tokens: Int[Array, " seq"],
    unknown: Bool[Array, " seq"],
    options: MaskedDecoding | MaskedRules = PLAIN,
    *,
    length: int | None = None,
    grid: tuple[int, int] | None = None,
    critic: Critic | None = None,
    mask_id: int,
    key: PRNGKeyArray,
) -> Int[Array, "length seq"]:
    """Unknown tokens of one sequence filled in `options.steps` parallel guesses, the first of the order first.

    At step t of T every token that is still masked is drawn from the model. With n unknown tokens at the start, all but
    ⌊n·schedule((t+1)/T)⌋ of them are then accepted: by confidence those with the highest log p + choice_temperature ·
    (1 - (t+1)/T) · Gumbel noise. A step before the last accepts at least one while two or more are masked, and leaves
    at least one, as the original's. In the orders `halton` and `random`, ⌈n·schedule((t+1)/T)⌉ are left, as Halton's
    published sampler does.

    Known tokens never change. Accepted ones do only with:

    - `remask`: each is masked again with probability σ = min(remask, (1 - a') / a), where a and a' are the shares of
      tokens that the schedule accepts before and after the step (Wang et al. 2025, arXiv:2503.00307,
      ReMDM-cap). As many others are accepted in their place.
    - `edit`: each is drawn anew with this probability and stays accepted. With 1 and the Halton order, that is what the
      published code of this order does.
    - a critic: it judges the sequence with all draws in it, and the tokens left masked are those that it finds least
      right of all the unknown (Lezama et al. 2022, arXiv:2209.04439), with the same Gumbel noise.

    Under a model whose tokens are independent every order draws from the model, but that by confidence: it draws
    unlikely tokens again, which is its bias.

    Args:
        predict: logits of a sequence whose masked tokens are `mask_id`; guidance is its part, see `guided`.
        tokens: the sequence; the values at unknown positions are ignored.
        unknown: positions to fill: all for generation, a region for inpainting.
        options: steps, from 1 to the number of tokens, order, schedule and temperatures; the guidance is not used. As
            `MaskedRules`, other numbers run the same program.
        length: rows of the result; the number of steps by default, and needed where `MaskedRules` have it traced.
        grid: rows and columns of the tokens, for the Halton order; by default a square.
        critic: scorer of complete sequences, in place of the confidence.
        mask_id: id of a masked token.
        key: of all draws.

    Returns:
        The sequence after each step in int32, `mask_id` where it is still masked. The row of the last step is complete,
        and so are those after it. Tokens whose logits are NaN are `NO_TOKEN`, -1, inside a compiled program.

    Raises:
        ValueError: there are more steps than tokens, shapes differ, or a critic is given with another order.
        FloatingPointError: the logits are NaN.
    """
    if isinstance(options, MaskedDecoding):
        length = options.steps if length is None else length
        options = MaskedRules.of(options, len(tokens), grid)
    if length is None:
        raise ValueError("length must be given with MaskedRules, whose steps are not known to the compiler: got None")
    start, step = _masked(lambda ids, _: predict(ids), tokens, unknown, options, critic, mask_id, key)

    def kept(tokens: Array, t: Array) -> tuple[Array, Array]:
        tokens = step(t, tokens)
        return tokens, tokens

    history = jax.lax.scan(kept, start, jnp.arange(length))[1]
    check_drawn(history)
    return history


def _masked(
    predict: Callable[[Array, Array], Array],
    tokens: Array,
    unknown: Array,
    rules: MaskedRules,
    critic: Critic | None,
    mask_id: int,
    key: PRNGKeyArray,
) -> tuple[Array, Callable[[Array, Array], Array]]:
    """The sequence before the first step, and the step: (its number, the sequence) -> the sequence. `predict` is given
    the progress too.
    """
    tokens, unknown = jnp.asarray(tokens, jnp.int32), jnp.asarray(unknown)  # a smaller type may lack the mask's id
    _check.example(tokens, "tokens", name="ids")
    (seq,) = tokens.shape
    if unknown.shape != tokens.shape:
        raise ValueError(f"unknown must have the shape of tokens: got {unknown.shape} and {tokens.shape}")
    if unknown.dtype != bool:
        raise ValueError(f"unknown must be booleans: got {unknown.dtype.name}; compare it with 0")
    if critic is not None and rules.order != "confidence":
        raise ValueError(f"critic needs decode.order=confidence, in place of which it is: got {rules.order}")
    start = jnp.sum(unknown)
    share = mask_schedule(rules.schedule, start)
    # Keys 0 to seq - 1 are those of the steps.
    late = _lateness(rules, seq, jr.fold_in(key, seq))

    def step(t: Array, tokens: Array) -> Array:
        draw_key, order_key = jr.split(jr.fold_in(key, t))
        progress = (t + 1).astype(jnp.float32) / rules.steps
        masked = tokens == mask_id
        logits = predict(tokens, progress).astype(jnp.float32)
        drawn = _drawn(logits, rules.temperature, draw_key).astype(tokens.dtype)
        edited, again = _revised(rules, share, unknown & ~masked, progress, jr.fold_in(jr.fold_in(key, seq + 1), t))
        filled = jnp.where(masked | edited, drawn, tokens)
        if late is not None:
            score = -late
        else:
            log_prob = lambda: jnp.take_along_axis(jax.nn.log_softmax(logits), drawn[:, None], axis=-1)[:, 0]
            noise = rules.choice_temperature * (1 - progress) * jr.gumbel(order_key, (seq,))
            judgement = log_prob() if critic is None else jnp.asarray(critic(filled))
            if judgement.shape != (seq,):
                raise ValueError(f"critic must give a score for each of {seq} tokens: got shape {judgement.shape}")
            score, filled = judgement + noise, jnp.where(jnp.isnan(judgement).any(), NO_TOKEN, filled)
        still = jnp.sum(masked)
        # The 1e-4 is for whole numbers, which float32 may miss.
        target = start * share(progress)
        target = jnp.floor(target + 1e-4) if late is None else jnp.ceil(target - 1e-4)
        target = target.astype(still.dtype) - jnp.sum(again)
        keep_masked = jnp.where(progress >= 1, 0, jnp.maximum(jnp.minimum(target, still - 1), 1))
        judged = masked if critic is None else unknown & ~again
        score = jax.lax.stop_gradient(jnp.where(judged, score, jnp.inf))  # JAX 0.10: no derivative on explicit axes
        rank = jnp.argsort(jnp.argsort(score))  # 0: the last to be accepted
        return jnp.where(again | (judged & (rank < keep_masked)), mask_id, filled)

    return jnp.where(unknown, mask_id, tokens), step


def _lateness(rules: MaskedRules, seq: int, key: PRNGKeyArray) -> Array | None:
    """Place of each token in an order that does not depend on the model; None for the order of confidence."""
    if rules.order == "random":
        return jr.permutation(key, seq)
    return None if rules.places is None else rolled(rules.places, key=key)


def _revised(
    rules: MaskedRules, share: Schedule, accepted: Array, progress: Array, key: PRNGKeyArray
) -> tuple[Array, Array]:
    """Accepted tokens that are drawn anew, and those that are masked again."""
    edit_key, mask_key = jr.split(key)
    none = jnp.zeros_like(accepted)
    edited = none if rules.edit is None else accepted & (jr.uniform(edit_key, accepted.shape) < rules.edit)
    if rules.remask is None:
        return edited, none
    before = 1 - share(progress - 1 / rules.steps)
    sigma = jnp.minimum(rules.remask, share(progress) / jnp.maximum(before, 1e-6))
    again = accepted & (jr.uniform(mask_key, accepted.shape) < sigma)
    return edited & ~again, again


def _drawn(logits: Array, temperature: Array | None, key: PRNGKeyArray) -> Array:
    """A token of each row of logits, `NO_TOKEN` of rows that are no distribution."""
    likeliest = temperature is None
    drawn = jnp.argmax(logits, axis=-1) if likeliest else jr.categorical(key, tempered(logits, temperature))
    return jnp.where(undrawable(logits), NO_TOKEN, drawn)


def guided(
    model: MaskedModel, condition: Int[Array, "..."], guidance: float | int | Float[Array, ""] | None
) -> Callable[[Int[Array, " tokens"]], Float[Array, "tokens codes"]]:
    """Classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598): logits `null + guidance * (given - null)`.

    A guidance of 1, or None, is the conditional model alone, one pass instead of two.

    Raises:
        ValueError: guidance is negative or not finite, or the model has no null label.
    """
    if isinstance(guidance, int | float):
        if not (math.isfinite(guidance) and guidance >= 0):
            raise ValueError(f"guidance must be at least 0: got {guidance}")
        guidance = number(guidance, neutral=1)
    predict = _conditioned(model, condition, guidance is not None)
    return lambda ids: predict(ids, guidance)


def _conditioned(
    model: Any, condition: Array, doubled: bool
) -> Callable[[Array, Float[Array, ""] | None], Float[Array, "tokens codes"]]:
    """(ids, guidance) -> logits, guided where `doubled`. What a model reads of its condition apart is read here."""
    read = getattr(model, "conditioned", lambda given: lambda ids: model(ids, given, inference=True))
    given = read(condition)
    if not doubled:
        return lambda ids, guidance: given(ids)
    if model.null_label is None:
        raise ValueError(
            "guidance needs a model with a null label: give guidance=1 for one without, as with null=False"
        )
    unconditional = read(jnp.full_like(condition, model.null_label))

    def predict(ids: Array, guidance: Float[Array, ""] | None) -> Array:
        logits, null = given(ids), unconditional(ids)
        return null + guidance * (logits - null)

    return predict


def generate(
    model: MaskedModel,
    condition: _check.Ids,
    options: MaskedDecoding | MaskedRules = PLAIN,
    *,
    ids: _check.Ids | None = None,
    unknown: Bool[Array, " tokens"] | None = None,
    grid: tuple[int, int] | None = None,
    critic: Critic | None = None,
    key: PRNGKeyArray,
) -> Int[Array, " tokens"]:
    """Ids of a new example of a class or a text; or, with `ids` and `unknown`, of that example with the unknown tokens
    filled in.

    Inpainting keeps the condition, editing gives another: `unknown` is the token mask of the region, see `region`.
    Other numbers in `options` run the same compiled program. So they do inside a program of yours that takes
    `MaskedRules` as an argument.

    Args:
        condition: the class, or the ids of the text; or the null, filled with `model.null_label`.
        options: of `masked_decode`, and the guidance.
        ids: tokens of an example; only with `unknown`.
        unknown: positions to fill; only with `ids`.
        grid, critic: see `masked_decode`.
        key: of all draws.

    Raises:
        ValueError: an id is out of range, the condition is none of the model's, `unknown` is no mask of the tokens, or
            one of `ids` and `unknown` is missing.
        FloatingPointError: the logits are NaN; inside a compiled program, ids are `NO_TOKEN`, -1, instead.
    """
    if (ids is None) != (unknown is None):
        raise ValueError("ids and unknown go together: give both for inpainting, neither for generation")
    condition = model.check_condition(condition)
    if ids is None or unknown is None:
        ids, unknown = jnp.zeros(model.tokens, jnp.int32), jnp.ones(model.tokens, bool)
    ids = check_ids(ids, model.codes, "ids", "codes")
    _check.example(ids, name="ids", tokens=model.tokens)
    rules = options if isinstance(options, MaskedRules) else MaskedRules.of(options, model.tokens, grid)
    with on_mesh_of(condition, ids, key):
        found = _filled(model, condition, rules, ids, unknown, critic, key)
    check_drawn(found)
    return found


@eqx.filter_jit
def _filled(
    model: Any,
    condition: Array,
    rules: MaskedRules,
    ids: Array,
    unknown: Array,
    critic: Critic | None,
    key: PRNGKeyArray,
) -> Array:
    predict = _conditioned(model, condition, rules.guidance is not None)
    guided = lambda ids, progress: predict(ids, rules.guidance_at(progress))
    start, step = _masked(guided, ids, unknown, rules, critic, model.mask_id, key)
    return jax.lax.fori_loop(0, rules.steps, step, varying(start, condition, jr.bits(key)))


def region(rows: int, columns: int, *, top: int, left: int, height: int, width: int) -> Bool[Array, " tokens"]:
    """Token mask of a rectangle in a grid of `rows` x `columns` tokens, row by row: true inside.

    Raises:
        ValueError: the rectangle is not inside the grid.
    """
    if not (0 <= top < top + height <= rows and 0 <= left < left + width <= columns):
        raise ValueError(
            f"the rectangle must be inside {rows} x {columns} tokens: got {top=}, {left=}, {height=}, {width=}"
        )
    inside = jnp.zeros((rows, columns), bool).at[top : top + height, left : left + width].set(True)
    return inside.reshape(-1)
