"""Prune a trained network at several rates and score it: python scripts/prune_curve.py --workdir=DIR."""

from pathlib import Path

from absl import flags

from td import cli
from td.criteria import CRITERIA
from td.curve import MODES, OWN
from td.curve_files import write_curve

WORKDIR = flags.DEFINE_string("workdir", None, "A folder that scripts/train.py made.", required=True)
RATES = flags.DEFINE_string("rates", "0:0.9:0.1", "Shares to remove: first:last:step, or a list with commas.")
GRANULARITY = flags.DEFINE_string("granularity", None, "weight or unit; default: as trained, else weight.")
MODE = flags.DEFINE_string("mode", None, f"How the network is scored: {', '.join(MODES)}; default: as in training.")
CRITERION = flags.DEFINE_string("criterion", OWN, f"What ranks: {OWN} (the method's) or {', '.join(CRITERIA)}.")
EXAMPLES = flags.DEFINE_integer("criterion_examples", 1000, "Training examples for a criterion that needs data.")
SCOPE = flags.DEFINE_string("scope", None, "Where: unit, layer, global or N:M, as 2:4; default: as trained, else unit.")
RECALIBRATE = flags.DEFINE_bool("recalibrate_batch_norm", False, "Also score with BatchNorm estimated anew.")
BATCHES = flags.DEFINE_integer("recalibration_batches", 20, "Training batches for that.", lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 500, "Images or sentences a batch.", lower_bound=1)
BLEU = flags.DEFINE_bool("bleu", False, "Also translate the test text, and score it by uncased BLEU.")
BEAMS = flags.DEFINE_integer("beams", 4, "Sentences that the search for a translation follows.", lower_bound=1)


def main(_: list[str]) -> None:
    batches = BATCHES.value if RECALIBRATE.value else 0
    folder = Path(WORKDIR.value)
    print(
        write_curve(
            folder,
            RATES.value,
            GRANULARITY.value,
            MODE.value,
            CRITERION.value,
            SCOPE.value,
            EXAMPLES.value,
            batches,
            BATCH_SIZE.value,
            BEAMS.value if BLEU.value else 0,
        )
    )


if __name__ == "__main__":
    cli.run(main)
