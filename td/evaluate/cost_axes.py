"""What accuracy can be drawn against: the share removed, or what a compacted network costs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tabulate import tabulate

from td.evaluate.prune_curve import Row

Curves = Mapping[str, Sequence[Row]]


class CostAxis(NamedTuple):
    """A horizontal axis.

    Attributes:
      label: its name, with its unit.
      of: row -> the value; None where the curve was made without --compact.
      uncompacted: row -> the value of the network that was not compacted, where that is another.
      large: whether numbers are written with k, M and G.
    """

    label: str
    of: Callable[[Row], float | None]
    uncompacted: Callable[[Row], float | None] = lambda _: None
    large: bool = False


RATE = CostAxis("removed after training (%)", lambda row: 100 * row.prune_rate)

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
"""By the word of `scripts/report.py --x`."""


def has_costs(rows: Sequence[Row]) -> bool:
    """Whether a curve was made with --compact."""
    return all(row.parameters is not None for row in rows)


def cost_table(curves: Curves, style: str = "simple") -> str:
    """What compacted networks cost, one line a network; of several curves, each is named on its first line.

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
    several = len(curves) > 1
    again = any(row.recalibrated_accuracy is not None for rows in curves.values() for row in rows)
    lines = []
    for name, rows in curves.items():
        whole = [f"{rows[0].uncompacted_milliseconds_1:.3f}", f"{rows[0].uncompacted_milliseconds_128:.3f}"]
        empty = [""] * (4 if again else 3)
        lines.append([*([name] if several else []), "uncompacted", *empty, *whole, "", ""])
        for row in rows:
            line = [""] if several else []
            line += [f"{100 * row.prune_rate:g}", f"{100 * row.accuracy:.1f}"]
            if again:
                line.append("" if row.recalibrated_accuracy is None else f"{100 * row.recalibrated_accuracy:.1f}")
            lines.append([*line, *_costs(row)])
    headers = ["pruned %", "accuracy %", *(["recalibrated %"] if again else []), *COLUMNS]
    align = ["right"] * len(headers)
    if several:
        headers, align = ["", *headers], ["left", *align]
    return tabulate(lines, headers, tablefmt=style, disable_numparse=True, colalign=align)


COLUMNS = ("parameters", "FLOPs", "ms, batch 1", "ms, batch 128", "kB, zstd", "deviation")


def _costs(row: Any) -> list[str]:
    return [
        f"{row.parameters:,}",
        f"{row.flops:,}",
        f"{row.milliseconds_1:.3f}",
        f"{row.milliseconds_128:.3f}",
        f"{row.compressed_bytes / 1000:,.1f}",
        f"{row.deviation:.0e}",
    ]
