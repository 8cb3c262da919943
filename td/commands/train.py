"""The command td-train."""

from typing import Annotated

from ml_collections import ConfigDict

from td.errors import UserError
from td.io import cli, hosts
from td.io.files import as_path
from td.train.devices import Execution


@cli.command
def main(
    config: ConfigDict,
    execution: Annotated[Execution, "devices"],
    workdir: str = "",
    print_config: bool = False,
    hosts_: str = "",
) -> None:
    """Train the run described by a config. Rerun the same command to resume.

    Examples:
      td-train --config=digits_resnet:mask=targeted,granularity=unit --workdir=runs/digits
      td-train --config=cifar10_resnet32:mask=targeted,scale=short --workdir=runs/cifar --config.mask.drop_rate=0.5

    Flags:
      config: Experiment: a file of configs/ and, after a colon, its arguments; --config.SETTING=VALUE changes a
        setting.
      workdir: Folder of the run; required, except with --print_config.
      print_config: Print all settings as JSON, and stop.

    Rarely needed:
      hosts: Position among several hosts that train together: i/n@address:port of the first, or auto.
    """
    if print_config:
        print(config.to_json(indent=2))
        return
    if not workdir:
        raise UserError("--workdir is empty: give a path")
    from td.train.loop import train_rounds

    hosts.join(hosts_)
    result = train_rounds(config, as_path(workdir), execution)
    if hosts.is_first():
        counted = f"{result['examples']} {result.get('counted', 'examples')}"
        print(f"accuracy {result['accuracy']:.4f} on {counted}; {workdir}/result.json")
