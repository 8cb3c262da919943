"""What `model.json` says of an exported network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from td.evaluate.options import ExportOptions
from td.export.parts import Network, Part
from td.export.read import VERSION
from td.export.source import Source
from td.io import provenance
from td.io.run_folder import MACHINE_SETTINGS
from td.train.experiment import Run

Networks = Mapping[str, Network]


def describe(
    source: Source, options: ExportOptions, parts: Mapping[str, Part], dense: Networks, networks: Networks
) -> dict[str, Any]:
    """All but what is measured on the files."""
    described = {}
    for name, part in parts.items():
        both = (dense[name], networks[name])
        described[name] = {
            "inputs": {
                key: [["batch", *i.shape[1:]] if i.shape else [], str(np.dtype(i.dtype))]
                for key, i in part.inputs.items()
            },
            "outputs": list(part.outputs),
            "parameters": [sum(leaf.size for leaf in jax.tree.leaves(network.params)) for network in both],
            "flops": [network.flops for network in both],
        }
    return {
        "version": VERSION,
        "config": _portable(source.run),
        "task": source.task,
        "num_classes": source.run.dataset.num_classes,
        "class_names": _class_names(source.run),
        "options": options._asdict(),
        "pruning": source.pruning._asdict(),
        "step": source.step,
        "steps_of_run": source.run.steps,
        "measured": source.measured,
        **provenance.describe(),
        "parts": described,
        "plans": {name: network.plan for name, network in networks.items()},
    }


def _portable(run: Run) -> dict[str, Any]:
    """The run's config without the folders of the machine it was trained on."""
    config = run.config.to_dict()
    for name in MACHINE_SETTINGS:
        config["data"].pop(name.removeprefix("data."), None)
    for section, name in (("data", "path"), ("start", "workdir")):
        if config[section].get(name):
            config[section][name] = Path(config[section][name]).name
    return config


def _class_names(run: Run) -> list[str]:
    """The classes of images by number; of classes without names the numbers."""
    names: Mapping[int, str] = dict(enumerate(run.dataset.class_names))
    return [] if run.dataset.text is not None else [names.get(i, str(i)) for i in range(run.dataset.num_classes)]
