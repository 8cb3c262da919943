"""Translating whole texts by beam search, and scoring translations by BLEU."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int
from sacrebleu.metrics import BLEU

from td.base import Params
from td.data.base import BEGIN, END, PADDING
from td.data.sentence_pairs import Pairs
from td.errors import UserError
from td.io.files import Path
from td.io.progress import progress
from td.prune import apply_mask, sparsity
from td.train.experiment import Run, load_trained, own_mask

Next = Callable[[Array, Array, Any], tuple[Array, Any]]
"""`(tokens [rows], position, state) -> (logits [rows, vocabulary], state)`; leaves of the state have `rows` first."""

NEVER = -1e9  # a log probability below that of any sentence


class Beams(NamedTuple):
    """The sentences that are followed, and the best finished ones."""

    position: Int[Array, ""]  # of the last token
    alive: Int[Array, "batch beams length"]
    alive_scores: Float[Array, "batch beams"]  # log probabilities
    ended: Int[Array, "batch beams length"]
    ended_scores: Float[Array, "batch beams"]  # normalised by length
    state: Any  # of the network, `batch * beams` rows


def length_penalty(length: Array | float | int, strength: float) -> Array:
    """Return `((5 + length) / 6)^strength`, the divisor of a log probability (Wu et al. 2016, equation 14)."""
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


LONGER = 50  # tokens that a translation may have beyond its padded sentence (Vaswani et al. 2017, section 6.1)

Translate = Callable[[Params, Pairs], list[str]]


def make_translate(
    model: Any, decode: Callable[[list[list[int]]], list[str]], beams: int = 4, strength: float = 0.6, rows: int = 200
) -> Translate:
    """Build the function that translates a split by beam search, in order; it compiles once a length."""

    @partial(jax.jit, static_argnames="length")
    def search(params: Params, source: Array, length: int) -> Array:
        apply = partial(model.apply, {"params": params})
        memory = jnp.repeat(apply(source, method="encode"), beams, axis=0)
        repeated = jnp.repeat(source, beams, axis=0)

        def step(token: Array, position: Array, caches: Any) -> tuple[Array, Any]:
            return apply(token, position, caches, memory, repeated, method="decode_next")

        caches = model.empty_caches(len(repeated), length)
        batch = len(source)
        found = beam_search(step, caches, batch, first=BEGIN, end=END, length=length, beams=beams, strength=strength)
        return found[0][:, 0]

    def translate(params: Params, pairs: Pairs) -> list[str]:
        sentences: dict[int, list[int]] = {}
        for indices, size, length in progress(list(pairs.eval_indices(rows)), desc="translate", unit="batch"):
            best = np.asarray(search(params, pairs.gather(indices, size, length).source, length + LONGER))
            sentences |= {int(index): words(tokens) for index, tokens in zip(indices, best, strict=False)}
        return decode([sentences[index] for index in range(pairs.size)])

    return translate


def words(tokens: np.ndarray) -> list[int]:
    """Return the tokens up to the end of the sentence."""
    return [token for token in takewhile(END.__ne__, tokens.tolist()) if token != PADDING]


def bleu(translations: Sequence[str], references: Sequence[str]) -> tuple[float, str]:
    """Return the uncased BLEU of a text (Papineni et al. 2002), and the signature of sacrebleu (Post 2018)."""
    metric = BLEU(lowercase=True)
    score = metric.corpus_score(list(translations), [list(references)]).score
    return float(score), str(metric.get_signature())


def translate_run(workdir: Path, rate: float = 0.0, beams: int = 4, strength: float = 0.6, show: int = 10) -> str:
    """Translate the test text with a trained network, pruned first where `rate` is above 0."""
    run, state = load_trained(workdir)
    translate = run_translate(run, beams, strength)
    pruned = apply_mask(*own_mask(run, state, rate, run.config.granularity))
    pairs: Any = run.dataset.evaluation
    translations = translate(pruned, pairs)
    sources = run.dataset.text.decode(pairs.source.lists())
    lines = [
        f"source       {sources[i]}\nreference    {pairs.references[i]}\ntranslation  {translations[i]}\n"
        for i in range(min(show, pairs.size))
    ]
    score, signature = bleu(translations, pairs.references)
    removed = f"{100 * float(sparsity(pruned, run.experiment.kernels).total):.1f} % of the weights are zero"
    return "\n".join([*lines, f"BLEU {score:.2f} on {pairs.size} sentences ({signature}); {removed}"])


def run_translate(run: Run, beams: int = 4, strength: float = 0.6) -> Translate:
    """Build the function that translates with a run's network."""
    if run.dataset.text is None:
        raise UserError("BLEU is for translation: this run's data are images")
    return make_translate(run.experiment.model, run.dataset.text.decode, beams, strength)
