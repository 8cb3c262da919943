"""Export a trained network: td-export --workdir=RUN --rate=0.5 --compact --out=DIR."""

import shlex
import sys
from pathlib import Path

from absl import flags

from td.evaluate.options import ExportOptions, Options
from td.io import cli

WORKDIR = flags.DEFINE_string("workdir", None, "A folder that td-train or td-finetune made.", required=True)
OUT = flags.DEFINE_string("out", None, "Folder for the files; it must be new or empty.", required=True)
OPTIONS = cli.define_flags(ExportOptions)
PRUNING = cli.define_flags(Options, "mode", "bleu", "beams")


@cli.command
def main(_: list[str]) -> None:
    from td.evaluate.export.write import export

    given = [flag for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0]) if flag.present]
    folders = {"workdir": "RUN", "out": "DIR"}
    shown = [f"--{flag.name}={folders[flag.name]}" if flag.name in folders else flag.serialize() for flag in given]
    command = shlex.join(["td-export", *sorted(shown)])
    print(export(Path(WORKDIR.value), Path(OUT.value), ExportOptions(**OPTIONS()), Options(**PRUNING()), command))
