"""No compaction holds more numbers than the network before it: factors stay factors, dear constants are computed."""

import json
import math

import jax
import jax.numpy as jnp
import pytest
from compact_networks import assert_equal, assert_no_more_numbers, counted, normal, shapes

import td

pytestmark = pytest.mark.usefixtures("in_float64")


def low_rank(params, x):
    return x @ (params["a"] @ params["b"])


def lora(params, x):
    return x @ (params["w"] + params["a"] @ params["b"])


@pytest.mark.parametrize("apply", [low_rank, lora])
def test_factors_stay_factors_and_lose_ranks_and_columns(apply):
    params = {"a": normal(20, 4), "b": normal(4, 30).at[2].set(0.0), "w": normal(20, 30), "o": normal(30, 6)}
    network = lambda params, x: apply(params, x) @ params["o"]  # noqa: E731
    params["o"] = params["o"].at[:10].set(0.0)
    small = td.compact(network, params, normal(2, 20))
    assert_equal(network, params, small, normal(5, 20))
    assert shapes(small)["a"] == (20, 3) and shapes(small)["b"] == (3, 20)
    assert small.plan["constants"] == {}


def test_a_kernel_that_is_convolved_from_leaves_is_computed():
    def apply(params, x):
        kernel = jax.lax.conv(params["a"][None, :, None], params["b"][..., None], (1,), "VALID")  # [1, 9, 1]
        return x @ kernel[0, :, 0]

    params = {"a": normal(2), "b": normal(9, 2)}
    small = td.compact(apply, params, normal(3, 9))
    assert_equal(apply, params, small, normal(5, 9))
    assert small.plan["constants"] == {}


def of_two_vectors(params, x):
    """A kernel of 8 x 100 from 108 numbers: what a dead unit gives would take 100."""
    return jax.nn.relu(x @ params["w"] + params["c"]) @ jnp.outer(params["u"], params["v"])


def at_positions(params, x):
    """A dead unit gives another constant at each of 50 positions, hence 3,000 to each layer."""
    hidden = jnp.tanh(x @ params["w"] + params["place"])
    return (hidden @ params["a"]) * (hidden @ params["b"])


def to_many_frozen_operations(params, x):
    hidden = x @ params["w"] + params["c"]
    return [jnp.sort(hidden + shift) for shift in range(5)], jnp.cumsum(hidden)


def without_params(params, x):
    return 0 * x.sum() + 0.3


VECTORS = {"w": normal(1, 8).at[:, 3].set(0.0), "c": jnp.ones(8), "u": normal(8), "v": normal(100)}
POSITIONS = {"w": normal(5, 8).at[:, 3:5].set(0.0), "place": normal(50, 8), "a": normal(8, 60), "b": normal(8, 60)}
FROZEN = {"w": normal(1, 8).at[:, :4].set(0.0), "c": normal(8)}
CASES = [  # function, params, inputs, shapes left, moved constants
    (of_two_vectors, VECTORS, (4, 1), {"w": (1, 7), "c": (7,), "u": (8,), "v": (100,)}, 1),
    (at_positions, POSITIONS, (4, 50, 5), {"w": (5, 6), "place": (50, 6), "a": (8, 60), "b": (8, 60)}, 2 * 50),
    (to_many_frozen_operations, FROZEN, (4, 1), {"w": (1, 4), "c": (8,)}, 0),
    (without_params, {}, (4, 3), {}, 0),
]


@pytest.mark.parametrize(("apply", "params", "size", "left", "moved"), CASES, ids=lambda x: getattr(x, "__name__", ""))
def test_constants_that_would_take_more_numbers_are_computed(apply, params, size, left, moved):
    small = td.compact(apply, params, normal(*size))
    assert_equal(apply, params, small, normal(*size))
    assert_equal(apply, params, small, normal(3, *size[1:]))
    assert shapes(small) == left and counted(small) - sum(map(math.prod, left.values())) == moved
    again = td.apply_plan(apply, params, json.loads(json.dumps(small.plan)), normal(*size))
    assert again.plan == small.plan and counted(again) == counted(small)


def test_rounded_widths_take_no_more_numbers_either():
    small = td.compact(at_positions, POSITIONS, normal(4, 50, 5), round_to=4)
    assert_equal(at_positions, POSITIONS, small, normal(4, 50, 5))
    assert shapes(small)["w"] == (5, 8)


def test_a_plan_whose_constants_would_outgrow_other_params_is_an_error():
    negative = {**VECTORS, "c": -VECTORS["c"]}
    small = td.compact(of_two_vectors, negative, normal(4, 1))
    assert_no_more_numbers(negative, small)
    with pytest.raises(td.UserError, match="more numbers"):
        td.apply_plan(of_two_vectors, VECTORS, small.plan, normal(4, 1))


def test_a_network_without_a_branch_is_compacted_again():
    def apply(params, x):
        stream = jax.nn.relu(x @ params["a"])
        return (stream + jax.nn.relu(stream @ params["b"]) @ params["c"]) @ params["d"]

    params = {"a": normal(4, 8), "b": jnp.zeros((8, 6)), "c": jnp.zeros((6, 8)), "d": normal(8, 2)}
    small = td.compact(apply, params, normal(2, 4))
    again = td.compact(small.apply, small.params, normal(2, 4))
    assert shapes(small)["b"] == (8, 0) and counted(again) == counted(small)
    assert_equal(apply, params, again, normal(7, 4))
