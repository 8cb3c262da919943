"""Networks of public libraries without half of their groups: sizes, time, the ideal, and whether they are exported.

    pip install '.[lab,export,test]' 'transformers<5'
    python results/bench/public_compaction.py [--no_time] [PART_OF_A_NAME ...]

Prints a table; writes it to `compact-libraries-BACKEND.md` next to itself if all are timed. The ideal is the number of
entries that are not zero and get a gradient that is not zero, whatever the values of the others that are not zero.
"""

import logging
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from public_libraries import MODELS, Model

import td
from td.errors import UserError
from td.evaluate.deviation import deviation
from td.evaluate.timing import as_markdown, side_by_side
from td.export import export
from td.io import provenance

REPEATS = 41


def drawn(leaf: Any, rng: np.random.Generator) -> Any:
    """A leaf as after some training: neither offsets nor kernels that are 0, nor scales that are 1."""
    noise = np.asarray(0.1 * rng.normal(size=leaf.shape), leaf.dtype)
    return leaf + noise if leaf.ndim == 1 or not np.any(leaf) else leaf


def more_inputs(inputs: Any, rng: np.random.Generator, rows: int = 32) -> list[np.ndarray]:
    """Other inputs of these types, small and large: a unit that is off at one scale may be on at another."""
    scale = 10 ** rng.uniform(-1, 1, rows)

    def more(array: Any) -> np.ndarray:
        shape = (rows, *array.shape[1:])
        real = jnp.issubdtype(array.dtype, jnp.inexact)
        values = (
            scale.reshape(-1, *[1] * (array.ndim - 1)) * rng.normal(size=shape) if real else rng.integers(0, 100, shape)
        )
        return values.astype(array.dtype)

    return [more(array) for array in inputs]


def ideal(apply: Any, params: Any, inputs: Any, batches: int = 8) -> int:
    """Count the entries that are not zero and get a gradient at some inputs, with some of all their signs."""

    def random_sum(params: Any, key: Any, inputs: Any) -> Any:
        outputs = jax.tree.leaves(apply(params, *inputs))
        return sum(jnp.vdot(jax.random.normal(key, x.shape, x.dtype), x) for x in outputs)

    rng, slope = np.random.default_rng(1), jax.jit(jax.grad(random_sum))
    used = jax.tree.map(jnp.zeros_like, params)
    for i in range(batches):
        signed = jax.tree.map(lambda leaf: leaf * rng.choice([-1, 1], leaf.shape).astype(leaf.dtype), params)
        slopes = slope(signed, jax.random.key(i), more_inputs(inputs, rng))
        used = jax.tree.map(lambda flags, slope, leaf: flags + ((slope != 0) & (leaf != 0)), used, slopes, params)
    return sum(int((flags > 0).sum()) for flags in jax.tree.leaves(used))


def count(params: Any) -> int:
    """Count parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def measure(name: str, model: Model, timed: bool) -> dict[str, str]:
    """Prune half of the groups, compact, export, and compare."""
    apply, params, inputs = model
    rng = np.random.default_rng(0)
    params = jax.tree.map(partial(drawn, rng=rng), params)
    structure = td.trace(apply, params, *inputs)
    mask = td.prune_mask(params, 0.5, "group", kernels=structure)
    pruned = td.apply_mask(params, mask)
    small, whole = td.compact(apply, pruned, *inputs), jax.jit(apply)
    pairs = zip(
        *(jax.tree.leaves(call) for call in (whole(pruned, *inputs), small.apply(small.params, *inputs))), strict=True
    )
    best, kept = ideal(apply, pruned, inputs), count(small.params)
    line = {"network": name, "parameters": f"{count(params):,}", "kept": f"{kept:,}", "ideal": f"{best:,}"}
    line |= {"kept / ideal": f"{kept / best:.3f}", "FLOPs": f"{small.flops[1] / small.flops[0]:.3f}"}
    line |= {"deviation": f"{max(deviation(*pair) for pair in pairs):.0e}"}
    if timed:
        cases = {"dense": partial(whole, params, *inputs), "small": partial(small.apply, small.params, *inputs)}
        dense, less = side_by_side(cases, REPEATS, name)
        line |= {
            "ms": f"{1e3 * dense.seconds:.2f}",
            "ms kept": f"{1e3 * less.seconds:.2f}",
            "time": f"{less.ratio:.3f}",
        }
    for kind in ("onnx", "stablehlo"):
        try:
            with tempfile.TemporaryDirectory() as folder:
                files = export(small.apply, small.params, *inputs, path=f"{folder}/net", formats=kind)
            line[kind] = "any batch" if files.batch[kind] == "any" else "fixed batch"
        except UserError as error:
            line[kind] = "no"
            logging.warning("%s: %s", name, error)
    print(line, flush=True)
    return line


def main(*arguments: str) -> None:
    """Measure the networks and print the table."""
    parts, timed = [part for part in arguments if part != "--no_time"], "--no_time" not in arguments
    chosen = {name: build for name, build in MODELS.items() if not parts or any(part in name for part in parts)}
    lines = [measure(name, build(), timed) for name, build in chosen.items()]
    near = sum(float(line["kept / ideal"]) <= 1.1 for line in lines)
    table = f"{as_markdown(lines)}\n\nKept at most 1.1 of the ideal: {near} of {len(lines)}."
    print(table)
    if timed and not parts:
        about = provenance.describe()
        hardware, jax_version = about["hardware"], about["versions"]["jax"]
        where = f"{hardware['devices']}, {hardware['processor']}, {hardware['cores']} cores; JAX {jax_version}"
        text = f"## Public libraries without half of their groups\n\n{table}\n\n{where}; {about['date']}; commit "
        text += f"{about['commit']}. Medians of {REPEATS} calls, interleaved; time is the median ratio.\n"
        Path(__file__).with_name(f"compact-libraries-{jax.default_backend()}.md").write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
