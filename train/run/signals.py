"""SIGINT and SIGTERM: the first asks the loop to stop, the second stops at once."""

import os
import signal
import threading
from types import FrameType

import jax
import numpy as np

EVERY = 8
"""Steps between the moments at which several processes agree on stopping; the loop waits for its devices as often."""


class StopRequest:
    """While entered, remembers the first signal in `received`; a second one ends the process at once.

    A thread reads the signals as the system delivers them, because Python's own handlers wait while the main thread is
    inside a compilation.

    `jax.distributed` takes SIGTERM for its own preemption notice, without SIGINT and a second signal; so processes
    agree by themselves, and this is entered after `jax.distributed.initialize`, whose handler it replaces.
    """

    received: signal.Signals | None = None

    def __enter__(self) -> "StopRequest":
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._wakeup = signal.set_wakeup_fd(self._writer)
        self._before = {number: signal.signal(number, _ignore) for number in (signal.SIGINT, signal.SIGTERM)}
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._writer)  # which ends the thread
        self._thread.join()
        os.close(self._reader)

    def agreed(self, step: int = 0) -> bool:
        """True to stop after this step, the same in all processes: several agree at each multiple of `EVERY`."""
        if jax.process_count() == 1:
            return self.received is not None
        if step % EVERY:
            return False
        from jax.experimental import multihost_utils

        number = int(np.max(multihost_utils.process_allgather(np.int32(self.received or 0))))
        if number:
            self.received = signal.Signals(number)
        return number != 0

    def _listen(self) -> None:
        while numbers := os.read(self._reader, 1):
            number = signal.Signals(numbers[0])
            if number not in self._before:
                continue
            if self.received is not None:
                os._exit(128 + number)
            self.received = number

    @property
    def status(self) -> int:
        """The exit status that a shell expects: 130 after SIGINT, 143 after SIGTERM."""
        return 0 if self.received is None else 128 + self.received


def _ignore(number: int, frame: FrameType | None) -> None:
    """In place of the default effect: the thread has the signal."""
