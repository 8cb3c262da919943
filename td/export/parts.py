"""The functions that a network is exported as: one for images; encoder and one decoding step of a Transformer."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from td.compact import Compact, apply_plan, compact
from td.compact.flops import count_flops
from td.data import standardize
from td.export.flat import inlined
from td.models.transformer import Cache

BATCH = 2
"""Rows of the inputs by which compaction sees the network; more than one, so that it cannot be taken for constant."""


class Part(NamedTuple):
    """A function that is exported.

    Attributes:
      apply: `(variables, *inputs) -> outputs`, the network alone.
      inputs: what the file takes, by name, with a batch of `BATCH` rows.
      outputs: the outputs' names.
      prepare: what the file takes -> what the network takes.
    """

    apply: Callable[..., Any]
    inputs: dict[str, jax.ShapeDtypeStruct]
    outputs: tuple[str, ...]
    prepare: Callable[..., tuple[Any, ...]] = lambda *inputs: inputs


class Network(NamedTuple):
    """A part with parameters.

    Attributes:
      apply: `(params, *inputs)` of what the file takes.
      params: zeros included, or the smaller ones.
      flops: of one row.
      plan: where it is compacted.
    """

    apply: Callable[..., Any]
    params: Any
    flops: int
    plan: dict[str, Any] | None = None


def parts_of(model: Any, task: Mapping[str, Any]) -> dict[str, Part]:
    """The parts of a network by what `model.json` says of its task."""
    if task["name"] == "translation":
        return _transformer(model, task["source_length"], task["target_length"])
    raw = task["images"] == "raw"
    images = jax.ShapeDtypeStruct((BATCH, *task["shape"]), jnp.uint8 if raw else jnp.float32)
    prepare = (lambda images: (standardize(images),)) if raw else (lambda images: (images,))
    return {"model": Part(lambda variables, x: model.apply(variables, x), {"images": images}, ("logits",), prepare)}


def _transformer(model: Any, source_length: int, target_length: int) -> dict[str, Part]:
    def shape(*sizes: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, dtype)

    def decode(variables: Any, token: Array, position: Array, memory: Array, source: Array, *flat: Array) -> Any:
        caches = tuple(Cache(*pair) for pair in zip(flat[::2], flat[1::2], strict=True))
        logits, after = model.apply(variables, token, position, caches, memory, source, method="decode_next")
        return (logits, *jax.tree.leaves(after))

    source = shape(BATCH, source_length, dtype=jnp.int32)
    cache = shape(BATCH, target_length, model.heads, model.width // model.heads)
    names = [f"{what}_{layer}" for layer in range(model.layers) for what in ("keys", "values")]
    step = {
        "token": shape(BATCH, dtype=jnp.int32),
        "position": shape(dtype=jnp.int32),
        "memory": shape(BATCH, source_length, model.width),
        "source": source,
        **dict.fromkeys(names, cache),
    }
    encode = lambda variables, source: model.apply(variables, source, method="encode")  # noqa: E731
    return {
        "encoder": Part(encode, {"source": source}, ("memory",)),
        "decoder": Part(decode, step, ("logits", *(f"{name}_after" for name in names))),
    }


def whole(part: Part, variables: Any) -> Network:
    """The part with all that it has, zeros included, as plain primitives."""
    apply = _prepared(inlined(part.apply), part)
    return Network(apply, variables, count_flops(apply, variables, *part.inputs.values()) // BATCH)


def compacted(part: Part, variables: Any, round_to: int = 1, plan: Mapping[str, Any] | None = None) -> Network:
    """The part without what pruning has emptied; by a plan that was made before, where one is given."""
    seen = jax.eval_shape(part.prepare, *part.inputs.values())
    small: Compact
    if plan is None:
        small = compact(part.apply, variables, *seen, round_to=round_to)
    else:
        small = apply_plan(part.apply, variables, dict(plan), *seen)
    return Network(_prepared(small.apply, part), small.params, small.flops[1] // BATCH, small.plan)


def _prepared(apply: Callable[..., Any], part: Part) -> Callable[..., Any]:
    return lambda params, *inputs: apply(params, *part.prepare(*inputs))
