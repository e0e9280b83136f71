"""The checkpoints of one run."""

import functools
import json
import logging
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import PyTree

from .._errors import UserError
from .._files import unwritten
from ..parallel.processes import from_first, is_first
from ..run.metadata import check_record, versions
from . import leaves
from .manifest import damage


class Restored(NamedTuple):
    """State that a run continues from.

    Attributes:
        state: its arrays where the template said.
        step: number of updates made.
        position: where the data stood, as it was given to `save`.
    """

    state: PyTree
    step: int
    position: Any


class Checkpoints:
    """The checkpoints of one run, in one folder.

    A checkpoint is the folder of its step: `state/` with a folder per array, `record/` with all that is no array,
        `manifest.json`.

    Args:
        folder: where; made here, and cleared of what a kill left half-written.
        keep: how many of the newest are kept.
        record: what the run is (recipe, config, facts); saved with every checkpoint, and compared when one is restored.
        best: the score of a step by which one more is kept is better than another's: `min` or `max`.
        strict: a damaged checkpoint is an error, and not passed over.
        free: dotted names of the config's fields that may differ from the record's.
    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        record: dict[str, Any] | None = None,
        best: Callable[..., Any] = min,
        strict: bool = False,
        free: Collection[str] = (),
    ):
        import orbax.checkpoint as ocp

        from .commit import Kept, SealedPath

        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs what it also raises, with its traceback
        self._ocp, self.folder, self.record, self.strict, self._better = (
            ocp,
            folder.absolute(),
            record or {},
            strict,
            best,
        )
        self._free = free
        from_first(self._clear)
        self._scores: dict[int, float] = {}
        self._damaged: list[int] = []
        options = ocp.CheckpointManagerOptions(
            preservation_policy=Kept(keep, self.best),
            todelete_subdir="deleted",  # renamed first: an interrupted deletion leaves no half of a step under its name
            temporary_path_class=SealedPath,
            lightweight_initialize=True,  # nothing of a step is read before its manifest was
        )
        # A folder per array instead of one common store: a damaged file names its tensor.
        handlers = {"state": ocp.PyTreeCheckpointHandler(use_ocdbt=False), "record": ocp.JsonCheckpointHandler()}
        with _reported(self.folder):
            self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)
        for step in self.steps():
            self._remember(step)

    def steps(self) -> list[int]:
        """The steps that are listed, in rising order."""
        return sorted(self._manager.all_steps())

    def best(self) -> int | None:
        """The step of the best score."""
        scored = [step for step in self.steps() if step in self._scores]
        return self._better(scored, key=lambda step: self._scores[step]) if scored else None

    def save(self, step: int, state: PyTree, position: Any = None, score: float | None = None) -> None:
        """Starts to write the state; returns as soon as its arrays are copied. Only after `wait` is it safe.

        Args:
            position: place in the data, as JSON.
            score: the measure by which the best is kept.

        Raises:
            UserError: the disk refuses this or the checkpoint before; those that are listed are whole.
        """
        self.wait()
        for old in {step, *self._damaged} & set(self.steps()):
            self._manager.delete(old)
            self._scores.pop(old, None)
        self._damaged.clear()
        if score is not None:
            self._scores[step] = score
        record = self.record | {"step": step, "position": position, "score": score, "versions": versions()}
        save = self._ocp.args
        with _reported(self.folder / str(step)):
            self._manager.save(
                step,
                args=save.Composite(state=save.PyTreeSave(leaves.to_save(state)), record=save.JsonSave(record)),
                force=True,
            )

    def wait(self) -> None:
        """Waits until what was saved is safe, and removes what is kept no more."""
        with _reported(self.folder):
            self._manager.wait_until_finished()
        if is_first():
            shutil.rmtree(self.folder / "deleted", ignore_errors=True)

    def poll(self) -> None:
        """`wait`, if nothing is being written."""
        if not self._manager.is_saving_in_progress():
            self.wait()

    def restore(self, template: PyTree) -> Restored | None:
        """The newest state that is whole; `None` where there is no checkpoint.

        Args:
            template: a state whose arrays, or `ShapeDtypeStruct`s, say shape, type and sharding. Nothing is computed
                from them.

        Raises:
            UserError: there are checkpoints and none is whole; one is of another run, or of a later format; the newest
                is damaged and `strict`.
        """
        newest = ""
        for step in reversed(self.steps()):
            reason = from_first(functools.partial(damage, self._path(step)))
            if reason is None:
                try:
                    return self.load(step, template)
                except (ValueError, OSError, KeyError) as error:
                    reason = str(error).split("\n", 1)[0]
            if self.strict:
                raise UserError(
                    f"checkpoint {self._path(step)} is damaged: {reason}; without --strict the run goes on from the "
                    "one before"
                )
            if is_first():
                print(
                    f"warning: checkpoint {self._path(step)} is damaged and passed over: {reason}",
                    file=sys.stderr,
                    flush=True,
                )
            self._damaged.append(step)
            newest = newest or reason
        if newest:
            raise UserError(
                f"{self.folder}: none of the {len(self._damaged)} checkpoints is whole (the newest: {newest}): "
                "remove the folder to start the run anew"
            )
        return None

    def load(self, step: int, template: PyTree) -> Restored:
        """The state of one step, whose files are known to be whole.

        Raises:
            UserError: it is of another run.
        """
        record = self._record(step)
        check_record(self._path(step), record, self.record, self._free)
        wanted = leaves.to_restore(template)
        saved: Any = self._manager.item_metadata(step)["state"]
        saved = dict(getattr(saved, "tree", saved))
        names = leaves.stored_names(wanted, saved)
        under_new = {name: saved[old] for name, old in names.items() if old in saved}
        others = {name: leaf for name, leaf in saved.items() if name not in names.values()}
        leaves.check_leaves(self._path(step), wanted, under_new | others)
        stored = {names[name]: leaf for name, leaf in wanted.items()}
        arguments = self._ocp.checkpoint_utils.construct_restore_args(stored)
        restore = self._ocp.args.PyTreeRestore(stored, restore_args=arguments)
        arrays: Any = self._manager.restore(step, args=self._ocp.args.Composite(state=restore))["state"]
        # A step takes each buffer over once, so two leaves of one stored array get one each.
        shared = len(stored) < len(wanted)
        found = {name: jnp.array(arrays[old]) if shared else arrays[old] for name, old in names.items()}
        return Restored(leaves.restored(template, found), step, record.get("position"))

    def close(self) -> None:
        self.wait()
        self._manager.close()

    def _path(self, step: int) -> Path:
        return self.folder / str(step)

    def _record(self, step: int) -> dict[str, Any]:
        return json.loads((self._path(step) / "record" / "metadata").read_text(encoding="utf-8"))

    def _remember(self, step: int) -> None:
        try:
            score = self._record(step).get("score")
        except (OSError, ValueError, AttributeError):
            return  # it is damaged, which `restore` reports
        if isinstance(score, float):
            self._scores[step] = score

    def _clear(self) -> None:
        for left in [*self.folder.glob("*.orbax-checkpoint-tmp"), self.folder / "deleted"]:
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turns what Orbax and the disk say into a `UserError` that names the path, the reason and the free bytes."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(unwritten(path, str(error).split("\n", 1)[0])) from None
