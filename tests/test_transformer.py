"""The Transformer: counts, what may see what, cached against uncached, the sentences of a batch apart."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import td
from td.evaluate.translate import beam_search
from td.models.transformer import Transformer, positions

KEY = jax.random.key(3)
SMALL = Transformer(num_classes=13, layers=2, width=16, hidden_units=32, heads=4, dropout_rate=0.3)
SOURCE = jnp.array([[5, 6, 7, 2, 0, 0], [3, 4, 9, 8, 11, 2]])
TARGET = jnp.array([[4, 5, 6, 7, 2], [9, 2, 0, 0, 0]])
apply = jax.jit(SMALL.apply, static_argnames="method")


@pytest.fixture(scope="module")
def variables():
    return jax.jit(SMALL.init)(KEY, SOURCE, TARGET)


def test_base_has_the_published_size():
    tokens = jax.ShapeDtypeStruct((1, 4), jnp.int32)
    params = jax.eval_shape(Transformer(32_768).init, KEY, tokens, tokens)["params"]
    attention, norm = 4 * 512 * 512, 2 * 512
    feed_forward = 2 * 512 * 2048 + 2048 + 512
    encoder = 6 * (attention + feed_forward + 2 * norm) + norm
    decoder = 6 * (2 * attention + feed_forward + 3 * norm) + norm
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 32_768 * 512 + encoder + decoder == 60_880_896


def test_projections_are_prunable_and_embeddings_are_not(variables):
    kernels = td.kernels.select_kernels(variables["params"], ".*")
    assert len(kernels) == 2 * (4 + 2) + 2 * (8 + 2)
    assert not any("embed" in path for path in kernels)
    assert {kernel.shape for path, kernel in kernels.items() if "query" in path or "out/" in path} == {(16, 16)}


def test_positions_are_the_papers():
    table = np.asarray(positions(7, 6))
    for place, channel in itertools.product(range(7), range(3)):
        angle = place / 10_000 ** (channel / 2)
        np.testing.assert_allclose(table[place, [channel, channel + 3]], [np.sin(angle), np.cos(angle)], atol=1e-5)


def test_no_place_sees_what_comes_after_it_nor_padding(variables):
    logits = apply(variables, SOURCE, TARGET)
    later = apply(variables, SOURCE, TARGET.at[0, 3].set(12))
    np.testing.assert_allclose(logits[0, :3], later[0, :3], atol=1e-5)
    assert not np.allclose(logits[0, 3:], later[0, 3:], atol=1e-3)
    shorter = apply(variables, SOURCE[:, :4], TARGET)
    np.testing.assert_allclose(logits[0], shorter[0], atol=1e-5)


def test_dropout_is_for_training_and_follows_its_rng(variables):
    train = jax.jit(lambda key: SMALL.apply(variables, SOURCE, TARGET, train=True, rngs={"dropout": key}))
    first, again, other = (train(jax.random.key(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    plain = apply(variables, SOURCE, TARGET)
    scored = apply(variables, SOURCE, TARGET, rngs={"dropout": KEY})
    assert np.array_equal(scored, plain)


def test_decoding_with_a_cache_gives_the_logits_of_the_whole_network(variables):
    target = jnp.array([[4, 5, 6, 7, 2], [9, 3, 8, 10, 2]])
    whole = apply(variables, SOURCE, target)
    memory = apply(variables, SOURCE, method="encode")
    caches = SMALL.empty_caches(2, 5)
    step = jax.jit(
        lambda token, place, caches: SMALL.apply(variables, token, place, caches, memory, SOURCE, method="decode_next")
    )
    for place in range(5):
        logits, caches = step(target[:, place], jnp.asarray(place), caches)
        np.testing.assert_allclose(logits, whole[:, place], atol=1e-4)
    assert step._cache_size() == 1


@pytest.mark.slow
def test_sentences_of_a_batch_and_their_states_are_kept_apart(variables):
    def translate(source):
        beams, rows = 3, 3 * len(source)
        repeated = jnp.repeat(source, beams, axis=0)
        memory = SMALL.apply(variables, repeated, method="encode")

        def step(token, place, caches):
            return SMALL.apply(variables, token, place, caches, memory, repeated, method="decode_next")

        caches = SMALL.empty_caches(rows, 8)
        return beam_search(step, caches, len(source), first=1, end=2, length=8, beams=beams)

    together, scores = jax.jit(translate)(SOURCE)
    for row in range(2):
        alone, score = jax.jit(translate)(SOURCE[row : row + 1])
        np.testing.assert_array_equal(together[row], alone[0])
        np.testing.assert_allclose(scores[row], score[0], rtol=1e-4)
