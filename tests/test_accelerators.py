"""Training step, evaluation and prune curve of every config lower for GPUs and TPUs, also sharded over 8 devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from jaxlib.mlir.passmanager import PassManager

from td import data
from td.evaluate.options import Options, as_trained
from td.evaluate.point import make_pruned
from td.train.devices import Execution, make_mesh, replicated, state_shardings
from td.train.experiment import build
from td.train.step import make_eval_step, make_train_step

CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
PLATFORMS = ("cuda", "tpu")
FROM_HOST = ("callback", "infeed", "outfeed", "send", "recv")
"""What a program may not do in the middle of a step."""


def lowered(function, *arguments):
    """The programs for both platforms, each by itself: what is chosen by platform is chosen then."""
    traced = function.trace(*arguments)
    texts = []
    for platform in PLATFORMS:
        program = traced.lower(lowering_platforms=(platform,)).compiler_ir()
        with program.context:
            PassManager.parse("builtin.module(canonicalize)").run(program.operation)  # folds cases of a constant
        texts.append(str(program))
    return texts


def check(texts):
    for text in texts:
        assert not [word for word in FROM_HOST if re.search(rf"@\w*{word}|stablehlo\.{word}\b", text)]
        # The CPU's search goes on until a threshold is found; accelerators never wait for a condition.
        assert not [word for word in ("while", "case", "if") if f"stablehlo.{word}" in text]


def every_card():
    """Weights and units of every config; in the fast tests weights of most configs and units of two."""
    slow, cards = [pytest.mark.slow], []
    for name in CONFIGS:
        cards.append(pytest.param(name, "weight", marks=slow if "imagenet" in name else []))
        fast = name in ("digits_resnet", "wmt14_transformer")
        cards.append(pytest.param(name, "unit", marks=[] if fast else slow))
    return cards


@pytest.mark.parametrize(("name", "granularity"), every_card())
def test_step_evaluation_and_prune_curve_of_every_card_lower_for_gpus_and_tpus(smoke_config, name, granularity):
    config = smoke_config(name, f"mask=targeted,granularity={granularity},smoke")
    run, state = build(config, data.load(config.data.to_dict()), shapes_only=True)
    batch = jax.tree.map(jnp.asarray, run.dataset.train.blank_batch(16))
    for texts in (
        lowered(make_train_step(run.experiment), state, batch, run.key),
        lowered(make_eval_step(run.experiment), state.params, state.batch_stats, batch),
    ):
        check(texts)
    options = as_trained(Options(), config)
    check(lowered(make_pruned(run, options), state, {}, jnp.float32(0.5), run.key))


@pytest.mark.parametrize("name", ["digits_resnet", "wmt14_transformer"])
def test_a_step_sharded_over_eight_devices_lowers_for_gpus_and_tpus(smoke_config, name):
    config = smoke_config(name, "mask=targeted,smoke")
    run, state = build(config, data.load(config.data.to_dict()), shapes_only=True)
    mesh = make_mesh(Execution(jax.devices()), [16])
    shardings = state_shardings(state, mesh, ["kernel$"])
    sharded = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state, shardings
    )
    batch = jax.tree.map(np.asarray, run.dataset.train.blank_batch(16))
    step = make_train_step(run.experiment, (shardings, replicated(mesh)))
    for text in lowered(step, sharded, batch, run.key):
        assert "num_partitions = 8" in text and text.count("devices=[") + text.count("sdy.sharding") > 0
