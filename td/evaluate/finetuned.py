"""A prune curve whose every network was fine-tuned: one run folder a rate, and a curve beside the others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from td.errors import UserError
from td.evaluate import report
from td.evaluate.curve_files import read_curve
from td.evaluate.options import DEFAULT, Options, as_trained
from td.evaluate.prune_curve import Row, prune_curve
from td.evaluate.rates import parse_rates
from td.io import provenance
from td.io.files import read_json, write_json
from td.io.interrupt import Stopped, listening
from td.io.run_folder import load_config
from td.train.devices import PLAIN, Execution
from td.train.experiment import load_trained
from td.train.finetune import finetune_config
from td.train.loop import train


def finetune(
    workdir: Path,
    rates: str,
    out: Path,
    options: Options = DEFAULT,
    duration: str = "",
    execution: Execution = PLAIN,
) -> str:
    """Prune a run's network at every rate, fine-tune it, and score it; the same command goes on where it was cut."""
    shares, source = parse_rates(rates), load_config(workdir)
    as_trained(options, source)  # refuses what cannot be scored before anything is trained
    if (out / "config.json").exists():
        raise UserError(f"--out={out} is the folder of a run, whose curves would be replaced: give another one")
    configs = {rate: finetune_config(workdir, rate, options.granularity, duration) for rate in shares}
    config = configs[shares[0]]
    name = f"{report.label(source.mask.to_dict())}, fine-tuned"
    about = {"method": name, "granularity": config.granularity, "mode": "dense", "from": str(workdir.resolve())}
    about |= {"duration": config.duration, "batch_size": options.batch_size}
    about |= {"recalibration_batches": options.recalibration_batches if options.recalibrate_batch_norm else 0}
    path = out / f"prune_curve-{config.granularity}-dense.json"
    others = [row for row in _scored_alike(path, about) if row.prune_rate not in shares]
    rows = [*_tuned(configs, out, options, execution), *others]
    rows.sort(key=lambda row: row.prune_rate)
    report.write_csv(path.with_suffix(".csv"), rows)
    report.plot({f"{config.granularity} pruning, dense": {name: rows}}, path)
    write_json(path, {**about, "rows": [row._asdict() for row in rows], **provenance.describe()})
    return f"{report.table(rows)}\n\ncurve: {path}; beside others: td-report --out=PICTURE.png CURVE.json ..."


def _tuned(configs: Mapping[float, ConfigDict], out: Path, options: Options, execution: Execution) -> list[Row]:
    """One row a rate: the network after fine-tuning."""
    rows = []
    with listening() as stops:
        for rate, config in configs.items():
            folder = out / f"rate{rate:g}"
            train(config, folder, execution)
            if stops(0):
                raise Stopped(f"after {folder}")
            run, state = load_trained(folder, finished=True)
            (row,) = prune_curve(run, state, [0.0], options)
            rows.append(row._replace(prune_rate=rate, intrinsic_sparsity=None))
    return rows


def _scored_alike(path: Path, about: Mapping[str, Any]) -> list[Row]:
    """The rows of an earlier command, if it scored as this one does; others do not compare."""
    if not path.exists():
        return []
    rows, content = read_curve(path).rows, read_json(path)
    return rows if all(content.get(key, value) == value for key, value in about.items()) else []
