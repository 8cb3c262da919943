"""A Flax NNX decoder, pruned by groups, compacted and exported with its cache: python examples/nnx_transformer.py."""

from functools import partial
from pydoc_data.topics import topics  # half a megabyte on Python's syntax

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import td
from td.export import export

LAYERS, WIDTH, HEADS, KEYS, SIZE, HIDDEN, LENGTH = 4, 64, 4, 2, 16, 192, 64  # two heads of queries for each of keys
TEXT = np.frombuffer("".join(topics.values()).encode("ascii", "ignore"), np.uint8).astype(np.int32)


class Block(nnx.Module):
    def __init__(self, rngs):
        linear = partial(nnx.Linear, use_bias=False, rngs=rngs)
        self.query, self.out = linear(WIDTH, HEADS * SIZE), linear(HEADS * SIZE, WIDTH)
        self.key, self.value = linear(WIDTH, KEYS * SIZE), linear(WIDTH, KEYS * SIZE)
        self.gate, self.up, self.down = linear(WIDTH, HIDDEN), linear(WIDTH, HIDDEN), linear(HIDDEN, WIDTH)
        self.norms = nnx.List(nnx.RMSNorm(WIDTH, rngs=rngs) for _ in range(2))

    def __call__(self, x, cache, position):
        hidden, heads = self.norms[0](x), (*x.shape[:2], -1, SIZE)
        query, key, value = (layer(hidden).reshape(heads) for layer in (self.query, self.key, self.value))
        cache = jax.lax.dynamic_update_slice(cache, jnp.stack([key, value], axis=1), (0, 0, position, 0, 0))
        seen = jnp.arange(LENGTH) <= position + jnp.arange(x.shape[1])[:, None]
        attended = jax.nn.dot_product_attention(query, cache[:, 0], cache[:, 1], mask=seen[None, None])
        x += self.out(attended.reshape(*x.shape[:2], -1))
        hidden = self.norms[1](x)
        return x + self.down(nnx.silu(self.gate(hidden)) * self.up(hidden)), cache


class Decoder(nnx.Module):
    def __init__(self, rngs):
        self.embed, self.positions = nnx.Embed(128, WIDTH, rngs=rngs), nnx.Embed(LENGTH, WIDTH, rngs=rngs)
        self.blocks = nnx.split_rngs(splits=LAYERS)(nnx.vmap(Block))(rngs)  # one Block of stacked kernels
        self.norm, self.logits = nnx.RMSNorm(WIDTH, rngs=rngs), nnx.Linear(WIDTH, 128, rngs=rngs)

    def __call__(self, tokens, position, cache):
        x = self.embed(tokens) + self.positions(position + jnp.arange(tokens.shape[1]))
        layers = nnx.scan(Block.__call__, in_axes=(0, nnx.Carry, 1, None), out_axes=(nnx.Carry, 1))
        x, cache = layers(self.blocks, x, cache, position)
        return self.logits(self.norm(x)), cache


def main(steps: int = 800) -> float:
    graph, params = nnx.split(Decoder(nnx.Rngs(0)))
    network = lambda params, *inputs: nnx.merge(graph, params)(*inputs)  # noqa: E731
    cache = lambda batch: jnp.zeros((batch, LAYERS, 2, LENGTH, KEYS, SIZE))  # noqa: E731
    structure = td.trace(lambda *given: network(*given, cache(1))[0], params, TEXT[None, :8], 0)
    print(structure)
    optimizer = optax.adam(3e-3)
    opt_state, rng = optimizer.init(params), np.random.default_rng(0)

    def loss(params, rows):
        logits, _ = network(params, rows[:, :-1], 0, cache(len(rows)))
        return optax.softmax_cross_entropy_with_integer_labels(logits, rows[:, 1:]).mean()

    @jax.jit
    def update(params, opt_state, mask, rows):
        value, gradient = jax.value_and_grad(loss)(params, rows)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return td.apply_mask(optax.apply_updates(params, updates), mask), opt_state, value

    for rate in (0.0, 0.5):
        mask = td.prune_mask(params, rate, "group", kernels=structure)
        for _ in range(steps // 2):
            rows = TEXT[rng.integers(len(TEXT) - LENGTH, size=(32, 1)) + np.arange(LENGTH)]
            params, opt_state, value = update(params, opt_state, mask, rows)
        print(f"{value:.2f} nats a character without {rate:.0%} of the groups")

    pruned = td.align(structure, params)
    small = td.compact(network, pruned, rows[:2, :1], 0, cache(2))
    print(small.summary)
    text, past = rows[:1, :1], cache(1)
    for position in range(LENGTH):
        logits, past = small.apply(small.params, text[:, -1:], position, past)
        text = np.append(text, (logits + rng.gumbel(size=logits.shape)).argmax(-1), axis=1)
    expected, _ = network(pruned, text[:, :-1], 0, cache(1))  # all positions at once
    np.testing.assert_allclose(logits, expected[:, -1:], atol=1e-4)
    print(bytes(text[0].tolist()))
    print(export(small.apply, small.params, text[:, :1], 0, past, path="decoder"))
    zeros = float(td.sparsity(pruned, kernels=structure).total)
    print(f"{zeros:.0%} of the weights are zero")
    return zeros


if __name__ == "__main__":
    main()
