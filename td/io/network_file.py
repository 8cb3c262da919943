"""A network alone, without its optimiser, as one file of half precision in a run folder."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from td import _tree
from td.errors import UserError
from td.io.checkpoint import check_same_network
from td.io.files import Path, replacing

NAME = "network.safetensors"


def write_network(folder: Path, state: Any) -> None:
    """Write a state; of floating-point numbers only eleven bits are kept."""
    from safetensors.numpy import save

    halves = dict(zip(_tree.paths(state), map(_halved, jax.tree.leaves(state)), strict=True))
    for path, half in halves.items():
        if not np.isfinite(half).all():
            raise UserError(f"{path} has numbers that float16 lacks: export with --format=safetensors")
    with replacing(folder / NAME) as temporary:
        temporary.write_bytes(save(halves))


def _halved(leaf: Any) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.asarray(leaf, np.float16 if jnp.issubdtype(leaf.dtype, np.floating) else leaf.dtype)


def read_network(folder: Path, like: Any) -> Any:
    """Read a state of the shapes and dtypes of another."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        stored = load((folder / NAME).read_bytes())
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot read {folder / NAME}: {error}") from None
    wanted = dict(zip(_tree.paths(like), jax.tree.leaves(like), strict=True))
    there, here = ({path: str(list(leaf.shape)) for path, leaf in leaves.items()} for leaves in (stored, wanted))
    check_same_network(there, here, str(folder / NAME))
    leaves = [jnp.asarray(stored[path], leaf.dtype) for path, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
