"""The log of a run: `metrics.jsonl`, one object a line, and TensorBoard events."""

import json
import time
from contextlib import ExitStack, suppress
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from td.io.files import Path, staged, upload, write_text


class MetricLog:
    """Append-only log of a run, cut back to the resumed step when it is opened."""

    def __init__(self, workdir: Path, step: int) -> None:
        kept = [line for line in read(workdir) if line["step"] <= step]
        self._stack, self._workdir = ExitStack(), workdir
        self._stage = self._stack.enter_context(staged(workdir))
        write_text(self._stage / "metrics.jsonl", "".join(f"{json.dumps(line)}\n" for line in kept))
        self._file = self._stack.enter_context((self._stage / "metrics.jsonl").open("a"))
        # Written from this thread: tensorboardX's writer thread dies on a full disk, and the run would wait for ever.
        (self._stage / "events").mkdir(exist_ok=True)
        self._events = EventsWriter(str(self._stage / "events" / "events"), f".{step}")
        self._stack.callback(self._events.close)
        self._add_event(step + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, values: dict[str, float]) -> None:
        """Log numbers at a step."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._add_event(step, summary=scalar(name, value))
        self._events.flush()

    def upload(self) -> None:
        """Upload the log if the run is in a store: before a checkpoint, so that no line up to there can be lost."""
        upload(self._stage, self._workdir)

    def _add_event(self, step: int, **content: Any) -> None:
        self._events.write_event(Event(wall_time=time.time(), step=step, **content))

    def __enter__(self) -> "MetricLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()  # without the error: what led to it is uploaded too


def read(workdir: Path) -> list[dict[str, Any]]:
    """Read the lines of a run's log, without what a kill or a full disk left of one."""
    path, lines = workdir / "metrics.jsonl", []
    for line in path.read_bytes().decode(errors="replace").splitlines() if path.exists() else []:
        with suppress(ValueError):
            lines.append(json.loads(line))
    return lines
