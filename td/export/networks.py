"""Networks of a run as functions of what a file takes, and exports loaded again."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array

from td import models
from td.compact import apply_plan, compact
from td.data import standardize
from td.errors import UserError, check_choice
from td.export.formats import check_formats
from td.io.files import read_json
from td.models.transformer import Cache
from td.program.flops import count_flops

LOG = logging.getLogger(__name__)

VERSION = 1
"""Layout of `model.json`."""

BATCH = 2
"""Batch of the example inputs; with more than one row compaction cannot take the batch for a constant axis."""


class Part(NamedTuple):
    """A function to export."""

    apply: Callable[..., Any]  # `(variables, *inputs of the network) -> outputs`
    inputs: dict[str, jax.ShapeDtypeStruct]  # of the file, by name, with the batch of an example
    outputs: tuple[str, ...]
    prepare: Callable[..., tuple[Any, ...]] = lambda *inputs: inputs  # inputs of the file -> of the network

    def on_file_inputs(self, apply: Callable[..., Any]) -> Callable[..., Any]:
        """Prepare the inputs of a function that takes those of the network."""
        return lambda params, *inputs: apply(params, *self.prepare(*inputs))


class Network(NamedTuple):
    """A part with its parameters."""

    apply: Callable[..., Any]  # `(params, *inputs of the file) -> outputs`
    params: Any
    flops: int  # of one example
    plan: dict[str, Any] | None = None  # of the compaction


class Exported(NamedTuple):
    """A network that was exported."""

    apply: Callable[..., Any]  # `(params, *inputs) -> outputs`, jitted
    params: Any  # trainable as any tree; smaller where units were removed
    about: dict[str, Any]  # the contents of `model.json`: config, class names, accuracy, provenance


def load_exported(folder: Path | str, part: str = "") -> Exported:
    """Load an export. A Transformer has two parts, "encoder" (the default) and "decoder"."""
    path = Path(folder) / "model.json"
    about = read_json(path)
    if not isinstance(about, dict) or about.get("version") != VERSION:
        raise UserError(f"cannot read {path}: it is not an export, or one of a newer version of td")
    if not path.with_name("model.safetensors").is_file():
        raise UserError(f"{folder} has no model.safetensors: export again, with --format=safetensors")
    parts = parts_of(build_float32(about["config"]["model"], about["num_classes"]), about["task"])
    name = part or next(iter(parts))
    check_choice("part", name, parts)
    check_formats("safetensors")
    from safetensors.flax import load_file

    variables = traverse_util.unflatten_dict(load_file(path.with_name("model.safetensors")), sep="/")
    plan, round_to = about["plans"][name], about["pruning"]["round_to"]
    network = whole(parts[name], variables) if plan is None else compacted(parts[name], variables, round_to, plan)
    return Exported(jax.jit(network.apply), network.params, about)


def build_float32(settings: Mapping[str, Any], num_classes: int) -> Any:
    """Build a model that computes in float32: not every runtime has other types."""
    return models.build({**settings, **({"dtype": "float32"} if "dtype" in settings else {})}, num_classes)


def parts_of(model: Any, task: Mapping[str, Any]) -> dict[str, Part]:
    """Return the functions of a network: one for images; encoder and one decoding step of a Transformer."""
    if task["name"] == "translation":
        return _transformer(model, task["source_length"], task["target_length"])
    raw = task["images"] == "raw"
    images = jax.ShapeDtypeStruct((BATCH, *task["shape"]), jnp.uint8 if raw else jnp.float32)
    prepare = (lambda images: (standardize(images),)) if raw else (lambda images: (images,))
    return {"model": Part(model.apply, {"images": images}, ("logits",), prepare)}


def _transformer(model: Any, source_length: int, target_length: int) -> dict[str, Part]:
    def shape(*sizes: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, dtype)

    def encode(variables: Any, source: Array) -> Any:
        return model.apply(variables, source, method="encode")

    def decode(variables: Any, token: Array, position: Array, memory: Array, source: Array, *flat: Array) -> Any:
        caches = tuple(Cache(*pair) for pair in zip(flat[::2], flat[1::2], strict=True))
        logits, after = model.apply(variables, token, position, caches, memory, source, method="decode_next")
        return (logits, *jax.tree.leaves(after))

    source, memory = shape(BATCH, source_length), shape(BATCH, source_length, model.width, dtype=jnp.float32)
    cache = shape(BATCH, target_length, model.heads, model.width // model.heads, dtype=jnp.float32)
    names = [f"{what}_{layer}" for layer in range(model.layers) for what in ("keys", "values")]
    inputs = {"token": shape(BATCH), "position": shape(), "memory": memory, "source": source}
    outputs = ("logits", *(f"{name}_after" for name in names))
    decoder = Part(decode, inputs | dict.fromkeys(names, cache), outputs)
    return {"encoder": Part(encode, {"source": source}, ("memory",)), "decoder": decoder}


def whole(part: Part, variables: Any) -> Network:
    """Keep the zeros."""
    apply = part.on_file_inputs(part.apply)
    return Network(apply, variables, count_flops(apply, variables, *part.inputs.values()) // BATCH)


def compacted(part: Part, variables: Any, round_to: int = 1, plan: Mapping[str, Any] | None = None) -> Network:
    """Remove the units that pruning emptied, by a plan if there is one."""
    inputs = jax.eval_shape(part.prepare, *part.inputs.values())
    try:
        small = apply_plan(part.apply, variables, dict(plan), *inputs) if plan else None
    except UserError as error:  # JAX has renamed an operation since
        LOG.warning("the plan of compaction does not apply (%s): compacting again", error)
        small = None
    small = small or compact(part.apply, variables, *inputs, round_to=round_to)
    return Network(part.on_file_inputs(small.apply), small.params, small.flops[1] // BATCH, small.plan)
