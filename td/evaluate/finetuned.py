"""A prune curve whose every network was fine-tuned: one run folder a rate, and a curve beside the others."""

from pathlib import Path

from td.errors import UserError
from td.evaluate import report
from td.evaluate.options import DEFAULT, Options, as_trained
from td.evaluate.prune_curve import Row, prune_curve
from td.evaluate.rates import parse_rates
from td.io import provenance
from td.io.interrupt import Stopped, listening
from td.io.run_folder import load_config, write_json
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
    as_trained(options, load_config(workdir))  # refuses what cannot be scored before anything is trained
    if (out / "config.json").exists():
        raise UserError(f"--out={out} is the folder of a run, whose curves would be replaced: give another one")
    rows: list[Row] = []
    with listening() as stops:
        for rate in parse_rates(rates):
            config, folder = finetune_config(workdir, rate, options.granularity, duration), out / f"rate{rate:g}"
            train(config, folder, execution)
            if stops(0):
                raise Stopped(f"after {folder}")
            run, state = load_trained(folder, finished=True)
            (row,) = prune_curve(run, state, [0.0], options)
            rows.append(row._replace(prune_rate=rate, intrinsic_sparsity=None))
    name = f"{report.label(load_config(workdir).mask.to_dict())}, fine-tuned"
    path = out / f"prune_curve-{config.granularity}-dense.json"
    content = {"method": name, "granularity": config.granularity, "mode": "dense", "from": str(workdir)}
    content |= {"duration": config.duration, "rows": [row._asdict() for row in rows], **provenance.describe()}
    report.write_csv(path.with_suffix(".csv"), rows)
    report.plot({f"{config.granularity} pruning, dense": {name: rows}}, path)
    write_json(path, content)
    return f"{report.table(rows)}\n\ncurve: {path}; beside others: td-report --out=PICTURE.png CURVE.json ..."
