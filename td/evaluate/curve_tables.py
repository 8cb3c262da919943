"""Tables of prune curves, made from rows alone, and the quantities that tables and pictures show."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from td.evaluate.prune_curve import Row
from td.masks import find

Curves = Mapping[str, Sequence[Row]]


class Axis(NamedTuple):
    """One axis of a picture."""

    label: str  # with the unit
    field: str  # of a row
    other: str = ""  # the field of the same quantity of the recalibrated or of the uncompacted network
    factor: float = 1  # of the field's value
    large: bool = False  # numbers are written with k, M and G

    def of(self, row: Row) -> int | float:
        """Return the value of a row, 0 where it has none."""
        return self.factor * (getattr(row, self.field) or 0)

    def other_of(self, row: Row) -> int | float | None:
        """Return the value of the other network, None where it was not measured."""
        value = getattr(row, self.other) if self.other else None
        return None if value is None else self.factor * value


ACCURACY = Axis("accuracy (%)", "accuracy", "recalibrated_accuracy", 100)
REPAIRED = Axis("accuracy (%)", "reconstructed_accuracy", "reconstructed_recalibrated_accuracy", 100)
TOKEN_ACCURACY = ACCURACY._replace(label="token accuracy (%)")
BLEU = Axis("BLEU, uncased", "bleu")

RATE = Axis("pruned after training (%)", "prune_rate", factor=100)

COST_AXES = {
    "rate": RATE,
    "latency": Axis("compacted network: ms for one example", "milliseconds_1", "uncompacted_milliseconds_1"),
    "latency128": Axis("compacted network: ms for 128 examples", "milliseconds_128", "uncompacted_milliseconds_128"),
    "flops": Axis("compacted network: FLOPs an example", "flops", large=True),
    "parameters": Axis("compacted network: parameters", "parameters", large=True),
    "bytes": Axis("compacted network: weights, compressed (B)", "compressed_bytes", large=True),
}
"""Horizontal axes by the words of `td-report --x`."""


def has_costs(rows: Sequence[Row]) -> bool:
    """Return True for a curve that was made with --compact."""
    return all(row.parameters is not None for row in rows)


def quantities(curves: Curves) -> tuple[Axis, ...]:
    """Choose the quantities of some curves: accuracy, or BLEU and token accuracy where all of them have it."""
    translated = all(row.bleu is not None for rows in curves.values() for row in rows)
    return (BLEU, TOKEN_ACCURACY) if translated else (ACCURACY,)


WIDEST = 6  # the most curves that are columns of a table; more are rows

COLUMNS = {
    "prune_rate": ("pruned %", 100, ".1f"),
    "sparsity": ("sparsity %", 100, ".2f"),
    "intrinsic_sparsity": ("intrinsic %", 100, ".2f"),
    "loss": ("loss", 1, ".3f"),
    "accuracy": ("accuracy %", 100, ".2f"),
    "recalibrated_loss": ("recalibrated loss", 1, ".3f"),
    "recalibrated_accuracy": ("recalibrated %", 100, ".2f"),
    "reconstructed_accuracy": ("reconstructed %", 100, ".2f"),
    "reconstructed_recalibrated_accuracy": ("reconstructed and recalibrated %", 100, ".2f"),
    "examples": ("examples", 1, "d"),
    "budget_kept": ("budget kept %", 100, ".2f"),
    "bleu": ("BLEU", 1, ".2f"),
}
"""Field of a row -> its column: heading, factor, format."""

COST_COLUMNS = {
    "prune_rate": ("pruned %", 100, "g"),
    "accuracy": ("accuracy %", 100, ".1f"),
    "recalibrated_accuracy": ("recalibrated %", 100, ".1f"),
    "reconstructed_accuracy": ("reconstructed %", 100, ".1f"),
    "parameters": ("parameters", 1, ","),
    "flops": ("FLOPs", 1, ","),
    "milliseconds_1": ("ms, batch 1", 1, ".3f"),
    "milliseconds_128": ("ms, batch 128", 1, ".3f"),
    "compressed_bytes": ("kB, zstd", 0.001, ",.1f"),
    "deviation": ("deviation", 1, ".0e"),
}

LEGEND = {
    "pruned": "pruned: requested",
    "sparsity": "sparsity: measured",
    "budget kept": "budget kept: what the layers' rates keep of the FLOPs or parameters; asked for: 100 - pruned",
    "intrinsic": "intrinsic: sparsity before pruning, made by the method itself",
    "->": "3.3->8.3: as trained -> with BatchNorm recalibrated",
    "; ": "after a semicolon: reconstructed -> and with BatchNorm recalibrated",
    " @": "98.2 @90: measured sparsity of 90 %",
}
"""Word or sign of a table -> its meaning."""

SHARES = ("drop_rate", "target_proportion", "proportion")


def label(mask: Mapping[str, Any]) -> str:
    """Name a method in words, with the paper's alpha/gamma."""
    if title := find(mask["name"]).title:
        return title
    shares = "/".join(f"{mask[name]:g}".removeprefix("0") or "0" for name in SHARES if name in mask)
    others = [f"{name} {mask[name]:g}" for name in ("cost", "survivors", "rounds", "rate") if name in mask]
    words = [mask["name"].replace("_", " "), mask.get("granularity", ""), mask.get("reduction", ""), shares, *others]
    return " ".join(filter(None, words))


def _cells(rows: Sequence[Any], columns: Mapping[str, tuple[str, int | float, str]]) -> pd.DataFrame:
    """Format fields of rows, without the columns that no row has."""
    frame = pd.DataFrame(rows, dtype=object)[list(columns)].dropna(axis="columns", how="all")
    cells = {}
    for field, values in frame.items():
        heading, factor, spec = columns[str(field)]
        cells[heading] = ["" if pd.isna(value) else format(factor * value, spec) for value in values]
    return pd.DataFrame(cells)


def _text(frame: pd.DataFrame, style: str, index: bool = False) -> str:
    headings = [frame.index.name, *frame] if index else list(frame)
    align = ["right" if heading else "left" for heading in headings]
    return str(frame.fillna("").to_markdown(tablefmt=style, disable_numparse=True, colalign=align, index=index))


def table(rows: Sequence[Row]) -> str:
    """Format one curve, one line a rate."""
    return _text(_cells(rows, COLUMNS), "simple")


def comparison(curves: Curves, style: str = "simple", quantity: Axis = ACCURACY) -> str:
    """Format several curves side by side, one quantity at every rate; `LEGEND` explains the cells."""
    across = len(curves) <= WIDEST
    points = [
        (name, row.prune_rate, 100 * row.sparsity, _cell(row, quantity, measured=not across))
        for name, rows in curves.items()
        for row in rows
    ]
    cells = pd.DataFrame(points, columns=["curve", "pruned %", "sparsity %", "cell"])
    if across:
        shown = cells.pivot(index="pruned %", columns="curve", values="cell")[list(curves)]
        ends = cells.groupby("pruned %")["sparsity %"].agg(["min", "max"]).map("{:.1f}".format)
        shown.insert(0, "sparsity %", ends.apply(lambda both: "-".join(dict.fromkeys(both)), axis=1))
        shown.index = shown.index.map(lambda rate: f"{100 * rate:g}")
        return _text(shown, style, index=True)
    shown = cells.pivot(index="curve", columns="pruned %", values="cell").loc[list(curves)]
    shown.columns = [f"{100 * rate:g} % pruned" for rate in shown.columns]
    intrinsic = (rows[0].intrinsic_sparsity for rows in curves.values())
    shown.insert(0, "intrinsic %", ["" if value is None else f"{100 * value:.1f}" for value in intrinsic])
    shown.index.name = ""
    return _text(shown, style, index=True)


def _cell(row: Row, quantity: Axis, measured: bool) -> str:
    again, repaired = quantity.other_of(row), quantity == ACCURACY and row.reconstructed_accuracy is not None
    cell = f"{quantity.of(row):.1f}" + ("" if again is None else f"->{again:.1f}")
    cell += f"; {_cell(row, REPAIRED, measured=False)}" if repaired else ""
    return cell + (f" @{100 * row.sparsity:.0f}" if measured and abs(row.sparsity - row.prune_rate) > 0.02 else "")


def cost_table(curves: Curves, style: str = "simple") -> str:
    """Format what compacted networks cost, one line a network; several curves are named on their first lines."""
    parts = []
    for name, rows in curves.items():
        first = rows[0]
        times = {f"milliseconds_{n}": getattr(first, f"uncompacted_milliseconds_{n}") for n in (1, 128)}
        part = _cells([dict.fromkeys(Row._fields) | times, *(row._asdict() for row in rows)], COST_COLUMNS)
        part.loc[0, "pruned %"] = "uncompacted"
        part.insert(0, "", [name, *[""] * len(rows)])
        parts.append(part)
    frame = pd.concat(parts)
    return _text(frame if len(curves) > 1 else frame.drop(columns=""), style)


def legend(tables: str) -> str:
    """Explain the words and signs that are in some tables."""
    return "; ".join(meaning for sign, meaning in LEGEND.items() if sign in tables)


def as_text(panels: Mapping[str, Curves], style: str) -> str:
    """Format a comparison: accuracies, costs of compacted networks, and a legend."""
    suffixes = {BLEU: ", BLEU", TOKEN_ACCURACY: ", token accuracy"}
    tables = [
        f"{title}{suffixes.get(quantity, '')}\n\n{comparison(curves, style, quantity)}\n"
        for title, curves in panels.items()
        for quantity in quantities(curves)
    ]
    for title, curves in panels.items():
        measured = {name: rows for name, rows in curves.items() if has_costs(rows)}
        tables += [f"{title}, compacted\n\n{cost_table(measured, style)}\n"] if measured else []
    return "\n".join([*tables, f"{legend(''.join(tables))}\n"])
