"""The time of a compacted network relative to the whole one, next to the ratio of their FLOPs."""

import itertools
import time
from collections.abc import Callable
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
from td.bench.networks import Measured, load_config, prepare
from td.evaluate.deviation import deviation
from td.evaluate.timing import Call, Timing, as_markdown, side_by_side, times
from td.program.flops import count_flops

NETWORKS = {
    "ResNet-32": Measured("cifar10_resnet32", 32, 10),
    "WRN-16-4": Measured("cifar10_wrn", 32, 10, "depth=16,width=4"),  # WRN-28-10 takes a CPU too long
    "VGG-16": Measured("cifar100_vgg16", 32, 100),
    "Transformer base": Measured("wmt14_transformer", 8, 32_000),
    "digits ResNet": Measured("digits_resnet", 128, 10, "", (8, 8, 1)),
}

HALVES = {"WRN-16-4": "depth=16,width=2", "VGG-16": "width=0.5"}
"""Arguments of a network of half the width, where there is one: what convolutions of such sizes take anyway."""


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
    return Network(run.experiment.model.apply, variables, inputs, run.experiment.kernels)


def measure(name: str, network: Measured, repeats: int, baselines: bool) -> tuple[str, Compactions]:
    """Time one network, whole and with its weakest units or groups removed, at two rates and roundings of widths."""
    dense = drawn(network)
    whole = jax.jit(dense.apply)
    cases: dict[str, Call] = {"dense": partial(whole, dense.variables, *dense.inputs)}
    smaller = {"dense": Smaller(optax.tree.size(dense.variables), 1.0, 0.0, 0.0)}
    for rate, granularity in itertools.product((0.5, 0.7), ("unit", "group")):
        params = dense.variables["params"]
        params = td.apply_mask(params, td.prune_mask(params, rate, granularity, kernels=dense.kernels))
        zeroed = {**dense.variables, "params": params}
        for round_to in (1, 8):
            case = f"{rate:.0%} of the {granularity}s removed" + (f", round_to={round_to}" if round_to > 1 else "")
            start = time.perf_counter()
            small = td.compact(dense.apply, zeroed, *dense.inputs, round_to=round_to)
            seconds, (before, after) = time.perf_counter() - start, small.flops
            cases[case] = partial(small.apply, small.params, *dense.inputs)
            off = deviation(whole(zeroed, *dense.inputs), cases[case]())
            smaller[case] = Smaller(optax.tree.size(small.params), after / before, off, seconds)
    if name in HALVES:
        half, case = drawn(network._replace(arguments=HALVES[name])), "a network of half the width"
        cases[case] = partial(jax.jit(half.apply), half.variables, *half.inputs)
        flops = [count_flops(each.apply, each.variables, *each.inputs) for each in (half, dense)]
        smaller[case] = Smaller(optax.tree.size(half.variables), flops[0] / flops[1], 0.0, 0.0)
    others = beside(name, dense.apply, dense.variables) if baselines else []
    timings = side_by_side(cases, repeats, name)
    return f"{name}, batch {network.batch}", Compactions(timings, smaller, others)


def section(found: Compactions, unit: str) -> str:
    """Format two tables: td, and Torch-Pruning where it was measured."""
    del unit
    lines = []
    for timing in found.timings:
        parameters, flops, off, _ = found.smaller[timing.name]
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
    return "\n\n".join(as_markdown(rows) for rows in (lines, others) if rows)
