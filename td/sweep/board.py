"""Progress of a sweep: a line for each running point that updates in place, then one that says how it ended."""

import logging
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager

from etils import epath
from tqdm import tqdm

from td.io.files import Path, read_json
from td.io.log import read
from td.io.progress import progress
from td.sweep.point import Point

LOG = logging.getLogger(__name__)

Unit = Sequence[Point]  # the points of one run folder, which one process at a time may use


class Board(AbstractContextManager["Board"]):
    """Lines of the points of a sweep, read from their run folders, wherever on a shared disk they are written."""

    def __init__(self, units: Iterable[Unit]) -> None:
        self._left = {unit[0].folder: unit for unit in units}
        self._seen = {folder: _newest(folder) for folder in self._left}
        self._all, self._bars = progress(total=len(self._left), unit="run"), dict[Path, tqdm]()

    def show(self, ended: Iterable[Unit]) -> None:
        """Report the units that have ended, and update the lines of the others."""
        for unit in ended:
            folder = unit[0].folder
            del self._left[folder]
            if folder in self._bars:
                self._bars.pop(folder).close()
            for point in unit:
                LOG.info("%s: %s", point, _outcome(point))
            self._all.update()
        for folder in self._left:
            if (found := _newest(folder)) != self._seen[folder]:
                self._seen[folder] = found
                self._update(folder, found[1].parent)
        if sys.stderr.isatty():  # times, too, of bars that have not moved
            for bar in (self._all, *self._bars.values()):
                bar.refresh()

    def _update(self, folder: Path, log: Path) -> None:
        title = f"{self._left[folder][0]}{'' if log == folder else f': {log.name}'}"
        if folder not in self._bars:
            self._bars[folder] = progress(unit="step", desc=f"{title}: start", miniters=0)
        for line in (line for line in read(log, 1) if "progress" in line):
            bar, state = self._bars[folder], "score" if (folder / "result.json").exists() else "train"
            old, bar.total = bar.desc, round(line["step"] / line["progress"])
            bar.set_description(f"{title}: {state}", refresh=False)
            bar.set_postfix({name: f"{line[name]:.3g}" for name in ("loss", "accuracy")}, refresh=False)
            bar.update(line["step"] - bar.n)
            if bar.desc != old:
                bar.refresh()

    def __exit__(self, *_: object) -> None:
        for bar in (*self._bars.values(), self._all):
            bar.close()


def _newest(folder: Path) -> tuple[float, Path]:
    """Find the file that a run, or its latest round, has written last, and the time."""
    here = not isinstance(folder, epath.Path) and folder.exists()  # a store is too slow to look twice a second
    names = ("config.json", "metrics.jsonl", "result.json") if here else ()
    paths = [path for name in names for path in (folder / name, *folder.glob(f"*/{name}"))]
    return max(((path.stat().st_mtime, path) for path in paths if path.exists()), default=(0.0, folder))


def _outcome(point: Point) -> str:
    state = point.state()
    if state == "finished":
        return f"finished, accuracy {read_json(point.folder / 'result.json')['accuracy']:.4f}"
    return f"failed, {' '.join(point.failure.read_text().split())}" if state == "failed" else state
