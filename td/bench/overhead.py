"""The cost of targeted dropout: of masks in copies of the kernels, of training steps in dense steps."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from td import masks, prune, schedules
from td._radix_select import fraction_to_count
from td._tree import named_leaves, replace_leaves
from td.bench.baselines import mask_cases, step_cases
from td.bench.networks import Measured, Stepper, peak_bytes, prepare
from td.evaluate.timing import Call, Timing, as_table, side_by_side
from td.kernels import Patterns, kernel_keys, select_kernels
from td.train.experiment import Run, in_steps
from td.train.optimizer import make_optimizer
from td.train.state import TrainState
from td.train.step import smoothed_cross_entropy

TARGET_PROPORTION, DROP_RATE = 0.75, 0.66


def random_params(network: Measured) -> tuple[dict[str, Array], Patterns]:
    """Draw normal numbers in the shapes of a network's parameters, by path; returns its structure as well."""
    run, shapes, _ = prepare(network, shapes_only=True)
    leaves = named_leaves(shapes.params)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    params = {path: jax.random.normal(key, leaves[path].shape) for path, key in zip(leaves, keys, strict=True)}
    return params, run.experiment.kernels


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


def measure_masks(name: str, network: Measured, repeats: int, baselines: bool) -> tuple[str, list[Timing]]:
    """Compare functions of a network's kernels, the copy first."""
    params, structure = random_params(network)
    kernels = select_kernels(params, structure)
    rising = schedules.ramp(TARGET_PROPORTION, 250)  # at its end at step 500
    key, step = jax.random.key(1), jnp.int32(500)
    copy = jax.jit(lambda kernels, factor: jax.tree.map(lambda kernel: kernel * factor, kernels))
    cases: dict[str, Call] = {"copy": partial(copy, kernels, jnp.float32(1))}
    for granularity in ("weight", "unit", "group"):
        for kind, proportion in (("fixed", TARGET_PROPORTION), ("scheduled", rising)):
            transform = masks.targeted(granularity, proportion, DROP_RATE, kernels=structure)
            apply = jax.jit(lambda *given, key, step, apply=transform.apply: apply(*given, key=key, step=step)[0])
            given = params, transform.init(key, params)
            cases[f"targeted {granularity}, {kind}"] = partial(apply, *given, key=key, step=step)
        mask = jax.jit(partial(prune.prune_mask, granularity=granularity, kernels=structure))
        cases[f"prune mask, {granularity}"] = partial(mask, params, jnp.float32(TARGET_PROPORTION))
    if baselines:
        numbers = jnp.float32(TARGET_PROPORTION), jnp.float32(DROP_RATE)
        cases["by argsort, JAX"] = partial(jax.jit(by_sorting), kernels, *numbers, key)
        cases |= mask_cases(kernels, TARGET_PROPORTION, DROP_RATE)
    size = sum(kernel.size for kernel in kernels.values())
    return f"{name}, {size:,} weights in {len(kernels)} kernels", side_by_side(cases, repeats, name)


TARGETED = {"mask.target_proportion": TARGET_PROPORTION, "mask.drop_rate": DROP_RATE}
DENSE = "dense"


class Case(NamedTuple):
    """A training step of td."""

    name: str
    arguments: str  # of the network's config
    settings: dict[str, Any]


CASES = (
    Case(DENSE, "mask=none", {}),
    Case("targeted weight", "mask=targeted,granularity=weight", TARGETED),
    Case("targeted unit", "mask=targeted,granularity=unit", TARGETED),
    Case("targeted group", "mask=targeted,granularity=group", TARGETED),
)


class Steps(NamedTuple):
    """Measurements of one network."""

    timings: list[Timing]  # the dense step first
    peak_bytes: dict[str, int]  # of td's steps, by name


def minimal(run: Run, first: TrainState, batch: Any, sorting: bool) -> Call:
    """Build the step that one would write by hand in Flax: loss, gradient, update, and no metrics."""
    _, settings = in_steps(run.config, run.dataset)
    model, task, optimizer = run.experiment.model, run.experiment.task, make_optimizer(settings, run.steps)
    l2, smoothing, kernels = run.experiment.l2, run.experiment.label_smoothing, run.experiment.kernels

    def step(params: Any, statistics: Any, opt_state: Any, number: Any, batch: Any) -> Any:
        key = jax.random.fold_in(run.key, number)

        def loss_fn(params: Any) -> Any:
            masked = params
            if sorting:
                shares = jnp.float32(TARGET_PROPORTION), jnp.float32(DROP_RATE)
                masked = replace_leaves(params, by_sorting(select_kernels(params, kernels), *shares, key))
            variables, rngs = {"params": masked, "batch_stats": statistics}, {"dropout": key}
            inputs, (labels, weights) = task.inputs(batch, key), task.targets(batch)
            logits, updated = model.apply(variables, *inputs, train=True, mutable=["batch_stats"], rngs=rngs)
            losses = smoothed_cross_entropy(logits, labels, smoothing)
            squares = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params) if leaf.ndim > 1) if l2 else 0
            return (losses * weights).sum() / weights.sum() + l2 / 2 * squares, updated.get("batch_stats", {})

        (loss, statistics), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
        # td trains `(params, gates)`; the optimiser is the same one.
        updates, opt_state = optimizer.update((gradient, ()), opt_state, (params, ()))
        params, _ = optax.apply_updates((params, ()), updates)
        return params, statistics, opt_state, number + 1, loss

    state: list[Any] = [first.params, first.batch_stats, optimizer.init((first.params, ())), jnp.int32(0)]
    donating = jax.jit(step, donate_argnums=(0, 1, 2)).lower(*state, batch).compile()
    state = jax.tree.map(jnp.copy, state)

    def call() -> Any:
        *state[:], loss = donating(*state, batch)
        return loss

    return call


def measure_steps(name: str, network: Measured, repeats: int, baselines: bool) -> tuple[str, Steps]:
    """Measure one network."""
    cases: dict[str, Call] = {}
    by_hand: dict[str, Call] = {}
    peaks: dict[str, int] = {}
    for case, arguments, settings in CASES:
        run, state, batch = prepare(network, arguments, settings)
        if case == DENSE and baselines:
            on_device = jax.device_put(batch)
            by_hand["dense, minimal Flax"] = minimal(run, state, on_device, sorting=False)
            by_hand["targeted by argsort, minimal Flax"] = minimal(run, state, on_device, sorting=True)
        cases[case] = stepper = Stepper(run, state, batch)
        peaks[case] = peak_bytes(stepper.compiled)
    cases |= by_hand
    if baselines:
        cases |= step_cases(name, network.batch, network.classes, TARGET_PROPORTION, DROP_RATE)
    return f"{name}, batch {network.batch}", Steps(side_by_side(cases, repeats, name), peaks)


def section(found: Steps, unit: str) -> str:
    """Format the times, and the memory at the peak."""
    dense = found.peak_bytes[DENSE]
    peaks = [f"{name} {peak / 2**20:.0f} MiB ({peak / dense:.2f})" for name, peak in found.peak_bytes.items()]
    return f"{as_table(found.timings, unit)}\n\nMemory at the peak: {', '.join(peaks)}."
