"""BatchNorm statistics from batches: momentum undone, own loops in linen and NNX, misuse."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import td

BATCHES = [jax.random.normal(jax.random.key(i), (16, 3)) * (1 + i) + i for i in range(3)]
MEAN = np.mean([batch.mean(0) for batch in BATCHES], axis=0)
VARIANCE = np.mean([batch.var(0) for batch in BATCHES], axis=0)


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.999])
def test_statistics_are_the_mean_over_batches_whatever_the_momentum(momentum):
    model = nn.BatchNorm(use_running_average=False, momentum=momentum)
    variables = model.init(jax.random.key(0), BATCHES[0])

    def update(statistics, batch):
        variables_ = {**variables, "batch_stats": statistics}
        return model.apply(variables_, batch, mutable=["batch_stats"])[1]["batch_stats"]

    found = td.recalibrate(update, variables["batch_stats"], BATCHES)
    np.testing.assert_allclose(found["mean"], MEAN, rtol=1e-4)
    np.testing.assert_allclose(found["var"], VARIANCE, rtol=1e-4)


def test_an_nnx_network_is_recalibrated_in_place():
    model = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
    graph, statistics, rest = nnx.split(model, nnx.BatchStat, ...)

    def update(statistics, batch):
        network = nnx.merge(graph, statistics, rest, copy=True)
        network(batch, use_running_average=False)
        return nnx.state(network, nnx.BatchStat)

    nnx.update(model, td.recalibrate(update, statistics, BATCHES))
    np.testing.assert_allclose(model.mean[...], MEAN, rtol=1e-4)


def test_what_cannot_be_recalibrated_raises():
    with pytest.raises(td.UserError, match="no BatchNorm"):
        td.recalibrate(lambda statistics, batch: statistics, {}, BATCHES)
    with pytest.raises(td.UserError, match="one batch"):
        td.recalibrate(lambda statistics, batch: statistics, {"mean": jnp.ones(3)}, [])
    with pytest.raises(td.UserError, match="training mode"):
        td.recalibrate(lambda statistics, batch: statistics, {"mean": jnp.ones(3)}, BATCHES)
