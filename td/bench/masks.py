"""The cost of a mask, in copies of the kernels: reading every maskable weight once and writing it once."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from td import masks, prune, schedules, tree
from td.base import MaskTransform
from td.bench.networks import NETWORKS, load_config, prepare
from td.bench.peers import mask_cases
from td.evaluate.timing import Call, Timing, side_by_side
from td.kernels import select_kernels
from td.threshold import share_to_count

TARGET_PROPORTION, DROP_RATE = 0.75, 0.66


def random_kernels(name: str) -> dict[str, Array]:
    """Normal numbers in the shape of a network's maskable kernels."""
    config = load_config(NETWORKS[name])
    _, shapes, _ = prepare(NETWORKS[name], config, shapes_only=True)
    chosen = select_kernels(shapes.params, config.kernels)
    keys = jax.random.split(jax.random.key(0), len(chosen))
    return {path: jax.random.normal(key, chosen[path].shape) for path, key in zip(chosen, keys, strict=True)}


def by_sorting(kernels: dict[str, Array], proportion: Array, rate: Array, key: Array) -> dict[str, Array]:
    """Targeted dropout as it is usually written: ranks by `argsort`, draws by `jax.random`."""
    keys = tree.kernel_keys(key, 0, kernels)

    def drop(path: str, matrix: Array) -> Array:
        ranks = jnp.argsort(jnp.argsort(jnp.abs(matrix), axis=0), axis=0)
        chosen = ranks < share_to_count(proportion, matrix.shape[0])
        dropped = chosen & jax.random.bernoulli(keys[path], rate, matrix.shape)
        return jnp.where(dropped, 0, matrix)

    return {
        path: drop(path, kernel.reshape(-1, kernel.shape[-1])).reshape(kernel.shape) for path, kernel in kernels.items()
    }


def cases(kernels: dict[str, Array], peers: bool = False) -> dict[str, Call]:
    """The functions that are compared, the copy first."""
    rising = schedules.ramp(TARGET_PROPORTION, 250)  # at its end at step 500
    one, key, step = jnp.float32(1), jax.random.key(1), jnp.int32(500)
    copy = jax.jit(lambda kernels, factor: jax.tree.map(lambda kernel: kernel * factor, kernels))
    found: dict[str, Call] = {"copy": lambda: copy(kernels, one)}
    for granularity in ("weight", "unit"):
        for told, proportion in (("fixed", TARGET_PROPORTION), ("scheduled", rising)):
            transform = masks.targeted(granularity, proportion, DROP_RATE, kernels=".*")
            found[f"targeted {granularity}, {told}"] = _drawn(transform, kernels, key, step)
        mask = jax.jit(partial(prune.prune_mask, granularity=granularity, kernels=".*"))
        found[f"prune mask, {granularity}"] = partial(mask, kernels, jnp.float32(TARGET_PROPORTION))
    if peers:
        numbers = jnp.float32(TARGET_PROPORTION), jnp.float32(DROP_RATE)
        sorting = jax.jit(by_sorting)
        found["by argsort, JAX"] = lambda: sorting(kernels, *numbers, key)
        found |= mask_cases(kernels, TARGET_PROPORTION, DROP_RATE)
    return found


def _drawn(transform: MaskTransform, kernels: dict[str, Array], key: Array, step: Array) -> Call:
    mask_vars = transform.init(key, kernels)
    seen = jax.jit(lambda kernels, key, step: transform.apply(kernels, mask_vars, key=key, step=step)[0])
    return partial(seen, kernels, key, step)


def measure(names: list[str], calls: int, peers: bool) -> Iterator[tuple[str, list[Timing]]]:
    """Measure the networks one after another."""
    for name in names:
        kernels = random_kernels(name)
        size = sum(kernel.size for kernel in kernels.values())
        yield f"{name}, {size:,} weights in {len(kernels)} kernels", side_by_side(cases(kernels, peers), calls, name)
