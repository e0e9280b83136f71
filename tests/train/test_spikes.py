"""The guard against spikes of the loss and of the gradients: what is a spike, and what it leaves as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train._errors import UsageError
from train.config.base import TrainConfig, parse
from train.precision import DynamicLossScale, NoLossScale, SpikesSkipped, check_skipped, guarded_update

WINDOW = 4
GRADS = {"w": jnp.asarray(np.float32([3, 4]))}


@jax.jit
def step(skipped, scale, kept, loss, size):
    """One guarded step with a gradient of five times a size, which is added to what is kept."""
    grads = jax.tree.map(lambda g: g * size * scale.factor, GRADS)
    add = lambda grads, kept: jax.tree.map(jnp.add, kept, grads)
    new = guarded_update(add, grads, loss, kept, scale, skipped)
    return new.skipped, new.scale, new.kept


def after(numbers, scale=None, factor=3.0):
    """Counts, scale and kept after steps of some losses and sizes of gradients."""
    carry = SpikesSkipped(factor, WINDOW), scale or NoLossScale(), {"w": jnp.asarray(np.zeros(2, np.float32))}
    for loss, size in numbers:
        carry = step(*carry, jnp.asarray(np.float32(loss)), jnp.asarray(np.float32(size)))
    return carry


CALM = [(2.0, 1.0), (2.1, 1.1), (1.9, 0.9), (2.0, 1.0)]


def counts(skipped):
    return int(skipped.total), int(skipped.spikes), int(skipped.consecutive), int(skipped.accepted)


def test_nothing_is_a_spike_before_the_window_is_full():
    assert counts(after([(2, 1), (2, 1), (2, 1), (900, 90), (2, 1)])[0]) == (0, 0, 0, 5)


@pytest.mark.parametrize(("loss", "size", "what"), [(3.0, 1.0, "the loss"), (2.0, 9.0, "the norm of the gradients")])
def test_a_spike_leaves_everything_as_it_was_is_counted_and_enters_no_window(loss, size, what):
    calm, before = after(CALM), counts(after(CALM)[0])
    spiked, scale, kept = after([*CALM, (loss, size)], DynamicLossScale(8.0, interval=5))
    assert counts(spiked) == (1, 1, 1, before[3])
    np.testing.assert_array_equal(spiked.seen, calm[0].seen)
    np.testing.assert_array_equal(kept["w"], calm[2]["w"])
    assert float(scale.factor) == 16.0, "a spike is no overflow: the fifth finite step doubles the scale"
    with pytest.raises(
        FloatingPointError, match=rf"in 1 steps in a row .* at step 7 {what} is a spike, above a mean of"
    ):
        check_skipped(spiked, scale, GRADS, limit=1, step=7)
    # The next good update is made, and the window is that of a run which never saw the spike.
    again, _, kept = after([*CALM, (loss, size), (2.0, 1.0)])
    same, _, expected = after([*CALM, (2.0, 1.0)])
    np.testing.assert_array_equal(again.seen, same.seen)
    np.testing.assert_array_equal(kept["w"], expected["w"])
    assert counts(again) == (1, 1, 0, 5)


@pytest.mark.parametrize("at", [1, 4])
@pytest.mark.parametrize("bad", [(np.nan, 1.0), (np.inf, 1.0), (2.0, np.nan), (2.0, np.inf)])
def test_what_is_not_finite_is_skipped_as_ever_is_no_spike_and_enters_no_window(at, bad):
    given = [*CALM[:at], bad, *CALM[at:], (2.0, 1.0)]
    found, scale, _ = after(given, DynamicLossScale(8.0))
    assert counts(found) == (1, 0, 0, 5)
    np.testing.assert_array_equal(found.seen, after([*CALM, (2.0, 1.0)])[0].seen)
    assert float(scale.factor) == 4.0
    if at == 4:
        last = after(given[:5])[0]
        with pytest.raises(FloatingPointError, match=r"(the loss|the gradient of w) is not finite"):
            check_skipped(last, NoLossScale(), GRADS, limit=1, step=7)


def test_the_threshold_is_the_mean_and_the_deviation_of_the_last_accepted_updates():
    rng = np.random.default_rng(0)
    losses, window, found = 2 + 0.1 * rng.standard_t(2, size=60), [], SpikesSkipped(2.0, WINDOW)
    carry, skips = (found, NoLossScale(), {"w": jnp.asarray(np.zeros(2, np.float32))}), []
    for loss in np.float32(losses):
        carry = step(*carry, jnp.asarray(loss), jnp.asarray(np.float32(1)))
        spike = len(window) >= WINDOW and loss > np.mean(window[-WINDOW:]) + 2 * np.std(window[-WINDOW:])
        window += [] if spike else [loss]
        skips.append(spike)
        assert bool(carry[0].consecutive > 0) == spike
    assert 3 < sum(skips) < 40
    assert counts(carry[0])[1] == sum(skips)


def test_equal_losses_are_no_spikes_of_each_other_and_lower_ones_never_are():
    assert counts(after([*[(2.0, 1.0)] * 8, (2.0 + 1e-6, 1.0), (0.1, 0.0)])[0])[:2] == (0, 0)


def test_nothing_compiles_anew_and_the_state_goes_through_a_scan():
    _ = after(CALM)
    before = step._cache_size()
    scanned = jax.lax.scan
    losses = jnp.asarray(np.float32([loss for loss, _ in [*CALM, (9.0, 1.0)]]))
    carry = SpikesSkipped(3.0, WINDOW), NoLossScale(), {"w": jnp.asarray(np.zeros(2, np.float32))}
    one = jnp.asarray(np.float32(1))
    end, _ = jax.jit(lambda carry: scanned(lambda c, loss: (step(*c, loss, one), None), carry, losses))(carry)
    assert counts(end[0]) == (1, 1, 1, 4)
    assert step._cache_size() <= before + 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--skip-spikes 0", "skip_spikes must be positive: got 0"),
        ("--skip-spikes -1", "skip_spikes must be positive: got -1"),
        ("--skip-spikes nan", "skip_spikes must be positive: got nan"),
        ("--skip-spikes 6 --spike-window 1", "spike_window must be at least 2 updates: got 1"),
        ("--spike-window 64", "--spike-window goes with --skip-spikes, which was not given"),
    ],
)
def test_a_guard_that_cannot_be_is_named(words, says):
    with pytest.raises(UsageError, match=says):
        parse("any", TrainConfig, {"digits": TrainConfig()}, "", words.split())


@pytest.mark.parametrize(("factor", "window"), [(0.0, 4), (float("inf"), 4), (3.0, 1)])
def test_a_window_or_factor_out_of_range_is_named(factor, window):
    with pytest.raises(ValueError, match="factor must be" if window > 1 else "window must be"):
        SpikesSkipped(factor, window)
