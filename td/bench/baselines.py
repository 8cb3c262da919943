"""The same work in PyTorch, where it is installed (extra `bench`): masks, training steps, and units removed."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Array

import td
from td.base import Params
from td.evaluate.deviation import deviation
from td.evaluate.timing import Call

LOG = logging.getLogger(__name__)

INSTALLED = find_spec("torch") is not None


def _device() -> str:
    import torch

    return "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"


def _masked(weights: Any, proportion: float, rate: float, by: str) -> Any:
    """Targeted dropout of `[units, ...]` weights, as a PyTorch user would write it."""
    import torch

    flat = weights.reshape(len(weights), -1)
    count = int(proportion * flat.shape[1])
    magnitudes = flat.detach().abs()
    if by == "kthvalue":
        limit = magnitudes.kthvalue(count, dim=1, keepdim=True).values
    else:
        limit = magnitudes.sort(dim=1).values[:, count - 1 : count]
    dropped = (magnitudes <= limit) & (torch.rand_like(flat) < rate)
    return flat.masked_fill(dropped, 0.0).reshape(weights.shape)


def mask_cases(kernels: dict[str, Array], proportion: float, rate: float) -> dict[str, Call]:
    """Build targeted weight dropout in PyTorch, by `kthvalue` and by `sort`, with units as rows."""
    if not INSTALLED:
        return {}
    import torch

    columns = [np.ascontiguousarray(np.asarray(k).reshape(-1, k.shape[-1]).T) for k in kernels.values()]
    rows = [torch.from_numpy(column).to(_device()) for column in columns]

    def masked(by: str) -> list[Any]:
        result = [_masked(weights, proportion, rate, by) for weights in rows]
        if _device() == "cuda":
            torch.cuda.synchronize()
        return result

    return {f"by {by}, PyTorch": partial(masked, by) for by in ("kthvalue", "sort")}


def _residual(stage_sizes: Sequence[int], widths: Sequence[int], stem_kernel: int, classes: int) -> Any:
    from torch import nn

    class Unit(nn.Module):
        def __init__(self, before: int, channels: int, stride: int, project: bool) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.BatchNorm2d(before), nn.BatchNorm2d(channels)
            self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
            self.shortcut = nn.Conv2d(before, channels, 1, stride, bias=False) if project else None

        def forward(self, inputs: Any) -> Any:
            hidden = self.norm1(inputs).relu()
            shortcut = self.shortcut(hidden) if self.shortcut is not None else inputs
            return shortcut + self.conv2(self.norm2(self.conv1(hidden)).relu())

    layers: list[Any] = [nn.Conv2d(3, 16, stem_kernel, 1, stem_kernel // 2, bias=False)]
    before = 16
    for stage, (size, channels) in enumerate(zip(stage_sizes, widths, strict=True)):
        for unit in range(size):
            layers.append(Unit(before, channels, 2 if unit == 0 and stage > 0 else 1, unit == 0))
            before = channels
    tail = [nn.BatchNorm2d(before), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes)]
    return nn.Sequential(*layers, *tail)


def _vgg(classes: int) -> Any:
    from torch import nn

    layers: list[Any] = []
    before = 3
    for widths in ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3):
        for channels in widths:
            layers += [nn.Conv2d(before, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            before = channels
        layers.append(nn.MaxPool2d(2))
    layers.append(nn.Flatten())
    for units in (4096, 4096):
        layers += [nn.Linear(before, units, bias=False), nn.BatchNorm1d(units), nn.ReLU()]
        before = units
    return nn.Sequential(*layers, nn.Linear(before, classes))


NETWORKS: dict[str, Callable[[], Any]] = {
    "ResNet-32": lambda: _residual((5, 5, 5), (32, 64, 128), 7, 10),
    "WRN-28-10": lambda: _residual((4, 4, 4), (160, 320, 640), 3, 10),
    "VGG-16": lambda: _vgg(100),
}


def step_cases(name: str, batch: int, classes: int, proportion: float, rate: float) -> dict[str, Call]:
    """Build training steps in PyTorch with SGD, on noise: dense, and with targeted dropout by `kthvalue` and `sort`.

    The compiled one is what its users run: tuned, in CUDA graphs on a GPU, channels last, bfloat16, fused updates.
    """
    if not INSTALLED or name not in NETWORKS:
        return {}
    import torch

    torch.manual_seed(0)
    device, last = _device(), torch.channels_last
    images, labels = torch.randn(batch, 3, 32, 32).to(device), torch.randint(0, classes, (batch,)).to(device)

    def trainer(fused: bool) -> tuple[Any, Callable[[Any], float]]:
        model = NETWORKS[name]().to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, fused=fused)

        def update(logits: Any) -> float:
            loss = torch.nn.functional.cross_entropy(logits.float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.item()

        return model, update

    model, update = trainer(fused=False)
    named = dict(model.named_parameters())
    kernels = [path for path, leaf in named.items() if leaf.ndim >= 2][1:-1]  # neither the stem nor the logits

    def step(by: str) -> float:
        masked = {path: _masked(named[path], proportion, rate, by) for path in kernels} if by else {}
        return update(torch.func.functional_call(model, masked, (images,)))

    other, update_other = trainer(fused=True)
    tuned = torch.compile(other.to(memory_format=last), mode="max-autotune")
    images_last = images.to(memory_format=last)

    def compiled() -> float:
        with torch.autocast(device, torch.bfloat16):
            logits = tuned(images_last)
        return update_other(logits)

    for _ in range(3):  # compiles, records graphs
        compiled()
    return {
        "dense, PyTorch": lambda: step(""),
        "dense, PyTorch, compiled, bfloat16": compiled,
        "targeted by kthvalue, PyTorch": lambda: step("kthvalue"),
        "targeted by sort, PyTorch": lambda: step("sort"),
    }


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
