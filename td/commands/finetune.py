"""The command td-finetune."""

from typing import Annotated

from td.evaluate.options import DEFAULT, Options
from td.io import cli
from td.io.files import Path

Dense = Annotated[
    Options,
    *("mode", "criterion", "scope", "criterion_examples", "bleu", "beams", "seed", "compact", "round_to"),
    *("timing_repeats", "rates_by", "budget"),
]


@cli.command
def main(workdir: Path, out: Path, rates: str = "0.5,0.7,0.9", duration: str = "", options: Dense = DEFAULT) -> None:
    """Prune a trained network at several rates, fine-tune each, and score it. Rerun the same command to resume.

    Examples:
      td-finetune --workdir=runs/digits --out=runs/tuned --rates=0.5,0.9
      td-finetune --workdir=runs/digits --out=runs/tuned --granularity=unit --duration="5 epochs"

    Flags:
      workdir: Run folder made by td-train.
      out: Folder that gets a run folder for each rate, and their curve.
      rates: Fractions to prune: first:last:step, or a list with commas.
      duration: Length of the fine-tuning, for example "5 epochs"; default: a tenth of the original run, its last part.
    """
    from td.evaluate.finetune import finetune

    print(finetune(workdir, rates, out, options, duration))
