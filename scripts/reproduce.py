"""Reproduce tables and figures of the paper: python scripts/reproduce.py TABLE ... --scale=cpu --workdir=DIR."""

from pathlib import Path

from absl import flags

from td import cli
from td.errors import UserError
from td.reproduce import launch
from td.reproduce.cost import dry_run
from td.reproduce.plan import SCALES
from td.reproduce.table import table_names

CONFIGS = Path(__file__).resolve().parent.parent / "configs"

WORKDIR = flags.DEFINE_string("workdir", None, "Where everything goes; the same command goes on.", required=True)
SCALE = flags.DEFINE_string("scale", "paper", f"How large: {', '.join(SCALES)}.")
SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each network.", lower_bound=1)
ONLY = flags.DEFINE_multi_string("only", [], "A column to restrict to; may be given several times.")
SHARD = flags.DEFINE_string("shard", "", "i/n: do the i-th of n parts of the runs.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only print the runs, with an estimate of their cost.")
SET = flags.DEFINE_multi_string("set", [], "NAME=VALUE: change a setting of every config that has it.")
NOTE = flags.DEFINE_string("data_note", "", "How exact the data are, for the captions.")
RETRY = flags.DEFINE_bool("retry_failed", False, "Try failed runs again.")
LAUNCHER = flags.DEFINE_enum("launcher", "local", ["local", "slurm"], "Here, or as a Slurm array through submitit.")
SHARDS = flags.DEFINE_integer("array", 8, "Tasks of the Slurm array.", lower_bound=1)
SLURM = flags.DEFINE_multi_string("slurm", [], "NAME=VALUE of submitit's executor, as slurm_partition=gpu.")


def pairs(texts: list[str], flag: str) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise UserError(f"--{flag}={text} is malformed: write --{flag}=NAME=VALUE")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def main(names: list[str]) -> None:
    known = table_names(CONFIGS)
    if not names:
        raise UserError(f"no table: give one or more of {', '.join(known)}, or all")
    request = launch.Request(
        configs=CONFIGS,
        tables=tuple(known if names == ["all"] else names),
        folder=Path(WORKDIR.value).resolve(),
        scale=SCALE.value,
        seeds=SEEDS.value,
        only=tuple(ONLY.value),
        shard=SHARD.value,
        changes=pairs(SET.value, "set"),
        note=NOTE.value,
        retry=RETRY.value,
    )
    if DRY_RUN.value:
        print(dry_run(request))
    elif LAUNCHER.value == "slurm":
        options = pairs(SLURM.value, "slurm")
        print(launch.submit(request, SHARDS.value, request.folder / "slurm", "slurm", options))
    else:
        print(launch.reproduce(request))


if __name__ == "__main__":
    cli.run(main, arguments=True)
