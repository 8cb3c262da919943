"""Where a run's numbers go: `metrics.jsonl`, one object a line, and TensorBoard events."""

import json
import logging
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from td.io.run_folder import write_text

LOG = logging.getLogger(__name__)


class MetricLog:
    """Append-only log of a run, cut back to the resumed step when it is opened."""

    def __init__(self, workdir: Path, step: int) -> None:
        """Open the log."""
        self._path = workdir / "metrics.jsonl"
        kept = [line for line in _whole(self._path) if line["step"] <= step]
        write_text(self._path, "".join(f"{json.dumps(line)}\n" for line in kept))
        self._file = self._path.open("a")
        # Written from this thread: tensorboardX's writer thread dies on a full disk, and the run would wait for ever.
        (workdir / "events").mkdir(exist_ok=True)
        self._events = EventsWriter(str(workdir / "events" / "events"), f".{step}")
        self._add_event(step + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, values: dict[str, float]) -> None:
        """Log numbers at a step."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._add_event(step, summary=scalar(name, value))
        self._events.flush()

    def _add_event(self, step: int, **content: Any) -> None:
        self._events.write_event(Event(wall_time=time.time(), step=step, **content))

    def __enter__(self) -> "MetricLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._events.close()


def read(workdir: Path) -> list[dict[str, Any]]:
    """Read a run's log."""
    return _whole(workdir / "metrics.jsonl")


def _whole(path: Path) -> list[dict[str, Any]]:
    """The lines that can be read: a kill leaves half of one, a disk that was full others."""
    lines = path.read_text(errors="replace").split("\n") if path.exists() else [""]
    found = []
    for number, line in enumerate(lines, 1):
        try:
            content = json.loads(line)
            if not isinstance(content["step"], int):
                raise ValueError("no step")
        except (ValueError, TypeError, KeyError):
            if number < len(lines):
                LOG.warning("line %d of %s cannot be read and is left out", number, path)
            continue
        found.append(content)
    return found
