"""The smoke version of every config: trains, goes on where it was cut, in the same bits, and is pruned."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from conftest import ROOT, final_state, load_config, trees_equal

from td import data
from td.curve import prune_curve
from td.experiment import build, load_trained
from td.step import make_train_step
from td.train import train

CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_trains_resumes_and_prunes(name, tmp_path, one_device):
    config = load_config(name, "mask=targeted,smoke")
    whole = train(config, tmp_path / "whole", one_device)
    train(config, tmp_path / "cut", one_device, until="4 steps")
    assert train(config, tmp_path / "cut", one_device)["loss"] == whole["loss"]
    assert trees_equal(final_state(tmp_path / "whole"), final_state(tmp_path / "cut"))
    run = load_trained(tmp_path / "cut")[1]
    (row,) = prune_curve(run, [0.8], granularity=config.granularity)
    assert 0.6 < row.sparsity <= 0.8 and 0 <= row.accuracy <= 1


IMAGES = {
    "resnet": {"widths": (4, 8), "stage_sizes": (1, 1)},
    "wide_resnet": {"depth": 10, "width": 1},
    "vgg": {"stages": ((4,), (8,)), "hidden_units": (8,)},
    "large_resnet": {"depth": 18, "width": 4, "small_images": True},
}


@pytest.mark.parametrize("name", [*IMAGES, "transformer"])
def test_every_network_computes_in_bfloat16_and_keeps_float32(name, smoke_config):
    if name == "transformer":
        config = smoke_config("wmt14_transformer", "mask=ramping,smoke")
    else:
        config = smoke_config("digits_resnet", "mask=ramping,smoke")
        config.model = {"name": name, **IMAGES[name]}
    config.model.dtype = "bfloat16"
    dataset = data.load(config.data.to_dict())
    run = build(config, dataset)
    batch = next(dataset.train.train_batches(config.data.batch_size, 0, 0))
    variables = {"params": run.state.params, "batch_stats": run.state.batch_stats}
    call = partial(run.experiment.model.apply, capture_intermediates=True)
    _, seen = jax.eval_shape(call, variables, *run.experiment.task.inputs(batch, None))
    inner = [leaf.dtype for leaf in jax.tree.leaves(seen["intermediates"]) if leaf.ndim > 1]
    assert inner.count(jnp.bfloat16) > len(inner) / 2
    train_step = make_train_step(run.experiment)
    state, metrics = jax.eval_shape(train_step, run.state, batch, run.key)
    assert {leaf.dtype for leaf in jax.tree.leaves(metrics)} == {jnp.dtype("float32")}
    floats = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert {leaf.dtype for leaf in floats} == {jnp.dtype("float32")}
    if name in ("resnet", "transformer"):
        assert jnp.isfinite(train_step(run.state, batch, run.key)[1]["loss"])
