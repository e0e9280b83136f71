"""Recipes: what one consists of, and the fixed list of them, so that no file can name code to run."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import UsageError, UserError
from .._files import read_json
from ..config import flags
from ..config.base import TrainConfig, from_dict, parse
from .command import run

if TYPE_CHECKING:  # --help must not wait for jax
    from jax.sharding import Mesh
    from jaxtyping import PyTree

    from .recipe import Program
    from .task import Task

RECIPES = (
    "ar",
    "bert",
    "classify",
    "clip",
    "diffusion",
    "gan",
    "glue",
    "gpt",
    "klvae",
    "mage",
    "maskgit",
    "muse",
    "parti",
    "rnn",
    "segment",
    "t5",
    "vae",
    "vqgan",
    "wavegru",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A family of models that a command trains. `train.tasks` makes one of each kind from a model and a loss.

    Attributes:
        name: of its module in `train`.
        title: of the card of a run.
        config: its flags.
        presets: values that the flags start from; the first is the default.
        facts: type of the facts of its data.
        on_paper: the facts without the data, as far as flags and tables tell.
        model: (config, facts) -> what makes the released model from a key: for training, dry run and loading alike.
        program: (config, facts) -> the model, its losses and players.
        task: (config, folder of the run) -> the program with its data, samples and evaluation.
        sample: flags of `train.sample`.
        draw: writes what these flags ask for; gives the exit status.
        options: the config's field with the sampler's options, where samples are evaluated; or the class of the config
            that has them itself.
    """

    name: str
    title: str
    config: type[TrainConfig]
    presets: Mapping[str, Any]
    facts: Any
    on_paper: Callable[[Any], Any]
    model: Callable[[Any, Any], Callable[[Any], "PyTree"]]
    program: Callable[[Any, Any], "Program"]
    task: Callable[[Any, Path], "Task"]
    sample: type
    draw: Callable[["Finished", Any], int]
    options: str | type | None = None

    def command(self, doc: str | None, about: Mapping[str, str]) -> None:
        """The recipe's command line.

        Args:
            doc: docstring of its module, for `--help`.
            about: size, time and the number to expect of each preset, a line each.
        """
        run(lambda: self.main(parse(self.name, self.config, self.presets, doc or "", about=about)))

    def main(self, config: TrainConfig) -> int:
        """Trains, or prints what would be trained; gives the exit status."""
        if config.on_paper:
            from .dryrun import dry_run

            return dry_run(config, self.program(config, self.on_paper(config)), self.name)
        from .fit import fit

        return fit(config, self)

    def open(self, folder: Path, record: Mapping[str, Any], where: str | Path) -> "Finished":
        """The run of a folder, from what its config.json or its model's description says.

        Raises:
            UserError: the record is not of a run of this recipe; `where` is named.
        """
        for name in ("config", "facts"):
            if not isinstance(record.get(name), dict):
                raise UserError(f"{where}: {name} must be an object: got {record.get(name)!r:.60}; was it edited?")
        config = from_dict(self.config, record["config"], where)
        try:
            return Finished(self, folder, config, self.facts.from_record(record["facts"]))
        except ValueError as error:
            raise UserError(f"{where}: {error}; was it edited?") from None


@dataclasses.dataclass(frozen=True)
class Finished:
    """A run that is sampled or evaluated: its folder, config and facts."""

    recipe: Recipe
    folder: Path
    config: Any
    facts: Any

    def model(self, mesh: "Mesh | None" = None) -> "PyTree":
        """The released model, in parts over a mesh. `UserError` where its file is missing or damaged."""
        return load(self.folder / "model.safetensors", self.recipe.name, mesh)


def named(name: str) -> Recipe:
    """The recipe of a name in `RECIPES`."""
    return importlib.import_module(f"...{name}", __name__).RECIPE


def recipe_of(record: Any, where: object) -> Recipe:
    """The recipe that a run's record or a model's description names.

    Raises:
        UserError: it names none of ours; `where` is named.
    """
    name = record.get("recipe") if isinstance(record, dict) else None
    if name not in RECIPES:
        raise UserError(f"{where}: expected the config of a run of {', '.join(RECIPES)}: got recipe {name!r}")
    return named(name)


def built(description: Any, path: Path, key: Any) -> "PyTree":
    """The model of a description, with weights drawn from the key.

    Args:
        path: of the file that the description is from.

    Raises:
        UserError: it is of no recipe of ours, or of no run.
    """
    recipe = recipe_of(description, path)
    opened = recipe.open(path.parent, description, path)
    return recipe.model(opened.config, opened.facts)(key)


def asked_of_run(
    name: str, doc: str, argv: Sequence[str], form: type, form_of: Callable[[Recipe], type]
) -> tuple[Recipe, dict[str, Any], Any]:
    """The recipe of the run that `--run` names, what its config.json says, and the flags of a command that takes a run.

    Args:
        name, doc: of the command.
        form: flags of every run, for `--help` without one.
        form_of: flags of the command for a run of the recipe.

    Raises:
        UserError: there is no run, or a flag or its value is none of the command's for such a run.
    """
    folder = flags.value_of("--run", argv)
    if folder is None:
        flags.parse(form, name, doc, argv)  # --help, or the error
        raise UsageError("--run must be the folder of a run: got no value")
    path = Path(folder) / "config.json"
    record = read_json(path)
    recipe = recipe_of(record, path)
    try:
        return recipe, record, flags.parse(form_of(recipe), name, doc, argv)
    except UsageError as error:
        raise UsageError(f"{error}; {folder} is a run of train.{recipe.name}") from None


def load(path: str | Path, recipe: str | None = None, mesh: "Mesh | None" = None, *, where: str = "") -> "PyTree":
    """The model of a file that a run wrote, built from the description inside it.

    Args:
        path: model.safetensors or best.safetensors of a run, or a copy.
        recipe: the one that it must be of; any by default.
        mesh: gives each device its part of the arrays; by default they are whole on one device.
        where: the flag that names the file, for the error of another recipe; the file itself by default.

    Raises:
        UserError: there is no such file; it is damaged; it is of another recipe, or its arrays are not that recipe's
            model.
    """
    import jax.random as jr

    from ..run.weights import load_model

    path = Path(path)

    def build(description: dict[str, Any]) -> "PyTree":
        found = recipe_of(description, path)
        if recipe not in (None, found.name):
            raise UserError(f"{where or path}: is the model of a run of train.{found.name}: give one of train.{recipe}")
        return built(description, path, jr.key(0))

    return load_model(path, build, mesh)[0]
