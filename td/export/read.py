"""Loads what td-export wrote: `model.json` and `model.safetensors`, the form that lasts."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from td import models
from td.errors import UserError, check_choice
from td.export.formats import read_safetensors
from td.export.parts import Network, Part, compacted, parts_of, whole
from td.io.files import read_json

LOG = logging.getLogger(__name__)

VERSION = 1
"""Of `model.json`."""


class Exported(NamedTuple):
    """A network that was exported.

    Attributes:
      apply: `(params, *inputs) -> outputs`, jitted.
      params: its parameters, trainable as any tree; smaller ones where units were removed.
      about: all that `model.json` says: config, class names, accuracy, where it comes from.
    """

    apply: Callable[..., Any]
    params: Any
    about: dict[str, Any]


def build_float32(settings: Mapping[str, Any], num_classes: int) -> Any:
    """Build a model that computes in float32 whatever it was trained in: not every runtime has the other types."""
    return models.build({**settings, **({"dtype": "float32"} if "dtype" in settings else {})}, num_classes)


def load_exported(folder: Path | str, part: str = "") -> Exported:
    """Load an export. A Transformer has two parts, "encoder" (the default) and "decoder"."""
    path = Path(folder) / "model.json"
    if not path.is_file():
        raise UserError(f"no export in {folder}: there is no model.json; make one with td-export")
    about = read_json(path)
    needed = {"config", "num_classes", "task", "plans", "pruning"}
    if not isinstance(about, dict) or about.get("version") != VERSION or not needed <= set(about):
        raise UserError(f"cannot read {path}: it is not an export, or one of a newer version of td")
    if not path.with_name("model.safetensors").is_file():
        raise UserError(f"{folder} has no model.safetensors: export again, with --format=safetensors")
    parts = parts_of(build_float32(about["config"]["model"], about["num_classes"]), about["task"])
    name = part or next(iter(parts))
    check_choice("part", name, parts)
    variables = read_safetensors(path.with_name("model.safetensors"))
    network = rebuilt(parts[name], variables, about["plans"][name], about["pruning"]["round_to"])
    return Exported(jax.jit(network.apply), network.params, about)


def rebuilt(part: Part, variables: Any, plan: Mapping[str, Any] | None, round_to: int = 1) -> Network:
    """The network as it was exported.

    A plan names operations as the JAX of its time did. Where today's differ, the network is compacted anew, which the
    zeros in the file allow at any time.
    """
    if plan is None:
        return whole(part, variables)
    try:
        return compacted(part, variables, plan=plan)
    except UserError as error:
        LOG.warning("the plan of compaction cannot be repeated (%s): compacting anew", error)
        return compacted(part, variables, round_to)
