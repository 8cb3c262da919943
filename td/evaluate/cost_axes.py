"""Horizontal axes of accuracy: the fraction pruned, or what a compacted network costs."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from td.evaluate.prune_curve import Row

Curves = Mapping[str, Sequence[Row]]


class CostAxis(NamedTuple):
    """A horizontal axis.

    Attributes:
      label: Name, with its unit.
      of: `row -> value`, None for a curve without --compact.
      uncompacted: `row -> value` of the network that was not compacted, where that is another.
      large: Write numbers with k, M and G.
    """

    label: str
    of: Callable[[Row], float | None]
    uncompacted: Callable[[Row], float | None] = lambda _: None
    large: bool = False


RATE = CostAxis("pruned after training (%)", lambda row: 100 * row.prune_rate)

COST_AXES = {
    "rate": RATE,
    "latency": CostAxis(
        "compacted network: ms for one example",
        lambda row: row.milliseconds_1,
        lambda row: row.uncompacted_milliseconds_1,
    ),
    "latency128": CostAxis(
        "compacted network: ms for 128 examples",
        lambda row: row.milliseconds_128,
        lambda row: row.uncompacted_milliseconds_128,
    ),
    "flops": CostAxis("compacted network: FLOPs an example", lambda row: row.flops, large=True),
    "parameters": CostAxis("compacted network: parameters", lambda row: row.parameters, large=True),
    "bytes": CostAxis("compacted network: weights, compressed (B)", lambda row: row.compressed_bytes, large=True),
}
"""Axes by the words of `td-report --x`."""


def has_costs(rows: Sequence[Row]) -> bool:
    """Return True for a curve that was made with --compact."""
    return all(row.parameters is not None for row in rows)


def cost_table(curves: Curves, style: str = "simple") -> str:
    """Format what compacted networks cost, one line a network; several curves are named on their first lines.

    Example:
      >>> row = Row(0.5, 0.5, 0.1, 0.99, 397, parameters=7146, flops=147888, milliseconds_1=0.25,
      ...           milliseconds_128=2.8, uncompacted_milliseconds_1=0.27, uncompacted_milliseconds_128=3.4,
      ...           compressed_bytes=27468, deviation=2.7e-7)
      >>> print(cost_table({"targeted": [row]}))
         pruned %    accuracy %    parameters    FLOPs    ms, batch 1    ms, batch 128    kB, zstd    deviation
      -----------  ------------  ------------  -------  -------------  ---------------  ----------  -----------
      uncompacted                                               0.270            3.400
               50          99.0         7,146  147,888          0.250            2.800        27.5        3e-07
    """
    lines = []
    for name, (first, *others) in curves.items():
        whole = [first.uncompacted_milliseconds_1, first.uncompacted_milliseconds_128]
        lines.append([name, "uncompacted", "", "", "", "", *(f"{value:.3f}" for value in whole), "", ""])
        lines += [["", *_cells(row)] for row in (first, *others)]
    frame = pd.DataFrame(lines, columns=["", *COLUMNS])
    frame = frame.drop(columns="" if len(curves) == 1 else [])
    if not any(frame["recalibrated %"]):
        frame = frame.drop(columns="recalibrated %")
    align = ["left" if heading == "" else "right" for heading in frame]
    return str(frame.to_markdown(index=False, tablefmt=style, disable_numparse=True, colalign=align))


COLUMNS = (
    "pruned %",
    "accuracy %",
    "recalibrated %",
    "parameters",
    "FLOPs",
    "ms, batch 1",
    "ms, batch 128",
    "kB, zstd",
    "deviation",
)


def _cells(row: Row) -> list[str]:
    return [
        f"{100 * row.prune_rate:g}",
        f"{100 * row.accuracy:.1f}",
        "" if row.recalibrated_accuracy is None else f"{100 * row.recalibrated_accuracy:.1f}",
        f"{row.parameters:,}",
        f"{row.flops:,}",
        f"{row.milliseconds_1:.3f}",
        f"{row.milliseconds_128:.3f}",
        f"{(row.compressed_bytes or 0) / 1000:,.1f}",
        f"{row.deviation:.0e}",
    ]
