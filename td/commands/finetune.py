"""Fine-tune a trained network after pruning it: td-finetune --workdir=RUN --rates=0.5,0.9 --out=DIR."""

from pathlib import Path

from absl import flags

from td.evaluate.options import Options
from td.io import cli

WORKDIR = flags.DEFINE_string("workdir", None, "A folder that td-train made.", required=True)
RATES = flags.DEFINE_string("rates", "0.5,0.7,0.9", "Shares to remove, a run folder each.")
DURATION = flags.DEFINE_string("duration", "", "As '5 epochs'; default: a tenth of the original run, its last part.")
OUT = flags.DEFINE_string("out", None, "Folder for the runs and their curve; the same command goes on.", required=True)
OPTIONS = cli.define_flags(
    Options, "mode", "criterion", "scope", "criterion_examples", "bleu", "beams", "seed", "compact", "round_to", "timing_repeats"
)


@cli.command
def main(_: list[str]) -> None:
    from td.evaluate.finetune import finetune

    print(finetune(Path(WORKDIR.value), RATES.value, Path(OUT.value), Options(**OPTIONS()), DURATION.value))
