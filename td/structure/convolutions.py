"""Convolutions of live maps with a leaf, and look-ups in a leaf."""

from collections.abc import Sequence

from td.structure.known import passing_axes
from td.structure.products import on_axes, passed, units_of, use_of
from td.structure.state import Tracing
from td.structure.values import Ids, Known, Live, Op, Value, joined_live, on_grid


def convolution(trace: Tracing, op: Op, values: Sequence[Value]) -> Live | None:
    """`conv_general_dilated`."""
    live, known = values
    if isinstance(live, Known) or isinstance(known, Live) or op.params["batch_group_count"] != 1:
        return None
    dimensions = op.params["dimension_numbers"]
    batch, channel, *space = dimensions.lhs_spec
    out, inner, *window = dimensions.rhs_spec
    apart = [ids for ids in live.labels if all(ids.shape[axis] == 1 for axis in (channel, *space))]
    rest = [on_axes(ids, {batch: dimensions.out_spec[0]}, len(op.shape)) for ids in apart]
    if known.leaf is None:
        return joined_live([live]).with_labels(rest)
    if use_of(trace, op, known, [[], [inner, *window], [out]], live) is None:
        return None
    units = units_of(trace, op, known, [out], 0, op.shapes[1])
    for ids in live.labels:
        if ids.shape[channel] > 1:
            read = on_grid(trace.united(trace.units_of(ids), [channel]), [channel])
            _read_channels(trace, op, known, read, units, live.revived)
    groups = op.params["feature_group_count"]
    alone = live.revived or op.shapes[1][inner] == 1 < groups
    trace.count(op, known.leaf, [units] if alone else [*live.labels, units])
    if groups > 1 and op.shapes[1][inner] > 1:
        trace.mark(units, trace.classes.new([groups]).repeat(len(units) // groups))
    return passed(trace, op, known, live, units, [dimensions.out_spec[1]], rest)


def _read_channels(trace: Tracing, op: Op, known: Known, read: Ids, units: Ids, revived: bool) -> None:
    """Note which channels the kernel reads; those of a group are ranked together, one alone goes with its outputs."""
    out, inner, *_ = op.params["dimension_numbers"].rhs_spec
    groups, shape = op.params["feature_group_count"], op.shapes[1]
    each = shape[out] // groups
    if groups == 1:
        axes, rows = [inner], read
    else:
        axes, rows = [out, inner], read.reshape(groups, shape[inner]).repeat(each, 0)
        if shape[inner] == 1:
            trace.classes.unite(units, read.repeat(each))
        else:
            trace.mark(read, trace.classes.new([groups]).repeat(shape[inner]))
    if not revived:
        trace.write("input", known, axes, shape, rows)


def lookup(trace: Tracing, op: Op, values: Sequence[Value]) -> Live | None:
    """A gather of known entries at live indices: from a leaf it is an embedding, whose columns are units."""
    known = values[0]
    assert isinstance(known, Known)
    output = joined_live(values)
    if not known.leaves:
        return output
    if known.leaf is None:
        return None
    shape, placed = op.shapes[0], passing_axes(op)
    axes = [axis for axis in placed if shape[axis] > 1]
    if trace.read("column", known, axes, shape) is None:
        return None
    columns = units_of(trace, op, known, axes, 0, shape, "column")
    return passed(trace, op, known, output, columns, [placed[axis] for axis in axes], ())
