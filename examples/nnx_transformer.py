"""A Flax NNX decoder, pruned by groups, compacted and exported with its cache: python examples/nnx_transformer.py."""

from pydoc_data.topics import topics  # half a megabyte on Python's syntax

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import td
from td.export import export

LAYERS, WIDTH, HEADS, KEYS, SIZE, HIDDEN, LENGTH = 4, 64, 4, 2, 16, 192, 64  # two heads of queries for each of keys
TEXT = jnp.array([*"".join(topics.values()).encode("ascii", "ignore")])


class Block(nnx.Module):
    def __init__(self, rngs):
        linear = lambda *sizes: nnx.Linear(*sizes, use_bias=False, rngs=rngs)  # noqa: E731
        self.query, self.out = linear(WIDTH, HEADS * SIZE), linear(HEADS * SIZE, WIDTH)
        self.key, self.value = linear(WIDTH, KEYS * SIZE), linear(WIDTH, KEYS * SIZE)
        self.gate, self.up, self.down = linear(WIDTH, HIDDEN), linear(WIDTH, HIDDEN), linear(HIDDEN, WIDTH)
        self.norms = nnx.List(nnx.RMSNorm(WIDTH, rngs=rngs) for _ in range(2))

    @nnx.scan(in_axes=(0, nnx.Carry, 1, None), out_axes=(nnx.Carry, 1))  # over the layers of stacked kernels
    def __call__(self, x, cache, position):
        hidden, heads = self.norms[0](x), (*x.shape[:2], -1, SIZE)
        query, key, value = (layer(hidden).reshape(heads) for layer in (self.query, self.key, self.value))
        cache = jax.lax.dynamic_update_slice(cache, jnp.stack([key, value], axis=1), (0, 0, position, 0, 0))
        seen = jnp.arange(LENGTH) <= position + jnp.arange(x.shape[1])[:, None]
        attended = jax.nn.dot_product_attention(query, cache[:, 0], cache[:, 1], mask=seen[None, None])
        x += self.out(attended.reshape(*x.shape[:2], -1))
        hidden = self.norms[1](x)
        return x + self.down(nnx.silu(self.gate(hidden)) * self.up(hidden)), cache


def main(steps: int = 800) -> float:
    rngs, optimizer = nnx.Rngs(0), optax.adam(3e-3)
    blocks = nnx.split_rngs(splits=LAYERS)(nnx.vmap(Block))(rngs)
    embed, place = nnx.Embed(128, WIDTH, rngs=rngs), nnx.Embed(LENGTH, WIDTH, rngs=rngs)
    graph, params = nnx.split({"embed": embed, "place": place, "blocks": blocks, "norm": nnx.RMSNorm(WIDTH, rngs=rngs)})
    cache = lambda batch: jnp.zeros((batch, LAYERS, 2, LENGTH, KEYS, SIZE))  # noqa: E731

    def network(params, tokens, position, cache):
        model = nnx.merge(graph, params)
        x = model["embed"](tokens) + model["place"](position + jnp.arange(tokens.shape[1]))
        x, cache = model["blocks"](x, cache, position)
        return model["embed"].attend(model["norm"](x)), cache

    @jax.jit
    def update(params, opt_state, mask, rows):
        nats = optax.softmax_cross_entropy_with_integer_labels
        loss = lambda p: nats(network(p, rows[:, :-1], 0, cache(len(rows)))[0], rows[:, 1:]).mean()  # noqa: E731
        value, gradient = jax.value_and_grad(loss)(params)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return td.apply_mask(optax.apply_updates(params, updates), mask), opt_state, value

    structure = td.trace(lambda *given: network(*given)[0], params, TEXT[None, :8], 0, cache(1))
    opt_state = optimizer.init(params)
    for rate in (0.0, 0.5):
        mask = td.prune_mask(params, rate, "group", kernels=structure)
        for _ in range(steps // 2):
            rows = TEXT[rngs.randint((32, 1), 0, len(TEXT) - LENGTH) + jnp.arange(LENGTH)]
            params, opt_state, value = update(params, opt_state, mask, rows)
        zeros = float(td.sparsity(params, kernels=structure).total)
        print(f"{value:.2f} nats a character; {zeros:.0%} of the weights are zero")
    small = td.compact(network, params, rows[:2, :1], 0, cache(2))
    text, past = rows[:1, :1], cache(1)
    for position in range(LENGTH):
        logits, past = small.apply(small.params, text[:, -1:], position, past)
        text = jnp.append(text, rngs.categorical(logits), axis=1)
    whole, _ = network(params, text[:, :-1], 0, cache(1))
    print(bytes(text[0].tolist()), f"\nwithout the cache, uncompacted: {abs(logits - whole[:, -1:]).max():.0e} apart")
    print(small.summary, export(small.apply, small.params, text[:, :1], 0, past, path="decoder"), sep="\n")
    return zeros


if __name__ == "__main__":
    main()
