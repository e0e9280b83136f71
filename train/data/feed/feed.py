"""Batches on their devices before the step that needs them."""

import collections
import time
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.pool import AsyncResult, ThreadPool
from typing import Any

import numpy as np

from ..._errors import DataError, DataStalled
from ...config.data import DataConfig, SourceConfig
from ..files.lazy import Lazy
from .order import Order
from .read_ahead import Ahead, Make

Arrays = dict[str, np.ndarray]

_LOOK = 0.5  # seconds between looks at the reader
_QUIET = 4.0  # seconds of waiting for one example before a line says so
_START = 60.0  # seconds more for the first one, while worker processes start and import


def pad_batch(arrays: Arrays, multiple: int) -> Arrays:
    """The arrays with their first axis filled up to a multiple, and `weight`: float32, 1 for an example and 0 for
    filling.

    The filling repeats the first example, so that it can neither fail a check nor make a NaN.

    Raises:
        ValueError: there is no example, or the arrays differ in their number.
    """
    sizes = {name: len(array) for name, array in arrays.items()}
    size = next(iter(sizes.values()), 0)
    if size == 0 or set(sizes.values()) != {size}:
        raise ValueError(f"arrays must have the same number of examples, 1 or more: got {sizes}")
    short = -size % multiple
    padded = {
        name: np.concatenate([array, np.repeat(array[:1], short, axis=0)]) if short else array
        for name, array in arrays.items()
    }
    return padded | {"weight": (np.arange(size + short) < size).astype(np.float32)}


def to_devices(sharding: Any, batch_size: int, several: int = 0) -> Callable[[Arrays], dict[str, Any]]:
    """Starts the transfer of a host batch to the devices of a `jax.sharding.Sharding`; of several processes each gives
    its own rows.

    Args:
        several: batches along a first axis, see `stacked`; 0 is one without that axis.
    """
    import jax

    if jax.process_count() == 1:
        return lambda arrays: jax.device_put(arrays, sharding)

    def place(arrays: Arrays) -> dict[str, Any]:
        lead = (several, batch_size) if several else (batch_size,)
        shapes = {name: (*lead, *array.shape[len(lead) :]) for name, array in arrays.items()}
        return {
            name: jax.make_array_from_process_local_data(sharding, array, shapes[name])
            for name, array in arrays.items()
        }

    return place


def stacked(batches: Sequence[Arrays]) -> Arrays:
    """The batches of several steps along a new first axis."""
    return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


class Feed:
    """The batches of the steps from `first` to `last`, made in a thread of their own while earlier steps compute.

    To what `make` gives are added `index`, the places in the global batch, and `weight`, see `pad_batch`. Errors of the
    thread are raised by `take`, at the step that they concern.

    Args:
        make: the arrays of some places of a batch.
        source: what the examples are read from; if it is `Lazy` they are read one by one, by threads or processes as
            the config says.
        order: of the examples.
        place: brings host arrays to where the step needs them; see `to_devices`.
        first: the step to begin with.
        last: the step to end before.
        config: `timeout`; and of images `threads` and `workers`.
        multiple: the batch is filled up to a multiple of this.
        depth: batches made ahead; 0 makes each when it is asked for.
        counts: steps of each `take`, one by default; several have their batches `stacked`.
        place_several: brings the stacked batches to where the steps need them.
        say: takes a line for people.

    Attributes:
        order: as given.
        waited: seconds that `take` has kept its callers waiting.
    """

    def __init__(
        self,
        make: Make,
        source: Any,
        order: Order,
        place: Callable[[Arrays], Any] = lambda arrays: arrays,
        *,
        first: int,
        last: int,
        config: SourceConfig,
        multiple: int = 1,
        depth: int = 2,
        counts: Iterable[int] | None = None,
        place_several: Callable[[Arrays], Any] = lambda arrays: arrays,
        say: Callable[[str], None] = print,
    ):
        self.waited, self._config, self._say = 0.0, config, say
        self.order, self._place, self._multiple = order, place, multiple
        self._counts = iter((1 for _ in range(first, last)) if counts is None else counts)
        self._place_several, self._depth = place_several, depth
        self._failed = self._closed = False
        if isinstance(source, Lazy) and isinstance(config, DataConfig):
            self._host = Ahead(make, order, source.name, first, last, config.threads, config.workers)
        else:
            self._host = _Direct(make, order, first)
        # Its thread is a daemon: one that grain leaves waiting for a dead worker process must not keep the interpreter
        # from ending.
        self._thread = ThreadPool(1)
        self._ready: collections.deque[AsyncResult] = collections.deque()

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def take(self) -> Any:
        """The batch of the next step, or those of the next several.

        Raises:
            DataError: an example cannot be read, or a worker process has ended.
            DataStalled: no example came for `config.timeout` seconds.
        """
        begin = time.perf_counter()
        while len(self._ready) <= self._depth and (count := next(self._counts, 0)):
            self._ready.append(self._thread.apply_async(self._make, (count,)))
        try:
            return self._wait(self._ready.popleft())
        except BaseException:
            self._failed = True
            raise
        finally:
            self.waited += time.perf_counter() - begin

    def close(self) -> None:
        """Ends all threads and processes."""
        self._closed = True
        self._host.close(kill=self._failed)
        self._thread.terminate()

    def _make(self, count: int) -> Any:
        if self._closed or self._failed:
            return None  # it will not be taken; after a fault the reader is in no state to go on
        try:
            batches = [self._padded() for _ in range(count)]
            return self._place(batches[0]) if count == 1 else self._place_several(stacked(batches))
        except BaseException:
            self._failed = True
            raise

    def _padded(self) -> Arrays:
        return pad_batch(next(self._host) | {"index": self.order.places}, self._multiple)

    def _wait(self, batch: AsyncResult) -> Any:
        pending, since, said = ("", ""), 0.0, False
        batch.wait(_LOOK)
        while not batch.ready():
            if fault := self._host.fault():
                raise fault
            now = time.perf_counter()
            if pending != self._host.pending:
                pending, since, said = self._host.pending, now, False
            (where, place), quiet = pending, now - since - (_START if self._host.starting else 0)
            if quiet > self._config.timeout:
                expected = f"an example within --data.timeout {self._config.timeout:g} s"
                raise DataStalled(
                    where, expected, f"none ({place})", "see whether its disk answers; the same command resumes"
                )
            if quiet > _QUIET and not said:
                self._say(f"waiting for data: nothing for {quiet:.0f} s from {where} ({place})")
                said = True
            batch.wait(_LOOK)
        return batch.get()


class _Direct:
    """The host batches of examples in memory, each made at once."""

    def __init__(self, make: Make, order: Order, first: int):
        self._make, self._order, self._step = make, order, first

    def __next__(self) -> Arrays:
        part = self._order.part(self._step)
        try:
            arrays = self._make(part)
        except DataError as error:
            raise error.of(f"step {self._step}") from error.__cause__
        self._step += 1
        return arrays

    @property
    def pending(self) -> tuple[str, str]:
        return "the data", f"step {self._step}"

    starting = False

    def fault(self) -> None:
        """There are no worker processes that could end."""

    def close(self, *, kill: bool) -> None:
        """There is nothing to close."""
