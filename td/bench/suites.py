"""The suites of td-bench: measurement, printed table and files of each."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from td.bench import compaction, curves, input_pipeline, masks, populations, training
from td.bench.baselines import INSTALLED
from td.bench.networks import NETWORKS, Measured
from td.errors import check_at_least, check_choice, lookup
from td.evaluate.timing import as_table
from td.io import provenance
from td.io.files import write_json, write_text

Measure = Callable[[str, Measured, int, bool], tuple[str, Any] | None]
"""`(name, network, timed calls, baselines) -> (heading, what was measured)`, None where there is nothing to measure."""


class Suite(NamedTuple):
    """One table a network."""

    measure: Measure
    repeats: int  # timed calls by default
    unit: str  # of the ratios
    title: str


SUITES = {
    "masks": Suite(masks.measure, 15, "copies", "The cost of a mask, in copies of the kernels"),
    "training": Suite(training.measure, 5, "of dense", "The cost of a training step, in dense steps"),
    "populations": Suite(
        populations.measure, 9, "of one by one", "A step of eight networks, in one program and one by one"
    ),
    "input": Suite(input_pipeline.measure, 50, "of itself", "A training batch on the host, without a network"),
    "curves": Suite(curves.measure, 5, "of evaluations", "The cost of a prune curve, in its evaluations"),
    "compact": Suite(compaction.measure, 7, "of dense", "A compacted network's time, relative to the whole one"),
}

OWN = {"populations": populations.NETWORKS, "input": input_pipeline.NETWORKS}
"""Suites with networks of their own, whatever others are asked for."""

SECTIONS: dict[str, Callable[[Any, str], str]] = {"training": training.section, "compact": compaction.section}
"""Suites with more than a table of times: `(what was measured, unit) -> text`."""


def run(name: str, networks: list[str], repeats: int, baselines: bool, folder: Path) -> Iterator[str]:
    """Measure one suite and write `NAME.json` and `NAME.md`, again after every network."""
    check_choice("suite", name, (*SUITES, "compiled"))
    suite, found = SUITES[name], {word: lookup(NETWORKS, word, "network") for word in networks}
    check_at_least("timing_repeats", repeats)
    measured, parts, where = {}, [f"## {suite.title}"], ""
    file = f"{name}-{jax.default_backend()}" if name == "compact" else name
    chosen = compaction.networks(networks) if name == "compact" else found
    yield parts[0]
    for label, network in OWN.get(name, chosen).items():
        measurement = suite.measure(label, network, repeats or suite.repeats, baselines)
        if measurement is None:
            continue
        heading, result = measurement
        about = provenance.describe()
        measured[heading], where = _plain(result), _where(about, baselines)
        parts.append(f"### {heading}\n\n{SECTIONS.get(name, as_table)(result, suite.unit)}")
        yield parts[-1]
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{file}.json", {"suite": name, "measured": measured, **about})
        write_text(folder / f"{file}.md", "\n\n".join([*parts, where]) + "\n")
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
