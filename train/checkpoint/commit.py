"""Commit of a step by Orbax: sealed with a manifest, on the disk, and named in one rename."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orbax.checkpoint.path import atomicity

from eqxgen._files import sync

from .manifest import seal


class SealedPath(atomicity.AtomicRenameTemporaryPath):
    """The folder that a step is written in, until it is complete."""

    async def finalize(self) -> None:
        if self._checkpoint_metadata_store:
            await asyncio.to_thread(self._checkpoint_metadata_store.wait_until_finished)
        await asyncio.to_thread(_commit, Path(self.get()), Path(self.get_final()))


def _commit(folder: Path, final: Path) -> None:
    if final.name.isdigit():  # a whole step, and not one of the folders within it
        seal(folder, int(final.name))
    folder.rename(final)
    sync(final.parent)


class Kept:
    """Orbax's question which steps to keep: the newest, and one more.

    Args:
        newest: how many of the newest.
        other: gives the step that is kept however old, or None.
    """

    def __init__(self, newest: int, other: Callable[[], int | None]):
        self.newest, self.other = newest, other

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        return [step in (*steps[-self.newest :], self.other()) for step in steps]
