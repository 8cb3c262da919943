"""The Transformer, encoder and decoder, for translation."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

PADDING = 0
"""Token after the end of short sentences, neither attended to nor scored."""


class Cache(NamedTuple):
    """Keys and values of the positions that a decoder layer has seen."""

    keys: Float[Array, "batch length heads head_dim"]
    values: Float[Array, "batch length heads head_dim"]


def positions(length: int, width: int) -> Float[Array, "length width"]:
    """Encode positions: sines in half of the channels, cosines in the others (Vaswani et al. 2017, section 3.5)."""
    rates = 10_000.0 ** -jnp.linspace(0.0, 1.0, width // 2)
    angles = jnp.arange(length, dtype=jnp.float32)[:, None] * rates
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


class Attention(nn.Module):
    """Multi-head attention. Projections are dense kernels `[width, heads * head_dim]`: heads are blocks of columns."""

    heads: int
    dtype: str

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "batch to width"],
        source: Float[Array, "batch from width"],
        visible: Bool[Array, "batch 1 to_or_1 keys"],
        cache: Cache | None = None,
        position: Int[Array, ""] | int = 0,
    ) -> tuple[Array, Any]:
        width = queries.shape[-1]

        def project(name: str, inputs: Array) -> Array:
            flat = nn.Dense(width, use_bias=False, dtype=self.dtype, name=name)(inputs)
            return flat.reshape(*flat.shape[:2], self.heads, width // self.heads)

        query, keys, values = project("query", queries), project("key", source), project("value", source)
        if cache is not None:
            start = (0, position, 0, 0)
            updated = zip(cache, (keys, values), strict=True)
            keys, values = cache = Cache(*(lax.dynamic_update_slice(old, new, start) for old, new in updated))
        seen = jax.nn.dot_product_attention(query, keys, values, None, visible)
        out = nn.Dense(width, use_bias=False, dtype=self.dtype, name="out")
        return out(seen.reshape(*queries.shape)), cache


class Layer(nn.Module):
    """Norm, attention, sum; in a decoder again over the encoder's outputs; norm, feed-forward, sum."""

    heads: int
    hidden_units: int
    dropout_rate: float
    decoder: bool
    dtype: str

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, "batch length width"],
        visible: Array,
        train: bool,
        memory: Any = None,
        memory_visible: Any = None,
        cache: Cache | None = None,
        position: Int[Array, ""] | int = 0,
    ) -> tuple[Array, Any]:
        norm = lambda name: nn.LayerNorm(dtype=self.dtype, name=name)  # noqa: E731
        dropout = nn.Dropout(self.dropout_rate, deterministic=not train)
        normed = norm("self_norm")(inputs)
        seen, cache = Attention(self.heads, self.dtype, name="self")(normed, normed, visible, cache, position)
        hidden = inputs + dropout(seen)
        if self.decoder:
            attention = Attention(self.heads, self.dtype, name="cross")
            seen, _ = attention(norm("cross_norm")(hidden), memory, memory_visible)
            hidden = hidden + dropout(seen)
        wide = nn.Dense(self.hidden_units, dtype=self.dtype, name="wide")(norm("feed_forward_norm")(hidden))
        narrow = nn.Dense(inputs.shape[-1], dtype=self.dtype, name="narrow")(nn.relu(wide))
        return hidden + dropout(narrow), cache


class Transformer(nn.Module):
    """Encoder and decoder with one embedding for both languages and the logits, sinusoidal positions, norms first.

    The defaults are Transformer base. Embedding and logits are one leaf called `embedding`.

    Source: Vaswani et al. 2017, with the norm before each part as in their later code.
    """

    num_classes: int  # tokens of both languages; 0 is padding
    layers: int = 6  # of the encoder, and of the decoder
    width: int = 512  # d_model
    hidden_units: int = 2048  # of the feed-forward layers
    heads: int = 8
    dropout_rate: float = 0.1  # of activations, rng "dropout"
    dtype: str = "float32"  # of the computation; parameters stay float32

    def setup(self) -> None:
        deviation = nn.initializers.normal(self.width**-0.5)
        self.embed = nn.Embed(self.num_classes, self.width, embedding_init=deviation, dtype=self.dtype)

        self.encoder, self.decoder = (
            [Layer(self.heads, self.hidden_units, self.dropout_rate, decoder, self.dtype) for _ in range(self.layers)]
            for decoder in (False, True)
        )
        self.encoder_norm = nn.LayerNorm(dtype=self.dtype)
        self.decoder_norm = nn.LayerNorm(dtype=self.dtype)
        self.dropout = nn.Dropout(self.dropout_rate)

    def _embed(self, tokens: Array, encodings: Array, train: bool) -> Array:
        scaled = self.embed(tokens) * jnp.asarray(self.width**0.5, self.dtype)
        return self.dropout(scaled + encodings.astype(scaled.dtype), deterministic=not train)

    def encode(self, source: Int[Array, "batch from"], train: bool = False) -> Float[Array, "batch from width"]:
        """Run the encoder."""
        hidden = self._embed(source, positions(source.shape[1], self.width), train)
        for layer in self.encoder:
            hidden, _ = layer(hidden, _visible(source), train)
        return self.encoder_norm(hidden)

    def decode(
        self, target: Int[Array, "batch to"], memory: Array, source: Int[Array, "batch from"], train: bool = False
    ) -> Float[Array, "batch to vocabulary"]:
        """Compute the logits of the token after each position, from all tokens up to that position."""
        length = target.shape[1]
        hidden = self._embed(target, positions(length, self.width), train)
        visible = _visible(target) & jnp.tril(jnp.ones((length, length), bool))
        for layer in self.decoder:
            hidden, _ = layer(hidden, visible, train, memory, _visible(source))
        return self._logits(hidden)

    def decode_next(
        self,
        token: Int[Array, "batch"],
        position: Int[Array, ""],
        caches: tuple[Cache, ...],
        memory: Array,
        source: Int[Array, "batch from"],
    ) -> tuple[Float[Array, "batch vocabulary"], tuple[Cache, ...]]:
        """Compute the logits after one more token, from the cached keys and values of those before it."""
        length = caches[0].keys.shape[1]
        encodings = lax.dynamic_slice_in_dim(positions(length, self.width), position, 1)
        hidden = self._embed(token[:, None], encodings, False)
        visible = jnp.broadcast_to(jnp.arange(length) <= position, (token.shape[0], 1, 1, length))
        after = []
        for layer, before in zip(self.decoder, caches, strict=True):
            hidden, cache = layer(hidden, visible, False, memory, _visible(source), before, position)
            after.append(cache)
        return self._logits(hidden).squeeze(1), tuple(after)

    def empty_caches(self, batch: int, length: int) -> tuple[Cache, ...]:
        """Return caches for sentences of `length` tokens."""
        zeros = jnp.zeros((batch, length, self.heads, self.width // self.heads), self.dtype)
        return tuple(Cache(zeros, zeros) for _ in range(self.layers))

    def attend(self, hidden: Float[Array, "batch to width"]) -> Float[Array, "batch to vocabulary"]:
        """Multiply by the embedding in float32: in bfloat16 the likeliest of 32,000 tokens would often tie."""
        query, embedding = (part.astype(self.dtype) for part in (hidden, self.embed.embedding))
        return jnp.matmul(query, embedding.T, preferred_element_type=jnp.promote_types(self.dtype, jnp.float32))

    def _logits(self, hidden: Array) -> Array:
        return self.attend(self.decoder_norm(hidden)).astype(jnp.float32)

    def __call__(self, source: Array, target: Array, train: bool = False) -> Array:
        return self.decode(target, self.encode(source, train), source, train)


def _visible(tokens: Int[Array, "batch length"]) -> Bool[Array, "batch 1 1 length"]:
    return (tokens != PADDING)[:, None, None, :]
