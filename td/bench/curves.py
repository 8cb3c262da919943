"""The cost of a prune curve, in evaluations of the network: masks, measured sparsity and dead units come on top."""

from collections.abc import Callable
from functools import partial

from td.bench.networks import Measured, load_config, prepare
from td.evaluate.options import Options, as_trained
from td.evaluate.prune_curve import scored_by_batch
from td.evaluate.timing import Timing, side_by_side
from td.train.score import score
from td.train.step import make_eval_step

RATES = tuple(number / 10 for number in range(10))


def _all(point: Callable[[float], object]) -> list[object]:
    return [point(rate) for rate in RATES]


def measure(name: str, network: Measured, repeats: int, baselines: bool) -> tuple[str, list[Timing]] | None:
    """Measure an image network, scored on one batch of training images.

    A real test set is many times that, and the masks are a correspondingly smaller part of its curve.
    """
    del baselines
    if network.config.startswith("wmt"):
        return None
    run, state, _ = prepare(network, load_config(network))
    eval_step, split = make_eval_step(run.experiment), run.dataset.evaluation
    evaluation = partial(score, eval_step, state.params, state.batch_stats, split)
    cases: dict[str, Callable[[], object]] = {"ten evaluations": lambda: _all(lambda _: evaluation(network.batch))}
    for granularity in ("weight", "unit"):
        scored = scored_by_batch(run, state, as_trained(Options(granularity, batch_size=network.batch), run.config))
        cases[f"prune curve of ten rates, {granularity}"] = partial(_all, scored)
    return f"{name}, {network.batch} images", side_by_side(cases, repeats, name)
