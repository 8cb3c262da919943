"""A network alone, without its optimiser, as one file of half precision in a run folder."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from td import _tree
from td.errors import UserError
from td.io.checkpoint import check_same_network
from td.io.files import Path, replacing
from td.io.run_folder import NETWORK


def write_network(folder: Path, state: Any) -> None:
    """Write a state; of floating-point numbers only eleven bits are kept."""
    from safetensors.numpy import save

    halves = {path: _halved(leaf) for path, leaf in _tree.named_leaves(state).items()}
    for path, half in halves.items():
        if not np.isfinite(half).all():
            raise UserError(f"{path} has numbers that float16 lacks: export with --format=safetensors")
    with replacing(folder / NETWORK) as temporary:
        temporary.write_bytes(save(halves))


def _halved(leaf: Any) -> np.ndarray:
    if not jnp.issubdtype(leaf.dtype, np.floating):
        return np.asarray(leaf)
    with np.errstate(over="ignore"):
        half = np.asarray(leaf, np.float16)
    tiny = np.copysign(np.finfo(np.float16).smallest_subnormal, half)
    return np.where((half == 0) & (np.asarray(leaf) != 0), tiny, half)  # zeros are those of the run


def read_network(folder: Path, like: Any) -> Any:
    """Read a state of the shapes and dtypes of another."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        stored = load((folder / NETWORK).read_bytes())
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot read {folder / NETWORK}: {error}") from None
    wanted = _tree.named_leaves(like)
    there, here = ({path: str(list(leaf.shape)) for path, leaf in leaves.items()} for leaves in (stored, wanted))
    check_same_network(there, here, str(folder / NETWORK))
    leaves = [jnp.asarray(stored[path], leaf.dtype) for path, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
