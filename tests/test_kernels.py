"""Kernels by patterns and by hand, the description of a tree, and the matrices that methods work on."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_kernel_choice import TOKENS, Block, shapes_of

import td
from td import _tree, kernels
from td._kernel_axes import Kernel
from td.kernels import select_kernels

KEY = jax.random.key(0)


def test_first_and_last_layers_by_their_usual_names():
    names = ("stem", "patch_embed", "head", "classifier", "lm_head", "logits", "body", "header")
    assert list(kernels.find_kernels({name: {"kernel": jnp.ones((4, 4))} for name in names})) == [
        "body/kernel",
        "header/kernel",
    ]


def test_kernels_told_by_hand_win_and_the_last_word_counts():
    params = {name: {"kernel": jnp.ones((4, 4))} for name in ("dense", "logits")}
    params["experts"] = {"kernel": jnp.ones((4, 16, 8))}
    chosen = (td.KERNELS, td.Kernels("experts", stacked=(0,)))
    assert kernels.find_kernels(params, chosen)["experts/kernel"].matrix_shape == (4, 16, 8)
    assert list(kernels.find_kernels(params, (*chosen, td.Kernels("experts", units=())))) == ["dense/kernel"]
    assert list(kernels.find_kernels(params, td.Kernels("experts", units=(0, 2)))) == ["experts/kernel"]
    assert kernels.find_kernels(params, td.Kernels("experts", units=(0, 2)))["experts/kernel"].matrix_shape == (16, 32)


@pytest.mark.parametrize(
    "axes", [{"stacked": (0,), "units": (0,)}, {"units": (0, 1)}, {"units": (5,)}, {"stacked": (0,), "units": (-2,)}]
)
def test_kernels_that_do_not_fit_are_told(axes):
    with pytest.raises(td.UserError, match="name each axis once, and leave a fan-in"):
        td.prune_mask({"w": jnp.ones((4, 4))}, 0.5, kernels=td.Kernels("w", **axes))


def test_description_of_a_tree_names_every_leaf():
    params = shapes_of(
        nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)(), TOKENS, None
    )
    text = td.describe(params, ".*")
    assert all(path in text for path in _tree.paths(params))
    (line,) = [line for line in text.splitlines() if "query/kernel" in line]
    assert "3 x [8 -> 8]" in line and line.endswith("yes")
    assert all("no: " in line for line in text.splitlines() if "scale" in line or "bias" in line)


def test_patterns_choose_kernels(params):
    assert list(select_kernels(params)) == ["block/0/kernel", "block/1/0/kernel"]
    assert list(select_kernels(params, ["stem", "logits"])) == ["logits/kernel", "stem/kernel"]
    only_first = td.targeted("weight", 0.5, 1.0, kernels="block/0/")
    seen, _ = only_first.apply(params, td.MaskVars(), key=KEY, step=0)
    assert list(td.sparsity(seen, ".").kernels) == list(select_kernels(params, "."))
    assert {p for p, share in td.sparsity(seen, ".").kernels.items() if share > 0} == {"block/0/kernel"}


@pytest.mark.parametrize("patterns", ["conv", ["block", "conv"]])
def test_a_pattern_without_a_match_lists_the_paths(params, patterns):
    with pytest.raises(td.UserError, match=r"'conv' matches no kernel; the kernels are: block/0/kernel, .*stem/kernel"):
        td.prune_mask(params, 0.5, kernels=patterns)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("Dense_1", ["block/Dense_1/kernel"]),
        ("block", ["block/Dense_1/kernel", "block/Dense_10/kernel"]),
        ("Dense_.*", ["Dense/Dense_2/kernel", "block/Dense_1/kernel", "block/Dense_10/kernel"]),
        ("block/Dense_1/kernel$", ["block/Dense_1/kernel"]),
        ("^block/", ["block/Dense_1/kernel", "block/Dense_10/kernel"]),
        ("^Dense", ["Dense/Dense_2/kernel"]),
        (r"Dense_1|Dense_10", ["block/Dense_1/kernel", "block/Dense_10/kernel"]),
        (r"^(?!block/|w1)", ["Dense/Dense_2/kernel"]),
        ("w1", ["w1"]),
        *[
            (every, ["Dense/Dense_2/kernel", "block/Dense_1/kernel", "block/Dense_10/kernel", "w1"])
            for every in ("..*", ".")
        ],
    ],
)
def test_a_pattern_matches_whole_components_of_a_path(pattern, found):
    kernel = {"kernel": jnp.ones((4, 4))}
    params = {"block": {"Dense_1": kernel, "Dense_10": kernel}, "Dense": {"Dense_2": kernel}, "w1": jnp.ones((4, 4))}
    assert list(kernels.find_kernels(params, pattern)) == found
    assert list(kernels.find_kernels(params, td.Kernels(pattern))) == found


@pytest.mark.parametrize(
    "transform",
    [
        *[
            pytest.param(one.factory(kernels="hidden"), id=name)
            for name, one in td.masks.METHODS.items()
            if name != "none"
        ],
        td.chain(td.dropout(kernels="hidden"), td.targeted(kernels=["hidden"])),
    ],
)
def test_pruning_after_a_method_with_kernels_of_its_own_takes_the_methods(transform):
    params = {name: {"kernel": jnp.ones((4, 4))} for name in ("hidden", "other")}
    mask = td.prune_mask(params, 0.5, kernels=transform)
    assert not mask["hidden"]["kernel"].all() and mask["other"]["kernel"].all()


def test_a_malformed_pattern_is_told(params):
    with pytest.raises(td.UserError, match="not a regular expression"):
        td.prune_mask(params, 0.5, kernels="(")


def test_what_is_told_by_hand_concerns_floating_point_alone():
    params = {"table": jnp.ones((4, 4), jnp.int32), "table_of_weights": jnp.ones((4, 4))}
    assert list(kernels.find_kernels(params, td.Kernels("table.*"))) == ["table_of_weights"]
    with pytest.raises(td.UserError, match="matches no floating-point leaf"):
        kernels.find_kernels({"table": params["table"]}, td.Kernels("table"))


def test_the_same_network_in_four_libraries_gets_the_same_masks():
    first, second = jax.random.normal(KEY, (6, 8)), jax.random.normal(jax.random.fold_in(KEY, 1), (8, 5))
    equinox, nnx = pytest.importorskip("equinox"), pytest.importorskip("flax.nnx")
    mlp = equinox.nn.MLP(6, 5, 8, 1, key=KEY)
    weights = lambda tree: (tree.layers[0].weight, tree.layers[1].weight)  # noqa: E731
    mlp = equinox.filter(equinox.tree_at(weights, mlp, (first.T, second.T)), equinox.is_inexact_array)
    linen = {"a": {"kernel": first, "bias": jnp.ones(8)}, "c": {"kernel": second, "bias": jnp.ones(5)}}
    hk = {"a": {"w": first, "b": jnp.ones(8)}, "c": {"w": second, "b": jnp.ones(5)}}
    state = nnx.State({"a": {"kernel": nnx.Param(first)}, "c": {"kernel": nnx.Param(second)}})
    for granularity in ("weight", "unit"):
        found = [list(masks_of(params, granularity).values()) for params in (linen, hk, state)]
        found.append([mask.T for mask in masks_of(mlp, granularity).values()])
        for masks in found[1:]:
            for mine, theirs in zip(found[0], masks, strict=True):
                np.testing.assert_array_equal(mine, theirs)


def masks_of(params, granularity, rate=0.5, **options):
    mask = _tree.named_leaves(td.prune_mask(params, rate, granularity, kernels=".*", **options))
    return {path: mask[path] for path in kernels.find_kernels(params, ".*")}


@pytest.mark.parametrize(
    ("granularity", "scope"),
    [("weight", "unit"), ("weight", "layer"), ("weight", "global"), ("unit", "unit"), ("unit", "global")],
)
def test_scanned_layers_get_the_masks_of_the_same_layers_one_by_one(granularity, scope):
    generator, shapes = np.random.default_rng(0), shapes_of(Block(), TOKENS)
    normal = lambda leaf: generator.normal(size=leaf.shape).astype(np.float32)  # noqa: E731
    layers = [jax.tree.map(normal, shapes) for _ in range(3)]
    find = jax.jit(partial(masks_of, granularity=granularity, scope=scope))
    together = find(jax.tree.map(lambda *leaves: np.stack(leaves), *layers))
    alone = find({f"{i}": layer for i, layer in enumerate(layers)})
    for path, mask in together.items():
        np.testing.assert_array_equal(mask, np.stack([alone[f"{i}/{path}"] for i in range(3)]))


def test_a_scanned_layers_norms_stay_whole_under_every_method():
    params = {"norm": {"scale": jnp.ones((3, 8))}, "dense": {"kernel": jnp.ones((3, 8, 8)), "bias": jnp.ones((3, 8))}}

    @jax.jit
    def shown():
        transforms = {name: one.factory(kernels=".*") for name, one in td.masks.METHODS.items() if name != "none"}
        return {name: t.apply(params, t.init(KEY, params), key=KEY, step=1)[0] for name, t in transforms.items()}

    for name, seen in shown().items():
        assert bool((seen["norm"]["scale"] == 1).all() & (seen["dense"]["bias"] == 1).all()), name


def test_matrices_go_back_to_where_they_came_from():
    view = Kernel((2, 3, 4, 5), stacked=(1,), units=(0, 3))
    kernel = np.arange(120).reshape(2, 3, 4, 5)
    matrix = view.as_matrix(jnp.asarray(kernel))
    assert matrix.shape == (3, 4, 10) == view.matrix_shape
    assert matrix[1, 2, 7] == kernel[1, 1, 2, 2]
    np.testing.assert_array_equal(view.as_kernel(matrix), kernel)
