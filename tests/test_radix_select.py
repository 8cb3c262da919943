"""Exact selection against sorting and counting, the count against exact fractions, ties, dtypes, one compile."""

import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from td._radix_select import accelerator, bottom_k_mask, cpu, fraction_to_count
from td.errors import UserError

jitted_lowest = jax.jit(bottom_k_mask)
counts = jax.jit(fraction_to_count, static_argnums=1)
mark_on_cpu = jax.jit(cpu.mark)


def by_sorting(scores, count):
    """The first `count` of a stable sort of each column, in numpy."""
    order = np.argsort(np.asarray(scores, np.float64), axis=0, kind="stable")
    marked = np.zeros(scores.shape, bool)
    np.put_along_axis(marked, order[:count], True, axis=0)
    return marked


def test_trap_floor_in_float32_is_off_by_one():
    assert int(np.floor(np.float32(0.65) * np.float32(5760))) == 3743
    assert int(fraction_to_count(0.65, 5760)) == 3744


def exact_count(proportion, size):
    """In Python integers: of a decimal of four digits the floor, else the largest count whose share is not larger."""
    proportion = np.float32(proportion)
    decimal = round(float(proportion) * 10_000)
    if np.float32(decimal / 10_000) == proportion:
        return decimal * size // 10_000
    count = min(size, int(Fraction(float(proportion)) * size) + 2)
    while np.float32(count / size) > proportion:
        count -= 1
    return count


SIZES = [1, 3, 9, 144, 5760, 25_088, 524_289, 1_849_344, 2**24 + 1, 2**31 - 1, 2**31 + 5, 2**32 - 1]


@pytest.mark.parametrize("size", SIZES)
def test_count_of_every_thousandth_is_the_floor_in_python_integers(size):
    thousandths = np.arange(1001)
    found = jax.jit(jax.vmap(lambda share: fraction_to_count(share, size)))(np.float32(thousandths / 1000))
    assert found.tolist() == [int(n) * size // 1000 for n in thousandths]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(SIZES[:-3]))
def test_count_of_any_share_follows_its_definition(seed, size):
    generator = np.random.default_rng(seed)
    whole = generator.integers(0, size + 1, 100) / size
    shares = np.concatenate([generator.random(100), whole]).astype(np.float32)
    found = jax.jit(jax.vmap(lambda share: fraction_to_count(share, size)))(shares)
    assert found.tolist() == [exact_count(share, size) for share in shares]


@pytest.mark.parametrize("size", [1, 5760, 2**24, 2**31 - 1])
def test_count_at_the_ends(size):
    assert (int(fraction_to_count(0.0, size)), int(fraction_to_count(1.0, size))) == (0, size)
    assert (int(fraction_to_count(-0.5, size)), int(fraction_to_count(1.5, size))) == (0, size)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1, width=32), st.sampled_from(["float32", "bfloat16", "float16"]))
def test_equals_a_stable_sort_also_with_ties(seed, proportion, dtype):
    generator = np.random.default_rng(seed)
    scores = jnp.asarray(generator.choice([0.0, 0.25, 1.0, 3.5, 1e-5], (37, 6)), dtype)
    count = int(fraction_to_count(proportion, 37))
    marked = np.asarray(jitted_lowest(scores, jnp.float32(proportion)))
    np.testing.assert_array_equal(marked, by_sorting(scores, count))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("proportion", [0.0, 0.1, 0.5, 0.75, 0.999, 1.0])
def test_equals_a_stable_sort_of_normal_scores(dtype, proportion):
    scores = jnp.abs(jax.random.normal(jax.random.key(1), (576, 33), dtype))
    expected = by_sorting(scores, int(fraction_to_count(proportion, 576)))
    np.testing.assert_array_equal(jitted_lowest(scores, proportion), expected)


def test_double_precision_where_it_is_enabled():
    with jax.enable_x64(True):
        scores = jnp.asarray(np.random.default_rng(0).choice([0.1, 0.1 + 1e-15, 3.0], (40, 5)))
        assert scores.dtype == jnp.float64
        np.testing.assert_array_equal(bottom_k_mask(scores, 0.65), by_sorting(scores, 26))


def test_the_sign_does_not_count():
    scores = jax.random.normal(jax.random.key(0), (40, 3))
    np.testing.assert_array_equal(jitted_lowest(scores, 0.5), by_sorting(jnp.abs(scores), 20))


def test_ties_never_exceed_the_request():
    assert bottom_k_mask(jnp.ones((10, 3)), 0.35).sum(axis=0).tolist() == [3, 3, 3]


def test_extreme_scores_rank_as_numbers():
    scores = jnp.array([[jnp.inf], [0.0], [1e-45], [3e38], [1e-38]])
    assert bottom_k_mask(scores, 0.6).ravel().tolist() == [False, True, True, False, True]


def test_minus_zero_ties_with_zero():
    assert bottom_k_mask(jnp.array([[0.0], [-0.0], [1.0]]), 0.34).ravel().tolist() == [True, False, False]


def test_a_schedule_of_proportions_compiles_once():
    select = jax.jit(lambda scores, share: bottom_k_mask(scores, share))
    scores = jax.random.uniform(jax.random.key(0), (50, 4))
    marked = [int(select(scores, jnp.float32(share)).sum()) for share in (0.0, 0.3, 0.9)]
    assert marked == [0, 60, 180] and select._cache_size() == 1


def test_trap_ranking_is_within_the_column_not_over_the_layer():
    scores = jnp.array([[1.0, 100.0], [2.0, 200.0], [3.0, 300.0], [4.0, 400.0]])
    assert bottom_k_mask(scores, 0.5).sum(axis=0).tolist() == [2, 2]


def test_other_dtypes_are_refused():
    with pytest.raises(UserError, match="float32, bfloat16 or float16"):
        bottom_k_mask(jnp.ones((2, 2), jnp.float8_e4m3fn), 0.5)


def test_a_second_call_outside_of_jit_compiles_nothing():
    from td._radix_select import _bottom_k_masks

    bottom_k_mask(jnp.ones((23, 3)), 0.5)
    size = _bottom_k_masks._cache_size()
    bottom_k_mask(2 * jnp.ones((23, 3)), 0.7)
    assert _bottom_k_masks._cache_size() == size


SHAPES = [(1, 1), (33, 64), (66, 65), (40, 130), (144, 16), (1056, 3)]


def mixed(kind, dtype):
    """Matrices of many heights, smooth or full of ties."""
    generator = np.random.default_rng(0)
    draw = generator.random if kind == "smooth" else lambda shape: generator.integers(0, 4, shape)
    return [jnp.asarray(draw(shape), dtype) for shape in SHAPES]


@pytest.mark.parametrize("way", ["digits", "pairs", "groups"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_way_of_searching_marks_the_same(way, dtype, monkeypatch):
    """CPUs search blocks of columns of each matrix, accelerators padded matrices by digits or pairs; also with ties."""
    monkeypatch.setattr(accelerator, "PAIRS", 2**28 if way == "pairs" else 0)
    monkeypatch.setattr(accelerator, "LAUNCHES", 0 if way == "groups" else 2**28)
    heights = np.array([rows for rows, _ in SHAPES])
    assert len(accelerator._groups(SHAPES)) == (6 if way == "groups" else 1)
    mark = jax.jit(lambda scores, share: accelerator.mark(scores, fraction_to_count(share, heights)))
    for kind, share in itertools.product(("smooth", "tied"), (0.0, 0.3, 0.75, 1.0)):
        scores = mixed(kind, dtype)
        for matrix, marked in zip(scores, mark(scores, jnp.float32(share)), strict=True):
            count = counts(jnp.float32(share), matrix.shape[0])
            np.testing.assert_array_equal(marked, by_sorting(matrix, int(count)))
            np.testing.assert_array_equal(marked, mark_on_cpu(matrix, count))


def test_counts_of_several_sizes_are_those_of_each():
    sizes = np.array([1, 144, 5760, 1_849_344])
    for share in (0.0, 0.65, 0.651, 1.0):
        assert fraction_to_count(share, sizes).tolist() == [
            int(counts(jnp.float32(share), int(size))) for size in sizes
        ]


def test_no_sort_in_the_compiled_program():
    text = jitted_lowest.lower(jnp.ones((64, 8)), 0.5).compile().as_text()
    assert "sort(" not in text and "topk" not in text.lower()
