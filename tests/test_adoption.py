"""In somebody else's loop: a Flax NNX module with its own optimiser, and a plain dict by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import td


def toy(seed=0):
    inputs = jax.random.normal(jax.random.key(seed), (256, 8))
    return inputs, (inputs[:, 0] * inputs[:, 1] > 0).astype(jnp.int32)


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def test_plain_dict_and_a_loop_written_by_hand():
    inputs, labels = toy()
    keys = jax.random.split(jax.random.key(1), 2)
    params = {
        "hidden": ({"w": 0.5 * jax.random.normal(keys[0], (8, 32))}, jnp.zeros(32)),
        "logits": [0.5 * jax.random.normal(keys[1], (32, 2)), None],
    }
    transform = td.targeted(granularity="weight", target_proportion=0.75, drop_rate=0.66)
    mask_vars = transform.init(jax.random.key(0), params)

    def forward(params):
        hidden = jax.nn.relu(inputs @ params["hidden"][0]["w"] + params["hidden"][1])
        return hidden @ params["logits"][0]

    def loss(params, mask_vars, key, step):
        dropped, _ = transform.apply(params, mask_vars, key=key, step=step)
        return cross_entropy(forward(dropped), labels)

    @jax.jit
    def update(params, mask_vars, key, step):
        value, gradient = jax.value_and_grad(loss)(params, mask_vars, key, step)
        return jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient), value

    values = []
    for step in range(150):
        params, value = update(params, mask_vars, jax.random.key(2), step)
        values.append(float(value))
    pruned = td.apply_mask(params, td.prune_mask(params, prune_rate=0.75))
    assert update._cache_size() == 1 and np.mean(values[-20:]) < 0.7 * np.mean(values[:5])
    assert float(td.sparsity(pruned).total) == 0.75
    assert float(cross_entropy(forward(pruned), labels)) < 0.7 * values[0]


class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(8, 32, rngs=rngs)
        self.norm = nnx.BatchNorm(32, rngs=rngs)
        self.logits = nnx.Linear(32, 2, rngs=rngs)

    def __call__(self, inputs):
        return self.logits(nnx.relu(self.norm(self.hidden(inputs))))


def test_nnx_module_and_its_optax_optimiser():
    inputs, labels = toy()
    model = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(0.02), wrt=nnx.Param)
    transform = td.targeted(granularity="weight", target_proportion=0.75, drop_rate=0.66)
    mask_vars = transform.init(jax.random.key(0), nnx.state(model, nnx.Param))

    @nnx.jit
    def update(model, optimizer, key, step):
        graph, params, rest = nnx.split(model, nnx.Param, ...)

        def loss(params):
            dropped, _ = transform.apply(params, mask_vars, key=key, step=step)
            network = nnx.merge(graph, dropped, rest, copy=True)
            value = cross_entropy(network(inputs), labels)
            return value, nnx.state(network, nnx.BatchStat)

        (value, statistics), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        optimizer.update(model, gradient)
        nnx.update(model, statistics)
        return value

    values = [float(update(model, optimizer, jax.random.key(2), jnp.asarray(step))) for step in range(80)]
    params = nnx.state(model, nnx.Param)
    assert list(td.sparsity(params).kernels) == ["hidden/kernel"]
    nnx.update(model, td.apply_mask(params, td.prune_mask(params, prune_rate=0.75)))
    assert float((model.hidden.kernel[...] == 0).mean()) == 0.75
    assert np.mean(values[-10:]) < 0.6 * np.mean(values[:5])
    assert float(model.norm.mean[...].std()) > 0
