"""What `scripts/bench.py` can measure, and how it is printed and written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from td import provenance
from td.bench import curves, masks, populations, training
from td.bench.networks import NETWORKS
from td.bench.peers import INSTALLED
from td.bench.timing import Timing, as_table
from td.errors import check_at_least, lookup
from td.files import replacing
from td.workdir import write_json

Measure = Callable[[list[str], int, bool], dict[str, Any]]


class Suite(NamedTuple):
    """One table a network.

    Attributes:
      measure: `(networks, calls, peers) -> {heading: timings, or steps}`.
      calls: unless told otherwise.
      unit: what the ratios count.
      title: for the report.
    """

    measure: Measure
    calls: int
    unit: str
    title: str


SUITES = {
    "masks": Suite(masks.measure, 15, "copies", "The cost of a mask, in copies of the kernels"),
    "training": Suite(training.measure, 5, "of dense", "The cost of a training step, in dense steps"),
    "populations": Suite(populations.measure, 9, "of in turn", "A step of eight networks, in one program and in turn"),
    "curves": Suite(curves.measure, 5, "of evaluations", "The cost of a prune curve, in its evaluations"),
}


def run(name: str, networks: list[str], calls: int, peers: bool, folder: Path) -> str:
    """Measure one suite and write `NAME.json` and `NAME.md`.

    Args:
      name: a key of `SUITES`.
      networks: keys of `NETWORKS`.
      calls: 0 for the suite's own number.
      peers: whether to time other ways of doing the same.
      folder: where the files go.

    Returns:
      The report.

    Raises:
      UserError: an unknown suite or network, or a negative count.
    """
    suite = lookup(SUITES, name, "suite")
    for network in networks:
        lookup(NETWORKS, network, "network")
    check_at_least("calls", calls)
    measured = suite.measure(networks, calls or suite.calls, peers)
    about = provenance.describe()
    report = _report(suite, measured, about, peers)
    folder.mkdir(parents=True, exist_ok=True)
    plain = {heading: _plain(found) for heading, found in measured.items()}
    write_json(folder / f"{name}.json", {"suite": name, "measured": plain, **about})
    with replacing(folder / f"{name}.md") as temporary:
        temporary.write_text(report + "\n")
    return report


def _plain(measured: Any) -> Any:
    if isinstance(measured, training.Steps):
        return {"timings": _plain(measured.timings), "peak_bytes": measured.peak_bytes}
    return [timing._asdict() for timing in measured]


def _report(suite: Suite, measured: dict[str, Any], about: dict[str, Any], peers: bool) -> str:
    lines = [f"## {suite.title}", ""]
    for heading, found in measured.items():
        timings: list[Timing] = found.timings if isinstance(found, training.Steps) else found
        lines += [f"### {heading}", "", as_table(timings, suite.unit), ""]
        if isinstance(found, training.Steps):
            dense = found.peak_bytes[training.DENSE]
            told = [f"{name} {peak / 2**20:.0f} MiB ({peak / dense:.2f})" for name, peak in found.peak_bytes.items()]
            lines += ["Memory at the peak: " + ", ".join(told) + ".", ""]
    hardware, versions = about["hardware"], about["versions"]
    missing = "" if INSTALLED or not peers else " PyTorch is not installed: its rows are missing (extra `bench`)."
    lines.append(
        f"{hardware['devices']}, {hardware['processor']}, {hardware['cores']} cores; JAX {versions['jax']}; "
        f"{about['date']}; commit {about['commit']}. Functions took turns; ratios are medians over the turns.{missing}"
    )
    return "\n".join(lines)
