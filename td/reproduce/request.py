"""What is asked for on a command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

SCALES = ("paper", "short", "small", "cpu", "smoke")
"""The full schedule; a tenth of it; for a CPU, half an hour or a few minutes a network; seconds, to try it out."""


class Request(NamedTuple):
    """Tables to reproduce, at a scale.

    Attributes:
      configs: The folder of config files.
      tables: Names of tables.
      folder: Where everything goes.
      scale: How large: paper, short, small, cpu or smoke.
      seeds: Runs of each network.
      only: A column to restrict to; may be given several times.
      part: i/n: do the i-th of n parts of the runs.
      data_note: How exact the data are, for the captions.
      retry_failed: Try failed runs again.
      changes: Settings to change, as text.
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
