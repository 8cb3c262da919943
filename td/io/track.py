"""Experiment trackers behind a run's own log. Each is sent what it lacks, so a resumed run continues there."""

import contextvars
import logging
import math
import os
import pathlib
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

from ml_collections import ConfigDict
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from td.errors import UserError, extra, lookup
from td.io import provenance
from td.io.files import Path, absolute, read_json, write_json
from td.io.run_folder import flatten

LOG = logging.getLogger(__name__)

PROJECT = "targeted-dropout"
"""Project, or experiment, of all runs, unless the tracker's own environment variable names another."""


class TensorBoard:
    """Event files in the run folder."""

    def __init__(self, folder: Path, config: ConfigDict, step: int, stage: pathlib.Path) -> None:
        self.last = step if (folder / "events").exists() else -1  # newest step that it has
        (stage / "events").mkdir(exist_ok=True)
        # Written from this thread: tensorboardX's writer thread dies on a full disk, and the run would wait for ever.
        self._events = EventsWriter(str(stage / "events" / "events"), f".{step}")
        self._add(step + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._add(step, summary=scalar(name, value))
        self._events.flush()

    def _add(self, step: int, **content: Any) -> None:
        self._events.write_event(Event(wall_time=time.time(), step=step, **content))

    def close(self, failed: bool) -> None:
        self._events.close()


class Remote:
    """A run in a tracker that finds it by the identity in tracking.json, and shows its config and tags."""

    last: float = -1  # newest step that it has
    _open: Any  # (name, identity, config, tags) -> None

    def __init__(self, folder: Path, config: ConfigDict, *_: Any) -> None:
        mask, self._path = config.mask, folder / "tracking.json"
        self._kept: dict[str, Any] = read_json(self._path) if self._path.exists() else {"id": uuid.uuid4().hex[:8]}
        write_json(self._path, self._kept)
        rates = {name: value for name, value in mask.items() if name.endswith(("_rate", "proportion"))}
        tags = {"method": mask.name, "granularity": mask.get("granularity", config.granularity), **rates}
        tags |= {"seed": config.seed, "commit": provenance.commit()}
        self._open("/".join(absolute(folder).parts[-2:]), self._kept["id"], config, tags)


class WandB(Remote):
    """Weights & Biases, online or offline."""

    def _open(self, name: str, identity: str, config: ConfigDict, tags: dict[str, Any]) -> None:
        self._wandb = extra("wandb", "--track=wandb")
        shutil.rmtree(self._kept.pop("open", ""), ignore_errors=True)  # a killed process leaves its files cut short
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=identity,
            name=name,
            config={**config.to_dict(), **tags},
            tags=[tags["method"], tags["granularity"]],
            resume="allow",
            reinit="create_new",
            settings=self._wandb.Settings(console="off", silent=True),
        )
        self.last = self._kept.get("sent", -1) if self._run.offline else self._run.step - 1
        self._sent = int(self.last)
        if self._run.offline:
            write_json(self._path, {**self._kept, "open": str(pathlib.Path(self._run.dir).parent)})
        elif not self._run.resumed:
            LOG.info("W&B: %s", self._run.url)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)
        self._sent = step

    def table(self, name: str, table: Any) -> None:
        rows = self._wandb.Table(dataframe=table)
        self.write(self._sent + 1, {name: self._wandb.plot.line(rows, "prune_rate", "accuracy", title=name)})

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
        write_json(self._path, {**self._kept, "sent": self._sent})


class MLflow(Remote):
    """MLflow: the server or store that MLFLOW_TRACKING_URI names."""

    def _open(self, name: str, identity: str, config: ConfigDict, tags: dict[str, Any]) -> None:
        self._mlflow = extra("mlflow", "--track=mlflow")
        self._client, experiment = self._mlflow.MlflowClient(), self.experiment()
        found = self._client.search_runs([experiment], f"tags.td_run = '{identity}'")
        found = found or [self._client.create_run(experiment, tags={**tags, "td_run": identity}, run_name=name)]
        self._id = found[0].info.run_id
        self._client.update_run(self._id, "RUNNING")
        self.last = max((at.step for at in self._client.get_metric_history(self._id, "progress")), default=-1)
        if not found[0].data.params:
            params = [self._mlflow.entities.Param(*each) for each in flatten(config.to_dict()).items()]
            for i in range(0, len(params), 100):  # servers reject a batch of more than 100 params
                self._client.log_batch(self._id, params=params[i : i + 100])

    @staticmethod
    def experiment() -> str:
        """Return the experiment's id; makes it and the store, which several processes cannot do at once."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        return str(extra("mlflow", "--track=mlflow").set_experiment(name).experiment_id)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        now, metric = int(1000 * time.time()), self._mlflow.entities.Metric
        try:
            self._client.log_batch(self._id, [metric(name, value, now, step) for name, value in values.items()])
        except self._mlflow.exceptions.MlflowException as error:
            LOG.warning("MLflow gets no more of this run until it is started again: %s", error)
            self.last = math.inf

    def table(self, name: str, table: Any) -> None:
        self._client.log_text(self._id, table.to_csv(index=False), f"{name}.csv")

    def close(self, failed: bool) -> None:
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")


class Trackio(Remote):
    """Trackio: its local store, or the Space that TRACKIO_SPACE_ID names."""

    def _open(self, name: str, identity: str, config: ConfigDict, tags: dict[str, Any]) -> None:
        self._trackio, own = extra("trackio", "--track=trackio"), {**flatten(config.to_dict()), **tags}
        project, name = os.environ.get("TRACKIO_PROJECT", PROJECT), f"{name}-{identity}"
        start = contextvars.Context().run  # in a context of its own, or it would finish this process's other runs
        with redirect_stdout(None):
            self._run = start(self._trackio.init, project, name, resume="allow", config=own, embed=False)
        self.last = self._run._next_step - 1

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def table(self, name: str, table: Any) -> None:
        self._run.log({name: self._trackio.Table(dataframe=table)})

    def close(self, failed: bool) -> None:
        with redirect_stdout(None):
            self._run.finish()


TRACKERS: dict[str, Any] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow, "trackio": Trackio}


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Turn the error of a tracker that cannot start, of its own type, into a UserError."""
    try:
        yield
    except Exception as error:
        if name == "tensorboard" or isinstance(error, UserError):
            raise
        raise UserError(f"--track={name} cannot start: {error}") from error


def check(names: str) -> None:
    """Raise UserError where one of `tensorboard,wandb` is unknown or its package or server is missing."""
    for name in filter(None, names.split(",")):
        with _one_line(name):
            if lookup(TRACKERS, name, "tracker") is not TensorBoard:
                extra(name, f"--track={name}")
            if name == "mlflow":
                MLflow.experiment()


def start(names: str, folder: Path, config: ConfigDict, step: int, stage: Path) -> list[Any]:
    """Start or continue a run in every tracker; `stage` is where files of the folder are written."""
    started = []
    for name in filter(None, names.split(",")):
        with _one_line(name):
            started.append(TRACKERS[name](folder, config, step, stage))
    return started


def add_tables(names: str, folder: Path, config: ConfigDict, tables: Mapping[str, Any]) -> None:
    """Add data frames by their names to a run that is trained, in all trackers but TensorBoard, which has no tables."""
    for tracker in start(names.replace("tensorboard", ""), folder, config, 0, folder):
        for name, table in tables.items():
            tracker.table(name, table)
        tracker.close(failed=False)
