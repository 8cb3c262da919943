"""Costs of the networks of a prune curve once they are compacted: parameters, FLOPs, milliseconds, bytes."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from td._tree import named_leaves
from td.compact import CompactParams, compact
from td.errors import UserError
from td.evaluate.deviation import COARSE, TOLERANCE, deviation
from td.evaluate.timing import Call, side_by_side
from td.io.progress import progress
from td.train.experiment import Run

BATCHES = (1, 128)  # timed batch sizes: one example as it comes, and enough to keep a processor busy
LEVEL = 9  # of zstd; at its default of 3 a file of nine tenths zeros is a tenth larger


class Compacted(NamedTuple):
    """A compacted network: its costs as fields of a `Row`, and what is timed for the rest of them, by batch size."""

    costs: dict[str, Any]
    small: dict[int, Call]
    whole: dict[int, Call]  # one for all rates of a run: zeros change no time


def compacted(run: Run, rates: Sequence[float], networks: Sequence[Any], round_to: int) -> list[Compacted]:
    """Compact the networks of a prune curve; raise where one has other outputs than the pruned network."""
    if not networks:
        return []
    inputs = {size: examples(run, size) for size in BATCHES}
    apply, tolerance = run.experiment.model.apply, COARSE.get(run.config.model.get("dtype", ""), TOLERANCE)
    pruned = jax.jit(apply)
    whole: dict[int, Call] = {size: partial(pruned, networks[0], *inputs[size]) for size in BATCHES}

    def smaller(rate: float, variables: Mapping[str, Any]) -> Compacted:
        network = compact(apply, variables, *inputs[1], round_to=round_to)
        small: dict[int, Call] = {size: partial(network.apply, network.params, *inputs[size]) for size in BATCHES}
        off = deviation(pruned(variables, *inputs[128]), small[128]())
        if not off <= tolerance:
            what = f"at prune rate {rate:g} outputs of the compacted network deviate by {off:.1e} of the largest"
            raise UserError(f"{what}, more than {tolerance:g}: leave out --compact, and report it")
        small[1]()  # compiled here, beside others
        costs = {
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(network.params)),
            "flops": network.flops[1],
            "compressed_bytes": compressed_bytes(network.params),
            "deviation": off,
        }
        return Compacted(costs, small, whole)

    # Most of the time is XLA's, which compiles several programs at once.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        found = pool.map(smaller, rates, networks)
        return list(progress(found, total=len(rates), desc="compact", unit="rate"))


def costs(networks: Sequence[Compacted], repeats: int) -> list[dict[str, Any]]:
    """Return the costs of compacted networks, timed interleaved: a slow moment of the machine affects them all."""
    found = [dict(each.costs) for each in networks]
    for size in BATCHES:
        cases = {f"small {i}": each.small[size] for i, each in enumerate(networks)}
        cases |= {f"whole {id(each.whole)}": each.whole[size] for each in networks}
        taken = {timing.name: 1e3 * timing.seconds for timing in side_by_side(cases, repeats, f"time, batch {size}")}
        for i, each in enumerate(networks):
            found[i][f"milliseconds_{size}"] = taken[f"small {i}"]
            found[i][f"uncompacted_milliseconds_{size}"] = taken[f"whole {id(each.whole)}"]
    return found


def examples(run: Run, size: int) -> tuple[Any, ...]:
    """Inputs of the model for the first `size` examples of the evaluation split, repeated where it has fewer."""
    batch = next(iter(run.dataset.evaluation.eval_batches(max(BATCHES))))
    chosen = jax.tree.map(lambda leaf: np.asarray(leaf)[np.arange(size) % len(leaf)], batch)
    return run.experiment.task.inputs(chosen, None)


def compressed_bytes(params: CompactParams) -> int:
    """Measure the size of a safetensors file of the weights, compressed by zstd."""
    import zstandard
    from safetensors.numpy import save

    content = save({name: np.ascontiguousarray(leaf) for name, leaf in named_leaves(params._asdict()).items()})
    return len(zstandard.ZstdCompressor(level=LEVEL).compress(content))
