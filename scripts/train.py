"""Train what a config describes: python scripts/train.py --config=configs/FILE.py:ARGUMENTS --workdir=DIR."""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from td import cli, hosts
from td.execution import Execution
from td.rounds import train_rounds

CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, a file of configs/.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; the same command again resumes.", required=True)

STEPS_PER_CALL = flags.DEFINE_integer("steps_per_call", 1, "Steps that one program does; more than 1 on accelerators.")
SHARD = flags.DEFINE_multi_string("shard", [], "What of the state to spread over the devices: a pattern, as kernel$.")
RESIDENT = flags.DEFINE_bool("resident", None, "Copy the data to the devices once; unless told, accelerators do.")
HOSTS = flags.DEFINE_string("hosts", "", "Of several that train together: i/n@address:port of the first, or auto.")
PROFILE = flags.DEFINE_bool("profile", False, "Record ten steps in WORKDIR/profile, for TensorBoard and Perfetto.")


def main(_: list[str]) -> None:
    hosts.join(HOSTS.value)
    execution = Execution(None, STEPS_PER_CALL.value, tuple(SHARD.value), RESIDENT.value, PROFILE.value)
    result = train_rounds(cli.config(CONFIG), Path(WORKDIR.value), execution)
    if hosts.is_first():
        print(f"accuracy {result['accuracy']:.4f} on {result['examples']} examples; {WORKDIR.value}/result.json")


if __name__ == "__main__":
    cli.run(main)
