"""A command from its start to its exit status: the clock, and a user's mistakes in one line."""

import os
import sys
import time
from collections.abc import Callable

from .._errors import DataStalled, UserError

STARTED = time.perf_counter()
"""Start of the command, as near as its imports can tell."""


def run(main: Callable[[], int | None]) -> None:
    """Runs a command and exits with its status; a user's mistake is one line on the error stream."""
    try:
        sys.exit(main())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        if isinstance(error, DataStalled):
            os._exit(1)  # a thread that hangs in a read would keep the interpreter from ending
        sys.exit(error.status)
    except BrokenPipeError:  # the reader of our output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except RuntimeError as error:  # jax's, whose class needs jax
        reason = str(error).partition("\n")[0]
        if not reason.startswith("RESOURCE_EXHAUSTED"):
            raise
        hint = "take a smaller --batch-size or model, raise --accumulate, or divide the parameters by --mesh fsdp=N"
        print(f"error: the memory of the devices is too small: {hint}: {reason}", file=sys.stderr, flush=True)
        sys.exit(1)
    except KeyboardInterrupt:  # before the first step, when there is nothing to save
        sys.exit(130)
