"""Targeted dropout of coupled groups in a Flax linen module with BatchNorm: python examples/linen_conv.py."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import td


class Net(nn.Module):
    @nn.compact
    def __call__(self, images, train):
        hidden = nn.Conv(32, (3, 3))(images)
        for _ in range(2):
            branch = nn.Conv(32, (3, 3), use_bias=False)(hidden)
            hidden += nn.relu(nn.BatchNorm(use_running_average=not train)(branch))
        return nn.Dense(10)(hidden.mean(axis=(1, 2)))


def main(steps: int = 20) -> float:
    images, labels = jax.random.normal(jax.random.key(0), (64, 8, 8, 1)), jnp.arange(64) % 10
    model, optimizer = Net(), optax.adam(1e-2)
    variables = model.init(jax.random.key(1), images, train=False)
    params, batch_stats = variables["params"], variables["batch_stats"]
    structure = td.trace(lambda p, x: model.apply(variables | {"params": p}, x, train=False), params, images)
    print(structure)
    transform = td.targeted("group", target_proportion=0.5, drop_rate=0.5, kernels=structure)
    mask_vars, opt_state = transform.init(jax.random.key(2), params), optimizer.init(params)

    def loss(params, batch_stats, step):
        masked, _ = transform.apply(params, mask_vars, key=jax.random.key(3), step=step)
        variables = {"params": masked, "batch_stats": batch_stats}
        logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updated["batch_stats"]

    @jax.jit
    def update(params, batch_stats, opt_state, step):
        (value, batch_stats), gradient = jax.value_and_grad(loss, has_aux=True)(params, batch_stats, step)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return optax.apply_updates(params, updates), batch_stats, opt_state, value

    for step in range(steps):
        params, batch_stats, opt_state, value = update(params, batch_stats, opt_state, step)

    pruned = td.apply_mask(params, td.prune_mask(params, prune_rate=0.5, granularity="group", kernels=structure))
    variables = {"params": pruned, "batch_stats": batch_stats}
    print(td.compact(partial(model.apply, train=False), variables, images).summary)
    zeros = float(td.sparsity(pruned, kernels=structure).total)
    print(f"loss {value:.3f}; {zeros:.0%} of the weights are zero")
    return zeros


if __name__ == "__main__":
    main()
