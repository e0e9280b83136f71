"""Ends of texts: ids and strings, against their definition on complete texts."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqxgen.configs import GPTConfig, RNNConfig
from eqxgen.decoding.autoregressive import generate, stream
from eqxgen.decoding.beam import beam_search
from eqxgen.decoding.stopping import Until, cut, lengths, stop_ids
from eqxgen.decoding.traced import NO_TOKEN
from eqxgen.models.gpt import GPT
from eqxgen.models.rnn import RNN

VOCAB = 7
MODELS = {
    "GPT": lambda: GPT(VOCAB, GPTConfig(dim=8, depth=1, heads=2, context=12), key=jr.key(0)),
    "RNN": lambda: RNN(VOCAB, RNNConfig(dim=8, depth=1), key=jr.key(0)),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    """Its weights are made larger, so that tokens differ."""
    return jax.tree.map(lambda x: 3 * x if eqx.is_inexact_array(x) and x.ndim > 1 else x, MODELS[request.param]())


def ended(ids, stop):
    """The ids to the first of `stop`, then `NO_TOKEN`."""
    at = next((n for n, id in enumerate(ids) if id in stop), len(ids))
    return [id if n <= at else NO_TOKEN for n, id in enumerate(ids)]


def test_a_sequence_ends_with_its_stop_id_and_the_others_go_on_as_without(model):
    prompts, stop = [[1, 2], [3], [4, 4, 5]], [2, 6]
    whole = generate(model, prompts, 40, key=jr.key(1))
    found = generate(model, prompts, 40, stop=stop, key=jr.key(1))
    wanted = np.array([ended(row, stop) for row in whole.tolist()])
    np.testing.assert_array_equal(found, wanted)
    assert len(set(lengths(found).tolist())) > 1
    assert lengths(found).tolist() == [row.index(NO_TOKEN) if NO_TOKEN in row else 40 for row in wanted.tolist()]


def test_a_stream_ends_with_its_last_sequence(model):
    stop = list(range(VOCAB))
    assert [ids.tolist() for ids in stream(model, [[1], [2]], stop=stop, key=jr.key(0))] == [
        generate(model, [[1], [2]], 1, key=jr.key(0))[:, 0].tolist()
    ]
    never = list(itertools.islice(stream(model, [[1]], key=jr.key(0)), 30))
    assert len(never) == 30


def every_text(model, prompt, length, stop):
    """All texts that end at a stop id or the length, and their log probabilities."""
    every = np.asarray(list(itertools.product(range(VOCAB), repeat=length)))

    @eqx.filter_jit
    def log_probs(model, ids):
        whole = jnp.concatenate([jnp.asarray(prompt), ids])
        logits = jax.nn.log_softmax(model(whole[:-1], inference=True))
        return jnp.take_along_axis(logits[len(prompt) - 1 :], ids[:, None], axis=1)[:, 0]

    each = np.asarray(jax.vmap(lambda ids: log_probs(model, ids))(every))
    texts = [ended(row, stop) for row in every.tolist()]
    return texts, [row[: lengths(np.asarray(text))].sum() for row, text in zip(each, texts)]


def test_a_beam_search_finds_the_likeliest_of_all_texts_that_end_at_a_stop_id_or_the_length(model):
    prompt, length, stop = [1, 2], 3, [0, 4]
    texts, scores = every_text(model, prompt, length, stop)
    found, score = beam_search(model, prompt, length, VOCAB, stop=stop)
    assert found.tolist() == texts[int(np.argmax(scores))]
    assert score == pytest.approx(max(scores), rel=1e-4)
    same, _ = beam_search(model, prompt, length, VOCAB)
    assert NO_TOKEN not in same.tolist()


def test_a_length_penalty_favours_longer_texts_as_its_formula_says(model):
    prompt, stop, chosen = [1, 2], [0, 1, 2, 3, 4], []
    texts, scores = every_text(model, prompt, 2, stop)
    counts = np.asarray([lengths(np.asarray(text)) for text in texts])
    for exponent in (0.0, 0.6, 30.0):
        best = int(np.argmax(np.asarray(scores) / ((5 + counts) / 6) ** exponent))
        found, score = beam_search(model, prompt, 2, VOCAB, stop=stop, length_penalty=exponent)
        assert found.tolist() == texts[best]
        assert score == pytest.approx(scores[best], rel=1e-4)
        chosen.append(counts[best])
    assert chosen[0] == 1
    assert chosen[-1] == 2
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="length_penalty must be at least 0 and finite: got"):
            beam_search(model, prompt, 2, 2, length_penalty=wrong)


def reference(text, strings):
    """The text before the string that is complete first, of those the longest."""
    for end in range(1, len(text) + 1):
        found = [string for string in strings if text[:end].endswith(string)]
        if found:
            return text[: end - max(map(len, found))]
    return text


@given(
    st.text("ab", max_size=20), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.lists(st.integers(0, 5))
)
@settings(max_examples=200, deadline=None)
def test_a_text_in_pieces_of_any_size_ends_before_the_first_complete_string(text, strings, sizes):
    until, pieces, rest = Until(strings), [], text
    for size in [*sizes, len(text)]:
        pieces.append(until(rest[:size]))
        rest = rest[size:]
        shown = "".join(pieces)
        assert reference(text, strings).startswith(shown)  # nothing is shown that the stop takes back
    assert "".join(pieces) + until.rest() == reference(text, strings) == cut(text, strings)


def test_text_that_begins_no_stop_is_shown_at_once():
    until = Until(["<|end|>"])
    assert [until(piece) for piece in ("one <", "|en", "joy> ", "<|end", "|> two", "three")] == [
        "one ",
        "",
        "<|enjoy> ",
        "",
        "",
        "",
    ]
    assert until.ended
    assert until.rest() == ""


WRONG = [
    ([7], r"stop must be in \[0, vocab=7\): got values from 7 to 7"),
    ([-1, 2], "got values from -1 to 2"),
    ([1.5], "stop must be integers: got float64"),
]


@pytest.mark.parametrize(("stop", "message"), WRONG)
def test_a_stop_that_is_no_id_is_an_error_of_every_decoder(stop, message):
    model = MODELS["GPT"]()
    for call in (
        lambda: stop_ids(stop, VOCAB),
        lambda: generate(model, [[1]], 1, stop=stop, key=jr.key(0)),
        lambda: stream(model, [[1]], stop=stop, key=jr.key(0)),
        lambda: beam_search(model, [1], 1, 1, stop=stop),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            call()
