"""What the networks of a prune curve cost once they are compacted: parameters, FLOPs, milliseconds, bytes."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from td.compact.api import Compact, CompactParams, compact
from td.errors import UserError
from td.evaluate.options import Options
from td.evaluate.timing import side_by_side
from td.io.progress import progress
from td.train.experiment import Run
from td.tree import named_leaves

BATCHES = (1, 128)
"""Sizes that are timed: one example as it comes, and as many as keep a processor busy."""

TOLERANCE = 1e-4
"""By how much of the largest output a compacted network may deviate: sums are in another order."""

COARSE = {"bfloat16": 5e-2, "float16": 1e-2}
"""The same for dtypes of fewer bits."""

LEVEL = 9
"""Of zstd. At its default of 3 a file of which nine tenths are zeros is a tenth larger."""

Variables = dict[str, Any]
"""A network as Flax applies it: `params`, and `batch_stats` where it has BatchNorm."""


class Costs(NamedTuple):
    """What one compacted network costs; attributes as in `Row`. Parameters are all its numbers, statistics as well."""

    parameters: int
    flops: int
    milliseconds_1: float
    milliseconds_128: float
    uncompacted_milliseconds_1: float
    uncompacted_milliseconds_128: float
    compressed_bytes: int
    deviation: float


class Smaller(NamedTuple):
    """A compacted network.

    Attributes:
      network: itself.
      whole: inputs -> outputs of the network that was not compacted, as training and evaluation apply it. One for a
        run: zeros change no time.
      deviation: the largest of the outputs.
      inputs: what both are timed on, by the size of the batch.
    """

    network: Compact
    whole: Callable[..., Any]
    deviation: float
    inputs: dict[int, tuple[Any, ...]]


def compacted(run: Run, rates: Sequence[float], networks: Sequence[Variables], options: Options) -> list[Smaller]:
    """Compact the networks of a prune curve; outputs that are not the pruned network's are an error."""
    inputs = {size: examples(run, size) for size in BATCHES}
    apply = partial(_apply, run.experiment.model)
    pruned, tolerance = jax.jit(apply), COARSE.get(run.config.model.get("dtype", ""), TOLERANCE)
    whole = partial(pruned, networks[0])

    def smaller(rate: float, variables: Variables) -> Smaller:
        small = compact(apply, variables, *inputs[1], round_to=options.round_to)
        off = deviation(pruned(variables, *inputs[128]), small.apply(small.params, *inputs[128]))
        if not off <= tolerance:
            raise UserError(
                f"at prune rate {rate:g} the compacted network's outputs deviate by {off:.1e} of the largest, more "
                f"than {tolerance:g}: compaction is wrong here; leave out --compact, and report it"
            )
        small.apply(small.params, *inputs[1])  # compiled here, beside others
        return Smaller(small, whole, off, inputs)

    # Most of the time is XLA's, which compiles several programs at once.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        found = pool.map(smaller, rates, networks)
        return list(progress(found, total=len(rates), desc="compact", unit="rate"))


def costs(networks: Sequence[Smaller], calls: int) -> list[Costs]:
    """What compacted networks cost, all of them timed in turns: a slow moment of the machine meets them all."""
    one, many = (milliseconds(networks, size, calls) for size in BATCHES)
    return [
        Costs(
            parameters=sum(leaf.size for leaf in jax.tree.leaves(each.network.params)),
            flops=each.network.flops[1],
            milliseconds_1=one[i],
            milliseconds_128=many[i],
            uncompacted_milliseconds_1=one[id(each.whole)],
            uncompacted_milliseconds_128=many[id(each.whole)],
            compressed_bytes=compressed_bytes(each.network.params),
            deviation=each.deviation,
        )
        for i, each in enumerate(networks)
    ]


def milliseconds(networks: Sequence[Smaller], size: int, calls: int) -> dict[int, float]:
    """Medians at one size of the batch: of compacted networks by number, of whole ones by identity."""
    cases = {i: partial(_outputs, each.network, each.inputs[size]) for i, each in enumerate(networks)}
    cases |= {id(each.whole): partial(each.whole, *each.inputs[size]) for each in networks}
    timings = side_by_side({str(case): call for case, call in cases.items()}, calls, f"time, batch {size}")
    return {int(timing.name): 1e3 * timing.seconds for timing in timings}


def _outputs(network: Compact, inputs: tuple[Any, ...]) -> Any:
    return network.apply(network.params, *inputs)


def _apply(model: Any, variables: Variables, *inputs: Any) -> Any:
    return model.apply(variables, *inputs)


def examples(run: Run, size: int) -> tuple[Any, ...]:
    """What a model is called with: so many examples of the evaluation split, from the first on, and again from it."""
    batch = next(iter(run.dataset.evaluation.eval_batches(max(BATCHES))))
    chosen = jax.tree.map(lambda leaf: np.asarray(leaf)[np.arange(size) % len(leaf)], batch)
    return run.experiment.task.inputs(chosen, None)


def deviation(expected: Any, found: Any) -> float:
    """The largest difference, as a share of the largest output.

    Example:
      >>> deviation([4.0, 1.0], [4.0, 2.0])
      0.25
    """
    expected, found = (np.asarray(array, np.float64) for array in (expected, found))
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), np.finfo(np.float32).tiny))


def compressed_bytes(params: CompactParams) -> int:
    """The size of a safetensors file of the weights, zstd-compressed."""
    import zstandard
    from safetensors.numpy import save

    named = named_leaves(params._asdict())
    content = save({name: np.ascontiguousarray(leaf) for name, leaf in named.items()})
    return len(zstandard.ZstdCompressor(level=LEVEL).compress(content))
