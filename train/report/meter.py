"""Speed of a run by the clock: the numbers of its metrics that differ from one run to the next."""

import time

import jax
import jax.monitoring

from .peak import peak_of

CLOCKED = (
    "examples_per_s",
    "tokens_per_s",
    "seconds",
    "step_ms",
    "compile_s",
    "device_gib",
    "mfu",
    "input_wait",
    "judge_seconds",
)
"""Names of the numbers that no seed determines."""

_compiling = [0.0]


def _listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
    if event.startswith("/jax/core/compile/"):
        _compiling[0] += duration_secs


jax.monitoring.register_event_duration_secs_listener(_listen)


class Meter:
    """Measures from one line of metrics to the next.

    Args:
        batch_size: examples per step.
        step: the step it starts from.
        flops: of one step on one device, or None where they are not known.
        tokens: of one example, for their rate; 0: none.
    """

    def __init__(self, batch_size: int, step: int, flops: float | None = None, *, tokens: int = 0):
        self.batch_size, self.flops, self.tokens = batch_size, flops, tokens
        self._peak = peak_of(jax.local_devices()[0].device_kind)
        self._compiled = _compiling[0]
        self.restart(step)

    def restart(self, step: int, waited: float = 0.0) -> None:
        """Counts from here."""
        self._step, self._began, self._paused, self._waited = step, time.perf_counter(), 0.0, waited

    def pause(self, seconds: float) -> None:
        """Leaves out time that was not of training, such as that of drawing samples."""
        self._paused += seconds

    def read(self, step: int, waited: float) -> dict[str, float]:
        """The numbers of the steps since the last reading.

        step_ms: milliseconds of a step; tokens_per_s: where examples have tokens; input_wait: share of the time spent
        waiting for data; compile_s: seconds of tracing and compiling so far; device_gib: peak memory of the first
        device so far, where it is reported; mfu: share of the device's peak that the step's operations come to, where
        both are known.

        Args:
            waited: seconds of waiting for data since the beginning.
        """
        seconds = max(time.perf_counter() - self._began - self._paused, 1e-9)
        each = seconds / max(step - self._step, 1)
        values = {
            "examples_per_s": self.batch_size / each,
            "step_ms": 1000 * each,
            "input_wait": (waited - self._waited) / seconds,
        }
        if self.tokens:
            values["tokens_per_s"] = self.tokens * values["examples_per_s"]
        values["compile_s"] = _compiling[0] - self._compiled
        memory = jax.local_devices()[0].memory_stats() or {}
        if "peak_bytes_in_use" in memory:
            values["device_gib"] = memory["peak_bytes_in_use"] / 2**30
        if self.flops and self._peak:
            values["mfu"] = self.flops / each / self._peak
        self.restart(step, waited)
        return values
