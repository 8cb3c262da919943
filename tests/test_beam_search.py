"""Beam search against brute force."""

import itertools

import jax
import numpy as np
import pytest

from td.evaluate.translate import beam_search, length_penalty


def markov(seed, vocabulary=4):
    """Logits that depend on the last token and the place, so that greedy is not always best."""
    table = 2 * jax.random.normal(jax.random.key(seed), (6, vocabulary, vocabulary))
    return table, lambda token, place, state: (table[place, token], state)


def exhaustive(table, first, end, length, strength):
    """Every sentence of up to `length` tokens that ends, with its normalised log probability."""
    log_p = np.asarray(jax.nn.log_softmax(table), np.float64)
    others = [token for token in range(log_p.shape[-1]) if token != end]
    found = {}
    for size in range(1, length + 1):
        for body in itertools.product(others, repeat=size - 1):
            tokens = (*body, end)
            score = sum(log_p[i, a, b] for i, (a, b) in enumerate(itertools.pairwise((first, *tokens))))
            found[tokens] = score / float(length_penalty(size, strength))
    return found


@pytest.mark.parametrize(("strength", "least"), [(0.0, 0), (0.6, 1), (1.5, 0), (0.0, 2)])
def test_wide_beams_find_the_best_sentence_of_all(strength, least):
    search = jax.jit(
        lambda table: beam_search(
            lambda token, place, state: (table[place, token], state),
            (),
            1,
            first=0,
            end=1,
            length=5,
            beams=81,
            strength=strength,
            least=least,
        )
    )
    for seed in range(10):
        table, _ = markov(seed)
        tokens, scores = search(table)
        every = exhaustive(table, 0, 1, 5, strength)
        every = {sentence: score for sentence, score in every.items() if len(sentence) > least}
        best = max(every, key=every.get)
        assert tuple(tokens[0, 0, : len(best)].tolist()) == best and not tokens[0, 0, len(best) :].any()
        assert float(scores[0, 0]) == pytest.approx(every[best], rel=1e-4)


def test_one_beam_is_greedy_and_more_are_never_worse():
    for seed in range(10):
        table, step = markov(seed)
        token, greedy = 0, []
        for place in range(6):
            token = int(table[place, token].argmax())
            greedy.append(token)
            if token == 1:
                break
        tokens, one = beam_search(step, (), 1, first=0, end=1, length=6, beams=1, strength=0.0, least=0)
        if greedy[-1] == 1:
            assert tokens[0, 0, : len(greedy)].tolist() == greedy
        _, four = beam_search(step, (), 1, first=0, end=1, length=6, beams=4, strength=0.0, least=0)
        assert float(four[0, 0]) >= float(one[0, 0]) - 1e-5
