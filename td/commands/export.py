"""The command td-export."""

import shlex
from pathlib import Path
from typing import Annotated

from absl import flags

from td.errors import UserError
from td.evaluate.options import ExportOptions, Options
from td.io import cli


@cli.command
def main(
    workdir: Path, out: Path, options: ExportOptions, pruning: Annotated[Options, "mode", "bleu", "beams"]
) -> None:
    """Export a trained network as ONNX, StableHLO and safetensors, pruned first if you like, or a copy of its run.

    Examples:
      td-export --workdir=runs/digits --out=exported
      td-export --workdir=runs/digits --out=exported --rate=0.5 --granularity=unit --compact --recalibrate_batch_norm
      td-export --workdir=runs/digits --out=kept --format=run

    Flags:
      workdir: Run folder made by td-train or td-finetune.
      out: Folder for the files, new or empty.
    """
    from td.export.run_copy import copy_run
    from td.export.write import export_run

    given = {name: flags.FLAGS[name].serialize() for name in flags.FLAGS if flags.FLAGS[name].present}
    command = shlex.join(["td-export", *sorted((given | {"workdir": "--workdir=RUN", "out": "--out=DIR"}).values())])
    if options.format == "run":
        if given.keys() - {"workdir", "out", "format"}:
            raise UserError("a copy of a run is not pruned: give --format=run without other flags")
        print(copy_run(workdir, out, command))
    else:
        print(export_run(workdir, out, options, pruning, command))
