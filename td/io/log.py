"""Where a run's numbers go: `metrics.jsonl`, one object a line, and TensorBoard events."""

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from td.io.run_folder import write_text


class MetricLog:
    """Append-only log of a run, cut back to the resumed step when it is opened."""

    def __init__(self, workdir: Path, step: int) -> None:
        """Open the log."""
        self._path = workdir / "metrics.jsonl"
        kept = [line for line in self._lines() if json.loads(line)["step"] <= step]
        write_text(self._path, "".join(f"{line}\n" for line in kept))
        self._file = self._path.open("a")
        # Written from this thread: tensorboardX's writer thread dies on a full disk, and the run would wait for ever.
        (workdir / "events").mkdir(exist_ok=True)
        self._events = EventsWriter(str(workdir / "events" / "events"), f".{step}")
        self._add_event(step + 1, session_log=SessionLog(status=SessionLog.START))

    def _lines(self) -> list[str]:
        if not self._path.exists():
            return []
        *whole, last = self._path.read_text().split("\n")
        del last  # empty after a finished line, half a line after a kill
        return whole

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
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
