"""The formats: how each is written and opened again. A file is a function with its parameters, or the parameters."""

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from td import tree
from td.errors import UserError, check_choice
from td.export.flat import inlined
from td.export.onnx import replayed
from td.export.parts import Network, Part

PACKAGES = {
    "onnx": ("jax2onnx", "onnx", "onnxruntime"),
    "stablehlo": ("flatbuffers",),
    "safetensors": ("safetensors",),
}
"""What each format wants to have installed."""

PLATFORMS = ("cpu", "cuda", "tpu")
"""What a StableHLO file is lowered for."""

Call = Callable[..., list[np.ndarray]]
"""A file that was opened again: `(*inputs) -> outputs`."""


def parse_formats(text: str) -> list[str]:
    """Read the formats' names, and refuse what is unknown or wants a package that is missing."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        check_choice("format", name, PACKAGES)
        missing = [package for package in PACKAGES[name] if importlib.util.find_spec(package) is None]
        if missing:
            raise UserError(f"format {name} needs {', '.join(missing)}: pip install '.[export]'")
    return names


class _Symbolic(NamedTuple):
    """A function of its inputs alone, with inputs of any number of rows."""

    call: Callable[..., tuple[Any, ...]]
    inputs: list[jax.ShapeDtypeStruct]


def _symbolic(network: Network, part: Part) -> _Symbolic:
    from jax import export

    (batch,) = export.symbolic_shape("batch")
    inputs = [jax.ShapeDtypeStruct((batch, *i.shape[1:]) if i.shape else (), i.dtype) for i in part.inputs.values()]
    # The outermost function once more as plain primitives: what standardising does for shapes alone goes as well.
    flat = inlined(lambda _, *inputs: tuple(jax.tree.leaves(network.apply(network.params, *inputs))))
    return _Symbolic(lambda *inputs: flat((), *inputs), inputs)


def to_stablehlo(network: Network, part: Part) -> bytes:
    """StableHLO for every platform, by `jax.export`."""
    from jax import export

    call, inputs = _symbolic(network, part)
    return bytes(export.export(jax.jit(call), platforms=PLATFORMS)(*inputs).serialize())


def open_stablehlo(data: bytes) -> Call:
    """The function that the bytes hold."""
    from jax import export

    call = export.deserialize(bytearray(data)).call
    return lambda *inputs: [np.asarray(output) for output in call(*inputs)]


def to_onnx(network: Network, part: Part, name: str, metadata: Mapping[str, str]) -> bytes:
    """ONNX with named inputs and outputs; the metadata are strings in the file."""
    call, inputs = _symbolic(network, part)
    # Traced here: jax2onnx replaces functions of Flax while it traces, and compaction would not know them again.
    closed = jax.make_jaxpr(call)(*inputs)
    with _quiet():
        import jax2onnx
        import onnx

        model = jax2onnx.to_onnx(
            lambda *inputs: replayed(closed, inputs),
            inputs,
            model_name=name,
            input_names=list(part.inputs),
            output_names=list(part.outputs),
        )
        # Shapes of values in between, which ONNX Runtime finds out by itself; some are of another memory layout.
        del model.graph.value_info[:]
        onnx.helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def open_onnx(data: bytes) -> Call:
    """The function that the bytes hold, in ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return lambda *inputs: session.run(None, dict(zip(names, map(np.asarray, inputs), strict=True)))


def to_safetensors(variables: Any) -> bytes:
    """All variables by name, zeros included."""
    from safetensors.numpy import save

    return save({path: np.asarray(leaf) for path, leaf in tree.named_leaves(variables).items()})


def read_safetensors(path: Path) -> dict[str, Any]:
    """The variables as nested dicts again."""
    parse_formats("safetensors")
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        named = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    variables: dict[str, Any] = {}
    for name, array in named.items():
        *folders, last = name.split("/")
        inner = variables
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[last] = jax.numpy.asarray(array)
    return variables


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the remarks of the packages below, which are about their own insides."""
    log = logging.getLogger("onnx_ir")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
