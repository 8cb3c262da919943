"""Torch-Pruning (extra `bench`) and `td.compact`: the weakest half of a network's inner units, removed by each."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import td
from td.base import Params
from td.bench.baselines import NETWORKS
from td.evaluate.compacted import deviation

LOG = logging.getLogger(__name__)

INNER = {"ResNet-32": (r".*block\d+/conv1/kernel",), "VGG-16": (r"stage\d_conv\d", r"dense\d")}
"""Kernels whose units enter no residual sum."""


class Removal(NamedTuple):
    """One package's result for its zeroed network."""

    name: str
    parameters: int  # with statistics and moved constants
    deviation: float  # of the outputs from the zeroed network's, relative to the largest
    differing: int  # predictions, of `images`
    images: int
    seconds: float  # of analysis and removal, median of three


def _removal(name: str, zeroed: Any, remove: Callable[[], Any], outputs: Callable[[Any], Any], size: Any) -> Removal:
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        small = remove()
        taken.append(time.perf_counter() - start)
    found = outputs(small)
    differing = int((found.argmax(-1) != zeroed.argmax(-1)).sum())
    return Removal(name, size(small), deviation(zeroed, found), differing, len(found), sorted(taken)[1])


def beside(name: str, apply: Callable[..., Any], variables: Params) -> list[Removal]:
    """Compare the packages on one network, each with parameters drawn alike and against its own zeroed outputs."""
    if name not in INNER:
        return []
    if find_spec("torch_pruning") is None:
        LOG.warning("Torch-Pruning is not installed, its rows are left out: pip install '.[bench]'")
        return []
    # 8x8 tiles of noise: of finer noise every network predicts one class.
    tiles = np.random.default_rng(0).normal(size=(64, 4, 4, 3)).astype(np.float32)
    images = tiles.repeat(8, axis=1).repeat(8, axis=2)
    params = variables["params"]
    params = td.apply_mask(params, td.prune_mask(params, 0.5, "unit", kernels=INNER[name]))
    zeroed, whole = {**variables, "params": params}, jax.jit(apply)
    return [
        _by_torch_pruning(name, images.transpose(0, 3, 1, 2).copy()),
        _removal(
            "td.compact",
            np.asarray(whole(zeroed, images)),
            lambda: td.compact(apply, zeroed, images),
            lambda small: np.asarray(small.apply(small.params, images)),
            lambda small: optax.tree.size(small.params),
        ),
    ]


def _by_torch_pruning(name: str, images: Any) -> Removal:
    import torch
    import torch_pruning

    torch.manual_seed(0)
    images, model = torch.from_numpy(images), NETWORKS[name]().eval()
    with torch.no_grad():
        for norm in (layer for layer in model.modules() if hasattr(layer, "running_var")):
            for positive in (norm.running_var, norm.weight):
                positive.uniform_(0.5, 2.0)
            for centred in (norm.running_mean, norm.bias):
                centred.normal_(0, 0.3)

    def inner(network: Any) -> list[Any]:
        kernels = [layer for layer in network.modules() if hasattr(layer, "weight") and layer.weight.ndim > 1]
        return [unit.conv1 for unit in network if hasattr(unit, "conv1")] or kernels[1:-1]  # no stem, no logits

    weakest = []
    with torch.no_grad():
        for layer in inner(model):
            norms = layer.weight.flatten(1).norm(dim=1)
            weakest.append(norms.argsort()[: len(norms) // 2].tolist())
            layer.weight[weakest[-1]] = 0.0

    def remove() -> Any:
        small = copy.deepcopy(model)
        graph = torch_pruning.DependencyGraph().build_dependency(small, example_inputs=images[:1])
        for layer, units in zip(inner(small), weakest, strict=True):
            linear = hasattr(layer, "in_features")
            prune = torch_pruning.prune_linear_out_channels if linear else torch_pruning.prune_conv_out_channels
            graph.get_pruning_group(layer, prune, idxs=units).prune()
        return small

    def outputs(network: Any) -> Any:
        with torch.no_grad():
            return network(images).numpy()

    def size(network: Any) -> int:
        return sum(leaf.numel() for leaf in (*network.parameters(), *network.buffers()) if leaf.ndim)

    return _removal("Torch-Pruning", outputs(model), remove, outputs, size)
