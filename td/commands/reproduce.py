"""Reproduce tables and figures of the paper: td-reproduce TABLE ... --scale=cpu --workdir=DIR."""

from pathlib import Path

from absl import flags

from td.errors import UserError
from td.io import cli, config_files
from td.reproduce.request import Request

WORKDIR = flags.DEFINE_string("workdir", None, "Where everything goes; the same command goes on.", required=True)
REQUEST = cli.define_flags(Request, "configs", "tables", "folder", "changes")
SET = flags.DEFINE_multi_string("set", [], "NAME=VALUE: change a setting of every config that has it.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only print the runs, with an estimate of their cost.")
LAUNCHER = flags.DEFINE_enum("launcher", "local", ["local", "slurm"], "Here, or as a Slurm array through submitit.")
TASKS = flags.DEFINE_integer("array", 8, "Tasks of the Slurm array.", lower_bound=1)
SLURM = flags.DEFINE_multi_string("slurm", [], "NAME=VALUE of submitit's executor, as slurm_partition=gpu.")


def pairs(texts: list[str], flag: str) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise UserError(f"--{flag}={text} is malformed: write --{flag}=NAME=VALUE")
        if sum(other.partition("=")[0] == text.partition("=")[0] for other in texts) > 1:
            raise UserError(f"--{flag}={text}: the same name is given twice")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


@cli.command(arguments=True)
def main(names: list[str]) -> None:
    from td.reproduce import cost, run_jobs
    from td.reproduce.table import table_names

    known = table_names(config_files.FOLDER)
    if not names:
        raise UserError(f"no table: give one or more of {', '.join(known)}, or all")
    request = Request(
        configs=config_files.FOLDER,
        tables=tuple(known if names == ["all"] else names),
        folder=Path(WORKDIR.value).resolve(),
        changes=pairs(SET.value, "set"),
        **REQUEST(),
    )
    if SLURM.value and LAUNCHER.value != "slurm":
        raise UserError(f"--slurm={SLURM.value[0]} does nothing here: give --launcher=slurm as well")
    if DRY_RUN.value:
        print(cost.dry_run(request))
    elif LAUNCHER.value == "slurm":
        options = pairs(SLURM.value, "slurm")
        print(run_jobs.submit(request, TASKS.value, request.folder / "slurm", "slurm", options))
    else:
        print(run_jobs.reproduce(request))
