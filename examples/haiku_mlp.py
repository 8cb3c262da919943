"""Random pruning at the start, a method that removes permanently, in a Haiku function: python examples/haiku_mlp.py."""

import haiku as hk
import jax
import jax.numpy as jnp
import optax

import td


def main(steps: int = 20) -> float:
    def network(inputs):
        hidden = jax.nn.relu(hk.Linear(32, name="hidden")(inputs))
        return hk.Linear(1, name="logits")(hidden)

    inputs = jax.random.normal(jax.random.key(0), (64, 8))
    targets = jnp.sin(inputs[:, :1])
    model, optimizer = hk.without_apply_rng(hk.transform(network)), optax.sgd(0.1, momentum=0.9)
    params = model.init(jax.random.key(1), inputs)
    transform = td.random_prune(granularity="weight", proportion=0.5)
    mask_vars = transform.init(jax.random.key(2), params)
    params = transform.prune(params, mask_vars)  # after init and after every update, so that momentum revives nothing
    opt_state = optimizer.init(params)

    def loss(params, step):
        masked, _ = transform.apply(params, mask_vars, key=jax.random.key(3), step=step)
        return jnp.mean((model.apply(masked, inputs) - targets) ** 2)

    @jax.jit
    def update(params, opt_state, step):
        value, gradient = jax.value_and_grad(loss)(params, step)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return transform.prune(optax.apply_updates(params, updates), mask_vars), opt_state, value

    for step in range(steps):
        params, opt_state, value = update(params, opt_state, step)

    print(f"loss {value:.3f}; {td.sparsity(params).total:.0%} of the weights are zero")
    return float(td.sparsity(params).total)


if __name__ == "__main__":
    main()
