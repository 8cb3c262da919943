"""The networks that are measured, built without any data set."""

import runpy
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from td.data import Dataset, Split
from td.data.base import classification, translation
from td.data.sentence_pairs import Pairs, Sentences
from td.io import cli
from td.train.experiment import Run, build
from td.train.state import TrainState
from td.train.step import make_train_step


class Measured(NamedTuple):
    """One network and the batch it is measured with."""

    config: str  # a file of `configs/`, without its ending
    batch: int  # images, or sentence pairs of 64 tokens
    classes: int  # labels, or tokens of the vocabulary
    arguments: str = ""  # of the config
    image: tuple[int, int, int] = (32, 32, 3)
    dtype: str = ""  # of the arithmetic, as in the config by default


NETWORKS = {
    "ResNet-32": Measured("cifar10_resnet32", 128, 10),
    "WRN-28-10": Measured("cifar10_wrn", 32, 10),
    "VGG-16": Measured("cifar100_vgg16", 128, 100),
    "Transformer base": Measured("wmt14_transformer", 32, 32_000),
}
LENGTH = 64


def load_config(network: Measured, arguments: str = "", settings: Mapping[str, Any] | None = None) -> ConfigDict:
    """Read the network's config file."""
    get_config = runpy.run_path(str(cli.CONFIGS / f"{network.config}.py"))["get_config"]
    config: ConfigDict = get_config(",".join(filter(None, (network.arguments, arguments))))
    dtype = {"model.dtype": network.dtype} if network.dtype and "dtype" in config.model else {}
    config.update_from_flattened_dict({"duration": "1000 steps", **dtype, **(settings or {})})
    return config


def prepare(
    network: Measured, arguments: str = "", settings: Mapping[str, Any] | None = None, *, shapes_only: bool = False
) -> tuple[Run, TrainState, Any]:
    """Build the network's parts, its state at step 0 or the shapes of it, and a batch of noise."""
    config = load_config(network, arguments, settings)
    draw, count, rows = np.random.default_rng(0), network.batch, np.arange(network.batch)
    split: Any
    if network.config.startswith("wmt"):
        tokens = draw.integers(4, network.classes, (2, count * LENGTH)).astype(np.int32)
        source, target = (Sentences(side, (rows + 1) * LENGTH) for side in tokens)
        split = Pairs(source, target, (LENGTH,))
        task, batch = translation(), split.gather(rows, count, LENGTH)
    else:
        images = draw.integers(0, 256, (count, *network.image)).astype(np.uint8)
        split = Split(images, draw.integers(0, network.classes, count).astype(np.int32))
        config.data.batch_size = count
        task, batch = classification(config.data.pad, config.data.flip), split.train_batch(0, count, 0)
    dataset = Dataset(split, split, network.classes, task)
    return *build(config, dataset, shapes_only=shapes_only), batch


def peak_bytes(compiled: Any) -> int:
    """Return a program's peak memory as the compiler plans it: arguments, results and what is between."""
    plan = compiled.memory_analysis()
    held = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    return int(held + plan.temp_size_in_bytes)


class Stepper:
    """A training step that keeps its state between calls, as a run does."""

    def __init__(self, run: Run, state: TrainState, batch: Any) -> None:
        self._batch, self._key, self._state = jax.device_put(batch), run.key, state
        step: Any = make_train_step(run.experiment)
        self.compiled = step.lower(self._state, self._batch, self._key).compile()

    def __call__(self) -> Any:
        """Take one step; returns its loss."""
        self._state, metrics = self.compiled(self._state, self._batch, self._key)
        return metrics["loss"]
