"""Operations along some axes: cumulative sums and the like, sorting, Fourier transforms, products, positions."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from td.compact.rules.base import Operation
from td.compact.rules.passing import Passing, along, passing_rule
from td.compact.values import Value, on_host
from td.program.indices import others, sized

STAYING: dict[str, tuple[int, ...]] = {"cumsum": (0,), "fft": (0,), "cumprod": (0, 1), "reduce_prod": (0, 1)}
"""Constants of a whole axis with the same result at every length."""

ALL_STAY = ("cummax", "cummin", "sort", "top_k", "argmax", "argmin")
"""Operations of which every constant has."""


def _axes(op: Operation) -> list[Any]:
    """The axes along which entries meet."""
    rank = len(op.shapes[0])
    if op.name == "fft":
        return list(range(rank - len(op.params["fft_lengths"]), rank))
    axes = next(op.params[key] for key in ("axes", "axis", "dimension") if key in op.params)
    return [int(axis) % rank for axis in np.atleast_1d(axes)]


def _passing(op: Operation) -> Passing:
    axes = others(len(op.shapes[0]), *_axes(op))
    shorter = len(op.shape) < len(op.shapes[0])
    return {place if shorter else axis: (axis,) * len(op.shapes) for place, axis in enumerate(axes)}


def _forward(op: Operation, values: Sequence[Value]) -> Value:
    if len(values) > 1:  # a sort by other keys moves no constant
        return along(op, values[op.params["place"]], _passing(op), op.params["place"])
    axes = _axes(op)
    live, constant, _ = values[0].map(lambda small: sized(small, axes, op.shapes[0]))
    if any(op.dynamic_axes[0][axis] for axis in axes) and op.name not in ALL_STAY:
        live = live | ~np.isin(constant, STAYING.get(op.name, ()))
    live = live.any(tuple(axes), keepdims=len(op.shape) == live.ndim)
    if live.all():
        return Value(live, np.zeros(live.shape, np.float32))
    return Value(live, on_host(op.bind(jnp.asarray(constant, op.dtypes[0]), **op.params)))


NAMES = (
    "cumsum",
    "cumprod",
    "cummax",
    "cummin",
    "cumlogsumexp",
    "sort",
    "top_k",
    "argmax",
    "argmin",
    "reduce_prod",
    "fft",
)
RULES = dict.fromkeys(NAMES, passing_rule(_passing, _forward))
