"""What is asked for on a command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

SCALES = ("paper", "short", "small", "cpu", "smoke")
"""The full schedule; a tenth of it; for a CPU, half an hour or a few minutes a network; seconds, to try it out."""


class Request(NamedTuple):
    """Tables to reproduce, at a scale.

    Attributes:
      configs: Folder of config files.
      tables: Names of tables.
      folder: Folder for all runs, results and reports.
      changes: Settings to change, as text.
      scale: Size of the runs: paper, short, small, cpu or smoke.
      seeds: Runs of each network.
      only: Column to restrict the table to; repeat it for several.
      retry_failed: Try failed runs again.

    Rarely needed:
      part: i/n: do the i-th of n parts of the runs.
      data_note: Remark on the data, for the captions.
    """

    configs: Path
    tables: tuple[str, ...]
    folder: Path
    scale: str = "paper"
    seeds: int = 3
    only: tuple[str, ...] = ()
    part: str = ""
    data_note: str = ""
    retry_failed: bool = False
    changes: Mapping[str, str] = {}
