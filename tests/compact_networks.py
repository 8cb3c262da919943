"""Networks for the tests of compaction: the project's own with units pruned."""

import math

import jax
import jax.numpy as jnp
import numpy as np

import td
from td import _tree, models

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def zeroed(array, *lines):
    """Zeros at some indices of axes, `(axis, indices)`."""
    array = np.array(array)
    for axis, indices in lines:
        array[(slice(None),) * axis + (list(indices),)] = 0
    return jnp.asarray(array)


def pruned(settings, *inputs, classes=3, rate=0.5):
    """A network in float64 with drawn norms and half its units zero: `(apply, variables)`."""
    precise = {} if settings["name"] == "mlp" else {"dtype": "float64"}
    model = models.build({**settings, **precise}, classes)
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        name = _tree.path_name(path)
        drawn = rng.uniform(0.5, 2.0, leaf.shape) if "var" in name else rng.normal(size=leaf.shape)
        return jnp.asarray(drawn)

    variables = jax.tree_util.tree_map_with_path(draw, jax.eval_shape(model.init, jax.random.key(0), *inputs))
    mask = td.prune_mask(variables["params"], rate, "unit", kernels="^(?!(stem|logits)/)")
    variables = {**variables, "params": td.apply_mask(variables["params"], mask)}

    def logits(variables, *inputs):
        """Before they are rounded to float32."""
        chosen = lambda module, method: module.name == "logits" or method == "attend"  # noqa: E731
        _, state = model.apply(variables, *inputs, capture_intermediates=chosen)
        return jax.tree.leaves(state["intermediates"])[0]

    return logits, variables


def assert_equal(apply, params, small, *inputs, tolerance=1e-10):
    """Equal outputs from no more numbers."""
    assert_no_more_numbers(params, small)
    expected, found = jax.jit(apply)(params, *inputs), small.apply(small.params, *inputs)
    for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        one, other = np.asarray(one, float), np.asarray(other, float)
        np.testing.assert_allclose(other, one, rtol=0, atol=tolerance * np.abs(one).max(initial=1e-300))


def assert_no_more_numbers(params, small):
    """Moved constants, whole numbers and flags among them, never outweigh what they replace."""
    constants = sum(math.prod(constant["shape"]) for constant in small.plan["constants"].values())
    after = sum(np.size(leaf) for leaf in jax.tree.leaves(small.params.params)) + constants
    assert after <= sum(np.size(leaf) for leaf in jax.tree.leaves(params))


def counted(small):
    return sum(leaf.size for leaf in jax.tree.leaves(small.params))


def shapes(small):
    return {path: leaf.shape for path, leaf in td._tree.named_leaves(small.params.params).items()}


def loss(apply):
    """The sum of squares of a network's output."""
    return lambda params, *inputs: jnp.square(apply(params, *inputs)).sum()
