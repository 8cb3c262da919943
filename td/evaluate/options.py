"""Options of pruning, scoring and export, and prune rates as a command line has them."""

from decimal import Decimal
from typing import NamedTuple

from ml_collections import ConfigDict

from td.criteria import CRITERIA, GRANULARITIES
from td.errors import UserError, check_at_least, check_choice, check_fraction, check_seed
from td.select import check_scope

MODES = ("dense", "prune_targets", "stochastic")
"""The network that is scored: whole, without its targets, or with dropout still active."""

OWN = "own"  # the criterion of the method itself: its scores where it has any, else magnitude


class Options(NamedTuple):
    """Options of pruning and scoring a trained network.

    Attributes:
      granularity: Prune weight, unit, group (units that go together) or head; default: as trained, else weight.
      mode: Score the network dense, prune_targets (without its targets) or stochastic (with dropout active); default:
        as in training.
      criterion: Ranking of weights or units: own (the method's scores) or a name of docs/methods.md.
      scope: Where to rank: unit, layer, global or N:M, for example 2:4; default: as trained, else unit.
      rates_by: Choose a rate for each layer by td.allocate (uniform, erk, global, sensitivity); --rates are then
        fractions of a budget to remove.
      budget: Budget of --rates_by: flops or parameters.
      recalibrate_batch_norm: Also score with BatchNorm statistics that are estimated again after pruning.
      reconstruct: Also score with the kept weights solved again layer by layer (td.reconstruct) on
        --recalibration_batches training batches, and with BatchNorm recalibrated after that.
      bleu: Also translate the test text, and score it by uncased BLEU.
      compact: Also remove emptied units by td.compact (docs/compact.md), and measure size and time.

    Rarely needed:
      criterion_examples: Number of training examples for a criterion that needs data.
      batch_size: Images or sentences per batch.
      recalibration_batches: Number of training batches to recalibrate BatchNorm and to reconstruct with.
      beams: Width of the beam search.
      seed: Seed of random draws and of the order of training examples; below 0: the run's own.
      round_to: Keep the widths of compacted networks at multiples of this number.
      timing_repeats: Timed calls of each compacted network, interleaved across networks; the median is reported.
    """

    granularity: str = ""
    mode: str = ""
    criterion: str = OWN
    scope: str = ""
    rates_by: str = ""
    budget: str = "flops"
    criterion_examples: int = 1000
    batch_size: int = 500
    recalibrate_batch_norm: bool = False
    recalibration_batches: int = 20
    reconstruct: bool = False
    bleu: bool = False
    beams: int = 4
    seed: int = -1
    compact: bool = False
    round_to: int = 1
    timing_repeats: int = 30


DEFAULT = Options()

IMAGES = ("raw", "standardized")
"""Inputs of an exported network: images of the data set (uint8), or those of `td.data.standardize`."""


class ExportOptions(NamedTuple):
    """Options of an export; `Options` says how the network is pruned first.

    Attributes:
      rate: Fraction to prune first.
      format: Formats, with commas: onnx, stablehlo, safetensors; or run: a run folder for the other commands, with the
        network alone, unpruned, in float16.
      images: Inputs of the files: raw (uint8 images of the data set) or standardized (float32).
    """

    rate: float = 0.0
    format: str = "onnx,stablehlo,safetensors"
    images: str = "raw"


AS_IT_IS = ExportOptions()


def as_trained(options: Options, config: ConfigDict) -> Options:
    """Check options, and complete them from the run's config."""
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
    for name in ("criterion_examples", "batch_size", "recalibration_batches", "beams", "round_to", "timing_repeats"):
        check_at_least(name, getattr(chosen, name), 1)
    check_scope(chosen.scope, chosen.granularity)
    for option in ("compact", "reconstruct"):
        if getattr(chosen, option) and chosen.mode == "stochastic":
            raise UserError(f"--{option} needs one network, mode 'stochastic' has one a batch: give --mode=dense")
    return chosen


def parse_rates(text: str) -> list[float]:
    """Read prune rates: `first:last:step`, both ends included, or a list with commas."""
    rest = Decimal(0)
    try:
        if ":" in text:
            first, last, step = (Decimal(part) for part in text.split(":"))
            count, rest = divmod(last - first, step)
            rates = [float(first + i * step) for i in range(int(count) + 1)]
        else:
            rates = [float(Decimal(part)) for part in text.split(",")]
    except (ValueError, ArithmeticError):
        rates = []
    if not rates:
        raise UserError(f"rates {text!r} are malformed: write first:last:step, or a list, like 0.5,0.9") from None
    if rest:
        nearest = f"{first}:{rates[-1]:g}:{step}"
        raise UserError(f"rates {text!r} end at {rates[-1]:g}, not at {last}: write {nearest}, or a list")
    for rate in rates:
        check_fraction("prune rate", rate)
    return list(dict.fromkeys(rates))
