"""The cost of a prune curve, in evaluations of the network: masks, measured sparsity and dead units come on top."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from td.bench.networks import NETWORKS, load_config, prepare
from td.evaluate.options import Options, as_trained
from td.evaluate.prune_curve import Row, scored_by_batch
from td.evaluate.timing import Timing, side_by_side
from td.train.experiment import Run
from td.train.score import Score, score
from td.train.state import TrainState
from td.train.step import make_eval_step

RATES = tuple(number / 10 for number in range(10))


def _evaluations(run: Run, state: TrainState, batch_size: int) -> Callable[[], list[Score]]:
    eval_step = make_eval_step(run.experiment)
    return lambda: [
        score(eval_step, state.params, state.batch_stats, run.dataset.evaluation, batch_size) for _ in RATES
    ]


def _curve(point: Callable[[float], tuple[Row, Any]]) -> list[Row]:
    return [point(rate)[0] for rate in RATES]


def measure(names: list[str], calls: int, peers: bool) -> Iterator[tuple[str, list[Timing]]]:
    """Measure the image networks one after another, each scored on one batch of what it is trained with.

    A real test set is many times that, and the share of the masks in its curve as many times smaller.
    """
    del peers
    for name in names:
        network = NETWORKS[name]
        if network.config.startswith("wmt"):
            continue
        run, state, _ = prepare(network, load_config(network))
        cases: dict[str, Callable[[], object]] = {"ten evaluations": _evaluations(run, state, network.batch)}
        for granularity in ("weight", "unit"):
            point = scored_by_batch(run, state, as_trained(Options(granularity, batch_size=network.batch), run.config))
            cases[f"prune curve of ten rates, {granularity}"] = partial(_curve, point)
        yield f"{name}, {network.batch} images", side_by_side(cases, calls, name)
