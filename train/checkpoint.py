"""Checkpoints: Orbax writes them, asynchronously and atomically; what it lacks stands here.

Beside each step's folder lies a manifest of SHA-256 sums, because Orbax restores a flipped bit as another number without a word; a step that
fails it, or that does not load, is passed over for the one before, with a loud line. Deletion renames first (`todelete_subdir`), so that an
interrupted one never leaves half a step behind under a step's name.
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any, TypeVar

import jax
from jaxtyping import PyTree

from train.errors import UserError
from train.release import check_arrays, named_arrays, with_arrays, write_atomically

Tree = TypeVar("Tree", bound=PyTree)


class Checkpoints:
    """The checkpoints of one run, in one folder.

    Args:
        folder: where; made on the first save.
        keep: how many of the newest are kept.
    """

    def __init__(self, folder: Path, keep: int):
        import orbax.checkpoint as ocp

        self._ocp = ocp
        self.folder = folder
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, todelete_subdir="deleted")
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options, item_handlers=ocp.StandardCheckpointHandler())

    def save(self, step: int, state: PyTree) -> None:
        """Starts to write the state; returns as soon as its arrays are copied."""
        self.seal()
        if step in self._manager.all_steps():  # it was damaged and passed over, and the run has come to it again
            self._manager.delete(step)
            self._manifest(step).unlink(missing_ok=True)
        self._manager.save(step, args=self._ocp.args.StandardSave(named_arrays(state)), force=True)

    def seal(self) -> None:
        """Waits for the writing to end, writes the missing manifests, and removes what was deleted."""
        self._manager.wait_until_finished()
        steps = self._manager.all_steps()
        for step in steps:
            if not self._manifest(step).exists():
                text = json.dumps(_sums(self.folder / str(step)), indent=0)
                write_atomically(self._manifest(step), lambda part, text=text: part.write_text(text))
        for manifest in self.folder.glob("manifests/*.json"):
            if int(manifest.stem) not in steps:
                manifest.unlink()
        shutil.rmtree(self.folder / "deleted", ignore_errors=True)

    def poll(self) -> None:
        """`seal`, if nothing is being written."""
        if not self._manager.is_saving_in_progress():
            self.seal()

    def restore(self, template: Tree) -> tuple[Tree, int] | None:
        """The newest state that is whole, and its step; `None` where there is no checkpoint.

        Args:
            template: a state of the same arrays, each of which says where its restored one goes.

        Raises:
            UserError: there are checkpoints and none is whole, or one is of another model.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            folder = self.folder / str(step)
            reason = self._damage(step)
            if reason is None:
                try:
                    arrays: Any = self._manager.restore(step, args=self._ocp.args.StandardRestore(self._abstract(step, template)))
                    return with_arrays(template, arrays), step
                except (ValueError, OSError, KeyError) as error:
                    reason = str(error).split("\n", 1)[0]
            print(f"warning: checkpoint {folder} is damaged and passed over: {reason}", file=sys.stderr, flush=True)
        if steps:
            raise UserError(f"{self.folder}: none of the {len(steps)} checkpoints is whole: remove the folder to start the run anew")
        return None

    def close(self) -> None:
        self.seal()
        self._manager.close()

    def _manifest(self, step: int) -> Path:
        return self.folder / "manifests" / f"{step}.json"

    def _damage(self, step: int) -> str | None:
        """What is wrong with the files of a step. A step without a manifest was written by a run that was killed just after: it is whole."""
        try:
            expected = json.loads(self._manifest(step).read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            return f"its manifest {self._manifest(step)} cannot be read"
        found = _sums(self.folder / str(step))
        for name in sorted(expected.keys() | found.keys()):
            if name not in found:
                return f"file {name} is missing"
            if name in expected and expected[name] != found[name]:
                return f"file {name} was altered: SHA-256 {found[name][:16]}, expected {expected[name][:16]}"
        return None

    def _abstract(self, step: int, template: PyTree) -> dict[str, jax.ShapeDtypeStruct]:
        wanted = named_arrays(template)
        saved = self._manager.item_metadata(step)
        saved = getattr(saved, "tree", saved)
        expected = {name: (leaf.shape, leaf.dtype) for name, leaf in wanted.items()}
        # Orbax would cast to the template's type without a word.
        check_arrays(self.folder / str(step), expected, dict(saved))
        return {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding) for name, leaf in wanted.items()}


def _sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by relative path."""
    return {str(path.relative_to(folder)): _sum(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
