"""Rates by layer: how much of each family of groups, or of each kernel, to prune for a given budget."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import jax
import numpy as np

from td import _tree
from td._entries import Entries, entries_of, named_entries
from td.base import Params
from td.errors import UserError, check_choice, check_fraction
from td.prune import apply_mask, prune_mask
from td.structure import Structure

BUDGETS = ("flops", "parameters")
GRANULARITIES = ("group", "head", "weight")
HOW = ("uniform", "erk", "global", "sensitivity")
ROUNDS = 40
STEPS = 10
"""Rates between 0 and 1 at which the sensitivity of a family is measured."""

Rates = dict[str, float]


def allocate(
    structure: Structure,
    params: Params,
    how: str = "uniform",
    *,
    budget: str = "flops",
    target: float = 0.5,
    granularity: str = "group",
    score: Callable[[Params], float] | None = None,
) -> Rates:
    """Choose a prune rate for each family of groups, or each kernel, so that the network meets a budget.

    "uniform" gives all the same rate; "erk" keeps a density in proportion to `(fan_in + units) / (fan_in * units)`;
    "global" ranks all together by importance; "sensitivity" prunes each as far as the score allows when it is pruned
    alone, the same loss for all.

    Args:
      structure: of the network, as `td.trace` gives it.
      params: the tree that it was traced with.
      how: "uniform", "erk", "global" or "sensitivity".
      budget: "flops" of products and convolutions, or "parameters".
      target: the fraction of the budget to keep, in (0, 1].
      granularity: "group", "head" or "weight"; zero weights count as if they cost nothing.
      score: `params -> number`, higher is better, such as the accuracy on a few training batches; for "sensitivity".

    Returns:
      `{name: rate}`, for `td.prune_mask(params, rates, granularity, kernels=structure)`.

    Raises:
      UserError: an unknown word, a target that the prunable part cannot reach, or no score.

    Example:
      >>> import jax.numpy as jnp, td
      >>> network = lambda p, x: jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]) @ p["c"]
      >>> params = {"a": jnp.ones((4, 8)), "b": jnp.ones((8, 10)), "c": jnp.ones((10, 2))}
      >>> structure = td.trace(network, params, jnp.ones((1, 4)))
      >>> td.allocate(structure, params, target=0.6)
      {'b/groups': 0.5}

    Source: erk: Evci et al. 2020; sensitivity: Li et al. 2017.
    """
    return allocator(structure, params, how, budget=budget, granularity=granularity, score=score)(target)


def allocator(
    structure: Structure,
    params: Params,
    how: str = "uniform",
    *,
    budget: str = "flops",
    granularity: str = "group",
    score: Callable[[Params], float] | None = None,
) -> Callable[[float], Rates]:
    """Build `target -> rates` as `allocate` does, for several targets after one measurement of sensitivities."""
    check_choice("how", how, HOW)
    check_choice("budget", budget, BUDGETS)
    check_choice("granularity", granularity, GRANULARITIES)
    entries = entries_of(params, granularity, structure)
    rates_at = _strength(how, structure, entries, params, score)
    kept = partial(kept_fraction, structure, params, budget=budget, granularity=granularity)

    def meet(target: float) -> Rates:
        check_fraction("target", target)
        if (least := kept(rates_at(1.0))) > target:
            raise UserError(f"target={target:g} is out of reach: {least:.3f} of the {budget} cannot be pruned so")
        low, high = 0.0, 1.0
        for _ in range(ROUNDS):
            middle = (low + high) / 2
            low, high = (middle, high) if kept(rates_at(middle)) > target else (low, middle)
        found = min(rates_at(low), rates_at(high), key=lambda rates: abs(kept(rates) - target))
        if granularity == "weight":
            return found
        sizes = {name: shape[-1] for name, shape in entries.shapes.items()}
        whole = {name: _whole(rate, sizes[name]) for name, rate in found.items()}
        return _refined(whole, sizes, lambda rates: kept(rates) - target)

    return meet


def _refined(rates: Rates, sizes: Mapping[str, int], excess: Callable[[Rates], float]) -> Rates:
    """Prune one entry more or less wherever that comes nearest to the budget, until nothing does."""
    while True:
        now = excess(rates)
        step = 1 if now > 0 else -1
        moved = [{**rates, name: rate + step / sizes[name]} for name, rate in rates.items()]
        moved = [each for each in moved if all(-1e-6 < each[name] < 1 - 1e-6 for name in each)]
        best = min(moved, key=lambda each: abs(excess(each)), default=rates)
        if abs(excess(best)) >= abs(now):
            return rates
        rates = {name: max(0.0, rate) for name, rate in best.items()}


def kept_fraction(
    structure: Structure, params: Params, rates: Mapping[str, float], budget: str = "flops", granularity: str = "group"
) -> float:
    """Predict the fraction of a budget that pruning at some rates keeps.

    Args:
      structure: of the network.
      params: the tree that it was traced with.
      rates: `{name: rate}`.
      budget: "flops" or "parameters".
      granularity: "group", "head" or "weight".

    Returns:
      A number in [0, 1]; of whole groups, as pruning rounds their number down.

    Example:
      >>> import jax.numpy as jnp, td
      >>> network = lambda p, x: jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]) @ p["c"]
      >>> params = {"a": jnp.ones((4, 8)), "b": jnp.ones((8, 10)), "c": jnp.ones((10, 2))}
      >>> structure = td.trace(network, params, jnp.ones((1, 4)))
      >>> print(f"{kept_fraction(structure, params, {'b/groups': 0.5}):.2f}")  # (32 + 40 + 10) / (32 + 80 + 20)
      0.62
    """
    leaves = _tree.named_leaves(params)
    if granularity == "weight":
        density = {path: 1 - rates.get(path, 0.0) for path in leaves}
        terms = [(cost.flops, density.get(cost.path, 1.0)) for cost in structure.costs]
        if budget == "parameters":
            terms = [(leaf.size, density[path]) for path, leaf in leaves.items()]
    else:
        kept = _kept(structure, rates, granularity)
        terms = [(cost.flops, float(math.prod(kept[ids].mean() for ids in cost.factors))) for cost in structure.costs]
        if budget == "parameters":
            tables = (structure.units, structure.inputs, structure.scales, structure.offsets)
            factors = {path: [kept[table[path]].mean() for table in tables if path in table] for path in leaves}
            terms = [(leaf.size, float(math.prod(factors[path]))) for path, leaf in leaves.items()]
    return sum(size * part for size, part in terms) / sum(size for size, _ in terms)


def _whole(rate: float, size: int) -> float:
    """The share of whole entries that a rate prunes; one of each ranking stays."""
    return min(math.floor(rate * size + 1e-6), size - 1) / size


def _kept(structure: Structure, rates: Mapping[str, float], granularity: str) -> np.ndarray:
    """The fraction that is kept of every group's family; the last, number -1, of what never goes."""
    kept = np.ones(structure.size + 1)
    for name, numbers in named_entries(structure, granularity).items():
        groups = numbers.ravel() if granularity == "group" else [structure.head_groups[head] for head in numbers.flat]
        kept[np.concatenate([np.ravel(part) for part in groups])] = 1 - _whole(rates.get(name, 0.0), numbers.shape[1])
    return kept


def _strength(
    how: str, structure: Structure, entries: Entries, params: Params, score: Callable[[Params], float] | None
) -> Callable[[float], Rates]:
    """Build `strength -> rates`, from nothing pruned at 0 to everything that may go at 1."""
    names = list(entries.shapes)
    if how == "uniform":
        return lambda strength: dict.fromkeys(names, strength)
    if how == "erk":
        scale = {name: _erk(structure, name) for name in names}
        return lambda strength: {
            name: max(0.0, 1 - (1 / strength - 1) * scale[name] / min(scale.values())) if strength else 0.0
            for name in names
        }
    if how == "global":
        ranked = {name: np.abs(np.asarray(score)).ravel() for name, score in entries.saliencies().items()}
        order = np.sort(np.concatenate(list(ranked.values())))

        def by_threshold(strength: float) -> Rates:
            count = math.floor(strength * len(order))
            threshold = order[count] if count < len(order) else np.inf
            return {name: float((own < threshold).mean()) for name, own in ranked.items()}

        return by_threshold
    if score is None:
        raise UserError("how='sensitivity' needs score: give a function of params, such as an accuracy")
    drops = _sensitivity(structure, params, entries.granularity, names, score)
    worst = max(max(drop) for drop in drops.values())
    grid = np.linspace(0, 1, STEPS + 1)
    return lambda strength: {name: float(np.interp(strength * worst, drops[name], grid)) for name in names}


def _erk(structure: Structure, name: str) -> float:
    """`(fan_in + units) / (fan_in * units)` of the kernel that a name comes from."""
    path = next(path for path in structure.every if name == path or name.startswith((f"{path}/", f"{path} (")))
    *_, fan_in, units = structure.every[path].matrix_shape
    return (fan_in + units) / (fan_in * units)


def _sensitivity(
    structure: Structure, params: Params, granularity: str, names: Sequence[str], score: Callable[[Params], float]
) -> dict[str, list[float]]:
    """Drops of the score when each is pruned alone, at rising rates; never less at a higher one."""
    whole, found = float(score(params)), {}
    prune = jax.jit(lambda rates: apply_mask(params, prune_mask(params, rates, granularity, kernels=structure)))
    for name in names:
        rates = [{**dict.fromkeys(names, 0.0), name: place / STEPS} for place in range(STEPS + 1)]
        drops = [max(0.0, whole - float(score(prune(each)))) for each in rates]
        found[name] = np.maximum.accumulate(drops).tolist()
    return found
