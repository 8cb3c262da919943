"""Checks of exported files: outputs and accuracy on the whole test set beside td's own, and time."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from td.data.task import BEGIN
from td.errors import UserError
from td.evaluate.timing import Timing, side_by_side
from td.export.formats import Call, Network, Part, open_onnx, to_onnx
from td.train.experiment import Run
from td.train.state import predict

TOLERANCE = 1e-4
"""Largest allowed difference of an output, relative to the largest output of its batch."""


class Agreement(NamedTuple):
    """A file compared with td on the whole test set."""

    accuracy: float  # of the file
    own: float  # of td, with the same parameters
    difference: float  # largest of an output, relative to the largest output of its batch
    changed: int  # predictions that differ: ties within the tolerance
    examples: int  # images or tokens that were scored


def agreement(
    run: Run, variables: Mapping[str, Any], task: Mapping[str, Any], files: Mapping[str, Mapping[str, Call]], rows: int
) -> dict[str, Agreement]:
    """Score every format; raises UserError if an output differs by more than the tolerance."""
    stats = variables.get("batch_stats", {})
    own = jax.jit(lambda params, stats, batch: predict(run.experiment, params, stats, batch))
    sums = {name: np.zeros(4) for name in files}
    largest = dict.fromkeys(files, 0.0)
    for batch in run.dataset.evaluation.eval_batches(min(rows, run.dataset.evaluation.size)):
        labels, weights = (np.asarray(part) for part in run.experiment.task.targets(batch))
        wanted, scored = np.asarray(own(variables["params"], stats, batch)), weights > 0
        for name, calls in files.items():
            found = _logits(calls, batch, task, run.experiment.task.inputs)
            difference = np.abs(found - wanted)[scored].max(initial=0) / np.abs(wanted[scored]).max(initial=1e-30)
            largest[name] = float(np.maximum(largest[name], difference))  # Python's max would lose a NaN
            chosen, ours = found.argmax(-1), wanted.argmax(-1)
            counted = (chosen == labels, ours == labels, chosen != ours, scored)
            sums[name] += [float((flags & scored).sum()) for flags in counted]
    for name, difference in largest.items():
        if not difference <= TOLERANCE:
            raise UserError(
                f"the {name} file computes something else: outputs differ by {difference:.1e} of the largest, "
                f"{TOLERANCE:g} is allowed; nothing was written: leave out this format, and report it"
            )
    return {
        name: Agreement(right / count, ours / count, largest[name], int(changed), int(count))
        for name, (right, ours, changed, count) in sums.items()
    }


def _logits(calls: Mapping[str, Call], batch: Any, task: Mapping[str, Any], inputs: Any) -> np.ndarray:
    """Compute the logits of a batch: of a text token after token, with the cache."""
    if task["name"] != "translation":
        return calls["model"](np.asarray(batch.images) if task["images"] == "raw" else inputs(batch, None)[0])[0]
    source, before = (np.asarray(part) for part in (batch.source, batch.target))
    source = np.pad(source, ((0, 0), (0, task["source_length"] - source.shape[1])))
    before = np.pad(before[:, :-1], ((0, 0), (1, 0)), constant_values=BEGIN).astype(np.int32)
    (memory,) = calls["encoder"](source)
    caches = [np.zeros((len(source), *shape), np.float32) for shape in task["caches"]]
    logits = []
    for position in range(before.shape[1]):
        found, *caches = calls["decoder"](before[:, position], np.int32(position), memory, source, *caches)
        logits.append(found)
    return np.stack(logits, axis=1)


def speed(
    part: Part, dense: Network, network: Network, variables: Any, onnx: bytes | None, repeats: int
) -> dict[str, list[Timing]]:
    """Time a part as trained and as exported, by batch size."""
    smaller = network is not dense
    runs: dict[str, Callable[..., Any]] = {"JAX, dense": partial(jax.jit(part.on_file_inputs(part.apply)), variables)}
    if smaller:
        runs["JAX, compacted"] = partial(jax.jit(network.apply), network.params)
    if onnx is not None:
        runs["ONNX Runtime, dense"] = open_onnx(to_onnx(dense, part, "dense", {}) if smaller else onnx)
        if smaller:
            runs["ONNX Runtime, compacted"] = open_onnx(onnx)
    found = {}
    for rows in (1, 32):
        inputs = [np.zeros(i.shape, i.dtype) for i in part.with_batch(rows)]
        cases: dict[str, Callable[[], Any]] = {name: partial(call, *inputs) for name, call in runs.items()}
        found[f"batch {rows}"] = side_by_side(cases, repeats, f"batch {rows}")
    return found
