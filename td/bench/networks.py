"""The networks that are measured, built without any data set."""

import runpy
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from td.data import Dataset, Split
from td.data.sentence_pairs import TextBatch
from td.data.task import classification, translation
from td.io import config_files
from td.train.experiment import Run, build, build_abstract
from td.train.state import TrainState
from td.train.step import make_train_step


class Measured(NamedTuple):
    """One network and the batch it is measured with."""

    config: str  # a file of `configs/`, without its ending
    batch: int  # images, or sentence pairs of 64 tokens
    classes: int  # labels, or tokens of the vocabulary
    arguments: str = ""  # of the config
    image: tuple[int, int, int] = (32, 32, 3)


NETWORKS = {
    "ResNet-32": Measured("cifar10_resnet32", 128, 10),
    "WRN-28-10": Measured("cifar10_wrn", 32, 10),
    "VGG-16": Measured("cifar100_vgg16", 128, 100),
    "Transformer base": Measured("wmt14_transformer", 32, 32_000),
}
LENGTH = 64


class _Sentences(NamedTuple):
    """Random sentence pairs, as far as `build` asks."""

    rows: int
    classes: int

    @property
    def size(self) -> int:
        return 1000 * self.rows

    def examples_per_step(self, batch_size: int) -> float:
        del batch_size
        return float(self.rows)

    def blank_batch(self, rows: int) -> TextBatch:
        return TextBatch(*np.random.default_rng(0).integers(4, self.classes, (2, rows, LENGTH)).astype(np.int32))


def load_config(network: Measured, arguments: str = "", settings: Mapping[str, Any] | None = None) -> ConfigDict:
    """Read the network's config file."""
    get_config = runpy.run_path(str(config_files.FOLDER / f"{network.config}.py"))["get_config"]
    config: ConfigDict = get_config(",".join(filter(None, (network.arguments, arguments))))
    config.update_from_flattened_dict({"duration": "1000 steps", **(settings or {})})
    return config


def prepare(network: Measured, config: ConfigDict, *, shapes_only: bool = False) -> tuple[Run, TrainState, Any]:
    """Build the network's parts, its state at step 0 or the shapes of it, and a batch of noise."""
    draw = np.random.default_rng(0)
    rows: Any
    if network.config.startswith("wmt"):
        rows = _Sentences(network.batch, network.classes)
        task, batch = translation(), rows.blank_batch(network.batch)
    else:
        images = draw.integers(0, 256, (network.batch, *network.image)).astype(np.uint8)
        rows = Split(images, draw.integers(0, network.classes, network.batch).astype(np.int32))
        config.data.batch_size = network.batch
        task = classification(config.data.pad, config.data.flip)
        batch = next(rows.train_batches(network.batch, 0, 0))
    dataset = Dataset(rows, rows, network.classes, task)
    return *(build_abstract if shapes_only else build)(config, dataset), batch


class Stepper:
    """A training step that keeps its state between calls, as a run does."""

    def __init__(self, run: Run, state: TrainState, batch: Any) -> None:
        """Compile."""
        self._batch, self._key, self._state = jax.device_put(batch), run.key, state
        step: Any = make_train_step(run.experiment)
        self.compiled = step.lower(self._state, self._batch, self._key).compile()

    def __call__(self) -> Any:
        """Take one step; returns its loss."""
        self._state, metrics = self.compiled(self._state, self._batch, self._key)
        return metrics["loss"]

    def peak_bytes(self) -> int:
        """Return the step's peak memory as the compiler plans it: arguments, results and what is between."""
        plan = self.compiled.memory_analysis()
        held = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
        return int(held + plan.temp_size_in_bytes)
