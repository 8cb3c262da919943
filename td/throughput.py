"""How fast the input pipeline alone is, so that a slow run can be told from a slow network."""

import time
from itertools import islice
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from td import data, provenance
from td.errors import check_at_least
from td.progress import progress
from td.workdir import write_json


def throughput(config: ConfigDict, batches: int, out: Path | None = None) -> str:
    """Time the training batches of a config, without any network.

    Args:
      config: the experiment.
      batches: how many to time, after a first one that is not.
      out: a JSON file to write; None: none.

    Returns:
      Images or tokens a second, for the screen.

    Raises:
      UserError: no data, or fewer than one batch.
    """
    check_at_least("batches", batches, 1)
    dataset = data.load(config.data.to_dict())
    dataset.train.examples_per_step(config.data.batch_size)
    stream = dataset.train.train_batches(config.data.batch_size, config.seed, 0)
    next(stream)
    start = time.perf_counter()
    total = sum(dataset.task.count(batch) for batch in progress(islice(stream, batches), total=batches, unit="batch"))
    seconds = time.perf_counter() - start
    unit = dataset.task.unit
    result: dict[str, Any] = {f"{unit}_per_second": total / seconds, unit: total, "seconds": seconds}
    if out is not None:
        write_json(out, {**result, "data": config.data.to_dict(), **provenance.describe()})
    return f"{total / seconds:.0f} {unit} a second ({total} {unit} in {seconds:.1f} s)"
