"""Ramping targeted dropout in a Flax NNX module with BatchNorm and Dropout: python examples/nnx_mlp.py."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import td


class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(8, 32, rngs=rngs)
        self.norm = nnx.BatchNorm(32, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.logits = nnx.Linear(32, 2, rngs=rngs)

    def __call__(self, inputs):
        return self.logits(self.dropout(nnx.relu(self.norm(self.hidden(inputs)))))


def main(steps: int = 20) -> float:
    inputs = jax.random.normal(jax.random.key(0), (64, 8))
    labels = (inputs[:, 0] > 0).astype(jnp.int32)
    model = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    transform = td.ramping(granularity="weight", target_proportion=0.9, drop_rate=0.9, stage=steps // 2)
    mask_vars = transform.init(jax.random.key(1), nnx.state(model, nnx.Param))

    @nnx.jit
    def update(model, optimizer, mask_vars, step):
        def loss(model):
            graph, params, rest = nnx.split(model, nnx.Param, ...)  # a method takes parameters only
            masked, carried = transform.apply(params, mask_vars, key=jax.random.key(2), step=step)
            logits = nnx.merge(graph, masked, rest)(inputs)  # without copy=True, so that statistics and counters move
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), carried

        (value, carried), gradient = nnx.value_and_grad(loss, has_aux=True)(model)
        optimizer.update(model, gradient)
        return carried, value

    for step in range(steps):
        mask_vars, value = update(model, optimizer, mask_vars, jnp.int32(step))

    params = nnx.state(model, nnx.Param)
    nnx.update(model, td.apply_mask(params, td.prune_mask(params, prune_rate=0.9)))
    zeros = float(td.sparsity(nnx.state(model, nnx.Param)).total)
    print(f"loss {value:.3f}; {zeros:.0%} of the weights are zero")
    return zeros


if __name__ == "__main__":
    main()
