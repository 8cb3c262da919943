"""FLOPs within loops and branches, counted by hand, and what the summary says of them and of constant outputs."""

import jax
import jax.numpy as jnp
import pytest
from compact_networks import assert_equal, normal
from jax import lax

import td
from td.program.flops import count_flops

pytestmark = pytest.mark.usefixtures("in_float64")

BATCH, WIDTH, LAYERS = 8, 16, 6
LAYER = 2 * BATCH * WIDTH * WIDTH


def multiply(x, w):
    return jnp.tanh(x @ w)


def scanned(params, x):
    return lax.scan(lambda x, w: (multiply(x, w), None), x, params["layers"])[0]


def mapped(params, x):
    return lax.map(lambda w: multiply(x, w), params["layers"]).sum(0)


def repeated(params, x):
    return lax.fori_loop(0, LAYERS, lambda _, x: jax.checkpoint(multiply)(x, params["layers"][0]), x)


def nested(params, x):
    return scanned(params, lax.fori_loop(0, 2, lambda _, x: scanned(params, x), x))


def chosen(params, x):
    return lax.cond(x[0, 0] > 0, lambda: scanned(params, x), lambda: multiply(x, params["layers"][0]))


def unbounded(params, x):
    return lax.while_loop(lambda x: (x @ params["layers"][1]).max() > 1, lambda x: multiply(x, params["layers"][0]), x)


def convolved(params, x):
    kernel = params["layers"].reshape(LAYERS, WIDTH, WIDTH)[:3, :1]  # [width, input, output], one group a channel

    def step(x, _):
        return lax.conv_general_dilated(
            x, kernel, (1,), "SAME", dimension_numbers=("NHC", "HIO", "NHC"), feature_group_count=WIDTH
        ), None

    return lax.scan(step, x[None], None, length=LAYERS)[0][0]


COUNTS = [
    (scanned, LAYERS * LAYER),
    (mapped, LAYERS * LAYER),
    (repeated, LAYERS * LAYER),
    (nested, 3 * LAYERS * LAYER),
    (chosen, LAYERS * LAYER),
    (unbounded, 2 * LAYER),
    (convolved, LAYERS * 2 * BATCH * WIDTH * 3),
]


@pytest.mark.parametrize(("body", "flops"), COUNTS, ids=[body.__name__ for body, _ in COUNTS])
def test_loops_and_branches_are_counted(body, flops):
    """The head, of 16 units of which 6 are dead, is as small as it would be alone."""
    apply = lambda params, x: jax.nn.relu(body(params, x) @ params["head"]) @ params["logits"]  # noqa: E731
    head = normal(WIDTH, 16).at[:, :6].set(0.0)
    params = {"layers": normal(LAYERS, WIDTH, WIDTH), "head": head, "logits": normal(16, 4)}
    small = td.compact(apply, params, normal(BATCH, WIDTH))
    before, after = (flops + 2 * BATCH * units * (WIDTH + 4) for units in (16, 10))
    assert small.flops == (before, after) and f"{before:,}" in small.summary
    assert count_flops(apply, params, normal(BATCH, WIDTH)) == before
    assert ("FLOPs of one iteration: while" in small.summary) == (body is unbounded)


def test_operations_without_a_rule_count_whole_unless_nothing_needs_them():
    def apply(params, x):
        kernel = (x @ params["kernel"]).reshape(BATCH, 3, 1, 4).sum(0)
        signal = jnp.stack([x, x], -1)[..., :1]  # [batch, width, 1]
        hidden = lax.conv_general_dilated(signal, kernel, (1,), "SAME", dimension_numbers=("NHC", "HIO", "NHC"))
        return hidden @ params["w"], scanned(params, x) * params["zero"]

    params = {"kernel": normal(WIDTH, 12), "w": normal(4, 2).at[:2].set(0.0), "zero": jnp.zeros(())}
    params["layers"] = normal(LAYERS, WIDTH, WIDTH)
    small = td.compact(apply, params, normal(BATCH, WIDTH))
    made, convolution, logits = 2 * BATCH * WIDTH * 12, 2 * BATCH * WIDTH * 4 * 3, 2 * BATCH * WIDTH * 2 * 4
    assert small.flops == (made + convolution + logits + LAYERS * LAYER, made + convolution + logits // 2)


@pytest.mark.parametrize(("dead", "text"), [(slice(3, 8), "5 of 10"), (slice(None), "10 of 10")])
def test_the_summary_says_how_many_outputs_are_constant(dead, text):
    apply = lambda params, x: jax.nn.relu(x @ params["a"]) @ params["b"] + params["c"]  # noqa: E731
    params = {"a": normal(3, 6), "b": normal(6, 10).at[:, dead].set(0.0), "c": normal(10)}
    small = td.compact(apply, params, normal(2, 3))
    assert_equal(apply, params, small, normal(4, 3))
    assert f"\n{text} outputs no longer depend on the inputs" in small.summary
    assert "no longer" not in td.compact(apply, {**params, "b": normal(6, 10)}, normal(2, 3)).summary
