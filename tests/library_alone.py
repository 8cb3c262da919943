"""What an environment with jax, numpy and jaxtyping alone must be able to do: python tests/library_alone.py."""

import importlib.metadata
import sys

import jax
import jax.numpy as jnp

import td

LABORATORY = ("flax", "optax", "orbax", "ml_collections", "absl", "matplotlib", "tensorflow_datasets", "grain")
PARAMS = {"stem": {"kernel": jnp.ones((4, 8))}, "dense": {"kernel": jnp.linspace(-1.0, 1.0, 64).reshape(8, 8)}}


def train_with(name: str) -> None:
    """One loss and gradient through a method, its pruning, a mask at half, and what that leaves."""
    transform, key = td.masks.build({"name": name}), jax.random.key(0)
    mask_vars = transform.init(key, PARAMS)

    def loss(params: dict) -> jax.Array:
        seen, after = transform.apply(params, mask_vars, key=key, step=1)
        penalty = transform.penalty(params, mask_vars.gates, 1)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(seen)) + penalty + 0 * len(jax.tree.leaves(after))

    gradient = jax.jit(jax.grad(loss))(PARAMS)
    assert jax.tree.structure(gradient) == jax.tree.structure(PARAMS)
    shown, _ = transform.apply(transform.prune(PARAMS, mask_vars), mask_vars, key=None, step=1)
    mask = td.prune_mask(shown, 0.5, scores=transform.scores(PARAMS, mask_vars))
    assert float(td.sparsity(td.apply_mask(shown, mask)).total) >= 0.5, name


def main() -> None:
    for name in td.masks.METHODS:
        train_with(name)
    losses = lambda params, batch: jnp.sum((batch @ params["dense"]["kernel"]) ** 2, axis=1)  # noqa: E731
    scores = td.importance.gradient(losses, PARAMS, [jnp.ones((2, 8))])
    td.prune_mask(PARAMS, 0.5, "unit", scores=scores)
    print(td.describe(PARAMS))
    imported = sorted(set(LABORATORY) & {name.partition(".")[0] for name in sys.modules})
    assert not imported, f"the library imported {imported}"
    print(f"{len(td.masks.METHODS)} methods, {len(list(importlib.metadata.distributions()))} packages installed")


if __name__ == "__main__":
    main()
