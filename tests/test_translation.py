"""Text: files and their faults, vocabulary, what is cut or held out."""

import gzip
import itertools
import logging
import lzma
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

import td
from td import data
from td.data import number_words
from td.io import run_folder

ENGLISH, GERMAN = number_words.read("train")
ENGLISH, GERMAN = ENGLISH[:300], GERMAN[:300]


def write(path, lines):
    content = "".join(line + "\n" for line in lines).encode()
    path.write_bytes({".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)(content))
    return str(path)


@pytest.fixture
def files(tmp_path):
    """Settings of a small text, 300 pairs to learn from and 40 to be scored on."""
    return {
        "name": "text",
        "train_source": write(tmp_path / "train.en", ENGLISH),
        "train_target": write(tmp_path / "train.de", GERMAN),
        "test_source": write(tmp_path / "test.en", ENGLISH[:40]),
        "test_target": write(tmp_path / "test.de", GERMAN[:40]),
        "vocabulary": 60,
        "lengths": (8, 16, 40),
        "cache_dir": str(tmp_path / "cache"),
    }


def test_numbers_in_words():
    expected = {
        0: ("zero", "null"),
        1: ("one", "eins"),
        10: ("ten", "zehn"),
        21: ("twenty one", "einundzwanzig"),
        30: ("thirty", "dreißig"),
        101: ("one hundred one", "einhundert eins"),
        3000: ("three thousand", "dreitausend"),
        7016: ("seven thousand sixteen", "siebentausend sechzehn"),
        9999: ("nine thousand nine hundred ninety nine", "neuntausend neunhundert neunundneunzig"),
    }
    assert {number: (number_words.english(number), number_words.german(number)) for number in expected} == expected
    train, test = number_words.read("train"), number_words.read("test")
    assert len(set(train[0]) | set(test[0])) == 10_000 == len(set(train[1]) | set(test[1]))


def test_tokens_give_the_text_back_and_end_with_the_end(files):
    dataset = data.load(files)
    assert dataset.train.size == 300 and dataset.evaluation.size == 40 and dataset.num_classes == 60
    assert dataset.text.decode(dataset.train.source.lists()) == ENGLISH
    assert dataset.text.decode(dataset.train.target.lists()) == GERMAN
    assert dataset.evaluation.references == tuple(GERMAN[:40])
    assert all(tokens[-1] == 2 and 2 not in tokens[:-1] for tokens in dataset.train.target.lists())


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_compressed_files_hold_the_same_text(files, tmp_path, suffix):
    plain = data.load(files).train
    files["train_source"] = write(tmp_path / f"train.en{suffix}", ENGLISH)
    np.testing.assert_array_equal(data.load(files).train.source.tokens, plain.source.tokens)


def test_text_is_cut_into_tokens_once_and_anew_when_it_changes(files, tmp_path, monkeypatch):
    first = data.load(files)
    learn = data.translation.learn_vocabulary
    monkeypatch.setattr(data.translation, "learn_vocabulary", lambda *_: pytest.fail("learned again"))
    np.testing.assert_array_equal(data.load(files).train.source.tokens, first.train.source.tokens)
    monkeypatch.setattr(data.translation, "learn_vocabulary", learn)
    write(tmp_path / "train.en", [line.upper() for line in ENGLISH])
    assert data.load(files).text.decode(data.load(files).train.source.lists())[0] == ENGLISH[0].upper()


@pytest.mark.parametrize(("pairs", "every"), [(500_000, 1), (500_001, 2), (4_500_000, 9)])
def test_a_vocabulary_is_learned_from_a_million_lines_at_most(pairs, every):
    assert data.translation._spacing(pairs) == every


def test_trap_the_vocabulary_of_a_thinned_text_is_of_both_languages(files, monkeypatch):
    whole = data.load(files)
    monkeypatch.setattr(data.translation, "MOST_LINES", 300)  # of 600
    thinned = data.load({**files, "cache_dir": files["cache_dir"] + "-thinned"})
    assert thinned.text.decode(thinned.train.source.lists()) == ENGLISH
    assert thinned.text.decode(thinned.train.target.lists()) == GERMAN
    assert thinned.identity != whole.identity


def test_a_run_goes_on_with_the_text_it_learned_from_wherever_that_lies(files, tmp_path, smoke_config):
    config = smoke_config("wmt14_transformer", "data=text,smoke")
    config.data.update(files)
    run_folder.record(tmp_path, config, data.load(files).identity)
    files["train_source"] = config.data.train_source = str(shutil.copy(files["train_source"], tmp_path / "moved.en"))
    with run_folder.lock(tmp_path, config, data.load(files).identity):
        pass
    for changed, lines in {"moved.en": ENGLISH, "test.de": GERMAN[:40]}.items():
        write(tmp_path / changed, [*lines[:-1], "something else"])
        with pytest.raises(td.UserError, match="the run in .* was trained on other data"):
            run_folder.check_data(tmp_path, data.load(files).identity)
        write(tmp_path / changed, lines)


def test_the_test_text_is_part_of_the_identity_of_runs_that_score_it(files, tmp_path):
    identity, held_out = data.load(files).identity, data.load({**files, "validation": 50}).identity
    write(tmp_path / "test.de", GERMAN[40:80])
    assert data.load({**files, "validation": 50}).identity == held_out and data.load(files).identity != identity


class Wmt14Translate(tfds.core.GeneratorBasedBuilder):
    """A stand-in of a few numbers under the official name."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="de-en"),)

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.Translation(("de", "en")))

    def _split_generators(self, dl_manager):
        del dl_manager
        return {"train": self._generate_examples(200), "test": self._generate_examples(20)}

    def _generate_examples(self, count):
        for number in range(count):
            yield number, {"de": number_words.german(number), "en": number_words.english(number)}
        yield count, {"de": " ", "en": "blank on the other side"}


def test_a_tfds_set_is_read_in_both_directions(tmp_path):
    Wmt14Translate(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    settings = {"name": "wmt14_translate/de-en", "vocabulary": 60, "lengths": (8, 32), "data_dir": str(tmp_path)}
    dataset = data.load({**settings, "source": "en", "target": "de"})
    assert (dataset.train.size, dataset.evaluation.size) == (200, 20)
    sources = dataset.text.decode(dataset.evaluation.source.lists())
    assert dict(zip(sources, dataset.evaluation.references, strict=True))["thirteen"] == "dreizehn"
    back = data.load({**settings, "source": "de", "target": "en"})
    assert set(back.evaluation.references) == set(sources) and back.identity != dataset.identity
    with pytest.raises(td.UserError, match="language='fr' is not known: valid: de, en"):
        data.load({**settings, "source": "fr", "target": "de"})
    with pytest.raises(td.UserError, match=r"is not prepared in .* \(nothing is\)"):
        data.load({**settings, "source": "de", "target": "en", "data_dir": str(tmp_path / "empty")})


def test_pairs_that_are_held_out_are_scored_and_not_learned_from(files):
    dataset = data.load({**files, "validation": 50})
    assert (dataset.train.size, dataset.evaluation.size) == (250, 50)
    both = dataset.text.decode(dataset.train.source.lists() + dataset.evaluation.source.lists())
    assert sorted(both) == sorted(ENGLISH)
    assert set(dataset.evaluation.references) <= set(GERMAN)


@pytest.mark.parametrize("too_long", ["drop", "cut"])
def test_long_lines_are_counted_and_dropped_or_cut(files, caplog, too_long):
    longer = np.count_nonzero(data.load(files).train.longer_side() > 16)
    assert 0 < longer < 300
    with caplog.at_level(logging.WARNING, "td"):
        train = data.load({**files, "lengths": (8, 16), "too_long": too_long}).train
    assert f"{longer} of 300 training pairs are longer than 16 tokens: {too_long[:3]}" in caplog.text
    assert train.size == 300 - (longer if too_long == "drop" else 0)
    assert max(batch.source.shape[1] for batch in itertools.islice(train.train_batches(128, 0, 0), 30)) == 16


MISTAKES = {
    "missing": ({"train_source": "nowhere.en"}, "data.train_source='nowhere.en' is not a file"),
    "not named": ({"test_target": ""}, "data.test_target='' is not a file: name a text file"),
    "vocabulary too large": ({"vocabulary": 9000}, "data.vocabulary=9000 does not suit this text: .*9000"),
    "vocabulary too small": ({"vocabulary": 6}, "data.vocabulary=6 does not suit this text"),
    "unknown word": ({"too_long": "drp"}, "did you mean 'drop'"),
    "falling lengths": ({"lengths": (16, 8)}, "data.lengths=\\(16, 8\\) is malformed"),
    "all too long": ({"lengths": (1,)}, "every training pair is longer than 1 tokens"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_told_in_one_line(files, case):
    changes, message = MISTAKES[case]
    with pytest.raises(td.UserError, match=message) as told:
        data.load({**files, **changes})
    assert "\n" not in str(told.value)


FAULTS = {
    "unequal": (lambda path: write(path, GERMAN[:-1]), "has 300 lines, .* has 299"),
    "empty": (lambda path: path.write_text(""), "has 300 lines, .* has 0"),
    "no text": (lambda path: path.write_bytes(b"\xff\xfe"), "train.de is not UTF-8 text: .* at byte 0"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_files_are_told_and_nothing_is_kept(files, tmp_path, fault):
    damage, message = FAULTS[fault]
    damage(tmp_path / "train.de")
    with pytest.raises(td.UserError, match=message):
        data.load(files)
    assert not list((tmp_path / "cache").glob("*"))


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_files_cut_short_are_told(files, tmp_path, suffix):
    path = tmp_path / f"train.en{suffix}"
    files["train_source"] = write(path, ENGLISH)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(td.UserError, match=f"train.en{suffix} is damaged"):
        data.load(files)


def test_two_empty_files_and_blank_lines(files, tmp_path, caplog):
    write(tmp_path / "train.en", ["", *ENGLISH[1:]])
    with caplog.at_level(logging.WARNING, "td"):
        assert data.load(files).train.size == 299
    assert "1 of 300 pairs" in caplog.text
    for name in ("train.en", "train.de"):
        write(tmp_path / name, [])
    with pytest.raises(td.UserError, match="have only blank lines"):
        data.load(files)


def test_a_damaged_cache_file_is_told(files, tmp_path):
    data.load(files)
    (kept,) = (tmp_path / "cache").glob("*.npz")
    kept.write_bytes(kept.read_bytes()[:100])
    with pytest.raises(td.UserError, match=r"cache file .* is corrupt .*: delete it and run again"):
        data.load(files)
