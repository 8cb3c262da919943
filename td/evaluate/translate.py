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
from td.data.sentence_pairs import Pairs
from td.data.task import BEGIN, END, PADDING
from td.errors import UserError, check_at_least
from td.evaluate.beam_search import beam_search
from td.io.progress import progress
from td.prune import apply_mask, sparsity
from td.train.experiment import Run, load_trained, own_mask

LONGER = 50
"""Tokens that a translation may have beyond its padded sentence (Vaswani et al. 2017, section 6.1)."""

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
    ends = np.flatnonzero(tokens == END)
    kept = tokens[: ends[0]] if len(ends) else tokens
    return [int(token) for token in kept if token != PADDING]


def bleu(translations: Sequence[str], references: Sequence[str]) -> tuple[float, str]:
    """Return the uncased BLEU of a text, and sacrebleu's signature.

    Source: Papineni et al. 2002; Post 2018 (sacrebleu).
    """
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
    check_at_least("beams", beams, 1)
    if run.dataset.text is None:
        raise UserError("BLEU is for translation: this run's data are images")
    return make_translate(run.experiment.model, run.dataset.text.decode, beams, strength)
