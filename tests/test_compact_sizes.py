"""Compaction is right at sizes of the inputs that were not the example's, and in narrow and whole-number arithmetic."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compact_networks import assert_equal
from compact_networks import normal as drawn
from jax import lax

import td

WIDTH = 6
NEAR = np.abs(np.arange(64)[:, None] - np.arange(64)) < 8
FIRST = jnp.array([0, 1, 7])


def normal(*shape, seed=0):
    return drawn(*shape, seed=seed).astype(jnp.float32)


def half_dead(bias=2.0, dtype=jnp.float32):
    """Two of six units without weights: they give their bias whatever comes in."""
    params = {"w": normal(WIDTH, WIDTH).at[:, jnp.array([1, 4])].set(0.0), "b": jnp.full(WIDTH, bias)}
    params |= {"o": normal(WIDTH, 3, seed=1), "table": normal(64, WIDTH, seed=2)}
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params)


def assert_same(apply, params, small, *inputs):
    assert_equal(apply, params, small, *inputs, tolerance=1e-5)


def hidden(params, x):
    return jax.nn.relu(x @ params["w"] + params["b"])


def positions(params, x):
    return (hidden(params, x) + params["table"][: x.shape[1]]) @ params["o"]


def last_positions(params, x):
    return (hidden(params, x) + params["table"][64 - x.shape[1] :]) @ params["o"]


def sliding_window(params, x):
    length, scores = x.shape[1], jnp.einsum("bld,bmd->blm", x, x)
    return jax.nn.softmax(jnp.where(jnp.asarray(NEAR)[:length, :length], scores, -1e9)) @ hidden(params, x)


def padded_to_fours(params, x):
    shown = jnp.pad(hidden(params, x), ((0, 0), (0, -x.shape[1] % 4), (0, 0)))
    return shown.reshape(len(x), -1, 4, WIDTH).sum(2) @ params["o"]


@pytest.mark.parametrize(
    ("apply", "lengths", "refused"),
    [
        (positions, (4, 12, 32), None),
        (last_positions, (4, 12, 32), None),
        (sliding_window, (4, 12), None),
        (padded_to_fours, (4, 16), 10),
    ],
)
def test_trap_what_is_cut_or_padded_by_the_length(apply, lengths, refused):
    params = half_dead()
    small = td.compact(apply, params, normal(2, 8, WIDTH))
    for length in (8, *lengths):
        assert_same(apply, params, small, normal(3, length, WIDTH))
    if refused:
        with pytest.raises(td.UserError, match="pad pads"):
            small.apply(small.params, normal(2, refused, WIDTH))


def test_trap_an_example_of_more_than_half_a_table():
    params = half_dead()
    small = td.compact(positions, params, normal(2, 48, WIDTH))
    for length in (1, 30, 63):
        assert_same(positions, params, small, normal(3, length, WIDTH))
    whole = td.compact(positions, params, normal(2, 64, WIDTH))
    assert_same(positions, params, whole, normal(3, 64, WIDTH))
    with pytest.raises(td.UserError, match="shorter than the table"):
        whole.apply(whole.params, normal(2, 30, WIDTH))


def test_a_map_that_is_resized_is_named_where_its_size_needs_no_resizing():
    def apply(params, images):
        resized = jax.image.resize(hidden(params, images), (len(images), 4, 4, WIDTH), "bilinear")
        return resized @ params["o"]

    for seen, unseen in ((8, 4), (4, 8)):
        small = td.compact(apply, half_dead(), normal(2, seen, seen, WIDTH))
        assert_same(apply, half_dead(), small, normal(3, seen, seen, WIDTH))
        with pytest.raises(td.UserError, match="resized"):
            small.apply(small.params, normal(2, unseen, unseen, WIDTH))


def attention(params, x, mask):
    shown = hidden(params, x)
    scores = jnp.einsum("bld,bmd->blm", shown, shown)[:, None]
    return jax.nn.softmax(jnp.where(mask, scores, -1e9))[:, 0] @ shown @ params["o"]


@pytest.mark.parametrize(("batch", "length"), [(2, 8), (8, 8), (2, WIDTH)])
def test_trap_a_square_mask_beside_the_tokens_grows_with_them(batch, length):
    def inputs(batch, length):
        return normal(batch, length, WIDTH), jnp.tril(jnp.ones((batch, 1, length, length), bool))

    params = half_dead()
    small = td.compact(attention, params, *inputs(batch, length))
    assert small.params.params["w"].shape == (WIDTH, WIDTH - 2)
    for length in (8, 5, 12):
        assert_same(attention, params, small, *inputs(3, length))


@pytest.mark.parametrize(
    "shift",
    [lambda x: jnp.roll(x, 1, 1), lambda x: jnp.concatenate([jnp.zeros_like(x[:, :1]), x[:, :-1]], 1)],
)
def test_trap_an_example_of_one_token_shows_nothing_of_those_before_it(shift):
    apply = lambda params, x: shift(hidden(params, x)) @ params["o"]  # noqa: E731
    small = td.compact(apply, half_dead(), normal(2, 1, WIDTH))
    assert_same(apply, half_dead(), small, normal(3, 1, WIDTH))
    with pytest.raises(td.UserError, match="sizes"):
        small.apply(small.params, normal(2, 3, WIDTH))


def test_what_cannot_be_compacted_is_told_in_one_line():
    params, x = half_dead(), normal(2, 3, WIDTH)
    with pytest.raises(td.UserError, match="False is a setting, not an input"):
        td.compact(positions, params, x, False)
    with pytest.raises(td.UserError, match="outside of jit"):
        jax.jit(lambda params: td.compact(positions, params, x).params)(params)
    with pytest.raises(td.UserError, match="give a whole number"):
        td.compact(positions, params, x, round_to=1.5)
    small = td.compact(positions, params, x)
    with pytest.raises(td.UserError, match="bfloat16 params"):
        small.apply(jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), small.params), x)
    model = eqx.nn.MLP(WIDTH, 2, 4, 1, key=jax.random.key(0))
    with pytest.raises(td.UserError, match=r"eqx\.partition\(model"):
        td.compact(lambda model, x: jax.vmap(jax.vmap(model))(x), model, x)


@pytest.mark.parametrize(
    "apply",
    [
        lambda params, x: hidden(params, x).reshape(WIDTH, -1).sum(1),  # units become rows
        lambda params, x: hidden(params, x).reshape(1, -1, WIDTH)[0] @ params["o"],
        lambda params, x: (hidden(params, x).reshape(-1, WIDTH // 2).sum(1).reshape(len(x), 2)) @ params["o"][:2],
    ],
)
def test_trap_a_batch_of_one_says_nothing_of_a_reshape(apply):
    params = half_dead()
    small = td.compact(apply, params, normal(1, WIDTH))
    for batch in (1, 2, 3):
        assert_same(apply, params, small, normal(batch, WIDTH))


def test_a_reshape_of_tokens_from_a_batch_of_one_still_loses_units():
    apply = lambda params, x: hidden(params, x).reshape(-1, WIDTH) @ params["o"]  # noqa: E731
    small = td.compact(apply, half_dead(), normal(1, 8, WIDTH))
    assert small.params.params["w"].shape == (WIDTH, WIDTH - 2)
    assert_same(apply, half_dead(), small, normal(3, 5, WIDTH))


@pytest.mark.parametrize("filled", [0.0, 1.0])
def test_trap_indices_out_of_range_that_are_filled(filled):
    def apply(params, x):
        return jnp.take(hidden(params, x), FIRST, axis=0, mode="fill", fill_value=filled) @ params["o"]

    small = td.compact(apply, half_dead(), normal(4, WIDTH))
    assert_same(apply, half_dead(), small, normal(4, WIDTH))


def eighths(params, x):
    return jnp.clip(jnp.round(hidden(params, x) * 20), -127, 127).astype(jnp.int8)


def biased(params, x):
    return hidden(params, x) @ jnp.abs(params["o"]) + params["c"].astype(jnp.float32)


def whole(params, x):
    """Constants whose sum wraps: the dead units alone."""
    return (hidden(params, x)[:, 1::3] * 2e9).astype(jnp.int32) + jnp.array([5, 3])


def pooled(params, x):
    """Sums of 289 numbers of eight bits."""
    maps = jnp.broadcast_to(whole(params, x).astype(jnp.int8)[:, None, None], (len(x), 17, 17, 2))
    return lax.reduce_window(maps, np.int8(0), lax.add, (1, 17, 17, 1), (1, 1, 1, 1), "VALID")


WHOLE = jnp.round(50 * normal(WIDTH, 3, seed=1)).astype(jnp.int8)


@pytest.mark.parametrize(
    ("apply", "params"),
    [
        (lambda p, x: lax.dot(eighths(p, x), WHOLE, preferred_element_type=jnp.int32), half_dead()),
        (
            lambda p, x: lax.conv_general_dilated(
                eighths(p, x)[None],
                WHOLE[None],
                (1,),
                "VALID",
                dimension_numbers=("NHC", "HIO", "NHC"),
                preferred_element_type=jnp.int32,
            ),
            half_dead(),
        ),
        (lambda p, x: lax.div(jnp.round(hidden(p, x)).astype(jnp.int32).sum(-1), jnp.int32(WIDTH)), half_dead(1.0)),
        (lambda p, x: lax.div(whole(p, x).sum(-1), jnp.int32(1000)), half_dead(1.0)),
        (lambda p, x: lax.reduce_or(whole(p, x), (1,)), half_dead(1.0)),
        (lambda p, x: lax.reduce_and(whole(p, x), (1,)), half_dead(1.0)),
        (pooled, half_dead(1.0)),
        (biased, half_dead(100.0) | {"c": jnp.zeros(3, "bfloat16")}),
        (biased, half_dead(5e4) | {"c": jnp.zeros(3, "float16")}),
        (lambda p, x: (hidden(p, x).astype("bfloat16") + 256 - 256).astype("float32") @ p["o"], half_dead(1.4)),
    ],
    ids=["int8 product", "int8 conv", "mean", "sum", "or", "and", "pool", "bfloat16", "float16", "rounded"],
)
def test_trap_constants_are_calculated_as_the_network_calculates(apply, params):
    assert_same(apply, params, td.compact(apply, params, normal(4, WIDTH)), normal(5, WIDTH))


def test_trap_a_weakly_typed_scale_leaves_the_dtype():
    params = half_dead(dtype=jnp.bfloat16) | {"scale": jnp.array(2.0)}
    apply = lambda params, x: hidden(params, x) * params["scale"]  # noqa: E731
    inputs = normal(4, WIDTH).astype(jnp.bfloat16)
    assert_same(apply, params, td.compact(apply, params, inputs), inputs)


@pytest.mark.parametrize("key", [jax.random.key, jax.random.PRNGKey])
def test_random_numbers_from_a_key_within_are_left_whole(key):
    apply = lambda params, x: (hidden(params, x) + jax.random.normal(key(0), x.shape)) @ params["o"]  # noqa: E731
    assert_same(apply, half_dead(), td.compact(apply, half_dead(), normal(4, WIDTH)), normal(4, WIDTH))


def test_trap_a_missing_constant_is_no_zero():
    apply, x = lambda params, x: hidden(params, x) @ params["o"], normal(2, WIDTH)
    small = td.compact(apply, half_dead(), x)
    (name,) = small.params.constants
    for constants in ({}, {"another": small.params.constants[name]}):
        with pytest.raises(td.UserError, match=f"constants .*{name}"):
            small.apply(small.params._replace(constants=constants), x)


def test_what_is_no_plan_is_told():
    with pytest.raises(td.UserError, match="not a plan of version"):
        td.apply_plan(hidden, half_dead(), {}, normal(4, WIDTH))
