"""Choice of the implementation of an op: the caller's, or the first that can run."""

import functools
import logging
from collections.abc import Callable, Mapping

log = logging.getLogger("eqxgen.kernels")


def choose(op: str, requested: str | None, candidates: Mapping[str, Callable[[], str | None]]) -> str:
    """The name of the implementation to run.

    With `requested=None` the first candidate that can run is chosen, and logged: once as information, and each time for
    debugging. A requested name runs or raises.

    Args:
        candidates: for each name, best first, a function that returns None if the implementation can run, else the
            reason why not. One of them must be able to.

    Raises:
        ValueError: `requested` is not the name of a candidate.
        NotImplementedError: the requested implementation cannot run here; the message has the reason.
    """
    if requested is not None:
        if requested not in candidates:
            raise ValueError(f"{op}: implementation must be None or one of {sorted(candidates)}: got {requested!r}")
        if reason := candidates[requested]():
            raise NotImplementedError(f"{op}: implementation {requested!r} cannot run: {reason}")
        return requested
    reasons = []
    for name, supports in candidates.items():
        reason = supports()
        if reason is None:
            because = f" ({'; '.join(reasons)})" if reasons else ""
            _log_once(op, name, because)
            log.debug("%s runs as %s%s", op, name, because)
            return name
        reasons.append(f"{name}: {reason}")
    raise NotImplementedError(f"{op}: no implementation can run: {'; '.join(reasons)}")


@functools.cache
def _log_once(op: str, name: str, because: str) -> None:
    log.info("%s runs as %s%s", op, name, because)
