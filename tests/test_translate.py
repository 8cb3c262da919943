"""Translation from end to end: a network that learns a few sentences says them again; curves with BLEU."""

import json
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import final_state, load_config, trees_equal

from td import data
from td.data.sentence_pairs import Pairs
from td.evaluate.translate import bleu, make_translate, words
from td.train import step
from td.train.devices import Execution
from td.train.experiment import build, load_trained
from td.train.loop import train


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    config = load_config("wmt14_transformer", "mask=targeted,smoke")
    config.data.lengths = (16,)
    folder = tmp_path_factory.mktemp("translator")
    train(config, folder, Execution(jax.devices()[:1]))
    return config, folder


@pytest.mark.slow
def test_a_run_that_is_cut_goes_on_in_the_same_bits(translator, tmp_path, one_device):
    config, whole = translator
    train(config, tmp_path, one_device, until="4 steps")
    train(config, tmp_path, one_device)
    assert trees_equal(final_state(whole), final_state(tmp_path))


@pytest.mark.slow
def test_loss_and_token_accuracy_leave_out_padding(smoke_config):
    config = smoke_config("wmt14_transformer", "mask=none,smoke")
    config.model.dropout_rate = 0.0
    run, state = build(config, data.load(config.data.to_dict()))
    batch = next(run.dataset.train.train_batches(128, 0, 0))
    before = np.pad(batch.target[:, :-1], ((0, 0), (1, 0)), constant_values=1)
    logits = run.experiment.model.apply({"params": state.params}, jnp.asarray(batch.source), jnp.asarray(before))
    logs = np.asarray(jax.nn.log_softmax(logits))
    words_ = batch.target != 0
    right = np.take_along_axis(logs, batch.target[..., None], -1)[..., 0]
    loss = -(0.9 * right + 0.1 * logs.mean(-1))[words_].mean()
    accuracy = (logs.argmax(-1) == batch.target)[words_].mean()
    scored = step.make_eval_step(run.experiment)(state.params, {}, batch)
    assert float(scored["examples"]) == words_.sum()
    np.testing.assert_allclose(scored["loss"], -right[words_].sum(), rtol=1e-4)
    train_step = step.make_train_step(run.experiment)
    state, metrics = train_step(state, batch, run.key)
    np.testing.assert_allclose(metrics["cross_entropy"], loss, rtol=1e-4)
    np.testing.assert_allclose(metrics["accuracy"], accuracy, rtol=1e-5)
    others = list(islice(run.dataset.train.train_batches(128, 0, 1), 10))
    for other in others:
        state, _ = train_step(state, other, run.key)
    assert train_step._cache_size() == len({seen.source.shape for seen in (batch, *others)}) == 2  # once a length


@pytest.mark.slow
def test_a_network_says_again_what_it_has_learned(smoke_config):
    config = smoke_config("wmt14_transformer", "mask=none,smoke")
    config.model.update(dropout_rate=0.0, width=32, hidden_units=64)
    config.optim.update(learning_rate=0.01, schedule="constant", label_smoothing=0.0)
    dataset = data.load(config.data.to_dict())
    short = np.flatnonzero(dataset.train.longer_side() <= 8)[:12]
    few = dataset.train.chosen(short)._replace(lengths=(8, 16))
    run, state = build(config, dataset._replace(train=few))
    train_step = step.make_train_step(run.experiment)
    batch = few.gather(np.arange(12), 16, 8)
    for _ in range(120):
        state, metrics = train_step(state, batch, run.key)
    assert float(metrics["accuracy"]) == 1.0
    translations = make_translate(run.experiment.model, dataset.text.decode)(state.params, few)
    assert translations == dataset.text.decode(few.target.lists())


@pytest.mark.slow
def test_translations_stand_in_the_order_of_the_sentences(translator):
    _, folder = translator
    run, state = load_trained(folder)
    translate = make_translate(run.experiment.model, run.dataset.text.decode, beams=2)
    indices = np.array([5, 0, 9, 3])
    pairs: Pairs = run.dataset.evaluation
    together = translate(state.params, pairs.chosen(indices))
    assert together == [translate(state.params, pairs.chosen(indices[i : i + 1]))[0] for i in range(4)]


@pytest.mark.slow
def test_the_commands(translator, command):
    _, folder = translator
    finished = command("prune_curve.py", f"--workdir={folder}", "--rates=0,0.9", "--bleu", "--beams=1")
    assert finished.code == 0 and "BLEU" in finished.out
    curve = json.loads((folder / "prune_curve-weight-dense.json").read_text())
    assert curve["beams"] == 1 and "case:lc" in curve["bleu_signature"]
    assert all(0 <= row["bleu"] <= 100 for row in curve["rows"]) and curve["rows"][1]["sparsity"] > 0.85
    finished = command("report.py", str(folder / "prune_curve-weight-dense.json"), f"--out={folder / 'two.png'}")
    assert finished.code == 0 and "token accuracy" in finished.out and ", BLEU" in finished.out
    finished = command("prune_curve.py", f"--workdir={folder}", "--rates=0.5", "--criterion=activation")
    assert finished.code == 0 and "50.0" in finished.out
    finished = command("translate.py", f"--workdir={folder}", "--show=2", "--rate=0.5", "--beams=1")
    assert finished.code == 0 and finished.out.count("translation  ") == 2 and "50.0 % of the weights" in finished.out


def test_images_are_not_translated(plain, command):
    finished = command("prune_curve.py", f"--workdir={plain}", "--bleu")
    assert finished.code == 2 and "BLEU is for translation" in finished.err and "Traceback" not in finished.err


def test_bleu_is_uncased_and_counts_what_a_hand_counts():
    assert bleu(["The Cat sat there ."], ["the cat SAT there ."])[0] == pytest.approx(100)
    # 4 of 5 words, 3 of 4 pairs, 2 of 3 triples and 1 of 2 quadruples are right, and the lengths are equal.
    expected = 100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert bleu(["a b c d e"], ["a b c d f"])[0] == pytest.approx(expected)
    assert "case:lc" in bleu(["a"], ["a"])[1]


def test_words_end_at_the_end():
    assert words(np.array([4, 5, 2, 9, 2])) == [4, 5] and words(np.array([4, 5, 9])) == [4, 5, 9]
