"""Train what a config describes: td-train --config=configs/FILE.py:ARGUMENTS --workdir=DIR."""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from td.io import cli, hosts
from td.train.devices import Execution

CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, a file of configs/.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; the same command again resumes.", required=True)
HOSTS = flags.DEFINE_string("hosts", "", "Of several that train together: i/n@address:port of the first, or auto.")
EXECUTION = cli.define_flags(Execution, "devices")


@cli.command
def main(_: list[str]) -> None:
    from td.train.rounds import train_rounds

    config, folder = cli.config(CONFIG), Path(WORKDIR.value)
    hosts.join(HOSTS.value)
    result = train_rounds(config, folder, Execution(**EXECUTION()))
    if hosts.is_first():
        counted = f"{result['examples']} {result.get('counted', 'examples')}"
        print(f"accuracy {result['accuracy']:.4f} on {counted}; {WORKDIR.value}/result.json")
