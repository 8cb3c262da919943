"""Compare prune curves in one table and one picture: python scripts/report.py --out=PICTURE.png CURVE.json ..."""

from pathlib import Path

from absl import flags

from td import cli
from td.curve_files import compare
from td.errors import UserError

OUT = flags.DEFINE_string("out", None, "The picture; .png, .pdf and .md are written.", required=True)


def main(names: list[str]) -> None:
    if not names:
        raise UserError("no curves: give one or more prune_curve-*.json files")
    print(compare([Path(name) for name in names], Path(OUT.value)))


if __name__ == "__main__":
    cli.run(main, arguments=True)
