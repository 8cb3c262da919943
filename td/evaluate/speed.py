"""How long an exported network takes, beside the network as it was trained: JAX and ONNX Runtime, in turns."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from td.evaluate.export_formats import open_onnx, to_onnx
from td.evaluate.parts import Network, Part
from td.evaluate.timing import Timing, side_by_side

ROWS = (1, 32)
"""Of the batches that are timed."""

CALLS = 30


def speed(part: Part, variables: Any, dense: Network, network: Network, onnx: bytes | None) -> dict[str, list[Timing]]:
    """Timings by batch. JAX's dense network is td's own; ONNX Runtime is left out where no ONNX was asked for."""
    smaller = network is not dense
    own = jax.jit(lambda variables, *inputs: part.apply(variables, *part.prepare(*inputs)))
    calls: dict[str, Callable[..., Any]] = {"JAX, dense": partial(own, variables)}
    if smaller:
        calls["JAX, compacted"] = partial(jax.jit(network.apply), network.params)
    if onnx is not None:
        calls["ONNX Runtime, dense"] = open_onnx(to_onnx(dense, part, "dense", {}) if smaller else onnx)
        if smaller:
            calls["ONNX Runtime, compacted"] = open_onnx(onnx)
    found = {}
    for rows in ROWS:
        cases: Mapping[str, Callable[[], Any]] = {
            name: partial(call, *_inputs(part, rows)) for name, call in calls.items()
        }
        found[f"batch {rows}"] = side_by_side(cases, CALLS, f"batch {rows}")
    return found


def _inputs(part: Part, rows: int) -> Sequence[np.ndarray]:
    """Zeros of the right shapes."""
    return [np.zeros((rows, *i.shape[1:]) if i.shape else (), i.dtype) for i in part.inputs.values()]
