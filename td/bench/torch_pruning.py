"""Torch-Pruning (extra `bench`) compared with `td.compact` on the same network, in PyTorch and in JAX."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import numpy as np

import td
from td.base import Params
from td.bench.baselines import NETWORKS
from td.bench.networks import Measured, load_config
from td.evaluate.compacted import deviation
from td.evaluate.timing import as_markdown
from td.models import build

LOG = logging.getLogger(__name__)

INSTALLED = all(find_spec(name) is not None for name in ("torch", "torch_pruning"))
INNER = {
    "ResNet-32": (Measured("cifar10_resnet32", 32, 10), (r".*block\d+/conv1/kernel",)),
    "VGG-16": (Measured("cifar100_vgg16", 32, 100), (r"stage\d_conv\d", r"dense\d")),
}
"""Kernels whose units enter no residual sum; the weakest half of these is removed."""


class Removal(NamedTuple):
    """One package's result for the zeroed network."""

    name: str
    parameters: int  # with statistics and moved constants
    deviation: float  # of the outputs from the zeroed network's, relative to the largest
    differing: int  # predictions, of `images`
    images: int
    seconds: float  # of analysis and removal, median of three


def _layers(name: str, model: Any, paths: Params) -> Iterator[tuple[str, Any]]:
    """Yield `(name of the layer in Flax, module in PyTorch)`, in order."""
    modules = list(model)
    if name == "VGG-16":
        order = [p for p in paths["params"] if "norm" not in p and p != "logits"]
        order = sorted(order, key=lambda p: (p.startswith("dense"), p != "stem", p))
        kept = [module for module in modules if hasattr(module, "weight")]
        for place, layer in enumerate(order):
            yield layer, kept[2 * place]
            yield ("stage1_conv1" if layer == "stem" else layer) + "_norm", kept[2 * place + 1]
        yield "logits", kept[-1]
        return
    units = [module for module in modules if hasattr(module, "conv1")]
    blocks = sorted(path for path in paths["params"] if "block" in path)
    yield from (("stem", modules[0]), ("norm", modules[1 + len(units)]), ("logits", modules[-1]))
    for block, unit in zip(blocks, units, strict=True):
        for part in paths["params"][block]:
            yield f"{block}/{part}", getattr(unit, part)


def in_torch(name: str, variables: Params, epsilon: float) -> Any:
    """Copy a network from Flax to PyTorch."""
    import torch

    model = NETWORKS[name]()
    leaves = td._tree.named_leaves(variables)

    def put(parameter: Any, array: Any) -> None:
        axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(np.ndim(array), (0,))
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(np.asarray(array).transpose(axes).copy()))

    for layer, module in _layers(name, model, variables):
        if hasattr(module, "running_mean"):
            module.eps = epsilon
            put(module.weight, leaves[f"params/{layer}/scale"])
            put(module.running_mean, leaves[f"batch_stats/{layer}/mean"])
            put(module.running_var, leaves[f"batch_stats/{layer}/var"])
        else:
            put(module.weight, leaves[f"params/{layer}/kernel"])
        if module.bias is not None:
            put(module.bias, leaves[f"params/{layer}/bias"])
    return model.eval()


def _removed(name: str, model: Any, variables: Params, masks: Params, image: Any) -> Any:
    """Remove the masked units with Torch-Pruning."""
    import torch_pruning

    graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=image)
    kept = td._tree.named_leaves(masks)
    for layer, module in _layers(name, model, variables):
        mask = kept.get(f"{layer}/kernel")
        units = [] if mask is None else np.flatnonzero(~np.asarray(mask).reshape(-1, mask.shape[-1]).any(0)).tolist()
        if units:
            linear = hasattr(module, "in_features")
            prune = torch_pruning.prune_linear_out_channels if linear else torch_pruning.prune_conv_out_channels
            graph.get_pruning_group(module, prune, idxs=units).prune()
    return model


def _median_of_three(function: Callable[[], Any]) -> tuple[Any, float]:
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        found = function()
        taken.append(time.perf_counter() - start)
    return found, sorted(taken)[1]


def coarse_images(count: int) -> Any:
    """Draw images of 8x8 tiles of noise: of finer noise every network predicts one class."""
    tiles = np.random.default_rng(0).normal(size=(count, 4, 4, 3)).astype(np.float32)
    return tiles.repeat(8, axis=1).repeat(8, axis=2)


def beside(name: str, variables: Params) -> list[Removal]:
    """Remove the weakest half of the inner units with both packages."""
    if name not in INNER:
        return []
    if not INSTALLED:
        LOG.warning("Torch-Pruning is not installed, its rows are left out: pip install '.[bench]'")
        return []
    import torch

    network, inner = INNER[name]
    here = build(load_config(network).model.to_dict(), network.classes)
    inputs = coarse_images(64)
    masks = td.prune_mask(variables["params"], 0.5, "unit", kernels=inner)
    variables = {**variables, "params": td.apply_mask(variables["params"], masks)}
    expected = np.asarray(jax.jit(here.apply)(variables, inputs))
    model = in_torch(name, variables, here.batch_norm_epsilon)
    images = torch.from_numpy(inputs.transpose(0, 3, 1, 2).copy())
    copies = [copy.deepcopy(model) for _ in range(3)]
    theirs, seconds = _median_of_three(lambda: _removed(name, copies.pop(), variables, masks, images[:1]))
    small, our_seconds = _median_of_three(lambda: td.compact(here.apply, variables, inputs))

    def row(package: str, parameters: int, outputs: Any, taken: float) -> Removal:
        differing = int((outputs.argmax(-1) != expected.argmax(-1)).sum())
        return Removal(package, parameters, deviation(expected, outputs), differing, len(expected), taken)

    def numbers(model: Any) -> int:
        return sum(leaf.numel() for leaf in (*model.parameters(), *model.buffers()) if leaf.ndim)

    with torch.no_grad():
        before, after = (each(images).numpy() for each in (model, theirs))
    ours = np.asarray(small.apply(small.params, inputs))
    return [
        row("PyTorch, zeroed", numbers(model), before, 0.0),
        row("Torch-Pruning", numbers(theirs), after, seconds),
        row("td.compact", sum(leaf.size for leaf in jax.tree.leaves(small.params)), ours, our_seconds),
    ]


def table(rows: list[Removal]) -> str:
    """Format the packages' results for one network."""
    return as_markdown(
        [
            {
                "inner half removed": row.name,
                "parameters": f"{row.parameters:,}",
                "deviation": f"{row.deviation:.1e}",
                "predictions that differ": f"{row.differing} of {row.images}",
                "seconds": f"{row.seconds:.2f}",
            }
            for row in rows
        ]
    )
