"""The run of a network and of its reference, side by side, from one product to the next."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from td.base import Params
from td.program.equations import Equation
from td.program.trace import abstract, trace
from td.prune import apply_mask
from td.reconstruct.products import Entries, find_products
from td.reconstruct.solve import solve

TOLERANCE = {"float32": 1e-9, "float64": 1e-15}
"""Of conjugate gradients, relative to the first residual, by dtype of the inputs."""

Live = dict[int, Array]
"""Values that depend on the inputs and are read later, by number."""

Streams = tuple[Live, Live]
"""Of the reference and of the network."""


class Reconstructor:
    """Compiled parts of a network, for reconstructions under several masks."""

    def __init__(self, apply_fn: Callable[..., Any], params: Params, inputs: Sequence[Any]) -> None:
        self.program = trace(apply_fn, abstract(params), abstract(tuple(inputs)), plain=True, unroll=True)
        self.live = set(self.program.inputs)
        self.equations: list[Equation] = []  # of values that depend on the inputs
        self.makers: dict[int, Equation] = {}  # of all others
        for equation in self.program.equations:
            if self.live & set(equation.inputs):
                self.live |= set(equation.outputs)
                self.equations.append(equation)
            else:
                self.makers |= dict.fromkeys(equation.outputs, equation)
        self.products = find_products(self.program, self.equations, self.live)
        self.collect = jax.jit(self._collect, static_argnums=(0, 1))
        self.error = jax.jit(self._error, static_argnums=0)

    def __call__(
        self, params: Params, mask: Params, batches: Sequence[Any], reference: Params | None = None, ridge: float = 1e-3
    ) -> Params:
        """Reconstruct the network under a mask."""
        pruned, target = apply_mask(params, mask), jax.tree.leaves(params if reference is None else reference)
        before, kept = jax.tree.leaves(pruned), jax.tree.leaves(mask)
        leaves, changed, place = list(before), self._changed(target, before), -1
        inputs = [dict(zip(self.program.inputs, jax.tree.leaves(batch), strict=True)) for batch in batches]
        streams: list[Streams] = [(values, values) for values in inputs]
        for number, product in enumerate(self.products):
            if not changed & {value for equation in product.equations for value in equation.inputs}:
                continue
            gram: Any = 0.0
            residual: Any = 0.0
            for i, stream in enumerate(streams):
                streams[i], gram_, residual_ = self.collect(max(place, 0), number, target, leaves, stream)
                gram, residual = gram + np.asarray(gram_, np.float64), residual + np.asarray(residual_, np.float64)
            place, tolerance = product.place, TOLERANCE[gram_.dtype.name]
            change = solve(gram, residual, self._read(kept, product.entries), ridge, tolerance)
            leaves = self._add(leaves, product.entries, np.asarray(change))
        if place < 0:
            return pruned
        after = sum(float(self.error(place, target, leaves, stream)) for stream in streams)
        unrepaired = sum(float(self.error(0, target, before, (values, values))) for values in inputs)
        return jax.tree.unflatten(jax.tree.structure(pruned), leaves) if after < unrepaired else pruned

    def grams(self, params: Params, batches: Sequence[Any]) -> list[tuple[Entries, Any]]:
        """Compute the entries and the Gram matrix of every product."""
        leaves, place, found = jax.tree.leaves(params), 0, []
        inputs = [dict(zip(self.program.inputs, jax.tree.leaves(batch), strict=True)) for batch in batches]
        streams: list[Streams] = [(values, values) for values in inputs]
        for number, product in enumerate(self.products):
            gram: Any = 0.0
            for i, stream in enumerate(streams):
                streams[i], one, _ = self.collect(place, number, leaves, leaves, stream)
                gram = gram + np.asarray(one, np.float64)
            place = product.place
            found.append((product.entries, gram))
        return found

    def _changed(self, target: Sequence[Any], leaves: Sequence[Any]) -> set[int]:
        """Values that differ between the network and its reference."""
        both = zip(self.program.leaves, target, leaves, strict=True)
        changed = {value for value, one, other in both if one is not other and bool(jnp.any(one != other))}
        for equation in self.program.equations:
            if changed & set(equation.inputs):
                changed |= set(equation.outputs)
        return changed

    def _run(self, leaves: Sequence[Any], live: Live, equations: Sequence[Equation]) -> Callable[[int], Any]:
        """Run equations; returns a function that reads any value."""
        values = self.program.numbers | dict(zip(self.program.leaves, leaves, strict=True)) | live

        def bind(equation: Equation) -> None:
            found = equation.bind(*map(read, equation.inputs), **equation.params)
            values.update(zip(equation.outputs, found if isinstance(found, list | tuple) else [found], strict=True))

        def read(value: int) -> Any:
            if value not in values:
                bind(self.makers[value])
            return values[value]

        for equation in equations:
            bind(equation)
        return read

    def _advance(self, start: int, stop: int, leaves: Sequence[Any], live: Live) -> Live:
        """Run the network from one equation up to another, and keep what is read from there on."""
        read = self._run(leaves, live, self.equations[start:stop])
        made = {*live, *(value for equation in self.equations[start:stop] for value in equation.outputs)}
        later = {value for equation in self.equations[stop:] for value in equation.inputs}
        return {value: read(value) for value in made & (later | set(self.program.outputs))}

    def _collect(
        self, start: int, number: int, target: Any, leaves: Any, streams: Streams
    ) -> tuple[Streams, Array, Array]:
        """Advance both networks to a product; the Gram matrix of its inputs and their product with what is missing."""
        product = self.products[number]
        reference, network = (
            self._advance(start, product.place, *each) for each in zip((target, leaves), streams, strict=True)
        )
        outputs = [
            product.columns(self._run(*each, product.equations)(product.equations[-1].outputs[0]))
            for each in ((target, reference), (leaves, network))
        ]
        rows = product.rows(network[product.inputs])
        rows = rows.astype(jnp.promote_types(rows.dtype, jnp.float32))
        if product.biased:
            rows = jnp.concatenate([rows, jnp.ones_like(rows[..., :1])], axis=-1)
        multiply = lambda other: lax.dot_general(  # noqa: E731
            rows, other.astype(rows.dtype), (((1,), (1,)), ((0,), (0,))), precision=lax.Precision.HIGHEST
        )
        return (reference, network), multiply(rows), multiply(outputs[0] - outputs[1])

    def _error(self, start: int, target: Any, leaves: Any, streams: Streams) -> Array:
        """Sum the squared errors of all outputs."""
        reads = [
            self._run(*each, self.equations[start:]) for each in zip((target, leaves), streams, strict=True)
        ]
        pairs = [[read(value) for read in reads] for value in self.program.outputs]
        errors = [jnp.sum(jnp.square(one - other)) for one, other in pairs if jnp.issubdtype(one.dtype, jnp.inexact)]
        return jnp.sum(jnp.asarray(errors))

    def _touched(self, leaves: Sequence[Any], entries: Entries) -> Any:
        """Iterate over the leaves that have some entries: number, flags of the entries, and their places in it."""
        ends = np.cumsum([0, *(np.size(leaf) for leaf in leaves)])
        of = np.searchsorted(ends, entries, side="right") - 1
        for number in np.unique(of).tolist():
            flags = of == number
            yield number, flags, entries[flags] - ends[number]

    def _read(self, leaves: Sequence[Any], entries: Entries) -> np.ndarray:
        """Read entries of leaves."""
        found = np.zeros(entries.shape, bool)
        for number, flags, places in self._touched(leaves, entries):
            found[flags] = np.ravel(leaves[number])[places]
        return found

    def _add(self, leaves: Sequence[Any], entries: Entries, change: np.ndarray) -> list[Any]:
        """Add a change to entries of leaves."""
        changed = list(leaves)
        for number, flags, places in self._touched(leaves, entries):
            flat = np.array(leaves[number], np.float64).ravel()
            flat[places] += change[flags]
            changed[number] = jnp.asarray(flat.reshape(leaves[number].shape), leaves[number].dtype)
        return changed
