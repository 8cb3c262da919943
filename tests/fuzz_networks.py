"""A fuzzer of compaction: networks drawn from a small grammar, with dead rows, columns and units."""

import contextlib
import inspect
import math
import traceback

import fuzz_loops
import fuzz_operations
import jax
import jax.numpy as jnp
import numpy as np
from compact_networks import counted

import td
from td.compact.order import moved
from td.compact.plan import moves_in

OPERATIONS = {
    name: function
    for module in (fuzz_operations, fuzz_loops)
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if name[0] != "_"
}
OFTEN = (
    "activation",
    "activation",
    "arithmetic",
    "biased",
    "biased",
    "convolution",
    "convolution",
    "dense",
    "join",
    "norm",
)
SIZES = {1: [(5,), (12,)], 2: [(3, 4), (8, 6), (100, 16)], 3: [(1, 1, 3), (2, 2, 4), (5, 4, 3), (8, 8, 2), (7, 1, 6)]}
THRESHOLD = 2**17
"""Numbers of an array, on both sides of which batches are compared: code that depends on the size has to agree."""


class Drawing:
    """A network as far as it is drawn: parameters, one function per value, and the text of what was drawn."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.rate = self.rng.choice([0.0, 0.3, 0.6, 0.9])
        self.params, self.steps, self.lines, self.notes, self.single = {}, [], [], [], []
        sizes = SIZES[int(self.rng.integers(1, 4))]
        self.size = sizes[self.rng.integers(len(sizes))]
        self.broken = self.rng.random() < 0.2  # some inputs are NaN
        self.shapes = [self.size]
        if self.broken:
            self.add("repair", lambda params, x: jnp.where(jnp.isnan(x), 0.5, x), 0)
        for name in self.rng.choice([*OPERATIONS, *OFTEN], int(self.rng.integers(4, 20))):
            back = int(self.rng.choice([1, 1, 1, 2, 3]))
            self.try_to_add(name, max(len(self.shapes) - back, int(self.broken)))
        self.outputs = [self.readout(len(self.shapes) - 1), self.readout(int(self.rng.integers(1, len(self.shapes))))]

    def choice(self, *options):
        """One of the options, named in the text."""
        place = self.rng.integers(len(options))
        self.notes.append(f"case {place}" if callable(options[place]) else str(options[place]))
        return options[place]

    def zeros(self, array, axis, rate):
        """Zero some of the slices along an axis."""
        array[(slice(None),) * axis + (self.rng.random(array.shape[axis]) < rate,)] = 0

    def kernel(self, *shape, single=False):
        """Normal, with zeros in lines of any axis. `single`: gradients are compared, so it is used once."""
        drawn = self.rng.normal(size=shape) / math.sqrt(math.prod(shape[:-1]))
        for axis in range(len(shape)):
            self.zeros(drawn, axis, self.rate if axis == len(shape) - 1 else self.rate / 3)
        drawn *= self.rng.random(shape) >= self.rng.choice([0.0, 0.0, 0.5])
        drawn *= self.rng.random() > 0.03
        return self._leaf("w", drawn, single)

    def vector(self, size):
        """Half of it zeros, at times."""
        return self._leaf("b", self.rng.normal(size=size) * (self.rng.random(size) >= self.rng.choice([0.0, 0.5])))

    def _leaf(self, prefix, array, single=False):
        name = f"{prefix}{len(self.params)}"
        self.params[name] = array
        self.single += [name] if single else []
        self.notes.append(f"{name}{list(array.shape)}")
        return name

    def other(self, like):
        """Another value, for which a condition on its shape holds."""
        fitting = [value for value, shape in enumerate(self.shapes) if like(shape) and value >= self.broken]
        return fitting[self.rng.integers(len(fitting))] if fitting else None

    def try_to_add(self, name, value):
        """Add an operation on a value, unless it does not fit."""
        params, single, self.notes = dict(self.params), list(self.single), []
        function, *others = found if isinstance(found := OPERATIONS[name](self, self.shapes[value]), tuple) else [found]
        fits = function is not None and None not in others
        if not (fits and self.add(name, function, value, *others)):
            self.params, self.single = params, single

    def add(self, name, function, *operands):
        """Add a step; False where what comes out is empty or too large."""
        given = [jax.ShapeDtypeStruct((2, *self.shapes[operand]), jnp.float64) for operand in operands]
        found = jax.eval_shape(function, self.params, *given).shape[1:]
        if 0 in found or math.prod(found) > 4000 or len(found) > 4:
            return False
        self.shapes.append(found)
        self.steps.append((function, operands))
        names = ", ".join([*(f"v{operand}" for operand in operands), *self.notes])
        self.lines.append(f"v{len(self.shapes) - 1}{list(found)} = {name}({names})")
        self.notes = []
        return True

    def readout(self, value):
        """Add what makes a few outputs of a value, with dead rows and columns."""
        shape = self.shapes[value]
        if len(shape) > 1 and self.choice("pooled", "whole") == "pooled":
            self.add("pooled", lambda params, v: v.mean(tuple(range(1, v.ndim - 1))), value)
        elif len(shape) > 1:
            self.add("flat", lambda params, v: v.reshape(len(v), -1), value)
        value = len(self.shapes) - 1 if len(shape) > 1 else value
        w, b = self.kernel(self.shapes[value][-1], 3, single=True), self.vector(3)
        self.add("readout", lambda params, v: v @ params[w] + params[b], value)
        return len(self.shapes) - 1

    def apply(self, params, x):
        values = [x]
        for function, operands in self.steps:
            values.append(function(params, *(values[operand] for operand in operands)))
        return [values[output] for output in self.outputs]

    def mixes(self):
        """Whether a kernel may meet live and dead positions: the constants it made of these get their own gradient."""
        return any(f"= {name}(" in line for name in ("join", "piece", "reshape", "shuffle") for line in self.lines)

    def inputs(self, batch, size):
        drawn = self.rng.normal(size=(batch, *size))
        return jnp.asarray(np.where(self.rng.random(drawn.shape) < 0.1, np.nan, drawn) if self.broken else drawn)

    def sizes(self):
        """Batches to compare, at times as large as makes a value cross the threshold, and longer inputs."""
        yield 3, self.size
        if self.rng.random() < 0.2:
            batch = THRESHOLD // math.prod(self.shapes[self.rng.integers(len(self.shapes))])
            if batch * sum(map(math.prod, self.shapes)) < 5e6:
                yield batch, self.size
                yield batch + 1, self.size
        if len(self.size) > 1 and self.rng.random() < 0.3:
            yield 2, (*(2 * size for size in self.size[:-1]), self.size[-1])


def problem_of(seed):
    """What is wrong with the compaction of a drawn network, with its program; None where it is right."""
    with jax.enable_x64(True):
        drawing = Drawing(seed)
        try:
            wrong = _compared(drawing)
        except Exception:
            wrong = traceback.format_exc()
    return "\n".join([f"seed {seed}: input {list(drawing.size)}", *drawing.lines, wrong]) if wrong else None


def _compared(drawing):
    example, round_to = drawing.inputs(int(drawing.rng.integers(1, 4)), drawing.size), drawing.rng.choice([1, 1, 1, 4])
    small = td.compact(drawing.apply, drawing.params, example, round_to=int(round_to))
    before, after = sum(leaf.size for leaf in drawing.params.values()), counted(small)
    wrong = [] if after <= before else [f"{before} numbers become {after}"]
    wrong += [] if small.flops[1] <= small.flops[0] else [f"FLOPs {small.flops} grow"]
    wrong += _deviations(drawing, small, example, with_gradient=drawing.rng.random() < 0.4)
    for batch, size in drawing.sizes():
        inputs = drawing.inputs(batch, size)
        try:
            jax.eval_shape(drawing.apply, drawing.params, inputs)
        except (TypeError, ValueError):
            continue  # the network does not take this size
        with contextlib.suppress(td.UserError):
            wrong += _deviations(drawing, small, inputs)
    return "\n".join(wrong)


def _deviations(drawing, small, inputs, with_gradient=False):
    """Where finite outputs, or gradients of kernels at the entries that are kept, are others."""
    draw = [drawing.rng.normal(size=3) for _ in drawing.outputs]

    def function(apply):
        def loss(params, inputs):
            outputs = apply(params, inputs)
            return sum((weight * out).sum() for weight, out in zip(draw, outputs, strict=True)), outputs

        return jax.jit(jax.grad(loss, has_aux=True) if with_gradient else lambda *arrays: (None, loss(*arrays)[1]))

    whole, expected = function(drawing.apply)(drawing.params, inputs)
    part, found = function(small.apply)(small.params, inputs)
    constants = {**small.plan["constants"], **small.plan["folded"]}
    names = drawing.single if with_gradient and not (constants and drawing.mixes()) else []
    named = [
        *((f"output {place}", *both) for place, both in enumerate(zip(expected, found, strict=True))),
        *((f"gradient of {name}", *_aligned(whole[name], part.params[name], small.plan, name)) for name in names),
    ]
    large = [(name, _largest(one, other), 1e-6 if "gradient" in name else 1e-8) for name, one, other in named]
    return [f"{name} of inputs {inputs.shape}: {size:.1e}" for name, size, most in large if size > most]


def _largest(expected, found):
    """The largest difference among finite numbers, over the largest of these."""
    finite = np.isfinite(expected)
    scale = max(np.abs(np.where(finite, expected, 0)).max(initial=0), 1e-9)
    return np.nan_to_num(np.abs(np.where(finite, expected - found, 0)), nan=np.inf).max(initial=0) / scale


def _aligned(whole, part, plan, name):
    """Both gradients at the kept entries; none where these were filled up with zeros."""
    kept, whole = plan["leaves"][name]["kept"], jnp.asarray(moved(whole, name, moves_in(plan)))
    for axis, line in (kept or {}).items():
        whole = jnp.take(whole, jnp.asarray(line, int), int(axis))
    return (whole, part) if kept is not None and whole.shape == part.shape else (part, part)
