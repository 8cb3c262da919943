"""Networks for the tests of compaction: the project's own with units pruned, and drawn ones of every shape."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import td
from td import models, tree

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def pruned(settings, *inputs, classes=3, rate=0.5):
    """A network in float64 with drawn norms and half its units zero: `(apply, variables)`."""
    precise = {} if settings["name"] == "mlp" else {"dtype": "float64"}
    model = models.build({**settings, **precise}, classes)
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        name = tree.path_name(path)
        drawn = rng.uniform(0.5, 2.0, leaf.shape) if "var" in name else rng.normal(size=leaf.shape)
        return jnp.asarray(drawn)

    variables = jax.tree_util.tree_map_with_path(draw, jax.eval_shape(model.init, jax.random.key(0), *inputs))
    mask = td.prune_mask(variables["params"], rate, "unit")
    variables = {**variables, "params": td.apply_mask(variables["params"], mask)}

    def logits(variables, *inputs):
        """Before they are rounded to float32."""
        chosen = lambda module, method: module.name == "logits" or method == "attend"  # noqa: E731
        _, state = model.apply(variables, *inputs, capture_intermediates=chosen)
        return jax.tree.leaves(state["intermediates"])[0]

    return logits, variables


def kernel(rng, shape, rate):
    """Normal, with columns and rows of zeros."""
    drawn = rng.normal(size=shape)
    drawn[..., rng.random(shape[-1]) < rate] = 0
    drawn[..., rng.random(shape[-2]) < rate / 2, :] = 0
    return drawn


def drawn_network(steps, seed, rate):
    """`(apply, params)` of operations `(name, which, other)` on one image; the last values are the outputs."""
    rng, params = np.random.default_rng(seed), {}
    shapes = [(6, 6, 3)]
    program = []
    for place, (name, first, second) in enumerate(steps):
        a, b = first % len(shapes), second % len(shapes)
        height, width, channels = shapes[a]
        key, shape = f"w{place}", shapes[a]
        if name == "conv":
            side, stride, units = (1, 3)[second % 2], 1 + second // 2 % 2, 2 + second % 4
            params[key] = kernel(rng, (side, side, channels, units), rate)
            shape = (-(-height // stride), -(-width // stride), units)
            detail = (side, stride)
        elif name == "depthwise":
            params[key] = kernel(rng, (3, 3, 1, 2 * channels), rate)
            shape, detail = (height, width, 2 * channels), None
        elif name == "norm":
            params[key] = {"scale": rng.normal(size=channels) * (rng.random(channels) > rate / 2)}
            params[key]["bias"] = rng.normal(size=channels) * (rng.random(channels) > 0.5)
            detail = None
        elif name in ("sum", "product") and shapes[a] == shapes[b]:
            detail = None
        elif name == "join" and shapes[a][:2] == shapes[b][:2] and channels + shapes[b][2] < 20:
            shape, detail = (height, width, channels + shapes[b][2]), None
        elif name in ("max", "mean") and min(height, width) >= 2:
            detail = second % 2
            size = (lambda n: (n + 1) // 2) if detail and name == "max" else (lambda n: n // 2)
            shape = (size(height), size(width), channels)
        elif name == "cut" and channels > 2:
            detail = (second % 2, channels - 1)
            shape = (height, width, len(range(*detail)))
        elif name in ("widen", "turn", "relu", "tanh", "sort"):
            changed = {"widen": (height, width, channels + 2), "turn": (width, height, channels)}
            shape, detail = changed.get(name, shape), None
        else:
            continue
        program.append((name, key, a, b, detail))
        shapes.append(shape)
    params["flat"] = kernel(rng, (int(np.prod(shapes[-1])), 4), rate)
    params["pooled"] = kernel(rng, (shapes[len(shapes) // 2][2], 3), rate)

    def apply(params, images):
        values = [images]
        for name, key, a, b, detail in program:
            values.append(_step(name, params.get(key), values[a], values[b], detail))
        flat = values[-1].reshape(len(images), -1) @ params["flat"]
        return flat, values[len(values) // 2].mean((1, 2)) @ params["pooled"]

    return apply, jax.tree.map(jnp.asarray, params)


def _step(name, leaf, first, second, detail):
    channels = first.shape[-1]
    if name == "conv":
        return lax.conv_general_dilated(first, leaf, (detail[1],) * 2, "SAME", dimension_numbers=DIMENSIONS)
    if name == "depthwise":
        settings = {"dimension_numbers": DIMENSIONS, "feature_group_count": channels}
        return lax.conv_general_dilated(first, leaf, (1, 1), "SAME", **settings)
    if name == "max":
        pair, padding = (1, 2, 2, 1), ("VALID", "SAME")[detail]
        return lax.reduce_window(first, -jnp.inf, lax.max, pair, pair, padding)
    if name == "mean":
        return lax.reduce_window(first, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
    return {
        "norm": lambda: first * leaf["scale"] + leaf["bias"],
        "sum": lambda: first + second,
        "product": lambda: first * second,
        "join": lambda: jnp.concatenate([first, second], -1),
        "cut": lambda: first[..., detail[0] : detail[1]],
        "widen": lambda: jnp.pad(first, ((0, 0), (0, 0), (0, 0), (1, 1))),
        "turn": lambda: first.transpose(0, 2, 1, 3)[:, ::-1],
        "relu": lambda: jnp.maximum(first, 0),
        "tanh": lambda: jnp.tanh(first),
        "sort": lambda: jnp.sort(first, -1),
    }[name]()


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
    return {path: leaf.shape for path, leaf in td.tree.named_leaves(small.params.params).items()}
