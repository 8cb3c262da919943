"""`td.reconstruct`: a network and its reference run side by side, from one product to the next."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from td.base import Params
from td.errors import UserError, check_at_least
from td.program.equations import Equation
from td.program.trace import abstract, trace
from td.prune import apply_mask
from td.reconstruct.products import Entries, find_products
from td.reconstruct.solve import solve

TOLERANCE = {"float32": 1e-9, "float64": 1e-15}
"""Tolerance of conjugate gradients by dtype of the inputs, relative to the first residual."""

Live = dict[int, Array]
"""Values that depend on the inputs and are read later, by number."""

Streams = tuple[Live, Live]
"""Values of the reference and of the network."""

Leaves = Sequence[Any]


def reconstruct(
    apply_fn: Callable[..., Any],
    params: Params,
    mask: Params,
    batches: Iterable[Any],
    *,
    reference: Params | None = None,
    ridge: float = 1e-3,
) -> Params:
    """Repair a pruned network layer by layer, by least squares on the kept weights, without training.

    In the order of execution, every kernel that lost entries or whose inputs have changed gets the weights that
    reproduce the outputs of the reference network best, given the inputs in the network as repaired so far:

        min ||X w - Y||^2 + ridge * mean(diag X'X) * ||w - w_pruned||^2    for every unit, over its kept weights

    A bias that is added directly to the product is solved with it, as the weight of an input of ones. Kernels that
    are used twice or are computed from several leaves, embeddings, and what lies inside of `cond` and `while_loop`
    stay as they are. Memory holds the activations between two layers for all batches, and one Gram matrix.

    Args:
      apply_fn: `(params, *inputs) -> outputs`, at inference.
      params: the network before pruning, any pytree.
      mask: a tree of bool like `params`, True = kept, as `td.prune_mask` makes it.
      batches: inputs of `apply_fn`, an array or a tuple of several, all of one shape; training data.
      reference: the network whose outputs are reproduced, like `params`; default: `params`. For a method that trains
        a network to live without its targets it is the network without them.
      ridge: weight of the distance to the pruned weights.

    Returns:
      The pruned parameters with other kept weights; unchanged if that brings the outputs no closer to the
      reference's, by the mean squared error on `batches`.

    Raises:
      UserError: there is no batch, a negative ridge, or a tree that is not like `params`.

    Example:
      >>> import jax, jax.numpy as jnp, td
      >>> network = lambda p, x: x @ p["w"]
      >>> x = jnp.array([[1.0, 1.0], [2.0, 2.0]])
      >>> params, mask = {"w": jnp.array([[1.0], [2.0]])}, {"w": jnp.array([[False], [True]])}
      >>> td.reconstruct(network, params, mask, [x], ridge=0.0)["w"].round(4).tolist()
      [[0.0], [3.0]]

    Source: Hassibi and Stork 1993 (Optimal Brain Surgeon) and its layer-wise form, Dong et al. 2017 (L-OBS).
    """
    given = [batch if isinstance(batch, tuple) else (batch,) for batch in batches]
    if not given:
        raise UserError("nothing to reconstruct on: give at least one batch")
    if len(kinds := {str(abstract(batch)) for batch in given}) > 1:
        raise UserError(f"batches differ in shape or dtype: {' and '.join(sorted(kinds))}; leave out the last one")
    check_at_least("ridge", ridge)
    structure: Any = jax.tree.structure(params)
    shapes = [*map(jnp.shape, jax.tree.leaves(params))]
    for name, tree in {"mask": mask, "reference": params if reference is None else reference}.items():
        if jax.tree.structure(tree) != structure or [*map(jnp.shape, jax.tree.leaves(tree))] != shapes:
            raise UserError(f"the {name} has another structure or other shapes than params: give a tree like them")
    return Reconstructor(apply_fn, params, given[0])(params, mask, given, reference, ridge)


class Reconstructor:
    """Compiled parts of a network, for reconstructions under several masks."""

    def __init__(self, apply_fn: Callable[..., Any], params: Params, inputs: Sequence[Any]) -> None:
        self.program = trace(apply_fn, abstract(params), abstract(tuple(inputs)), plain=True, unroll=True)
        live = set(self.program.inputs)
        self.equations: list[Equation] = []  # of values that depend on the inputs
        self.makers: dict[int, Equation] = {}  # of all others
        for equation in self.program.equations:
            if live & set(equation.inputs):
                live |= set(equation.outputs)
                self.equations.append(equation)
            else:
                self.makers |= dict.fromkeys(equation.outputs, equation)
        self.products = find_products(self.program, self.equations, live)
        self.collect = jax.jit(self._collect, static_argnums=(0, 1))
        self.outputs = jax.jit(self._outputs, static_argnums=0)

    def __call__(
        self, params: Params, mask: Params, batches: Sequence[Any], reference: Params | None = None, ridge: float = 1e-3
    ) -> Params:
        """Reconstruct the network under a mask."""
        pruned, target = apply_mask(params, mask), jax.tree.leaves(params if reference is None else reference)
        before, kept = jax.tree.leaves(pruned), jax.tree.leaves(mask)
        leaves, changed, place = before, self._changed(target, before), -1
        streams = self._start(batches)
        for number, product in enumerate(self.products):
            if changed & {value for equation in product.equations for value in equation.inputs}:
                gram, residual, tolerance = self._sums(place, number, target, leaves, streams)
                change = solve(gram, residual, _read(kept, product.entries), ridge, tolerance)
                leaves, place = _add(leaves, product.entries, np.asarray(change)), product.place
        if place < 0:
            return pruned
        error = np.zeros(2)  # as reconstructed, as pruned
        for (reference_, network), (inputs, _) in zip(streams, self._start(batches), strict=True):
            wanted = self.outputs(place + 1, target, reference_)
            found = self.outputs(place, leaves, network), self.outputs(0, before, inputs)
            error += [sum(map(_squared_error, wanted, each)) for each in found]
        return jax.tree.unflatten(jax.tree.structure(pruned), leaves) if error[0] < error[1] else pruned

    def grams(self, params: Params, batches: Sequence[Any]) -> Iterator[tuple[Entries, np.ndarray]]:
        """Compute the Gram matrix of every product's inputs, in order of execution."""
        leaves, place, streams = jax.tree.leaves(params), -1, self._start(batches)
        for number, product in enumerate(self.products):
            yield product.entries, self._sums(place, number, leaves, leaves, streams)[0]
            place = product.place

    def _start(self, batches: Sequence[Any]) -> list[Streams]:
        values = [dict(zip(self.program.inputs, jax.tree.leaves(batch), strict=True)) for batch in batches]
        return [(each, each) for each in values]

    def _changed(self, target: Leaves, leaves: Leaves) -> set[int]:
        """Values that differ between the network and its reference."""
        both = zip(self.program.leaves, target, leaves, strict=True)
        changed = {value for value, one, other in both if one is not other and bool(jnp.any(one != other))}
        for equation in self.program.equations:
            if changed & set(equation.inputs):
                changed |= set(equation.outputs)
        return changed

    def _sums(
        self, place: int, number: int, target: Leaves, leaves: Leaves, streams: list[Streams]
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Sum what `collect` finds over all batches, in double precision, and advance their streams."""
        gram, residual = np.zeros(()), np.zeros(())
        for i, stream in enumerate(streams):
            streams[i], *found = self.collect(place, number, target, leaves, stream)
            gram, residual = gram + np.asarray(found[0], float), residual + np.asarray(found[1], float)
        return gram, residual, TOLERANCE[found[0].dtype.name]

    def _run(self, leaves: Leaves, live: Live, equations: Sequence[Equation]) -> Callable[[int], Any]:
        """Run equations; returns a function that reads any value."""
        values = self.program.numbers | dict(zip(self.program.leaves, leaves, strict=True)) | live

        def run(equation: Equation) -> None:
            found = equation.bind(*map(read, equation.inputs), **equation.params)
            values.update(zip(equation.outputs, found if isinstance(found, list | tuple) else [found], strict=True))

        def read(value: int) -> Any:
            if value not in values:
                run(self.makers[value])
            return values[value]

        for equation in equations:
            run(equation)
        return read

    def _advance(self, start: int, stop: int, leaves: Leaves, live: Live) -> Live:
        """Run the network from one equation up to another, and keep what is read from there on."""
        equations = self.equations[start:stop]
        read = self._run(leaves, live, equations)
        made = {*live, *(value for equation in equations for value in equation.outputs)}
        later = {value for equation in self.equations[stop:] for value in equation.inputs}
        return {value: read(value) for value in made & (later | set(self.program.outputs))}

    def _collect(
        self, place: int, number: int, target: Leaves, leaves: Leaves, streams: Streams
    ) -> tuple[Streams, Array, Array]:
        """Advance from the last product to the next; the Gram matrix of its inputs, and their product with its error.

        The reference is one equation ahead: it has the product.
        """
        product = self.products[number]
        reference = self._advance(place + 1, product.place + 1, target, streams[0])
        network = self._advance(max(place, 0), product.place, leaves, streams[1])
        wanted = self._run(target, reference, product.equations[1:])(product.output)
        found = self._run(leaves, network, product.equations)(product.output)
        rows = product.rows(network[product.inputs])
        rows = rows.astype(jnp.promote_types(rows.dtype, jnp.float32))
        if product.biased:
            rows = jnp.concatenate([rows, jnp.ones_like(rows[..., :1])], axis=-1)

        def multiplied(other: Array) -> Array:
            numbers = ((1,), (1,)), ((0,), (0,))
            return lax.dot_general(rows, other.astype(rows.dtype), numbers, precision=lax.Precision.HIGHEST)

        return (reference, network), multiplied(rows), multiplied(product.columns(wanted - found))

    def _outputs(self, place: int, leaves: Leaves, live: Live) -> list[Array]:
        """Run the network to its end; returns its floating outputs."""
        read = self._run(leaves, live, self.equations[place:])
        outputs = map(read, self.program.outputs)
        return [output for output in outputs if jnp.issubdtype(output.dtype, jnp.inexact)]


def _squared_error(wanted: Array, found: Array) -> float:
    """Sum the squares of differences, but for outputs that are infinite, such as masked logits."""
    difference = (found - wanted).astype(jnp.promote_types(wanted.dtype, jnp.float32))
    return float(jnp.sum(jnp.square(jnp.abs(jnp.where(jnp.isfinite(wanted), difference, 0)))))


def _touched(leaves: Leaves, entries: Entries) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Leaves that have some of the entries: number, flags of these entries, and their places in it."""
    ends = np.cumsum([0, *(np.size(leaf) for leaf in leaves)])
    owner = np.searchsorted(ends, entries, side="right") - 1
    for number in np.unique(owner).tolist():
        flags = owner == number
        yield number, flags, entries[flags] - ends[number]


def _read(mask: Leaves, entries: Entries) -> np.ndarray:
    """Read flags of entries."""
    found = np.zeros(entries.shape, bool)
    for number, flags, places in _touched(mask, entries):
        found[flags] = np.ravel(mask[number])[places]
    return found


def _add(leaves: Leaves, entries: Entries, change: np.ndarray) -> list[Any]:
    """Add a change to entries of leaves."""
    changed = list(leaves)
    for number, flags, places in _touched(leaves, entries):
        flat = np.array(leaves[number], float).ravel()
        flat[places] += change[flags]
        changed[number] = jnp.asarray(flat.reshape(np.shape(leaves[number])), leaves[number].dtype)
    return changed
