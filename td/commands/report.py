"""Tables and pictures from result files alone.

Prune curves side by side: td-report --out=PICTURE.png [--x=latency] CURVE.json ...
Reports of td-reproduce anew: td-report --tables=DIR [TABLE ...]
"""

from pathlib import Path

from absl import flags

from td.errors import UserError
from td.io import cli, config_files

OUT = flags.DEFINE_string("out", None, "The picture of prune curves; .png, .pdf and .md are written.")
X = flags.DEFINE_string(
    "x", "rate", "What accuracy is drawn against: rate, latency (of one example), latency128, flops, parameters, bytes."
)
TABLES = flags.DEFINE_string("tables", None, "A folder of scripts/reproduce.py, whose reports are written anew.")


@cli.command(arguments=True)
def main(names: list[str]) -> None:
    from td.evaluate.curve_files import compare
    from td.reproduce.report import write_report

    if TABLES.value:
        if OUT.value is not None or X.present:
            raise UserError("--out and --x are of prune curves side by side: leave them, or leave --tables")
        folder = Path(TABLES.value)
        found = names or sorted(path.parent.name for path in folder.glob("*/plan.json"))
        if not found:
            raise UserError(f"no tables in {folder}: run td-reproduce --workdir={folder} first")
        for name in found:
            print(write_report(config_files.FOLDER, folder, name))
        return
    if OUT.value is None:
        raise UserError("nothing to do: give --out=PICTURE.png and curves, or --tables=DIR")
    if not names:
        raise UserError("no curves: give one or more prune_curve-*.json files")
    print(compare([Path(name) for name in names], Path(OUT.value), X.value))
