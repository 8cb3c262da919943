"""How a trained network is pruned and scored: said once, for programs and for the command line."""

from typing import NamedTuple

from ml_collections import ConfigDict

from td.criteria import CRITERIA, GRANULARITIES, criterion_of
from td.errors import UserError, check_at_least, check_choice, check_seed
from td.select import check_scope

MODES = ("dense", "prune_targets", "stochastic")
"""How the trained network is scored: whole, without its targets, or with dropout still active."""

OWN = "own"
"""The criterion of the method itself: its scores where it has any, else magnitude."""


class Options(NamedTuple):
    """How a trained network is pruned and scored.

    Attributes:
      granularity: Prune weight or unit; default: as trained, else weight.
      mode: Score dense, prune_targets (without the targets) or stochastic (dropout active); default: as in training.
      criterion: What ranks: own (the method's scores) or a name of docs/methods.md.
      scope: Where ranking happens: unit, layer, global or N:M, as 2:4; default: as trained, else unit.
      criterion_examples: Training examples for a criterion that needs data.
      batch_size: Images or sentences a batch.
      recalibrate_batch_norm: Also score with BatchNorm statistics estimated anew.
      recalibration_batches: Training batches for that.
      bleu: Also translate the test text, and score it by uncased BLEU.
      beams: Sentences that the search for a translation follows.
      seed: Of draws and of the order of training examples; below 0: the run's own.
      compact: Take the units that pruning emptied out for good (docs/compact.md), and measure what that saves.
      round_to: Keep the compacted networks' widths at multiples of it.
      calls: How often every compacted network is timed, in turns with the others; medians are given.
    """

    granularity: str = ""
    mode: str = ""
    criterion: str = OWN
    scope: str = ""
    criterion_examples: int = 1000
    batch_size: int = 500
    recalibrate_batch_norm: bool = False
    recalibration_batches: int = 20
    bleu: bool = False
    beams: int = 4
    seed: int = -1
    compact: bool = False
    round_to: int = 1
    calls: int = 30


DEFAULT = Options()

WANTS = {
    "recalibration_batches": "recalibrate_batch_norm",
    "beams": "bleu",
    "round_to": "compact",
    "calls": "compact",
}
"""Options that say how something is done, and the switch that has it done."""

IMAGES = ("raw", "standardized")
"""What an exported network takes: images as the data set has them (uint8), or as `td.data.standardize` gives them."""


class ExportOptions(NamedTuple):
    """What is exported, and how; `Options` says how it is pruned first.

    Attributes:
      rate: The share to prune first.
      format: Formats, with commas: onnx, stablehlo, safetensors.
      images: What the files take: raw (uint8, as the data set has them) or standardized (float32).
    """

    rate: float = 0.0
    format: str = "onnx,stablehlo,safetensors"
    images: str = "raw"


AS_IT_IS = ExportOptions()


def as_trained(options: Options, config: ConfigDict) -> Options:
    """The options with what they leave open taken from the run's config; unknown words are refused."""
    chosen = options._replace(
        granularity=options.granularity or config.get("granularity", "weight"),
        mode=options.mode or config.mask.get("evaluation", "dense"),
        scope=options.scope or config.mask.get("scope", "unit"),
        seed=config.seed if options.seed < 0 else options.seed,
    )
    check_choice("granularity", chosen.granularity, GRANULARITIES)
    check_choice("mode", chosen.mode, MODES)
    if ":" not in chosen.criterion:
        check_choice("criterion", chosen.criterion, (OWN, *CRITERIA))
    check_seed(chosen.seed)
    for name in ("batch_size", "recalibration_batches", "beams", "round_to", "calls"):
        check_at_least(name, getattr(chosen, name), 1)
    check_scope(chosen.scope, chosen.granularity)
    if chosen.compact and chosen.mode == "stochastic":
        raise UserError("mode 'stochastic' draws another network for every batch, none to compact: give --mode=dense")
    for name, switch in WANTS.items():
        if getattr(chosen, name) != getattr(DEFAULT, name) and not getattr(chosen, switch):
            raise UserError(f"{name}={getattr(chosen, name)} does nothing without {switch}: give --{switch} as well")
    if chosen.criterion_examples != DEFAULT.criterion_examples and not _needs_data(chosen.criterion):
        raise UserError(
            f"criterion_examples={chosen.criterion_examples} does nothing: criterion {chosen.criterion!r} needs no data"
        )
    return chosen


def _needs_data(criterion: str) -> bool:
    return criterion != OWN and criterion_of(criterion).measures not in ("", "draws")


def check_drawn(options: Options) -> None:
    """Refuse a seed where nothing is drawn; of options as they were given."""
    measured = criterion_of(options.criterion).measures if options.criterion != OWN else ""
    if options.seed >= 0 and not (measured or options.recalibrate_batch_norm or options.mode == "stochastic"):
        raise UserError(f"seed={options.seed} does nothing: what is asked for draws nothing")
