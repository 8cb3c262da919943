"""Translate the test text with a trained network: td-translate --workdir=DIR --show=10."""

from pathlib import Path

from absl import flags

from td.io import cli

WORKDIR = flags.DEFINE_string("workdir", None, "A folder that td-train made.", required=True)
RATE = flags.DEFINE_float("rate", 0.0, "The share to prune first.", lower_bound=0.0, upper_bound=1.0)
BEAMS = flags.DEFINE_integer("beams", 4, "Sentences that the search follows; 1 is greedy.", lower_bound=1)
PENALTY = flags.DEFINE_float("length_penalty", 0.6, "How much longer translations are preferred.")
SHOW = flags.DEFINE_integer("show", 10, "How many sentences to print.", lower_bound=0)


@cli.command
def main(_: list[str]) -> None:
    from td.evaluate.translate import translate_run

    print(translate_run(Path(WORKDIR.value), RATE.value, BEAMS.value, PENALTY.value, SHOW.value))
