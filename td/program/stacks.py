"""Layers that a function stacks itself: what selects one of them becomes this layer."""

from typing import Any

from td.program.equations import source
from td.program.indices import others

Flat = Any
"""The equations and values inlined so far, a `_Flat` of `td.program.trace`."""


def layers(flat: Flat, value: int, axis: int) -> list[int] | None:
    """The values that are stacked along an axis, before transposes and conversions; None of another value."""
    value, axis = source(flat.made, value, axis)
    stack, shape = flat.made.get(value), flat.avals[value].shape
    if stack is None or stack.name != "concatenate" or stack.params["dimension"] != axis:
        return None
    rest = tuple(others(len(shape), axis))
    made = [e for part in stack.inputs if (e := flat.made.get(part)) is not None and e.name == "broadcast_in_dim"]
    parts = [e.inputs[0] for e in made if e.params["broadcast_dimensions"] == rest]
    whole = len(parts) == shape[axis] and all(flat.avals[v].shape == (*shape[:axis], *shape[axis + 1 :]) for v in parts)
    return parts if whole else None


def selected_layer(flat: Flat, value: int, axis: int) -> list[int] | None:
    """One of the values that are stacked, where a slice selects it."""
    cut = flat.made.get(value)
    if cut is None or cut.name != "slice" or (parts := layers(flat, cut.inputs[0], axis)) is None:
        return None
    shape = flat.avals[cut.inputs[0]].shape
    if flat.avals[value].shape != (*shape[:axis], 1, *shape[axis + 1 :]):
        return None
    return [_moved_layer(flat, cut.inputs[0], axis, parts[cut.params["start_indices"][axis]])]


def _moved_layer(flat: Flat, value: int, axis: int, part: int) -> int:
    """Transpose and convert a layer as the stack of all."""
    made = flat.made[value]
    if made.name == "concatenate":
        return part
    order, params = made.params.get("permutation"), made.params
    if order is not None:
        axis = order[axis]
        params = {"permutation": tuple(other - (other > axis) for other in order if other != axis)}
    part = _moved_layer(flat, made.inputs[0], axis, part)
    return flat.traced(lambda array: made.bind(array, **params), [part])[0]
