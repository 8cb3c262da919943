"""Points of a sweep: their configs, names, files and states, and the way to run them."""

import hashlib
import json
import logging
import runpy
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import pandas as pd
from ml_collections import ConfigDict

from td.errors import UserError, nearest
from td.io import track
from td.io.files import Path, read_json, write_text
from td.io.interrupt import Stopped, at_once
from td.io.progress import titled
from td.io.run_folder import FORMER_NAMES, MACHINE_SETTINGS, TEXTS, Busy, flatten
from td.kernels import KERNELS
from td.sweep.hyper import Settings
from td.sweep.launch import Launch
from td.train.config import TRACED, convert, expand_percent
from td.train.devices import PLAIN
from td.train.loop import train_rounds

LOG = logging.getLogger(__name__)

TOP = ("duration", "kernels", "rng", "seed")
"""Settings without a dot in their name; all other names without one are arguments of the config file."""

UNNAMED: dict[str, Any] = {"rng": "threefry2x32", "data.path": "", "model.stem_stride": 1}
UNNAMED |= {"optim.begin": "0 steps", "start.workdir": "", "start.prune_rate": 0.0, "mask.over": "unit"}
UNNAMED["start.reconstruct_examples"] = 0
"""Settings that are not part of a run's name at these values: published runs were named before there were such."""

FORMER_KERNELS = r"^(?!(.*/)?(stem|logits|embedding)(/|$))"
"""The pattern that runs are named by instead of their config's own choice: published runs had it."""


class Point(NamedTuple):
    """One run of a sweep, and what is computed from its network."""

    title: Mapping[str, Any]  # what tells it from the others
    config: ConfigDict  # all settings
    folder: Path  # of the run; its name is the same wherever the config is the same
    result: Path  # file that a finished point has
    score: Callable[[], Any] | None = None  # writes that file once the network is trained
    scorings: int = 0  # how often it scores the network
    asked: Mapping[str, Any] = {}  # content of the result file if it is the one that is wanted

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.title.items())

    @property
    def failure(self) -> Path:
        """File that says why there is no result."""
        return self.result.with_suffix(".failed.txt")

    def state(self) -> str:
        """Return the state: to do, started, failed or finished."""
        about = self.folder / "config.json"
        started = about.exists()
        texts = {name: value for name, value in flatten(self.config.to_dict()).items() if name in TEXTS}
        # Files of text are not part of the name. Where others are given, training compares what is in them.
        same = not (texts and started) or texts.items() <= flatten(read_json(about)).items()
        if same and self.result.exists() and (not self.asked or self.asked.items() <= read_json(self.result).items()):
            return "finished"
        return "failed" if self.failure.exists() else "started" if started else "to do"

    def fail(self, reason: str) -> None:
        """Record why it failed."""
        write_text(self.failure, f"{reason}\n")


def work(points: Sequence[Point], launch: Launch) -> None:
    """Run the points of one run folder, unless they are done. A failure is recorded, and stops no others."""
    for point in points:
        if (state := point.state()) == "finished" or (state == "failed" and not launch.retry_failed):
            continue
        try:
            with titled(str(point)):
                train_rounds(point.config, point.folder, PLAIN._replace(track=launch.track))
                if point.score:
                    with at_once():
                        point.score()
                if point.score and launch.track != "tensorboard":
                    _send_curves(point, launch.track)
        except (Stopped, KeyboardInterrupt):
            raise
        except Busy as error:
            LOG.info("%s", error)
        except Exception as error:
            point.fail(f"{type(error).__name__}: {error}")
        else:
            point.failure.unlink(missing_ok=True)


def _send_curves(point: Point, names: str) -> None:
    """Add the prune curves of a point to the trackers as tables."""
    content = read_json(point.result)
    curves = content.get("curves") or ({content["mode"]: content["rows"]} if "rows" in content else {})
    frames = {mode: pd.DataFrame(rows).dropna(axis="columns", how="all") for mode, rows in curves.items()}
    tables = {f"prune_curve/{content['granularity']}-{mode}": frame for mode, frame in frames.items()}
    track.add_tables(names, point.folder, point.config, tables)


@cache
def config_file(path: Path) -> dict[str, Any]:
    """Run a config file, once."""
    return runpy.run_path(str(path))


def make_config(path: Path, settings: Settings, arguments: str = "", where_known: Settings | None = None) -> ConfigDict:
    """Make the config of a point: its file with its arguments, its settings, then settings that some files lack."""
    inner = {name: value for name, value in settings.items() if "." in name or name in TOP}
    words = [arguments, *(f"{name}={value}" for name, value in settings.items() if name not in inner)]
    config = config_file(path)["get_config"](",".join(filter(None, words)))
    known = flatten(config.to_dict())
    inner |= {name: value for name, value in (where_known or {}).items() if name in known}
    for name, value in inner.items():
        if name not in known:
            raise UserError(f"{path.stem} has no setting {name!r}: {nearest(name, known)}")
        typed = convert(name, value, known[name]) if isinstance(value, str) else value
        config.update_from_flattened_dict({name: typed})
    return expand_percent(config).lock()


def run_name(name: str, config: ConfigDict) -> str:
    """Name a run by its config: equal configs have equal names, different ones different names."""
    named = {key: value for key, value in flatten(config.to_dict()).items() if key not in MACHINE_SETTINGS}
    if named["kernels"] == (KERNELS if named.get("model.name") == "mlp" else TRACED):
        named["kernels"] = FORMER_KERNELS
    named = {FORMER_NAMES.get(key, key): value for key, value in named.items()}
    settings = {key: value for key, value in named.items() if UNNAMED.get(key) != value}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    method = config.mask.name.replace(":", ".")  # of an import path: not every file system takes a colon
    return f"{name}-{method}-seed{config.seed}-{digest}"
