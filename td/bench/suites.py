"""The suites of td-bench, each with its table and files; the three shortest are measured here."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from td import data
from td.bench import compaction, overhead
from td.bench.baselines import INSTALLED
from td.bench.networks import NETWORKS, Measured, Stepper, load_config, prepare
from td.errors import UserError, lookup
from td.evaluate.options import Options, as_trained
from td.evaluate.prune_curve import scored_by_batch
from td.evaluate.timing import Call, Timing, as_table, side_by_side
from td.io import provenance
from td.io.files import write_json, write_text
from td.train.devices import AXIS, Execution, make_mesh
from td.train.population import Member, make_population_step
from td.train.score import score
from td.train.step import make_eval_step

LOG = logging.getLogger(__name__)

SIZE = 8  # networks of a population


def _input(name: str, network: Measured, repeats: int, _: bool) -> tuple[str, list[Timing]] | None:
    """Fetch training batches of a data set, if it is prepared; no network runs."""
    config = load_config(network)
    try:
        dataset = data.load(config.data.to_dict())
    except UserError as error:
        LOG.warning("left out: %s", error)
        return None
    with closing(dataset.train.train_batches(config.data.batch_size, config.seed, 0)) as batches:
        size, counted = dataset.task.count(next(batches)), dataset.task.counted
        timings = side_by_side({"a training batch": partial(next, batches)}, repeats, name)
    return f"{name}, {size} {counted} a batch: {size / timings[0].seconds:,.0f} {counted} a second", timings


def _curves(name: str, network: Measured, repeats: int, _: bool) -> tuple[str, list[Timing]]:
    """Compare prune curves of one batch with as many evaluations of it; a test set has many batches a mask."""
    run, state, _ = prepare(network)
    eval_step, split = make_eval_step(run.experiment), run.dataset.evaluation

    def ten(point: Callable[[float], Any]) -> list[Any]:
        return [point(number / 10) for number in range(10)]

    evaluation = partial(score, eval_step, state.params, state.batch_stats, split, network.batch)
    cases: dict[str, Call] = {"ten evaluations": lambda: ten(lambda _: evaluation())}
    for granularity in ("weight", "unit"):
        scored = scored_by_batch(run, state, as_trained(Options(granularity, batch_size=network.batch), run.config))
        cases[f"prune curve of ten rates, {granularity}"] = partial(ten, scored)
    return f"{name}, {network.batch} images", side_by_side(cases, repeats, name)


def _populations(name: str, network: Measured, repeats: int, _: bool) -> tuple[str, list[Timing]]:
    """Compare a step of many networks in one program with a step of each."""
    members = []
    for seed in range(SIZE):
        settings = {"seed": seed, "mask.drop_rate": 0.1 * seed}
        run, state, batch = prepare(network, "mask=targeted", settings)
        members.append(Member(Path(), run, state))
    sharding = NamedSharding(make_mesh(Execution(jax.devices()[:1]), [SIZE]), PartitionSpec(AXIS))
    step = make_population_step(members, sharding)
    batches = jax.device_put(jax.tree.map(lambda leaf: np.stack([leaf] * SIZE), batch), sharding)
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(member.state for member in members))
    kept = [jax.device_put(states, sharding)]

    def together() -> Any:
        kept[0], metrics = step(kept[0], batches)
        return metrics["loss"]

    alone = Stepper(members[0].run, members[0].state, batch)
    cases = {f"{SIZE} one by one": lambda: [alone() for _ in members], f"{SIZE} in one program": together}
    return f"{name}, batch {network.batch}", side_by_side(cases, repeats, name)


class Suite(NamedTuple):
    """One table a network."""

    measure: Callable[[str, Measured, int, bool], tuple[str, Any] | None]
    """`(name, network, timed calls, baselines) -> (heading, what was measured)`, None where there is nothing."""

    repeats: int  # timed calls by default
    unit: str  # of the ratios
    title: str
    networks: Mapping[str, Measured] = NETWORKS
    section: Callable[[Any, str], str] = as_table  # `(what was measured, unit) -> text`


IMAGES = {name: network for name, network in NETWORKS.items() if name != "Transformer base"}

SMALL = {
    "MLP": Measured("mnist_mlp", 128, 10),
    "small ResNet": Measured("digits_resnet", 32, 10),
}

INPUTS = {
    "digits": Measured("digits_resnet", 0, 0),
    "CIFAR-10": Measured("cifar10_resnet32", 0, 0),
    "ImageNet": Measured("imagenet_resnet", 0, 0),
    "WMT14": Measured("wmt14_transformer", 0, 0),
    "numbers in words": Measured("wmt14_transformer", 0, 0, "data=numbers,scale=cpu"),
}
"""The configs whose training batches are fetched, each with its own batch size."""

SUITES = {
    "masks": Suite(overhead.measure_masks, 15, "copies", "The cost of a mask, in copies of the kernels"),
    "training": Suite(
        overhead.measure_steps, 5, "of dense", "The cost of a training step, in dense steps", section=overhead.section
    ),
    "populations": Suite(
        _populations, 9, "of one by one", "A step of eight networks, in one program and one by one", SMALL
    ),
    "input": Suite(_input, 50, "of itself", "A training batch on the host, without a network", INPUTS),
    "curves": Suite(_curves, 5, "of evaluations", "The cost of a prune curve, in its evaluations", IMAGES),
    "compact": Suite(
        compaction.measure,
        7,
        "of dense",
        "A compacted network's time, relative to the whole one",
        compaction.NETWORKS,
        compaction.section,
    ),
}


def run(name: str, names: list[str], repeats: int, baselines: bool, folder: Path, dtype: str = "") -> Iterator[str]:
    """Measure one suite and write `NAME.json` and `NAME.md`, again after every network; those named, else its own."""
    suite = lookup(SUITES, name, "suite")
    known = {label: network for each in SUITES.values() for label, network in each.networks.items()}
    for label in names:
        lookup(known, label, "network")
    chosen = {label: {**known, **suite.networks}[label] for label in names} or suite.networks
    measured, parts, where = {}, [f"## {suite.title}"], ""
    path = folder / (f"{name}-{jax.default_backend()}" if name == "compact" else name)
    yield parts[0]
    for label, network in chosen.items():
        measurement = suite.measure(label, network._replace(dtype=dtype), repeats or suite.repeats, baselines)
        if measurement is None:
            continue
        heading, result = measurement
        about = provenance.describe()
        measured[heading], where = _plain(result), _where(about, baselines)
        parts.append(f"### {heading}\n\n{suite.section(result, suite.unit)}")
        yield parts[-1]
        write_json(path.with_suffix(".json"), {"suite": name, "measured": measured, **about})
        write_text(path.with_suffix(".md"), "\n\n".join([*parts, where]) + "\n")
    yield where


def _plain(value: Any) -> Any:
    """Replace NamedTuples by dicts, for JSON."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value


def _where(about: dict[str, Any], baselines: bool) -> str:
    hardware, versions = about["hardware"], about["versions"]
    missing = " PyTorch is not installed: its rows are missing (extra `bench`)." * (baselines and not INSTALLED)
    return (
        f"{hardware['devices']}, {hardware['processor']}, {hardware['cores']} cores; JAX {versions['jax']}; "
        f"{about['date']}; commit {about['commit']}. Interleaved; ratios are medians over the rounds.{missing}"
    )
