"""The time of a compacted network relative to the whole one, next to the ratio of their FLOPs."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import td
from td import _tree
from td.base import Params
from td.bench import torch_pruning
from td.bench.networks import Measured, load_config, prepare
from td.compact.flops import count_flops
from td.evaluate.compacted import deviation
from td.evaluate.timing import Call, Timing, as_markdown, side_by_side, times

NETWORKS = {
    "ResNet-32": Measured("cifar10_resnet32", 32, 10),
    "WRN-16-4": Measured("cifar10_wrn", 32, 10, "depth=16,width=4"),
    "VGG-16": Measured("cifar100_vgg16", 32, 100),
    "Transformer base": Measured("wmt14_transformer", 8, 32_000),
    "digits ResNet": Measured("digits_resnet", 128, 10, "", (8, 8, 1)),
}
INSTEAD = {"WRN-28-10": "WRN-16-4"}
"""Networks that take a CPU too long -> networks measured instead."""

HALVES = {"WRN-16-4": "depth=16,width=2", "VGG-16": "width=0.5"}
"""Arguments of a network of half the width, where there is one: what convolutions of such sizes take anyway."""

RATES = (0.5, 0.7)
ROUND_TO = (1, 8)


class Smaller(NamedTuple):
    """One compaction."""

    parameters: int
    flops: float  # over those of the whole network
    deviation: float  # of the outputs from the zeroed network's, relative to the largest
    seconds: float  # of `td.compact`, its first call in the program


class Compactions(NamedTuple):
    """Measurements of one network, the whole one first."""

    timings: list[Timing]
    smaller: dict[str, Smaller]
    beside: list[torch_pruning.Removal]


class Network(NamedTuple):
    """A network at inference with drawn parameters and statistics, and its inputs."""

    apply: Callable[..., Any]
    variables: Params
    inputs: tuple[Any, ...]
    kernels: Any


def networks(names: list[str]) -> dict[str, Measured]:
    """Choose the networks that are measured for some names; the digits' is next to ResNet-32."""
    chosen = [INSTEAD.get(name, name) for name in names]
    return {name: NETWORKS[name] for name in [*chosen, *["digits ResNet"] * ("ResNet-32" in chosen)]}


def drawn(network: Measured) -> Network:
    """Draw initial kernels, and norms as after some training: statistics, scales and biases that all differ."""
    config = load_config(network)
    run, state, batch = prepare(network, config)
    draw = np.random.default_rng(0)

    def fill(path: Any, leaf: Any) -> Any:
        if leaf.ndim != 1:
            return leaf
        positive = any(word in _tree.path_name(path) for word in ("var", "scale"))
        values = draw.uniform(0.5, 2.0, leaf.shape) if positive else draw.normal(0, 0.3, leaf.shape)
        return jnp.asarray(values, leaf.dtype)

    variables = {"params": state.params, "batch_stats": state.batch_stats}
    variables = jax.tree_util.tree_map_with_path(fill, {name: part for name, part in variables.items() if part})
    inputs = jax.tree.map(jnp.asarray, run.experiment.task.inputs(batch, None))
    return Network(run.experiment.model.apply, variables, inputs, config.kernels)


def zeroed(network: Network, rate: float) -> Params:
    """Set the weakest units to zero."""
    mask = td.prune_mask(network.variables["params"], rate, "unit", kernels=network.kernels)
    return {**network.variables, "params": td.apply_mask(network.variables["params"], mask)}


def size(params: Any) -> int:
    """Count the numbers that a network stores, statistics and moved constants included."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _compacted(whole: Callable[..., Any], network: Network, variables: Params, round_to: int) -> tuple[Call, Smaller]:
    start = time.perf_counter()
    small = td.compact(network.apply, variables, *network.inputs, round_to=round_to)
    seconds = time.perf_counter() - start
    off = deviation(whole(variables, *network.inputs), small.apply(small.params, *network.inputs))
    before, after = small.flops
    found = Smaller(size(small.params), after / before, off, seconds)
    return partial(small.apply, small.params, *network.inputs), found


def measure(name: str, network: Measured, repeats: int, baselines: bool) -> tuple[str, Compactions]:
    """Measure one network."""
    dense = drawn(network)
    whole = jax.jit(dense.apply)
    cases: dict[str, Call] = {"dense": partial(whole, dense.variables, *dense.inputs)}
    smaller = {"dense": Smaller(size(dense.variables), 1.0, 0.0, 0.0)}
    for rate in RATES:
        for round_to in ROUND_TO:
            case = f"{rate:.0%} of the units removed" + (f", round_to={round_to}" if round_to > 1 else "")
            cases[case], smaller[case] = _compacted(whole, dense, zeroed(dense, rate), round_to)
    if name in HALVES:
        half, case = drawn(network._replace(arguments=HALVES[name])), "a network of half the width"
        cases[case] = partial(jax.jit(half.apply), half.variables, *half.inputs)
        flops = [count_flops(each.apply, each.variables, *each.inputs) for each in (half, dense)]
        smaller[case] = Smaller(size(half.variables), flops[0] / flops[1], 0.0, 0.0)
    timings = side_by_side(cases, repeats, name)
    beside = torch_pruning.beside(name, dense.variables) if baselines else []
    return f"{name}, batch {network.batch}", Compactions(timings, smaller, beside)


def section(found: Compactions, unit: str) -> str:
    """Format two tables: td, and Torch-Pruning where it was measured."""
    del unit
    lines = []
    for timing in found.timings:
        parameters, flops, off, _ = found.smaller[timing.name]
        ratios = {"time": f"{timing.ratio:.3f}", "FLOPs": f"{flops:.3f}", "time / FLOPs": f"{timing.ratio / flops:.2f}"}
        sizes = {"parameters": f"{parameters:,}", "deviation": f"{off:.0e}", "n": str(timing.calls)}
        lines.append({**times(timing), **ratios, **sizes})
    tables = [as_markdown(lines), *([torch_pruning.table(found.beside)] if found.beside else [])]
    return "\n\n".join(tables)
