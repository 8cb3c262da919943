"""Your own function as ONNX, StableHLO and safetensors, run by their runtimes before they are kept."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from td.errors import UserError, check_at_least, check_choice
from td.evaluate.deviation import COARSE, TOLERANCE, deviation
from td.export.formats import FORMATS, Function, check_formats
from td.io.files import replacing
from td.program.trace import abstract, trace

LOG = logging.getLogger(__name__)


class Files(NamedTuple):
    """Exported files, by format.

    Attributes:
      paths: the files.
      batch: "any", or the only batch that a file takes.
      deviation: the largest difference of an output from the function's, relative to the largest output.
    """

    paths: dict[str, Path]
    batch: dict[str, Any]
    deviation: dict[str, float]


def export(
    apply_fn: Callable[..., Any],
    params: Any,
    *inputs: Any,
    path: Path | str,
    formats: str | Iterable[str] = ("onnx", "stablehlo", "safetensors"),
    batch: int | str = "any",
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
) -> Files:
    """Write a function and its parameters as files for other programs.

    Every file is opened in its runtime and compared with the function, at the batch of the example inputs and, if
    it takes any batch, at a larger one. Files appear together, and only if all of them agree.

    Args:
      apply_fn: `(params, *inputs) -> outputs`, such as a model's `apply` or that of what `td.compact` returns.
      params: any pytree of arrays. ONNX and StableHLO hold them as constants, safetensors by name.
      *inputs: arrays or `jax.ShapeDtypeStruct` objects, in any pytree. The files take and return leaves, in order.
      path: name of the files, without suffix.
      formats: some of "onnx", "stablehlo" and "safetensors".
      batch: "any"; "fixed", as in the example inputs; or a number. The batch is the first axis of the first input
        and of all inputs whose first axis is as long. If a batch of any size fails, it is fixed, with a warning.
      input_names: names in ONNX, one for each leaf of the inputs.
      output_names: the same for the outputs.
      metadata: texts that the ONNX file holds, by name.

    Returns:
      `Files`: paths, batches and deviations.

    Raises:
      UserError: an unknown format or batch, a missing package, or a function that a format or its runtime cannot
        compute.

    Example:
      >>> import tempfile, jax.numpy as jnp
      >>> from td.export import export
      >>> network, params = lambda params, x: jnp.tanh(x @ params["w"]), {"w": jnp.ones((3, 2))}
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     files = export(network, params, jnp.ones((4, 3)), path=f"{folder}/net", formats=["stablehlo"])
      >>> files.paths["stablehlo"].name, files.batch, files.deviation["stablehlo"] < 1e-6
      ('net.stablehlo', {'stablehlo': 'any'}, True)
    """
    names, path, tree = check_formats(formats), Path(path), jax.tree.structure(inputs)
    path = path.with_suffix("") if path.suffix[1:] in FORMATS else path
    example = _Inputs.of(jax.tree.leaves(inputs))
    fixed = example.rows if isinstance(batch, str) else batch
    if isinstance(batch, str):
        check_choice("batch", batch, ("any", "fixed"))
    else:
        check_at_least("batch", batch, 1, whole=True)

    def apply(params: Any, *leaves: Array) -> tuple[Any, ...]:
        return tuple(jax.tree.leaves(apply_fn(params, *jax.tree.unflatten(tree, leaves))))

    dtypes = {str(aval.dtype) for aval in trace(apply, abstract(params), example.shapes).avals.values()}
    allowed = max(COARSE.get(dtype, TOLERANCE) for dtype in dtypes)
    function = Function(jax.jit(apply), params, path.name, input_names, output_names, metadata or {})
    files, failed = Files({}, {}, {}), {}
    sizes = ["any", fixed] if batch == "any" and fixed is not None else [fixed]
    with ExitStack() as stack:
        for name in names:
            files.paths[name] = path.with_name(f"{path.name}.{name}")
            temporary = stack.enter_context(replacing(files.paths[name]))
            for size in sizes:
                try:
                    files.deviation[name] = _write(name, function, example, size, allowed, temporary)
                    files.batch[name] = size
                    break
                except Exception as error:  # of any kind
                    failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
                    if size == sizes[-1]:
                        raise UserError(f"cannot export to {name} ({failed[name]}): leave it out of formats") from error
    if failed:
        reason = next(iter(failed.values()))
        LOG.warning("%s for batches of %s only: any batch fails (%s)", ", ".join(failed), fixed, reason)
    return files


class _Inputs(NamedTuple):
    """Example inputs."""

    shapes: list[jax.ShapeDtypeStruct]
    values: list[Array]
    rows: int | None  # the batch

    @classmethod
    def of(cls, leaves: Sequence[Any]) -> "_Inputs":
        """Draw values where a shape is given."""
        rng, shapes = np.random.default_rng(0), abstract(list(leaves))

        def value(leaf: Any) -> Any:
            if not isinstance(leaf, jax.ShapeDtypeStruct):
                return leaf
            real = jnp.issubdtype(leaf.dtype, jnp.inexact)
            return np.asarray(rng.normal(size=leaf.shape) if real else rng.integers(0, 2, leaf.shape), leaf.dtype)

        values = [jnp.asarray(value(leaf)) for leaf in leaves]  # numbers of Python stay weakly typed
        return cls(shapes, values, next((shape.shape[0] for shape in shapes if shape.shape), None))

    def sized(self, batch: Any) -> list[jax.ShapeDtypeStruct]:
        """The shapes at another batch."""
        return [s.update(shape=(batch, *s.shape[1:])) if s.shape[:1] == (self.rows,) else s for s in self.shapes]


def _write(name: str, function: Function, inputs: _Inputs, size: Any, allowed: float, path: Path) -> float:
    """Write a file, run it next to the function, and return the deviation."""
    shapes = inputs.sized(jax.export.symbolic_shape("batch")[0] if size == "any" else size)
    path.write_bytes(FORMATS[name].write(function, shapes))
    call, off = FORMATS[name].open(path.read_bytes(), function), 0.0
    for rows in (inputs.rows, inputs.rows + 1) if size == "any" and inputs.rows else (size,):
        shapes = [shape.shape for shape in inputs.sized(rows)]
        given = [v if v.shape == s else np.resize(v, s) for v, s in zip(inputs.values, shapes, strict=True)]
        for wanted, found in zip(function.apply(function.params, *given), call(*given), strict=True):
            off = float(np.maximum(off, deviation(wanted, found)))  # Python's max would lose a NaN
    if not off <= allowed:
        raise UserError(f"outputs differ by {off:.1e} of the largest")
    return off
