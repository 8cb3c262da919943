"""The time of a compacted network over that of the whole one, beside the ratio of their FLOPs."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tabulate import tabulate

import td
from td import tree
from td.base import Params
from td.bench import torch_pruning
from td.bench.networks import Measured, load_config, prepare
from td.compact.flops import count_flops
from td.evaluate.timing import Call, Timing, side_by_side

NETWORKS = {
    "ResNet-32": Measured("cifar10_resnet32", 32, 10),
    "WRN-16-4": Measured("cifar10_wrn", 32, 10, "depth=16,width=4"),
    "VGG-16": Measured("cifar100_vgg16", 32, 100),
    "Transformer base": Measured("wmt14_transformer", 8, 32_000),
    "digits ResNet": Measured("digits_resnet", 128, 10, "", (8, 8, 1)),
}
ASKED = {"WRN-28-10": "WRN-16-4"}
"""What is measured in place of a network that takes a CPU too long."""

HALVES = {"WRN-16-4": "depth=16,width=2", "VGG-16": "width=0.5"}
"""The arguments of a network of half the width, as far as there is one: what convolutions of such sizes take anyway."""

RATES = (0.5, 0.7)
ROUND_TO = (1, 8)


class Smaller(NamedTuple):
    """One compaction: what is left, and how far its outputs are from those of the zeroed network."""

    parameters: int
    flops: float  # over those of the whole network
    deviation: float  # the largest, over the largest output
    seconds: float  # of `td.compact`, its first call in the program


class Compactions(NamedTuple):
    """What was measured of one network: the whole one first, of which `smaller` has the parameters alone."""

    timings: list[Timing]
    smaller: dict[str, Smaller]
    beside: list[torch_pruning.Removal]


class Network(NamedTuple):
    """A network at inference with drawn params and statistics, and what it is given."""

    apply: Callable[..., Any]
    variables: Params
    inputs: tuple[Any, ...]
    kernels: Any


def drawn(network: Measured) -> Network:
    """Initial kernels, and norms as after some training: statistics, scales and biases that are all different."""
    config = load_config(network)
    run, state, batch = prepare(network, config)
    draw = np.random.default_rng(0)

    def fill(path: Any, leaf: Any) -> Any:
        name = tree.path_name(path)
        if leaf.ndim != 1:
            return leaf
        spread = draw.uniform(0.5, 2.0, leaf.shape) if "var" in name or "scale" in name else None
        return jnp.asarray(draw.normal(0, 0.3, leaf.shape) if spread is None else spread, leaf.dtype)

    variables = {"params": state.params, "batch_stats": state.batch_stats}
    variables = jax.tree_util.tree_map_with_path(fill, {name: part for name, part in variables.items() if part})
    inputs = jax.tree.map(jnp.asarray, run.experiment.task.inputs(batch, None))
    return Network(run.experiment.model.apply, variables, inputs, config.kernels)


def zeroed(network: Network, rate: float) -> Params:
    """The weakest units of the kernels that training masks set to zero."""
    mask = td.prune_mask(network.variables["params"], rate, "unit", kernels=network.kernels)
    return {**network.variables, "params": td.apply_mask(network.variables["params"], mask)}


def numbers(params: Any) -> int:
    """How many a network stores, statistics and moved constants among them."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _on(apply: Callable[..., Any], inputs: tuple[Any, ...]) -> Callable[[Params], Any]:
    return lambda params: apply(params, *inputs)


def _compacted(
    whole: Callable[[Params], Any], network: Network, variables: Params, round_to: int
) -> tuple[Call, Smaller]:
    start = time.perf_counter()
    small = td.compact(network.apply, variables, *network.inputs, round_to=round_to)
    seconds = time.perf_counter() - start
    expected, found = whole(variables), small.apply(small.params, *network.inputs)
    before, after = small.flops
    deviation = float(jnp.abs(found - expected).max() / jnp.abs(expected).max())
    return partial(small.apply, small.params, *network.inputs), Smaller(
        numbers(small.params), after / before, deviation, seconds
    )


def measure(names: list[str], calls: int, peers: bool) -> Iterator[tuple[str, Compactions]]:
    """Measure the networks one after another, and the digits' with ResNet-32."""
    chosen = [ASKED.get(name, name) for name in names]
    chosen += ["digits ResNet"] if "ResNet-32" in chosen else []
    for name in chosen:
        network = drawn(NETWORKS[name])
        whole = _on(jax.jit(network.apply), network.inputs)
        cases: dict[str, Call] = {"dense": partial(whole, network.variables)}
        smaller = {"dense": Smaller(numbers(network.variables), 1.0, 0.0, 0.0)}
        for rate in RATES:
            for round_to in ROUND_TO:
                case = f"{rate:.0%} of the units removed" + (f", round_to={round_to}" if round_to > 1 else "")
                cases[case], smaller[case] = _compacted(whole, network, zeroed(network, rate), round_to)
        if name in HALVES:
            half, case = drawn(NETWORKS[name]._replace(arguments=HALVES[name])), "a network of half the width"
            cases[case] = partial(jax.jit(half.apply), half.variables, *half.inputs)
            flops = (count_flops(each.apply, each.variables, *each.inputs) for each in (half, network))
            smaller[case] = Smaller(numbers(half.variables), next(flops) / next(flops), 0.0, 0.0)
        timings = side_by_side(cases, calls, name)
        beside = torch_pruning.beside(name, network.variables) if peers else []
        yield f"{name}, batch {NETWORKS[name].batch}", Compactions(timings, smaller, beside)


def section(found: Compactions) -> str:
    """Two tables: ours, and Torch-Pruning beside it where it was measured."""
    lines = []
    for timing in found.timings:
        of = found.smaller[timing.name]
        times = f"{1e3 * timing.seconds:.2f}", f"{1e3 * timing.low:.2f} to {1e3 * timing.high:.2f}"
        ratios = f"{timing.ratio:.3f}", f"{of.flops:.3f}", f"{timing.ratio / of.flops:.2f}"
        lines.append((timing.name, *times, *ratios, f"{of.parameters:,}", f"{of.deviation:.0e}", str(timing.calls)))
    heads = ("", "median ms", "quartiles", "time", "FLOPs", "time / FLOPs", "parameters", "deviation", "n")
    table = str(tabulate(lines, heads, "github", disable_numparse=True, colalign=("left", *["right"] * 8)))
    return "\n\n".join([table, torch_pruning.table(found.beside)] if found.beside else [table])
