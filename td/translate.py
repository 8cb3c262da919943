"""Translating whole texts with a trained network, and scoring translations by BLEU."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from sacrebleu.metrics import BLEU

from td.base import Params
from td.data.pairs import Pairs
from td.data.task import BEGIN, END, PADDING
from td.decode import beam_search
from td.errors import UserError, check_at_least
from td.experiment import Run, load_trained
from td.progress import progress
from td.prune import apply_mask, prune_mask, sparsity

LONGER = 50
"""A translation may have so many tokens more than its sentence is padded to (Vaswani et al. 2017, section 6.1)."""

Translate = Callable[[Params, Pairs], list[str]]


def make_translate(
    model: Any, decode: Callable[[list[list[int]]], list[str]], beams: int = 4, strength: float = 0.6, rows: int = 200
) -> Translate:
    """Build the function that translates every sentence of a split by beam search. One compile a length.

    Args:
      model: a network with the methods of `td.models.Transformer`.
      decode: from tokens to sentences.
      beams: sentences followed at a time; 1 is greedy.
      strength: of the length penalty.
      rows: sentences a batch.

    Returns:
      `(params, pairs) -> translations`, in the order of the pairs.
    """

    @partial(jax.jit, static_argnames="length")
    def search(params: Params, source: Array, length: int) -> Array:
        apply = partial(model.apply, {"params": params})
        memory = jnp.repeat(apply(source, method="encode"), beams, axis=0)
        repeated = jnp.repeat(source, beams, axis=0)

        def step(token: Array, place: Array, caches: Any) -> tuple[Array, Any]:
            return apply(token, place, caches, memory, repeated, method="decode_next")

        caches = model.empty_caches(len(repeated), length)
        batch = len(source)
        found = beam_search(step, caches, batch, first=BEGIN, end=END, length=length, beams=beams, strength=strength)
        return found[0][:, 0]

    def translate(params: Params, pairs: Pairs) -> list[str]:
        sentences: dict[int, list[int]] = {}
        for places, size, length in progress(list(pairs.eval_places(rows)), desc="translate", unit="batch"):
            best = np.asarray(search(params, pairs.gather(places, size, length).source, length + LONGER))
            sentences |= {int(place): words(tokens) for place, tokens in zip(places, best, strict=False)}
        return decode([sentences[place] for place in range(pairs.size)])

    return translate


def words(tokens: np.ndarray) -> list[int]:
    """The tokens up to the end of the sentence.

    Args:
      tokens: what the search gave.

    Returns:
      Without the end, and without padding.

    Example:
      >>> words(np.array([7, 9, 2, 0, 0]))
      [7, 9]
    """
    ends = np.flatnonzero(tokens == END)
    kept = tokens[: ends[0]] if len(ends) else tokens
    return [int(token) for token in kept if token != PADDING]


def bleu(translations: Sequence[str], references: Sequence[str]) -> tuple[float, str]:
    """Uncased BLEU of a text, with the signature that says how it was computed.

    Args:
      translations: one a sentence.
      references: how people have translated them.

    Returns:
      BLEU from 0 to 100, and sacrebleu's signature.

    Example:
      >>> bleu(["a small dog runs there"], ["A small dog runs there"])[0]
      100.0...

    Source: Papineni et al. 2002; Post 2018 (sacrebleu).
    """
    metric = BLEU(lowercase=True)
    score = metric.corpus_score(list(translations), [list(references)]).score
    return float(score), str(metric.get_signature())


def translate_run(workdir: Path, rate: float = 0.0, beams: int = 4, strength: float = 0.6, show: int = 10) -> str:
    """Translate the test text with a trained network, pruned first if so wanted.

    Args:
      workdir: a run's folder.
      rate: the share to prune, as `td.prune_mask` does by the method's own scores.
      beams: as in `make_translate`.
      strength: likewise.
      show: how many sentences to print.

    Returns:
      Sentences with reference and translation, and the BLEU of all, for the screen.

    Raises:
      UserError: there is no trained network, or it translates nothing.
    """
    config, run = load_trained(workdir)
    translate = run_translate(run, beams, strength)
    transform, state, kernels = run.experiment.transform, run.state, run.experiment.kernels
    shown, _ = transform.apply(state.params, state.mask_vars, key=None, step=state.step)
    scores = transform.scores(state.params, state.mask_vars)
    pruned = apply_mask(shown, prune_mask(shown, rate, config.granularity, kernels=kernels, scores=scores))
    pairs: Any = run.dataset.evaluation
    translations = translate(pruned, pairs)
    sources = run.dataset.text.decode(pairs.source.lists())
    lines = [
        f"source       {sources[place]}\nreference    {pairs.references[place]}\ntranslation  {translations[place]}\n"
        for place in range(min(show, pairs.size))
    ]
    score, signature = bleu(translations, pairs.references)
    removed = f"{100 * float(sparsity(pruned, kernels).total):.1f} % of the weights are zero"
    return "\n".join([*lines, f"BLEU {score:.2f} on {pairs.size} sentences ({signature}); {removed}"])


def run_translate(run: Run, beams: int = 4, strength: float = 0.6) -> Translate:
    """Build the function that translates with a run's network.

    Args:
      run: a trained run.
      beams: as in `make_translate`.
      strength: likewise.

    Returns:
      As `make_translate`.

    Raises:
      UserError: the run's data are images, or there is no beam.
    """
    check_at_least("beams", beams, 1)
    if run.dataset.text is None:
        raise UserError("BLEU is for translation: this run's data are images")
    return make_translate(run.experiment.model, run.dataset.text.decode, beams, strength)
