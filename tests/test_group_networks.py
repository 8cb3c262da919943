"""Half of the groups of a gated MLP and of a residual stream, as the compacted network keeps them."""

import jax
import numpy as np
from structure_networks import drawn, normed

import td


def left_by_compaction(apply, params, inputs):
    """Compact the network without half of its groups, and check that its outputs are the zeroed network's."""
    structure = td.trace(apply, params, inputs)
    zeroed = jax.jit(lambda p: td.apply_mask(p, td.prune_mask(p, 0.5, "group", kernels=structure)))(params)
    small = td.compact(apply, zeroed, inputs)
    expected = jax.jit(apply)(zeroed, inputs)
    np.testing.assert_allclose(small.apply(small.params, inputs), expected, atol=1e-5 * np.abs(expected).max())
    structure = td.trace(small.apply, small.params, inputs)
    return {path.removeprefix("params/"): view.shape for path, view in structure.every.items()}


def gated(p, x):
    x = x @ p["stem"]
    return ((jax.nn.silu(x @ p["gate"]) * (x @ p["up"])) @ p["down"]) @ p["head"]


def residual(p, x):
    x = x @ p["stem"]
    for branch in p["branches"]:
        x = x + jax.nn.gelu(normed(x, **p["norm"]) @ branch["up"]) @ branch["down"]
    return normed(x, **p["norm"]) @ p["head"]


def test_half_of_a_gated_mlp_is_half_of_its_hidden_units():
    params = drawn(stem=(4, 6), gate=(6, 256), up=(6, 256), down=(256, 6), head=(6, 3))
    left = left_by_compaction(gated, params, drawn(x=(2, 4))["x"])
    assert left == {"stem": (4, 6), "gate": (6, 128), "up": (6, 128), "down": (128, 3), "head": (3, 3)}


def test_half_of_a_residual_stream_is_half_of_its_width():
    params = drawn(stem=(4, 64), branches=[{"up": (64, 6), "down": (6, 64)}] * 4, head=(64, 3))
    params |= drawn(norm={"scale": (64,), "offset": (64,)})
    left = left_by_compaction(residual, params, drawn(x=(2, 4))["x"])
    branches = {f"branches/{i}/{name}": shape for i in range(4) for name, shape in (("up", (32, 3)), ("down", (3, 32)))}
    assert left == {"stem": (4, 32), **branches, "head": (32, 3)}
