"""Where ranking happens: every scope against numpy sorts, groups, and scopes that do not exist."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import td
from td.select import keep_masks


def removed(scores, count):
    """The lowest `count` of a flat array by a stable sort."""
    mask = np.zeros(scores.size, bool)
    mask[np.argsort(scores.ravel(), kind="stable")[:count]] = True
    return mask.reshape(scores.shape)


def by_sorting(scores, rate, granularity, scope):
    count = lambda size: int(np.floor(np.float64(np.float32(rate)) * size + 1e-4))  # noqa: E731
    if scope == "global":
        flat = np.concatenate([s.ravel() for s in scores.values()])
        gone, start, masks = removed(flat, count(flat.size)), 0, {}
        for path, s in scores.items():
            masks[path] = ~gone[start : start + s.size].reshape(s.shape)
            start += s.size
        return masks
    if scope == "layer" or granularity == "unit":
        return {path: ~removed(s, count(s.size)) for path, s in scores.items()}
    if scope == "unit":
        columns = {path: [removed(c, count(c.size)) for c in s.T] for path, s in scores.items()}
        return {path: ~np.stack(c, axis=1) for path, c in columns.items()}
    kept, size = map(int, scope.split(":"))
    masks = {}
    for path, s in scores.items():
        mask = np.ones(s.shape, bool)
        for column in range(s.shape[1]):
            for first in range(0, s.shape[0], size):
                group = s[first : first + size, column]
                missing = size - group.size
                mask[first : first + size, column] = ~removed(group, max(min(count(size), size - kept) - missing, 0))
        masks[path] = mask
    return masks


@pytest.mark.parametrize(
    ("granularity", "scope"),
    [("weight", s) for s in ("unit", "layer", "global", "2:4", "1:4", "1:3")]
    + [("unit", s) for s in ("unit", "layer", "global")],
)
def test_scopes_agree_with_sorting(granularity, scope):
    rng = np.random.default_rng(9)
    rows = {"weight": (12, 10), "unit": (1, 1)}[granularity]
    scores = {"a": rng.integers(0, 9, (rows[0], 7)), "b": rng.integers(0, 30, (rows[1], 5))}
    scores = {path: score.astype(np.float32) for path, score in scores.items()}
    given = {path: jnp.asarray(score) for path, score in scores.items()}
    keep = jax.jit(lambda rate: keep_masks(given, rate, granularity, scope))
    for rate in (0.0, 0.1, 0.25, 0.5, 0.65, 0.75, 1.0):
        expected = by_sorting(scores, rate, granularity, scope)
        for path, mask in keep(jnp.float32(rate)).items():
            np.testing.assert_array_equal(mask, expected[path], err_msg=f"{path} at {rate}")
    assert keep._cache_size() == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 2, 3, 8, 22]))
def test_two_of_four_always_stay(seed, rows):
    scores = {"w": jnp.asarray(np.random.default_rng(seed).random((rows, 5)), jnp.float32)}
    mask = np.asarray(keep_masks(scores, 1.0, "weight", "2:4")["w"])
    for first in range(0, rows, 4):
        assert (mask[first : first + 4].sum(axis=0) == min(2, rows - first)).all()


def test_global_pruning_takes_more_from_the_weaker_kernel():
    params = {
        "w1": 0.1 * jax.random.normal(jax.random.key(0), (20, 20)),
        "w2": jax.random.normal(jax.random.key(1), (20, 20)),
    }
    pruned = td.apply_mask(params, td.prune_mask(params, 0.5, scope="global", kernels=".*"))
    measured = td.sparsity(pruned, kernels=".*")
    assert float(measured.total) == 0.5 and measured.kernels["w1"] > 0.8 > 0.2 > measured.kernels["w2"]


@pytest.mark.parametrize(
    ("scope", "granularity", "words"),
    [
        ("layr", "weight", "did you mean 'layer'"),
        ("4:2", "weight", "out of range"),
        ("0:4", "weight", "out of range"),
        ("2:4", "unit", "is for weights"),
        ("", "weight", "unknown scope"),
    ],
)
def test_bad_scopes_are_told(scope, granularity, words):
    for make in (
        lambda: td.targeted(granularity, scope=scope, kernels=".*"),
        lambda: td.prune_mask({"w": jnp.ones((4, 4))}, 0.5, granularity, scope=scope, kernels=".*"),
    ):
        with pytest.raises(td.UserError, match=words):
            make()


@pytest.mark.parametrize(
    ("share", "rows", "min_kept", "gone"),
    [(0.75, 23, 3, 15), (0.9, 23, 3, 18), (0.65, 21, 1, 13), (1, 5, 3, 2), (1, 2, 3, 0)],
)
def test_trap_a_share_is_one_of_what_is_not_spared(share, rows, min_kept, gone):
    """In float32 .75 * 20 / 23 is a share of 14 of 23."""
    scores = {"w": jnp.arange(1.0, rows + 1)[:, None]}
    for scope in ("unit", "layer", "global"):
        assert int((~keep_masks(scores, share, "weight", scope, min_kept)["w"]).sum()) == gone


@pytest.mark.parametrize("scope", ["unit", "layer", "global", "2:4"])
def test_of_no_kernels_there_are_no_masks(scope):
    assert keep_masks({}, 0.5, "weight", scope) == {}


def test_groups_with_some_to_spare_are_told():
    with pytest.raises(td.UserError, match="leave min_kept at 0"):
        keep_masks({"w": jnp.ones((4, 2))}, 0.5, "weight", "2:4", min_kept=1)
