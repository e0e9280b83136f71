"""The cache of compiled programs, which a second start of the same run reads its step from."""

import os
from pathlib import Path

from .._errors import UserError
from ..config.data import cache_folder


def cache_path(where: str | None) -> Path | None:
    """The folder that `--compile-cache` means: of the user's cache by default, None for off."""
    if where == "off":
        return None
    return Path(where).expanduser() if where else cache_folder().parent / "compiled"


def use_cache(where: str | None) -> Path | None:
    """Has JAX keep whatever it compiles; gives the folder, or None where there is none. A folder that JAX's own
    variable names stays.

    Raises:
        UserError: the folder that was asked for cannot be written.
    """
    import jax

    if where is None and os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    folder = cache_path(where)
    if folder is None:
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if where is None:
            return None  # an optional cache must not end a run
        raise UserError(
            f"--compile-cache {folder}: cannot be written: {error.strerror}: give another folder, or off"
        ) from None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # JAX leaves out what compiles within a second, which on a small model is everything.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder
