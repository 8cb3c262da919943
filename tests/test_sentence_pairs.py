"""Sentence pairs: batches of a few shapes, the order of visits, what a network is fed with."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import td
from td.data.base import Shard, translation
from td.data.sentence_pairs import Pairs, Sentences, TextBatch


def pairs_of(lengths, seed=0):
    """Pairs whose first token is their number, so that they can be told apart."""
    rng = np.random.default_rng(seed)
    source = [[10 + number, *[5] * (length - 2), 2] for number, length in enumerate(lengths)]
    target = [[10 + number, *[6] * int(rng.integers(0, 9)), 2] for number in range(len(lengths))]
    return Pairs(Sentences.of(source), Sentences.of(target), lengths=(4, 8, 16))


some_lengths = st.lists(st.integers(2, 16), min_size=1, max_size=120)


@settings(max_examples=30, deadline=None)
@given(some_lengths, st.integers(0, 3), st.integers(128, 400))
def test_every_pair_is_seen_once_an_epoch_in_few_shapes(lengths, seed, batch_size):
    pairs = pairs_of(lengths)
    steps = round(pairs.size / pairs.examples_per_step(batch_size))
    stream = pairs.train_batches(batch_size, seed, 0)
    rows = dict(zip(pairs.lengths, pairs.row_counts(batch_size), strict=True))
    for _ in range(2):
        seen = []
        for batch in itertools.islice(stream, steps):
            assert batch.source.shape == batch.target.shape == (rows[batch.source.shape[1]], batch.source.shape[1])
            assert batch.source.size <= batch_size
            numbers_ = batch.source[:, 0][batch.source[:, 0] > 0]
            np.testing.assert_array_equal(numbers_, batch.target[: len(numbers_), 0])
            seen += numbers_.tolist()
        assert sorted(seen) == [10 + number for number in range(pairs.size)]


@settings(max_examples=20, deadline=None)
@given(some_lengths, st.integers(0, 9))
def test_a_step_has_the_same_batch_wherever_a_run_begins(lengths, first):
    pairs = pairs_of(lengths)
    whole = list(itertools.islice(pairs.train_batches(128, 1, 0), first + 3))
    for a, b in zip(whole[first:], pairs.train_batches(128, 1, first), strict=False):
        np.testing.assert_array_equal(a.source, b.source)
        np.testing.assert_array_equal(a.target, b.target)


@settings(max_examples=20, deadline=None)
@given(some_lengths, st.sampled_from([1, 2, 4, 8]))
def test_hosts_read_parts_that_make_the_whole(lengths, hosts):
    pairs = pairs_of(lengths)
    parts = [pairs.train_batches(128, 1, 0, Shard(host, hosts)) for host in range(hosts)]
    for whole, *read in itertools.islice(zip(pairs.train_batches(128, 1, 0), *parts, strict=True), 5):
        assert len({part.source.shape for part in read}) == 1
        np.testing.assert_array_equal(whole.source, np.concatenate([part.source for part in read]))
        np.testing.assert_array_equal(whole.target, np.concatenate([part.target for part in read]))


def test_texts_are_joined_and_chosen_from():
    lists = [[5, 2], [6, 7, 2], [8, 2], [9, 9, 9, 2], [4, 2]]
    joined = Sentences.of(iter(lists))
    assert joined.lists() == lists
    assert joined.chosen(np.array([3, 0, 3])).lists() == [[9, 9, 9, 2], [5, 2], [9, 9, 9, 2]]


def test_orders_differ_by_seed_and_epoch():
    sentences = Sentences.of([[10 + number, 2] for number in range(64)])
    pairs = Pairs(sentences, sentences, lengths=(4,))
    first, second = (batch.source[:, 0] for batch in itertools.islice(pairs.train_batches(256, 0, 0), 2))
    other = next(pairs.train_batches(256, 1, 0)).source[:, 0]
    assert sorted(first) == sorted(second) == sorted(other)
    assert first.tolist() != second.tolist() and first.tolist() != other.tolist()


@settings(max_examples=20, deadline=None)
@given(some_lengths, st.integers(1, 50))
def test_scoring_sees_every_pair_exactly_once(lengths, batch_size):
    pairs = pairs_of(lengths)
    seen = [number for batch in pairs.eval_batches(batch_size) for number in batch.source[:, 0] if number]
    assert sorted(seen) == [10 + number for number in range(pairs.size)]
    sample = next(pairs.sample_batches(min(batch_size, pairs.size), 0)).source
    most_frequent = pairs.lengths[np.bincount(pairs.buckets()).argmax()]
    assert sample.shape == (min(batch_size, pairs.size), most_frequent) and {*sample[:, 0]} - {0} <= set(seen)


def test_batches_that_hold_no_long_sentence_are_told():
    with pytest.raises(td.UserError, match="data.batch_size=100 tokens is too small: give 8 of the longest, 128"):
        pairs_of([5]).examples_per_step(100)


def test_a_network_is_fed_with_the_tokens_before_and_scored_on_words_alone():
    task = translation()
    batch = TextBatch(np.array([[5, 2, 0]], np.int32), np.array([[7, 8, 2], [9, 2, 0]], np.int32))
    _, before = task.inputs(batch, None)
    assert before.tolist() == [[1, 7, 8], [1, 9, 2]]
    labels, weights = task.targets(batch)
    assert labels.tolist() == batch.target.tolist() and weights.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert task.count(batch) == 5
