"""The networks of this folder, scored again beside the published curves of their runs.

TFDS_DATA_DIR=FOLDER python results/networks/check.py [NAME ...]
"""

import sys
from pathlib import Path

from tabulate import tabulate

from td.evaluate.options import Options, as_trained
from td.evaluate.prune_curve import prune_curve
from td.io.files import read_json, write_text
from td.train.experiment import load_trained

HERE = Path(__file__).parent
RATES = {"weight": (0.0, 0.8), "unit": (0.0, 0.5, 0.7, 0.9), "group": (0.0, 0.5, 0.7)}
VIEWS = {"as trained": "accuracy", "recalibrated": "recalibrated_accuracy"}


def main() -> None:
    lines = []
    every = sorted(path.parent for path in HERE.glob("*/network.json"))
    for folder in [each for each in every if each.name in (sys.argv[1:] or [each.name])]:
        run, state = load_trained(folder)
        about = read_json(folder / "network.json")
        for published in map(read_json, sorted(HERE.parent.glob(f"*/*/{about['run']}.json"))):
            if published["training"]["accuracy"] != about["accuracy_of_run"]:
                continue  # another training of the same config: on another machine, or with other threads
            granularity, rows = published["granularity"], published["curves"]["dense"]
            rates = [rate for rate in RATES[granularity] if rate in [row["prune_rate"] for row in rows]]
            options = as_trained(
                Options(granularity, "dense", recalibrate_batch_norm=True, recalibration_batches=8), run.config
            )
            for row in prune_curve(run, state, rates, options):
                (theirs,) = (each for each in rows if each["prune_rate"] == row.prune_rate)
                lines.append({"network": folder.name, "pruned": granularity, "%": f"{100 * row.prune_rate:g}"})
                for view, key in VIEWS.items():
                    own = 100 * getattr(row, key)
                    lines[-1] |= {f"{view}, published": f"{100 * theirs[key]:.2f}", view: f"{own:.2f}"}
                    if abs(own - 100 * theirs[key]) > 0.1:
                        print(f"{folder.name} has {own:.2f} {view}, published {100 * theirs[key]:.2f}", file=sys.stderr)
                print(lines[-1], file=sys.stderr)
    print(text := tabulate(lines, headers="keys", tablefmt="github", disable_numparse=True))
    if not sys.argv[1:]:
        write_text(HERE / "checked.md", f"{text}\n")


if __name__ == "__main__":
    main()
