"""Costs of the networks of a prune curve once they are compacted: parameters, FLOPs, milliseconds, bytes."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from td.compact import Compact, CompactParams, compact
from td.errors import UserError
from td.evaluate.point import Variables
from td.evaluate.timing import side_by_side
from td.io.progress import progress
from td.train.experiment import Run
from td.tree import named_leaves

BATCHES = (1, 128)
"""Timed batch sizes: one example as it comes, and enough to keep a processor busy."""

TOLERANCE = 1e-4
"""Largest deviation of a compacted network, relative to the largest output: sums are taken in another order."""

COARSE = {"bfloat16": 5e-2, "float16": 1e-2}
"""The same for dtypes of fewer bits."""

LEVEL = 9
"""Of zstd. At its default of 3 a file of nine tenths zeros is a tenth larger."""


class Costs(NamedTuple):
    """Costs of one compacted network, described at `Row`."""

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
      network: The compacted network.
      whole: `inputs -> outputs` of the whole network, one for all rates of a run: zeros change no time.
      deviation: The largest deviation of the outputs.
      inputs: The timed inputs by batch size.
    """

    network: Compact
    whole: Callable[..., Any]
    deviation: float
    inputs: dict[int, tuple[Any, ...]]


def compacted(run: Run, rates: Sequence[float], networks: Sequence[Variables], round_to: int) -> list[Smaller]:
    """Compact the networks of a prune curve; raise where one has other outputs than the pruned network."""
    if not networks:
        return []
    inputs = {size: examples(run, size) for size in BATCHES}
    apply, tolerance = run.experiment.model.apply, COARSE.get(run.config.model.get("dtype", ""), TOLERANCE)
    pruned = jax.jit(apply)
    whole = partial(pruned, networks[0])

    def smaller(rate: float, variables: Variables) -> Smaller:
        small = compact(apply, variables, *inputs[1], round_to=round_to)
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


def costs(networks: Sequence[Smaller], repeats: int) -> list[Costs]:
    """Measure what compacted networks cost, timed interleaved: a slow moment of the machine affects them all."""
    one, many = (milliseconds(networks, size, repeats) for size in BATCHES)
    return [
        Costs(
            parameters=sum(leaf.size for leaf in jax.tree.leaves(each.network.params)),
            flops=each.network.flops[1],
            milliseconds_1=one[id(each)],
            milliseconds_128=many[id(each)],
            uncompacted_milliseconds_1=one[id(each.whole)],
            uncompacted_milliseconds_128=many[id(each.whole)],
            compressed_bytes=compressed_bytes(each.network.params),
            deviation=each.deviation,
        )
        for each in networks
    ]


def milliseconds(networks: Sequence[Smaller], size: int, repeats: int) -> dict[int, float]:
    """Median times at one batch size, by the identity of the compacted or whole network."""
    cases = {str(id(each)): partial(each.network.apply, each.network.params, *each.inputs[size]) for each in networks}
    cases |= {str(id(each.whole)): partial(each.whole, *each.inputs[size]) for each in networks}
    timings = side_by_side(cases, repeats, f"time, batch {size}")
    return {int(timing.name): 1e3 * timing.seconds for timing in timings}


def examples(run: Run, size: int) -> tuple[Any, ...]:
    """Inputs of the model for the first `size` examples of the evaluation split, repeated where it has fewer."""
    batch = next(iter(run.dataset.evaluation.eval_batches(max(BATCHES))))
    chosen = jax.tree.map(lambda leaf: np.asarray(leaf)[np.arange(size) % len(leaf)], batch)
    return run.experiment.task.inputs(chosen, None)


def deviation(expected: Any, found: Any) -> float:
    """Measure the largest difference, relative to the largest output.

    Example:
      >>> deviation([4.0, 1.0], [4.0, 2.0])
      0.25
    """
    expected, found = (np.asarray(array, np.float64) for array in (expected, found))
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), np.finfo(np.float32).tiny))


def compressed_bytes(params: CompactParams) -> int:
    """Measure the size of a safetensors file of the weights, compressed by zstd."""
    import zstandard
    from safetensors.numpy import save

    content = save({name: np.ascontiguousarray(leaf) for name, leaf in named_leaves(params._asdict()).items()})
    return len(zstandard.ZstdCompressor(level=LEVEL).compress(content))
