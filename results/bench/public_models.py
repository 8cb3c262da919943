"""Public networks without half of their groups: parameters, FLOPs and time, next to the same network of half the width.

    git clone https://github.com/google/flax; git clone https://github.com/google-research/big_vision
    PYTHONPATH=big_vision python results/bench/public_models.py flax/examples/imagenet/models.py

Writes `compact-public-cpu.md` next to itself. ResNets are flax's ImageNet example and ours, ViTs big_vision's.
"""

import runpy
import sys
import types
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import td
from td.evaluate.deviation import deviation
from td.evaluate.timing import as_markdown, side_by_side, times
from td.io import provenance
from td.models import LargeResNet
from td.program.flops import count_flops

REPEATS = 41


def resnet(flax_models: str, stage_sizes: tuple[int, ...], filters: int, side: int, batch: int) -> tuple[Any, ...]:
    """Flax's bottleneck ResNet of ImageNet."""
    models = runpy.run_path(flax_models)
    block = models["BottleneckResNetBlock"]
    network = models["ResNet"](stage_sizes=stage_sizes, block_cls=block, num_classes=1000, num_filters=filters)
    return partial(network.apply, train=False), partial(network.init, train=False), (batch, side, side, 3)


def large_resnet(width: int, depth: int, side: int, batch: int) -> tuple[Any, ...]:
    """Our bottleneck ResNet of ImageNet."""
    network = LargeResNet(num_classes=1000, depth=depth, width=width)
    return network.apply, network.init, (batch, side, side, 3)


def vit(width: int, depth: int, heads: int, patch: int, side: int, batch: int) -> tuple[Any, ...]:
    """The ViT of big_vision, whose queries, keys and values are three kernels."""
    sys.modules.setdefault("big_vision.utils", types.ModuleType("big_vision.utils"))  # imports TensorFlow, for files
    import big_vision

    big_vision.utils = sys.modules["big_vision.utils"]
    from big_vision.models.vit import _Model

    network = _Model(
        num_classes=1000,
        patch_size=(patch, patch),
        width=width,
        depth=depth,
        mlp_dim=4 * width,
        num_heads=heads,
        pool_type="gap",
        head_zeroinit=False,
    )
    return lambda variables, images: network.apply(variables, images)[0], network.init, (batch, side, side, 3)


def draw(init: Any, shape: tuple[int, ...]) -> Any:
    """Variables with random scales, biases and statistics, as after some training."""
    rng = np.random.default_rng(0)

    def fill(path: Any, leaf: Any) -> Any:
        name = jax.tree_util.keystr(path)
        if leaf.ndim == 1 or "bias" in name:
            positive = "var" in name or "scale" in name
            drawn = rng.uniform(0.5, 2.0, leaf.shape) if positive else rng.normal(0, 0.3, leaf.shape)
            return jnp.asarray(drawn, leaf.dtype)
        return leaf

    return jax.tree_util.tree_map_with_path(fill, jax.jit(init)(jax.random.key(0), jnp.ones(shape)))


def zeroed(params: Any, structure: td.Structure, whole_heads: bool) -> Any:
    """Parameters without half of the groups; in attention half of the heads, if asked, instead of half of each."""
    in_heads = {group for groups in structure.head_groups for group in groups if whole_heads}
    rates = {f"{name}/groups": 0.5 * (ids.flat[0] not in in_heads) for name, ids in structure.families.items()}
    params = td.apply_mask(params, td.prune_mask(params, rates, "group", kernels=structure))
    if in_heads:
        params = td.apply_mask(params, td.prune_mask(params, 0.5, "head", kernels=structure))
    return params


def measure(name: str, network: tuple[Any, ...], half: tuple[Any, ...], repeats: int) -> list[dict[str, str]]:
    """Compare the whole network, the network without half of its groups, and one of half the width."""
    apply, init, shape = network
    images = jax.random.normal(jax.random.key(1), shape)
    variables, narrow = draw(init, shape), draw(half[1], shape)
    rest = {kind: leaves for kind, leaves in variables.items() if kind != "params"}
    structure = td.trace(lambda params, x: apply({"params": params, **rest}, x), variables["params"], images)
    whole, halved = jax.jit(apply), jax.jit(half[0])
    cases: dict[str, Any] = {"dense": partial(whole, variables, images)}
    found = [(optax.tree.size(variables), count_flops(apply, variables, images), 0.0)]
    for whole_heads in (False, True)[: 1 + bool(structure.heads)]:
        pruned = {**variables, "params": zeroed(variables["params"], structure, whole_heads)}
        small = td.compact(apply, pruned, images)
        case = "50% of the groups removed" + (", in attention whole heads" if whole_heads else "")
        cases[case] = partial(small.apply, small.params, images)
        off = deviation(whole(pruned, images), cases[case]())
        found.append((optax.tree.size(small.params), small.flops[1], off))
    cases["a network of half the width"] = partial(halved, narrow, images)
    found.append((optax.tree.size(narrow), count_flops(half[0], narrow, images), 0.0))
    lines = []
    for timing, (size, flops, off) in zip(side_by_side(cases, repeats, name), found, strict=True):
        sizes = {"parameters": f"{size:,}", "of dense": f"{size / found[0][0]:.3f}"}
        rates = {"FLOPs": f"{flops / found[0][1]:.3f}", "time": f"{timing.ratio:.3f}"}
        lines.append({"network": name, **times(timing), **sizes, **rates, "deviation": f"{off:.0e}", "n": str(repeats)})
    print(as_markdown(lines, names=2), flush=True)
    return lines


def main(flax_models: str, repeats: int = REPEATS) -> None:
    """Measure all networks and write the table."""
    bottleneck = partial(resnet, flax_models)
    networks = {
        "bottleneck ResNet-50, 1 image of 224": [bottleneck((3, 4, 6, 3), filters, 224, 1) for filters in (64, 32)],
        "td's LargeResNet-50, 1 image of 224": [large_resnet(width, 50, 224, 1) for width in (64, 32)],
        "bottleneck ResNet-26, 8 images of 64": [bottleneck((2, 2, 2, 2), filters, 64, 8) for filters in (64, 32)],
        "ViT-S/16, 1 image of 224": [vit(width, 12, 6, 16, 224, 1) for width in (384, 192)],
        "ViT-Ti/8, 8 images of 64": [vit(width, 12, 4, 8, 64, 8) for width in (256, 128)],
    }
    lines = [line for name, sizes in networks.items() for line in measure(name, *sizes, repeats)]
    about = provenance.describe()
    hardware = about["hardware"]
    where = (
        f"{hardware['devices']}, {hardware['processor']}, {hardware['cores']} cores; JAX {about['versions']['jax']}; "
        f"{about['date']}; commit {about['commit']}. Interleaved; ratios are medians over the rounds."
    )
    title = "## Public networks without half of their groups, relative to the whole ones"
    text = f"{title}\n\n{as_markdown(lines, names=2)}\n\n{where}\n"
    Path(__file__).with_name(f"compact-public-{jax.default_backend()}.md").write_text(text)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
