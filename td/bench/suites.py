"""What `scripts/bench.py` can measure, and how it is printed and written."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from td.bench import compaction, curves, input_pipeline, masks, populations, training
from td.bench.networks import NETWORKS
from td.bench.peers import INSTALLED
from td.errors import check_at_least, check_choice, lookup
from td.evaluate.timing import as_table
from td.io import provenance
from td.io.files import write_json, write_text

Measure = Callable[[list[str], int, bool], Iterator[tuple[str, Any]]]


class Suite(NamedTuple):
    """One table a network."""

    measure: Measure  # `(networks, calls, peers) -> (heading, timings or steps)`, one network after another
    calls: int  # unless told otherwise
    unit: str  # what the ratios count
    title: str  # for the report
    by_platform: bool = False  # whether files are named by it


SUITES = {
    "masks": Suite(masks.measure, 15, "copies", "The cost of a mask, in copies of the kernels"),
    "training": Suite(training.measure, 5, "of dense", "The cost of a training step, in dense steps"),
    "populations": Suite(populations.measure, 9, "of in turn", "A step of eight networks, in one program and in turn"),
    "input": Suite(input_pipeline.measure, 50, "of itself", "A training batch on the host, without a network"),
    "curves": Suite(curves.measure, 5, "of evaluations", "The cost of a prune curve, in its evaluations"),
    "compact": Suite(compaction.measure, 7, "of dense", "A compacted network's time, in that of the whole one", True),
}


def run(name: str, networks: list[str], calls: int, peers: bool, folder: Path) -> Iterator[str]:
    """Measure one suite and write `NAME.json` and `NAME.md`, anew after every network."""
    check_choice("suite", name, (*SUITES, "compiled"))
    suite = SUITES[name]
    for network in networks:
        lookup(NETWORKS, network, "network")
    check_at_least("calls", calls)
    plain, parts = {}, [f"## {suite.title}"]
    file = f"{name}-{jax.default_backend()}" if suite.by_platform else name
    yield parts[0]
    for heading, found in suite.measure(networks, calls or suite.calls, peers):
        about = provenance.describe()
        plain[heading] = _plain(found)
        parts.append(_section(suite, heading, found))
        yield parts[-1]
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{file}.json", {"suite": name, "measured": plain, **about})
        write_text(folder / f"{file}.md", "\n\n".join([*parts, _where(about, peers)]) + "\n")
    yield _where(provenance.describe(), peers)


def _plain(measured: Any) -> Any:
    if isinstance(measured, training.Steps):
        return {"timings": _plain(measured.timings), "peak_bytes": measured.peak_bytes}
    if isinstance(measured, compaction.Compactions):
        smaller = {case: found._asdict() for case, found in measured.smaller.items()}
        beside = [removal._asdict() for removal in measured.beside]
        return {"timings": _plain(measured.timings), "smaller": smaller, "beside": beside}
    return [timing._asdict() for timing in measured]


def _section(suite: Suite, heading: str, found: Any) -> str:
    if isinstance(found, compaction.Compactions):
        return f"### {heading}\n\n{compaction.section(found)}"
    steps = isinstance(found, training.Steps)
    parts = [f"### {heading}", as_table(found.timings if steps else found, suite.unit)]
    if steps:
        dense = found.peak_bytes[training.DENSE]
        peaks = [f"{name} {peak / 2**20:.0f} MiB ({peak / dense:.2f})" for name, peak in found.peak_bytes.items()]
        parts.append("Memory at the peak: " + ", ".join(peaks) + ".")
    return "\n\n".join(parts)


def _where(about: dict[str, Any], peers: bool) -> str:
    hardware, versions = about["hardware"], about["versions"]
    missing = "" if INSTALLED or not peers else " PyTorch is not installed: its rows are missing (extra `bench`)."
    return (
        f"{hardware['devices']}, {hardware['processor']}, {hardware['cores']} cores; JAX {versions['jax']}; "
        f"{about['date']}; commit {about['commit']}. Functions took turns; ratios are medians over the turns.{missing}"
    )
