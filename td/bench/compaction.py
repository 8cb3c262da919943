"""The time of a compacted network relative to the whole one, next to the ratio of their FLOPs."""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import td
from td import _tree
from td.base import Params
from td.bench.baselines import Removal, beside
from td.bench.networks import Measured, prepare
from td.evaluate.deviation import deviation
from td.evaluate.timing import Call, Timing, as_markdown, side_by_side, times
from td.program.flops import count_flops

NETWORKS = {
    "ResNet-32": Measured("cifar10_resnet32", 32, 10),
    "WRN-16-4": Measured("cifar10_wrn", 32, 10, "depth=16,width=4"),  # WRN-28-10 takes a CPU too long
    "VGG-16": Measured("cifar100_vgg16", 32, 100),
    "Transformer base": Measured("wmt14_transformer", 8, 32_000),
    "digits ResNet": Measured("digits_resnet", 128, 10, "", (8, 8, 1)),
    "bottleneck ResNet-26": Measured("imagenet_resnet", 1, 1000, "depth=26", (64, 64, 3)),
}

HALVES: dict[str, tuple[str, dict[str, Any]]] = {
    "ResNet-32": ("", {"model.widths": (16, 32, 64), "model.stem_width": 8}),
    "WRN-16-4": ("depth=16,width=2", {}),
    "VGG-16": ("width=0.5", {}),
    "bottleneck ResNet-26": ("depth=26", {"model.width": 32}),
}
"""Arguments and settings of a network of half the width, what half of the groups leave."""

HALF, HALVED = "a network of half the width", "50% of the groups removed"
GOALS = (1.02, 1.25)
"""Largest time over the whole network's, and over that of a network built at its widths."""


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
    beside: list[Removal]


class Network(NamedTuple):
    """A network at inference with drawn parameters and statistics, and its inputs."""

    apply: Callable[..., Any]
    variables: Params
    inputs: tuple[Any, ...]
    kernels: Any


def drawn(network: Measured, settings: Mapping[str, Any] | None = None) -> Network:
    """Draw initial kernels, and norms as after some training: statistics, scales and biases that all differ."""
    run, state, batch = prepare(network, "", settings)
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
    return Network(run.experiment.model.apply, variables, inputs, run.experiment.kernels)


def measure(name: str, network: Measured, repeats: int, baselines: bool) -> tuple[str, Compactions]:
    """Time one network, whole and without its weakest units, groups, or units that are added to a stream."""
    dense = drawn(network)
    whole = jax.jit(dense.apply)
    cases: dict[str, Call] = {"dense": partial(whole, dense.variables, *dense.inputs)}
    smaller = {"dense": Smaller(optax.tree.size(dense.variables), 1.0, 0.0, 0.0)}
    params, writers = dense.variables["params"], _writers(dense.kernels)
    for rate, kind in itertools.product((0.5, 0.7), ("units", "groups", "writers")):
        case = f"{rate:.0%} of the {kind} removed"
        rates: Any = {path: rate * (path in writers) for path in dense.kernels.kernels} if kind == "writers" else rate
        mask = td.prune_mask(params, rates, "group" if kind == "groups" else "unit", kernels=dense.kernels)
        zeroed = {**dense.variables, "params": td.apply_mask(params, mask)}
        start = time.perf_counter()
        small = td.compact(dense.apply, zeroed, *dense.inputs)
        seconds, (before, after) = time.perf_counter() - start, small.flops
        cases[case] = partial(small.apply, small.params, *dense.inputs)
        off = deviation(whole(zeroed, *dense.inputs), cases[case]())
        smaller[case] = Smaller(optax.tree.size(small.params), after / before, off, seconds)
    if name in HALVES:
        arguments, settings = HALVES[name]
        half = drawn(network._replace(arguments=arguments), settings)
        cases[HALF] = partial(jax.jit(half.apply), half.variables, *half.inputs)
        flops = [count_flops(each.apply, each.variables, *each.inputs) for each in (half, dense)]
        smaller[HALF] = Smaller(optax.tree.size(half.variables), flops[0] / flops[1], 0.0, 0.0)
    others = beside(name, dense.apply, dense.variables) if baselines else []
    timings = side_by_side(cases, repeats, name)
    return f"{name}, batch {network.batch}", Compactions(timings, smaller, others)


def _writers(structure: td.Structure) -> set[str]:
    """Kernels whose units are added to those of another one."""
    made = [
        {path for path, ids in structure.units.items() if np.isin(numbers, ids).any()}
        for numbers in structure.families.values()
    ]
    return {path for paths in made if len(paths) > 1 for path in paths}


def worst(timings: Sequence[Timing]) -> str:
    """Say by how much goals are met or missed."""
    ratios = {timing.name: timing.ratio for timing in timings[1:]}
    built = ratios.pop(HALF, None)
    case = max(ratios, key=lambda name: ratios[name])
    found = [(f"{case}: {ratios[case]:.2f} of dense", ratios[case], GOALS[0])]
    if built is not None:
        share = ratios[HALVED] / built
        found.append((f"{HALVED}: {share:.2f} of {HALF}", share, GOALS[1]))
    said = (f"{words} ({'meets' if ratio <= goal else 'MISSES'} {goal})" for words, ratio, goal in found)
    return f"Worst: {'; '.join(said)}."


def section(found: Compactions, _: str) -> str:
    """Format two tables, td's with its worst ratios, and Torch-Pruning's where it was measured."""
    lines = []
    for timing in found.timings:
        parameters, flops, off = found.smaller[timing.name][:3]
        ratios = {"time": f"{timing.ratio:.3f}", "FLOPs": f"{flops:.3f}", "time / FLOPs": f"{timing.ratio / flops:.2f}"}
        sizes = {"parameters": f"{parameters:,}", "deviation": f"{off:.0e}", "n": str(timing.calls)}
        lines.append({**times(timing), **ratios, **sizes})
    others = [
        {
            "inner half removed": row.name,
            "parameters": f"{row.parameters:,}",
            "deviation": f"{row.deviation:.1e}",
            "predictions that differ": f"{row.differing} of {row.images}",
            "seconds": f"{row.seconds:.2f}",
        }
        for row in found.beside
    ]
    tables = [as_markdown(lines), worst(found.timings), *([as_markdown(others)] if others else [])]
    return "\n\n".join(tables)
