"""Beam search over any function that returns the next token's logits."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

Next = Callable[[Array, Array, Any], tuple[Array, Any]]
"""`(tokens [rows], position, state) -> (logits [rows, vocabulary], state)`; leaves of the state have `rows` first."""

NEVER = -1e9
"""A log probability below that of any sentence."""


class Beams(NamedTuple):
    """The sentences that are followed, and the best finished ones."""

    position: Int[Array, ""]  # of the last token
    alive: Int[Array, "batch beams length"]
    alive_scores: Float[Array, "batch beams"]  # log probabilities
    ended: Int[Array, "batch beams length"]
    ended_scores: Float[Array, "batch beams"]  # normalised by length
    state: Any  # of the network, `batch * beams` rows


def length_penalty(length: Array | float | int, strength: float) -> Array:
    """Return `((5 + length) / 6)^strength`, the divisor of a log probability.

    Source: Wu et al. 2016, equation 14.
    """
    return ((5.0 + jnp.asarray(length, jnp.float32)) / 6.0) ** strength


def beam_search(
    next_logits: Next,
    state: Any,
    batch: int,
    *,
    first: int,
    end: int,
    length: int,
    beams: int = 4,
    strength: float = 0.6,
    least: int = 1,
) -> tuple[Int[Array, "batch beams length"], Float[Array, "batch beams"]]:
    """Find the most probable sentences, by log probability divided by a length penalty."""
    rows = jnp.arange(batch)[:, None]
    best_possible = length_penalty(length, strength)

    def unfinished(beam: Beams) -> Bool[Array, ""]:
        # The best score that an unfinished sentence can still reach: no further loss, at the mildest penalty.
        reachable = beam.alive_scores[:, 0] / best_possible
        return (beam.position < length) & jnp.any(reachable > beam.ended_scores[:, -1])

    def extend(beam: Beams) -> Beams:
        last = jnp.where(beam.position == 0, first, beam.alive[:, :, jnp.maximum(beam.position - 1, 0)])
        logits, state = next_logits(last.reshape(-1), beam.position, beam.state)
        log_p = jax.nn.log_softmax(logits).reshape(batch, beams, -1)
        vocabulary = log_p.shape[-1]
        log_p = jnp.where((jnp.arange(vocabulary) == end) & (beam.position < least), NEVER, log_p)
        total = (beam.alive_scores[:, :, None] + log_p).reshape(batch, -1)
        # Twice as many: at most half of them end, so enough are left.
        scores, chosen = lax.top_k(total, min(2 * beams, total.shape[1]))
        parent, token = chosen // vocabulary, chosen % vocabulary
        tokens = beam.alive[rows, parent].at[:, :, beam.position].set(token)
        ends = token == end
        normalised = jnp.where(ends, scores / length_penalty(beam.position + 1, strength), NEVER)
        all_scores = jnp.concatenate([beam.ended_scores, normalised], axis=1)
        ended_scores, kept = lax.top_k(all_scores, beams)
        ended = jnp.concatenate([beam.ended, tokens], axis=1)[rows, kept]
        alive_scores, kept = lax.top_k(jnp.where(ends, NEVER, scores), beams)
        origin = (rows * beams + parent[rows, kept]).reshape(-1)
        state = jax.tree.map(lambda leaf: leaf[origin], state)
        return Beams(beam.position + 1, tokens[rows, kept], alive_scores, ended, ended_scores, state)

    empty = jnp.zeros((batch, beams, length), jnp.int32)
    only_one = jnp.full((batch, beams), NEVER).at[:, 0].set(0.0)
    start = Beams(jnp.zeros((), jnp.int32), empty, only_one, empty, jnp.full((batch, beams), NEVER), state)
    final = lax.while_loop(unfinished, extend, start)
    none_ended = final.ended_scores[:, :1] <= NEVER / 2
    tokens = jnp.where(none_ended[:, :, None], final.alive, final.ended)
    return tokens, jnp.where(none_ended, final.alive_scores / best_possible, final.ended_scores)
