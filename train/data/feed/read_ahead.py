"""Examples in files, read ahead of their step by grain's threads or worker processes."""

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import numpy as np

from ..._errors import DataError
from .order import Order, Part

Make = Callable[[Part], dict[str, np.ndarray]]
"""The arrays of some places of a batch, the first axis being the places. It depends on its argument alone, in
any process.
"""


@dataclasses.dataclass(frozen=True)
class _Place:
    """One place of the stream of batches, by its position from the first step on."""

    make: Make
    order: Order
    name: Callable[[int], str]
    first: int

    def part(self, position: int) -> Part:
        step, place = divmod(position, len(self.order.places))
        return self.order.part(self.first + step, slice(place, place + 1))

    def __call__(self, position: int) -> dict[str, np.ndarray] | DataError:
        """The arrays; or the error, given and not raised, since grain may wait 25 s for a worker process before it
        passes one on.
        """
        part = self.part(position)
        place = f"example {part.example[0]}, step {part.step}"
        try:
            return self.make(part)
        except DataError as error:
            return error.of(place)
        except OSError as error:
            where = self.name(int(part.example[0]))
            return DataError(
                where, "a readable file", f"{error.strerror} ({place})", "check the disk; the same command resumes"
            )
        except BaseException as error:
            error.add_note(f"in {place}: {self.name(int(part.example[0]))}")
            raise


class Ahead:
    """The host batches of the steps from `first` to `last`, in order.

    Each place of a batch is made on its own, several at a time. `Order` decides the examples, so nothing of grain needs
    to be saved: to resume is to begin at another step.

    Args:
        make: the arrays of a part; in worker processes it must survive cloudpickle.
        order: of the examples.
        name: the file of an example.
        threads: that make places, in this process or in each worker.
        workers: processes; 0 for none.

    Raises:
        DataError: grain is not installed.
    """

    def __init__(
        self, make: Make, order: Order, name: Callable[[int], str], first: int, last: int, threads: int, workers: int
    ):
        try:
            import grain
        except ModuleNotFoundError as error:
            raise DataError(
                name(0), "grain, which reads ahead", f"no module {error.name}", 'pip install "eqxgen[train]"'
            ) from error
        self._place, self._position = _Place(make, order, name, first), 0
        self._before, self._workers, self._count = multiprocessing.active_children(), list[BaseProcess](), workers
        places = grain.MapDataset.range((last - first) * len(order.places)).map(self._place)
        buffered = max(threads, len(order.places))
        stream = places.to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=-(-buffered // max(workers, 1)))
        )
        if workers:
            from absl import flags

            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # grain reads flags of its own, which none of our commands has
            options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=-(-buffered // workers))
            # Through a pipe: in shared memory even a label would be a block of its own, and those in flight at the end
            # leak.
            stream = grain.experimental.WithOptionsIterDataset(
                stream, grain.experimental.DatasetOptions(min_shm_size=2**40)
            )
            stream = stream.mp_prefetch(options, worker_init_fn=_stay_with_parent)
        self._stream = iter(stream)

    def __next__(self) -> dict[str, np.ndarray]:
        places = []
        for _ in range(len(self._place.order.places)):
            try:
                made = next(self._stream)
            except RuntimeError as error:
                raise self._lost(str(error)) if self._count else error from None
            if isinstance(made, DataError):
                raise made
            places.append(made)
            self._position += 1
        return {name: np.concatenate([place[name] for place in places]) for name in places[0]}

    @property
    def pending(self) -> tuple[str, str]:
        """The file and the place of the example that the next batch waits for. The order is kept, so all before it are
        there.
        """
        part = self._place.part(self._position)
        return self._place.name(int(part.example[0])), f"example {part.example[0]}, step {part.step}"

    @property
    def starting(self) -> bool:
        """True until every worker process has given its first example."""
        return self._position < self._count

    def fault(self) -> DataError | None:
        """The error for a worker process that has ended, if one has."""
        codes = [process.exitcode for process in self._processes() if process.exitcode is not None]
        return self._lost(f"one that ended with code {codes[0]}") if codes else None

    def close(self, *, kill: bool) -> None:
        """Ends threads and processes; without `kill`, after what they are just making."""
        if kill:
            for process in self._processes():
                process.kill()  # grain would wait 25 s for one that hangs
        with contextlib.suppress(
            *(RuntimeError,) if kill else ()
        ):  # grain joins threads that it may not have started when it failed
            self._stream.close()

    def _processes(self) -> list[BaseProcess]:
        # Those that have ended are reported once, and no more.
        self._workers += [process for process in multiprocessing.active_children() if process not in self._workers]
        return [process for process in self._workers if process not in self._before]

    def _lost(self, reason: str) -> DataError:
        where, place = self.pending
        hint = "it may have been out of memory: try fewer --data.workers; the same command resumes"
        return DataError(where, "a worker process that reads it", f"{reason} ({place})", hint)


def _stay_with_parent(index: int, count: int) -> None:
    """In a worker process: ends it with its parent, however that ends, and leaves Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
