"""The log of a run: `metrics.jsonl`, one object a line, and the trackers that follow it."""

import json
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import Any

from ml_collections import ConfigDict

from td.io.files import Path, staged, upload, write_text
from td.io.track import start


class MetricLog(AbstractContextManager["MetricLog"]):
    """Append-only log of a run, cut back to the resumed step when it is opened. Trackers get the lines they lack."""

    def __init__(self, workdir: Path, step: int, config: ConfigDict, trackers: str = "tensorboard") -> None:
        kept = [line for line in read(workdir) if line["step"] <= step]
        self._stack, self._workdir = ExitStack(), workdir
        self._stage = self._stack.enter_context(staged(workdir))
        write_text(self._stage / "metrics.jsonl", "".join(f"{json.dumps(line)}\n" for line in kept))
        self._file = self._stack.enter_context((self._stage / "metrics.jsonl").open("a"))
        self._trackers = start(trackers, workdir, config, step, self._stage)
        for line in kept:
            self._track(**line)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Log all numbers of a step."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        self._track(step, **values)

    def upload(self) -> None:
        """Upload the log if the run is in a store: before a checkpoint, so that no line up to there can be lost."""
        upload(self._stage, self._workdir)

    def _track(self, step: int, **values: float) -> None:
        for tracker in self._trackers:
            if step > tracker.last:
                tracker.write(step, values)

    def __exit__(self, kind: type | None, *_: object) -> None:
        for tracker in self._trackers:
            tracker.close(failed=kind is not None)
        self._stack.close()  # without the error: what led to it is uploaded too


def read(workdir: Path, last: int = 0) -> list[dict[str, Any]]:
    """Read the lines of a run's log, or its last ones, without what a kill or a full disk left of one."""
    path, lines = workdir / "metrics.jsonl", []
    for line in path.read_bytes().decode(errors="replace").splitlines()[-last:] if path.exists() else []:
        with suppress(ValueError):
            lines.append(json.loads(line))
    return lines
