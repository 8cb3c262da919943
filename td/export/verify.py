"""Whether an exported file is the network: the whole test set through it, beside td's own outputs."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from td.data.task import BEGIN
from td.errors import UserError
from td.export.formats import Call
from td.train.experiment import Run
from td.train.state import predict

TOLERANCE = 1e-4
"""The largest difference of an output, relative to the largest output of its batch."""


class Agreement(NamedTuple):
    """A file beside td on the whole test set.

    Attributes:
      accuracy: through the file.
      own: td's accuracy, with the same parameters.
      difference: the largest of an output, relative to the largest output of its batch.
      changed: how many predictions differ: ties within the tolerance.
      examples: how many were scored: images, or tokens of a text.
    """

    accuracy: float
    own: float
    difference: float
    changed: int
    examples: int


def agreement(
    run: Run, variables: Mapping[str, Any], task: Mapping[str, Any], files: Mapping[str, Mapping[str, Call]], rows: int
) -> dict[str, Agreement]:
    """Score every format, each a function a part; one that is off by more than the tolerance is an error."""
    own = jax.jit(lambda variables, batch: predict(run.experiment, *_split(variables), batch))
    sums = {name: np.zeros(4) for name in files}
    largest = dict.fromkeys(files, 0.0)
    for batch in run.dataset.evaluation.eval_batches(min(rows, run.dataset.evaluation.size)):
        labels, weights = (np.asarray(part) for part in run.experiment.task.targets(batch))
        wanted = np.asarray(own(variables, batch))
        for name, calls in files.items():
            found = _logits(calls, batch, task, run.experiment.task.inputs)
            scored = weights > 0
            size = np.abs(wanted[scored]).max(initial=1e-30)
            difference = np.abs(found - wanted)[scored].max(initial=0) / size
            largest[name] = float(np.maximum(largest[name], difference))  # Python's max would lose a NaN
            chosen, ours = found.argmax(-1), wanted.argmax(-1)
            counted = ((chosen == labels), (ours == labels), (chosen != ours), np.ones_like(scored))
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


def _split(variables: Mapping[str, Any]) -> tuple[Any, Any]:
    return variables["params"], variables.get("batch_stats", {})


def _logits(calls: Mapping[str, Call], batch: Any, task: Mapping[str, Any], inputs: Any) -> np.ndarray:
    """The logits of a batch: at once for images, for a text token after token with the cache."""
    if task["name"] == "translation":
        return _forced(calls, np.asarray(batch.source), np.asarray(batch.target), task)
    images = np.asarray(batch.images)
    return calls["model"](images if task["images"] == "raw" else inputs(batch, None)[0])[0]


def _forced(calls: Mapping[str, Call], source: np.ndarray, target: np.ndarray, task: Mapping[str, Any]) -> np.ndarray:
    source = np.pad(source, ((0, 0), (0, task["source_length"] - source.shape[1])))
    (memory,) = calls["encoder"](source)
    before = np.pad(target[:, :-1], ((0, 0), (1, 0)), constant_values=BEGIN).astype(np.int32)
    caches = [np.zeros((len(source), *shape), np.float32) for shape in task["caches"]]
    logits = []
    for position in range(target.shape[1]):
        found, *caches = calls["decoder"](before[:, position], np.int32(position), memory, source, *caches)
        logits.append(found)
    return np.stack(logits, axis=1)
