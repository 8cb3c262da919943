"""The log of a run: `metrics.jsonl`, one object a line, and the trackers that follow it."""

import json
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from td.io.files import write_text
from td.io.track import start


class MetricLog(AbstractContextManager["MetricLog"]):
    """Append-only log of a run, cut back to the resumed step when it is opened. Trackers get the lines they lack."""

    def __init__(self, workdir: Path, step: int, config: ConfigDict, trackers: str = "tensorboard") -> None:
        kept = [line for line in read(workdir) if line["step"] <= step]
        write_text(workdir / "metrics.jsonl", "".join(f"{json.dumps(line)}\n" for line in kept))
        self._file, self._trackers = (workdir / "metrics.jsonl").open("a"), start(trackers, workdir, config, step)
        for line in kept:
            self._track(**line)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Log all numbers of a step."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        self._track(step, **values)

    def _track(self, step: int, **values: float) -> None:
        for tracker in self._trackers:
            if step > tracker.last:
                tracker.write(step, values)

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._file.close()
        for tracker in self._trackers:
            tracker.close(failed=kind is not None)


def read(workdir: Path, last: int = 0) -> list[dict[str, Any]]:
    """Read the lines of a run's log, or its last ones, without what a kill or a full disk left of one."""
    path, lines = workdir / "metrics.jsonl", []
    for line in path.read_text(errors="replace").splitlines()[-last:] if path.exists() else []:
        with suppress(ValueError):
            lines.append(json.loads(line))
    return lines
