"""Kernels, roles and groups of tiny networks, written by hand."""

import numpy as np
import pytest
from test_structure import NETWORKS

from td.structure import trace

LAYERS = {
    **{f"layers/{name}": ((0,), (-2, -1)) for name in "qkv"},
    **{f"layers/{name}": ((0,), (-1,)) for name in ("o", "up", "down")},
}
AXES = {
    "decoder": {"q": ((), (-2, -1)), "k": ((), (-2, -1)), "v": ((), (-2, -1))},
    "experts": {"up": ((), (-3, -1))},
    "grouped_queries": {"q": ((), (-3, -2, -1)), "k": ((), (-2, -1)), "v": ((), (-2, -1))},
    "indexed": LAYERS,
    "masked_heads": {"v": ((), (-2, -1))},
    "multi_query": {"q": ((), (-2, -1))},
    "scanned": LAYERS,
    "stacked_experts": {"up": ((0,), (-1,)), "down": ((0,), (-1,))},
    "stacked_heads": {"q": ((), (-3, -1)), "k": ((), (-3, -1)), "v": ((), (-3, -1))},
    "transposed": {"layers/0": ((), (-2,)), "layers/1": ((), (-2,)), "layers/2": ((), (-2,))},
}
"""Stacked axes and units of the kernels whose units are not simply the last axis."""

HEADS = {
    "biased_attention": {"q": (1, 2)},
    "decoder": {"q": (1, 2)},
    "grouped_queries": {"q": (1, 2)},
    "indexed": {"layers/q": (3, 2)},
    "scanned": {"layers/q": (3, 2)},
    "stacked_heads": {"q": (1, 2)},
    "vit": {"qkv": (1, 2)},
}
"""Rankings and heads."""

EXPECTED = {
    "autoencoder": ("stem", "head", {"out": "1 x 4: out > head"}),
    "biased_attention": ("stem", "head", {"o": "1 x 8: stem o > q k v head", "q": "2 x 4: q k >", "v": "2 x 4: v > o"}),
    "branches": ("stem", "head", {"other": "1 x 12: other one > out", "out": "1 x 6: out > head"}),
    "cumulative": ("stem", "head", {"b": "1 x 10: b > c", "c": "1 x 4: c > head"}),
    "decoder": (
        "",
        "",
        {
            "o": "1 x 8: table o down > q k v gate up table",
            "q": "2 x 2: q k >",
            "v": "2 x 4: v > o",
            "gate": "1 x 12: gate up > down",
        },
    ),
    "depthwise": ("stem", "head", {"depth": "1 x 8: stem depth > depth point", "point": "1 x 6: point > head"}),
    "experts": ("stem", "head", {"down": "1 x 8: stem down > router up head", "up": "1 x 24: up > down"}),
    "gated": ("stem", "head", {"gate": "1 x 12: gate up > down", "down": "1 x 6: down > head"}),
    "grouped": ("stem", "head", {"group": "4 x 2: group > point", "point": "1 x 6: point > head"}),
    "grouped_queries": ("stem", "head", {"o": "1 x 8: stem o > q k v head", "q": "2 x 4: q k >", "v": "2 x 4: v > o"}),
    "indexed": (
        "stem",
        "head",
        {
            "layers/o": "1 x 8: stem layers/o layers/down > layers/q layers/k layers/v layers/up head",
            "layers/q": "6 x 4: layers/q layers/k >",
            "layers/v": "6 x 4: layers/v > layers/o",
            "layers/up": "3 x 12: layers/up > layers/down",
        },
    ),
    "loss": ("stem", "b", {"a": "1 x 6: a > b"}),
    "low_rank": ("stem", "head", {}),
    "low_rank_branch": ("stem", "head", {"kernel": "1 x 6: kernel b > head", "a": "1 x 2: a > b"}),
    "lstm": ("inner", "head", {"hidden": "1 x 8: inner hidden > hidden head"}),
    "masked_heads": ("stem", "head", {"v": "1 x 8: v > o", "o": "1 x 6: o > head"}),
    "mixer": (
        "stem",
        "head",
        {
            "down": "1 x 8: stem down > up head",
            "token_up": "1 x 10: token_up > token_down",
            "token_down": "1 x 6: token_down >",
            "up": "1 x 12: up > down",
        },
    ),
    "multi_query": (
        "",
        "",
        {
            "o": "1 x 8: table o down > q k v gate up table",
            "q": "1 x 2: q k >",
            "v": "1 x 4: v > o",
            "gate": "1 x 12: gate up > down",
        },
    ),
    "multiplied": ("stem", "head", {"depth": "1 x 6: stem depth > depth point", "point": "1 x 6: point > head"}),
    "ordered": ("stem", "head", {"b": "1 x 10: b > c", "c": "1 x 4: c > head"}),
    "positions": ("stem", "head", {"wide": "1 x 8: wide > up", "up": "1 x 12: up > head"}),
    "reshaped": (
        "stem",
        "head",
        {"one": "1 x 4: one > wide", "other": "1 x 5: other > wide", "wide": "1 x 7: wide > head"},
    ),
    "residual": ("stem", "head", {"down": "1 x 8: stem down > up", "up": "1 x 12: up > down"}),
    "resnet": (
        "stem",
        "head",
        {"b": "1 x 8: stem b > a wide shortcut", "a": "1 x 8: a > b", "wide": "1 x 16: wide shortcut > head"},
    ),
    "scanned": (
        "stem",
        "head",
        {
            "layers/o": "1 x 8: stem layers/o layers/down > layers/q layers/k layers/v layers/up head",
            "layers/q": "6 x 4: layers/q layers/k >",
            "layers/v": "6 x 4: layers/v > layers/o",
            "layers/up": "3 x 12: layers/up > layers/down",
        },
    ),
    "shared": ("stem", "head", {"twice": "1 x 8: stem twice > twice inner", "inner": "1 x 8: inner > head"}),
    "spectral": ("stem", "head", {"b": "1 x 10: b > c", "c": "1 x 4: c > head"}),
    "stacked_experts": ("stem", "head", {"down": "1 x 8: stem down > up router head", "up": "3 x 6: up > down"}),
    "stacked_heads": ("stem", "head", {"q": "2 x 4: q k >", "v": "2 x 4: v > o", "o": "1 x 6: o > head"}),
    "standardised": ("stem", "head", {"kernel": "1 x 6: kernel > head"}),
    "transposed": ("layers/0", "layers/2", {"layers/1": "1 x 12: layers/1 > layers/2"}),
    "two_outputs": ("stem", "b", {"a": "1 x 7: a > b"}),
    "unet": (
        "stem",
        "head",
        {
            "down": "1 x 12: down excite > squeeze up",
            "squeeze": "1 x 4: squeeze > excite",
            "up": "1 x 6: up > mix",
            "mix": "1 x 8: mix > head",
        },
    ),
    "vit": (
        "patch",
        "head",
        {
            "out": "1 x 8: patch out down > qkv up head",
            "qkv": "2 x 4: qkv >",
            "qkv (2)": "2 x 4: qkv > out",
            "up": "1 x 12: up > down",
        },
    ),
}
"""First kernel, last kernel and families: rankings x width: leaves that make a group > leaves that read it."""


def traced(name):
    apply, params, inputs = NETWORKS[name]()
    return apply, trace(apply, params, *inputs)


def families(structure):
    found = {}
    for name, numbers in structure.families.items():
        tables = (structure.units, structure.inputs)
        made, read = (" ".join(path for path, ids in t.items() if np.isin(numbers, ids).any()) for t in tables)
        found[name] = f"{' x '.join(map(str, numbers.shape))}: {made} > {read}".strip()
    return found


@pytest.mark.parametrize("name", EXPECTED)
def test_kernels_roles_and_groups(name):
    _, structure = traced(name)
    first, last, groups = EXPECTED[name]
    assert (" ".join(structure.first), " ".join(structure.last)) == (first, last)
    assert families(structure) == groups
    axes = {path: (view.stacked, view.units) for path, view in structure.every.items()}
    assert {path: own for path, own in axes.items() if own != ((), (-1,))} == AXES.get(name, {})
    assert {head: numbers.shape for head, numbers in structure.heads.items()} == HEADS.get(name, {})


def test_flax_modules_concatenate_kernels_and_look_up_embeddings():
    _, structure = traced("tagger")
    cell = [f"OptimizedLSTMCell_0/{name}/kernel" for name in ("ii", "if", "ig", "io", "hi", "hf", "hg", "ho")]
    assert structure.embeddings == ("table/embedding",) and structure.last == ("head/kernel",)
    group = structure.families[cell[0]]
    assert (
        group.shape == (1, 6) and [path for path, ids in structure.units.items() if np.isin(group, ids).any()] == cell
    )


@pytest.mark.parametrize(
    ("name", "primitive", "kernel"),
    [
        ("cumulative", "cumsum", "a"),
        ("spectral", "fft", "a"),
        ("ordered", "sort", "a"),
        ("experts", "top_k", "router"),
        ("autoencoder", "dot_general", "middle"),
        ("low_rank", "dot_general", "kernel"),
    ],
)
def test_what_it_cannot_follow_is_named_with_the_line(name, primitive, kernel):
    apply, structure = traced(name)
    (note,) = structure.notes
    module = apply.__globals__["__file__"]
    assert f"units of {kernel} stay" in note and f"{primitive} at" in note and module in note
    assert kernel in structure.kernels and kernel not in structure.units


@pytest.mark.parametrize(
    ("name", "path", "why"),
    [
        ("autoencoder", "tied", "other axes"),
        ("low_rank", "a", "combined"),
        ("masked_heads", "mask", "scale"),
        ("reshaped", "flat", "both fan-in and units"),
        ("standardised", "gain", "combined"),
        ("two_outputs", "unused", "nothing"),
        ("biased_attention", "relative", "offset"),
        ("resnet", "norms/0/var", "scale"),
    ],
)
def test_a_leaf_that_is_no_kernel_says_why(name, path, why):
    _, structure = traced(name)
    assert why in structure.others[path] and path not in structure.every


def test_first_kernels_are_ranked_if_asked_and_outputs_never():
    apply, params, inputs = NETWORKS["grouped"]()
    structure = trace(apply, params, *inputs, include=("first", "last"))
    assert families(structure)["stem"] == "4 x 4: stem > group"
    assert "head" in structure.kernels and "head" not in structure.families
