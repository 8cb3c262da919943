"""In somebody else's loop: a Flax NNX module with its own optimiser, and a plain dict by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import td

equinox = pytest.importorskip("equinox")


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
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.logits = nnx.Linear(32, 2, rngs=rngs)

    def __call__(self, inputs):
        return self.logits(self.dropout(nnx.relu(self.norm(self.hidden(inputs)))))


def test_nnx_module_with_batch_norm_dropout_and_its_optax_optimiser():
    inputs, labels = toy()
    model = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(0.02), wrt=nnx.Param)
    transform = td.targeted(granularity="weight", target_proportion=0.75, drop_rate=0.66)
    mask_vars = transform.init(jax.random.key(0), nnx.state(model, nnx.Param))

    @nnx.jit
    def update(model, optimizer, mask_vars, step):
        def loss(model):
            graph, params, rest = nnx.split(model, nnx.Param, ...)
            seen, carried = transform.apply(params, mask_vars, key=jax.random.key(2), step=step)
            return cross_entropy(nnx.merge(graph, seen, rest)(inputs), labels), carried

        (value, carried), gradient = nnx.value_and_grad(loss, has_aux=True)(model)
        optimizer.update(model, gradient)
        return carried, value

    values = []
    for step in range(80):
        mask_vars, value = update(model, optimizer, mask_vars, jnp.asarray(step))
        values.append(float(value))
    params = nnx.state(model, nnx.Param)
    assert list(td.sparsity(params).kernels) == ["hidden/kernel"]
    nnx.update(model, td.apply_mask(params, td.prune_mask(params, prune_rate=0.75)))
    assert float((model.hidden.kernel[...] == 0).mean()) == 0.75
    assert np.mean(values[-10:]) < 0.6 * np.mean(values[:5])
    assert float(model.norm.mean[...].std()) > 0 and int(model.dropout.rngs.count[...]) == 80


@pytest.mark.parametrize("use", ["init", "apply", "prune_mask", "compact"])
@pytest.mark.parametrize(
    ("make", "recipe"),
    [
        (lambda: Net(nnx.Rngs(0)), "nnx.split"),
        (lambda: {"net": Net(nnx.Rngs(0))}, "nnx.split"),
        (lambda: nn.Dense(3), "model.init"),
        (lambda: equinox.nn.MLP(8, 2, 4, 1, key=jax.random.key(0)), "eqx.partition"),
    ],
)
def test_a_whole_module_is_refused_with_the_lines_that_give_its_parameters(make, recipe, use):
    model, transform = make(), td.masks.l0()
    with pytest.raises(td.UserError, match=recipe):
        if use == "init":
            transform.init(jax.random.key(0), model)
        elif use == "apply":
            td.targeted().apply(model, td.MaskVars(), key=jax.random.key(0), step=0)
        elif use == "prune_mask":
            td.prune_mask(model, 0.5)
        else:
            td.compact(lambda model, inputs: model(inputs), model, jnp.ones((1, 8)))
