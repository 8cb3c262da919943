"""Flags of sweeps."""

from collections.abc import Sequence
from typing import NamedTuple

from td.errors import UserError


class Launch(NamedTuple):
    """Where the points of a sweep run.

    Attributes:
      executor: local, population (one program for networks that differ in numbers only), slurm (through submitit), ray.
      jobs: Runs at once: processes that share this machine's cores and GPUs, or tasks of the Slurm array.

    Rarely needed:
      slurm: NAME=VALUE of sbatch, for example partition=gpu or time=120; repeat it for several.
      ray: NAME=VALUE: address of a cluster (default: this machine), or resources of a run, as num_gpus=0.25.
      retry_failed: Try failed runs again.
    """

    executor: str = "local"
    jobs: int = 1
    slurm: tuple[str, ...] = ()
    ray: tuple[str, ...] = ()
    retry_failed: bool = False


HERE = Launch()


def pairs(texts: Sequence[str], flag: str) -> dict[str, str]:
    """Read NAME=VALUE texts."""
    for text in texts:
        if "=" not in text:
            raise UserError(f"--{flag}={text} is malformed: write --{flag}=NAME=VALUE")
    found = {name: value for name, _, value in (text.partition("=") for text in texts)}
    if len(found) < len(texts):
        raise UserError(f"--{flag} has one name twice: give all its values at once")
    return found
