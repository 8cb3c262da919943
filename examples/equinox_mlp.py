"""L0 regularisation, a method with gates and a penalty, in an Equinox module: python examples/equinox_mlp.py."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import td


def main(steps: int = 20) -> float:
    inputs = jax.random.normal(jax.random.key(0), (64, 8))
    targets = jnp.sin(inputs[:, :1])
    model = eqx.nn.MLP(8, 1, width_size=32, depth=2, key=jax.random.key(1))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    network = lambda params, inputs: jax.vmap(eqx.combine(params, static))(inputs)  # noqa: E731
    structure = td.trace(network, params, inputs, include=("first",))
    transform = td.masks.l0(granularity="weight", cost=0.01, examples=len(inputs), kernels=structure)
    mask_vars = transform.init(jax.random.key(2), params)
    optimizer = optax.adam(1e-2)
    opt_state = optimizer.init((params, mask_vars.gates))  # gates are trained together with the parameters

    def loss(trained, step):
        params, gates = trained
        masked, _ = transform.apply(params, mask_vars._replace(gates=gates), key=jax.random.key(3), step=step)
        error = jnp.mean((network(masked, inputs) - targets) ** 2)
        return error + transform.penalty(params, gates, step)

    @jax.jit
    def update(trained, opt_state, step):
        value, gradient = jax.value_and_grad(loss)(trained, step)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return optax.apply_updates(trained, updates), opt_state, value

    trained = (params, mask_vars.gates)
    for step in range(steps):
        trained, opt_state, value = update(trained, opt_state, step)

    params, gates = trained
    mask_vars = mask_vars._replace(gates=gates)
    eval_params, _ = transform.apply(params, mask_vars, key=None, step=steps)  # gates that are 0 at evaluation are off
    scores = transform.scores(params, mask_vars)
    mask = td.prune_mask(eval_params, prune_rate=0.75, kernels=structure, scores=scores)
    zeros = float(td.sparsity(td.apply_mask(eval_params, mask), kernels=structure).total)
    print(f"loss {value:.3f}; {zeros:.0%} of the weights are zero")
    return zeros


if __name__ == "__main__":
    main()
