"""The cost of a mask, in copies of the kernels: reading every maskable weight once and writing it once."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from td import masks, prune, schedules
from td._radix_select import fraction_to_count
from td.bench.baselines import mask_cases
from td.bench.networks import Measured, load_config, prepare
from td.evaluate.timing import Call, Timing, side_by_side
from td.kernels import kernel_keys, select_kernels

TARGET_PROPORTION, DROP_RATE = 0.75, 0.66


def random_kernels(network: Measured) -> dict[str, Array]:
    """Draw normal numbers in the shapes of a network's maskable kernels."""
    config = load_config(network)
    _, shapes, _ = prepare(network, config, shapes_only=True)
    chosen = select_kernels(shapes.params, config.kernels)
    keys = jax.random.split(jax.random.key(0), len(chosen))
    return {path: jax.random.normal(key, chosen[path].shape) for path, key in zip(chosen, keys, strict=True)}


def by_sorting(kernels: dict[str, Array], proportion: Array, rate: Array, key: Array) -> dict[str, Array]:
    """Targeted dropout as it is usually written: ranks by `argsort`, draws by `jax.random`."""
    keys = kernel_keys(key, 0, kernels)

    def drop(path: str, kernel: Array) -> Array:
        matrix = kernel.reshape(-1, kernel.shape[-1])
        ranks = jnp.argsort(jnp.argsort(jnp.abs(matrix), axis=0), axis=0)
        dropped = ranks < fraction_to_count(proportion, matrix.shape[0])
        dropped &= jax.random.bernoulli(keys[path], rate, matrix.shape)
        return jnp.where(dropped, 0, matrix).reshape(kernel.shape)

    return {path: drop(path, kernel) for path, kernel in kernels.items()}


def measure(name: str, network: Measured, repeats: int, baselines: bool) -> tuple[str, list[Timing]]:
    """Compare functions of a network's kernels, the copy first."""
    kernels = random_kernels(network)
    rising = schedules.ramp(TARGET_PROPORTION, 250)  # at its end at step 500
    key, step = jax.random.key(1), jnp.int32(500)
    copy = jax.jit(lambda kernels, factor: jax.tree.map(lambda kernel: kernel * factor, kernels))
    cases: dict[str, Call] = {"copy": partial(copy, kernels, jnp.float32(1))}
    for granularity in ("weight", "unit"):
        for kind, proportion in (("fixed", TARGET_PROPORTION), ("scheduled", rising)):
            transform = masks.targeted(granularity, proportion, DROP_RATE, kernels=".*")
            apply = jax.jit(lambda *given, key, step, apply=transform.apply: apply(*given, key=key, step=step)[0])
            given = kernels, transform.init(key, kernels)
            cases[f"targeted {granularity}, {kind}"] = partial(apply, *given, key=key, step=step)
        mask = jax.jit(partial(prune.prune_mask, granularity=granularity, kernels=".*"))
        cases[f"prune mask, {granularity}"] = partial(mask, kernels, jnp.float32(TARGET_PROPORTION))
    if baselines:
        numbers = jnp.float32(TARGET_PROPORTION), jnp.float32(DROP_RATE)
        cases["by argsort, JAX"] = partial(jax.jit(by_sorting), kernels, *numbers, key)
        cases |= mask_cases(kernels, TARGET_PROPORTION, DROP_RATE)
    size = sum(kernel.size for kernel in kernels.values())
    return f"{name}, {size:,} weights in {len(kernels)} kernels", side_by_side(cases, repeats, name)
