"""Fine-tuning after pruning: a run for every rate, and the curve of their accuracies."""

from collections.abc import Mapping

from ml_collections import ConfigDict

from td.errors import UserError
from td.evaluate.curve_files import read_curve, write_files
from td.evaluate.curve_tables import label, table
from td.evaluate.options import DEFAULT, Options, as_trained, parse_rates
from td.evaluate.prune_curve import Row, prune_curve
from td.io.files import Path, absolute, read_json, write_json
from td.io.interrupt import Stopped, listening
from td.io.run_folder import computed, load_config
from td.train.config import method, to_steps
from td.train.devices import PLAIN, Execution
from td.train.experiment import load_trained
from td.train.loop import train


def finetune_config(
    workdir: Path, prune_rate: float, granularity: str = "", duration: str = "", reconstruct_examples: int = 0
) -> ConfigDict:
    """Config to fine-tune a pruned run, by the last part of its schedule (rewinding, Renda et al. 2020)."""
    run, _ = load_trained(workdir, finished=True)
    source, config = run.dataset.train, ConfigDict(run.config.to_dict())
    sizes = source.size, source.examples_per_step(config.data.batch_size)
    steps = to_steps(duration, *sizes) if duration else max(1, run.steps // 10)
    if not 1 <= steps <= run.steps:
        raise UserError(f"duration {duration!r} is {steps} steps: give 1 to {run.steps}, those of {workdir}")
    config.duration = f"{steps} steps"
    config.granularity = granularity or config.granularity
    config.mask = method("fixed", config.granularity)
    config.optim.begin = f"{to_steps(config.optim.begin, *sizes) + run.steps - steps} steps"
    config.start.update(workdir=str(absolute(workdir)), prune_rate=float(prune_rate))
    config.start.reconstruct_examples = reconstruct_examples
    return config.lock()


def finetune(
    workdir: Path, rates: str, out: Path, options: Options = DEFAULT, duration: str = "", execution: Execution = PLAIN
) -> str:
    """Prune a run's network at every rate, fine-tune it in `out/rateRATE` and score it. Rerun to resume."""
    shares, source = parse_rates(rates), load_config(workdir)
    as_trained(options, source)  # a mistake shows before anything is trained
    if (out / "config.json").exists():
        raise UserError(f"--out={out} is the folder of a run, whose curves would be replaced: give another one")
    if (kept := out / "source.json").exists() and read_json(kept) != computed(source):
        raise UserError(f"--out={out} has networks of another run that was in {workdir}: give another one")
    examples = options.batch_size * options.recalibration_batches if options.reconstruct else 0
    configs = {rate: finetune_config(workdir, rate, options.granularity, duration, examples) for rate in shares}
    config = configs[shares[0]]
    write_json(kept, computed(source))
    about = {
        "method": f"{label(source.mask.to_dict())}{', reconstructed' if examples else ''}, fine-tuned",
        "granularity": config.granularity,
        "mode": "dense",
        "from": str(absolute(workdir)),
        "duration": config.duration,
        "batch_size": options.batch_size,
        "recalibration_batches": options.recalibration_batches if options.recalibrate_batch_norm else 0,
    }
    path = out / f"prune_curve-{config.granularity}-dense.json"
    others: list[Row] = []
    if path.exists() and about.items() <= (about | read_json(path)).items():  # else its rows do not compare
        others = [row for row in read_curve(path).rows if row.prune_rate not in shares]
    rows = sorted([*_tuned(configs, out, options, execution), *others], key=lambda row: row.prune_rate)
    write_files(path, about, rows)
    return f"{table(rows)}\n\ncurve: {path}; compare curves: td-report --out=PICTURE.png {out} OTHER ..."


def _tuned(configs: Mapping[float, ConfigDict], out: Path, options: Options, execution: Execution) -> list[Row]:
    """Train every config and score it."""
    rows = []
    with listening() as stops:
        for rate, config in configs.items():
            folder = out / f"rate{rate:g}"
            train(config, folder, execution)
            if stops(0):
                raise Stopped(f"after {folder}")
            run, state = load_trained(folder, finished=True)
            (row,) = prune_curve(run, state, [0.0], options._replace(reconstruct=False))
            rows.append(row._replace(prune_rate=rate, intrinsic_sparsity=None))
    return rows
