"""The command td-reproduce."""

from pathlib import Path
from typing import Annotated

from td.errors import UserError
from td.io import cli
from td.reproduce.table import Request, table_names
from td.sweep.launch import HERE, Launch, pairs


@cli.command
def main(
    names: list[str],
    workdir: Path,
    request: Annotated[Request, "configs", "tables", "folder", "changes"],
    launch: Launch = HERE,
    dry_run: bool = False,
    set_: tuple[str, ...] = (),
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
    """
    from td.reproduce import jobs
    from td.sweep import cost

    known = table_names(cli.CONFIGS)
    if not names:
        raise UserError(f"no table: give one or more of {', '.join(known)}, or all")
    tables, changes = tuple(known if names == ["all"] else names), pairs(set_, "set")
    request = request._replace(configs=cli.CONFIGS, tables=tables, folder=workdir.resolve(), changes=changes)
    points = [job.point for job in jobs.planned(request)]
    print(cost.dry_run(points) if dry_run else jobs.reproduce(request, launch))
