"""The command td-reproduce."""

from pathlib import Path
from typing import Annotated

from td.errors import UserError, check_choice
from td.io import cli
from td.reproduce.jobs import Request


def pairs(texts: tuple[str, ...], flag: str) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise UserError(f"--{flag}={text} is malformed: write --{flag}=NAME=VALUE")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


@cli.command
def main(
    names: list[str],
    workdir: Path,
    request: Annotated[Request, "configs", "tables", "folder", "changes"],
    dry_run: bool = False,
    set_: tuple[str, ...] = (),
    launcher: str = "local",
    array: int = 8,
    slurm: tuple[str, ...] = (),
) -> None:
    """Reproduce tables of the paper by name, or your own by path. Rerun the same command to resume.

    Examples:
      td-reproduce table2_weight --scale=cpu --seeds=3 --workdir=runs/paper
      td-reproduce all --scale=paper --workdir=runs/paper --dry_run

    Flags:
      workdir: Folder for all runs, results and reports.
      dry_run: Print the runs with an estimate of their cost, and stop.

    Rarely needed:
      set: NAME=VALUE: change a setting of every config that has it.
      launcher: local, or slurm for a Slurm array through submitit.
      array: Tasks of the Slurm array.
      slurm: NAME=VALUE of submitit's executor, for example slurm_partition=gpu.
    """
    from td.reproduce import run_jobs
    from td.reproduce.table import table_names

    known = table_names(cli.CONFIGS)
    check_choice("launcher", launcher, ("local", "slurm"))
    if not names:
        raise UserError(f"no table: give one or more of {', '.join(known)}, or all")
    tables, changes = tuple(known if names == ["all"] else names), pairs(set_, "set")
    request = request._replace(configs=cli.CONFIGS, tables=tables, folder=workdir.resolve(), changes=changes)
    if dry_run:
        print(run_jobs.dry_run(request))
    elif launcher == "slurm":
        print(run_jobs.submit(request, array, request.folder / "slurm", "slurm", pairs(slurm, "slurm")))
    else:
        print(run_jobs.reproduce(request))
