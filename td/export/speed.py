"""How long an exported network takes, beside the network as it was trained: JAX and ONNX Runtime, in turns."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from td.evaluate.timing import Timing, side_by_side
from td.export.formats import open_onnx, to_onnx
from td.export.parts import Network, Part

ROWS = (1, 32)
"""Of the batches that are timed."""


def speed(
    part: Part, variables: Any, dense: Network, network: Network, onnx: bytes | None, calls: int
) -> dict[str, list[Timing]]:
    """So many calls of each, by batch; ONNX Runtime is left out where no ONNX was asked for."""
    smaller = network is not dense
    own = jax.jit(lambda variables, *inputs: part.apply(variables, *part.prepare(*inputs)))
    runs: dict[str, Callable[..., Any]] = {"JAX, dense": partial(own, variables)}
    if smaller:
        runs["JAX, compacted"] = partial(jax.jit(network.apply), network.params)
    if onnx is not None:
        runs["ONNX Runtime, dense"] = open_onnx(to_onnx(dense, part, "dense", {}) if smaller else onnx)
        if smaller:
            runs["ONNX Runtime, compacted"] = open_onnx(onnx)
    found = {}
    for rows in ROWS:
        cases: Mapping[str, Callable[[], Any]] = {
            name: partial(call, *_inputs(part, rows)) for name, call in runs.items()
        }
        found[f"batch {rows}"] = side_by_side(cases, calls, f"batch {rows}")
    return found


def _inputs(part: Part, rows: int) -> Sequence[np.ndarray]:
    """Zeros of the right shapes."""
    return [np.zeros((rows, *i.shape[1:]) if i.shape else (), i.dtype) for i in part.inputs.values()]
