"""Translation data: two text files line by line, a TFDS set, or numbers; cut into tokens once and kept."""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sentencepiece

from td.data import number_words
from td.data.base import Dataset, held_out
from td.data.sentence_pairs import Pairs, Sentences
from td.data.task import translation
from td.data.text_files import Lines, existing, parallel, without_blanks
from td.data.tfds_folder import cache_folder, find, folder_of, read_arrays
from td.data.vocabulary import learn, spacing
from td.errors import UserError, check_choice, lookup
from td.io.files import replacing
from td.io.progress import progress

LOG = logging.getLogger(__name__)

SIDES = ("source", "target")

PART = 100_000
"""Lines that are cut into tokens at a time."""

CACHED = "2"
"""Of what is kept: a number of its own wherever the same text would give other tokens."""


class Corpus(NamedTuple):
    """Text of two languages."""

    identity: str  # changes with the text to learn from
    test_identity: str  # changes with the text to be scored on
    read: Callable[[str], Lines]  # split -> lines; "train" is what is learned from, "test" what is scored


def _files(settings: Mapping[str, Any]) -> Corpus:
    names = [f"{split}_{side}" for split in ("train", "test") for side in SIDES]
    files = {name: existing(f"data.{name}", settings[name]) for name in names}
    digests = {name: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for name, file in files.items()}
    train, test = ("-".join(digests[f"{split}_{side}"] for side in SIDES) for split in ("train", "test"))

    def read(split: str) -> Lines:
        return parallel(files[f"{split}_source"], files[f"{split}_target"])

    return Corpus(f"text-{train}", test, read)


def _tfds(settings: Mapping[str, Any]) -> Corpus:
    name = settings["name"]
    builder = find(name, folder_of(settings["data_dir"]))
    languages = [settings["source"], settings["target"]]
    for language in languages:
        check_choice("language", language, builder.info.features)

    def read(split: str) -> Lines:
        rows = [[row[language].decode() for language in languages] for row in builder.as_data_source(split)]
        where = f"{' and '.join(languages)} of {split} in {builder.data_dir}"
        return without_blanks([source for source, _ in rows], [target for _, target in rows], where)

    return Corpus("-".join([name.replace("/", "-"), str(builder.version), *languages]), "test", read)


CORPORA: dict[str, Callable[[Mapping[str, Any]], Corpus]] = {
    "numbers": lambda _: Corpus("numbers", "test", number_words.read),
    "text": _files,
    "wmt14_translate/de-en": _tfds,
}


def load(
    name: str,
    vocabulary: int = 32_000,
    lengths: Sequence[int] = (16, 32, 64, 128),
    too_long: str = "drop",
    validation: int = 0,
    cache_dir: str = "",
    **settings: Any,
) -> Dataset:
    """Load pairs of sentences; the test text is what is scored (newstest2014 for WMT14)."""
    check_choice("data.too_long", too_long, ("drop", "cut"))
    lengths = tuple(lengths)
    if not lengths or list(lengths) != sorted(set(lengths)) or lengths[0] < 1:
        raise UserError(f"data.lengths={lengths} is not understood: give positive numbers of tokens, rising")
    corpus = lookup(CORPORA, name, "text")({"name": name, **settings})
    path = cache_folder(cache_dir) / f"{corpus.identity}-{vocabulary}-{corpus.test_identity}-{CACHED}.npz"
    if not path.exists():
        _prepare(corpus, vocabulary, path)
    arrays = read_arrays(path)
    processor = sentencepiece.SentencePieceProcessor(model_proto=arrays["model"].tobytes())
    pairs = _pairs(arrays, "train", lengths)
    identity = _identity(corpus, vocabulary, pairs.size, validation)
    pairs = _fit(pairs, too_long)
    if validation:
        rest, scored = held_out(pairs.size, validation)
        evaluation = pairs.chosen(scored)
        evaluation = evaluation._replace(references=tuple(processor.decode(evaluation.target.lists())))
        pairs = pairs.chosen(rest)
    else:
        evaluation = _pairs(arrays, "test", lengths)._replace(references=tuple(corpus.read("test")[1]))
        cut = int(evaluation.too_long().sum())
        if cut:
            LOG.warning("%d of %d test pairs are cut off after %d tokens", cut, evaluation.size, lengths[-1])
    return Dataset(pairs, evaluation, vocabulary, translation(), processor, identity)


def _identity(corpus: Corpus, vocabulary: int, pairs: int, validation: int) -> str:
    # The vocabulary of a thinned text once had tokens of one language alone: runs that learned from that are others.
    thinned = f"-every{spacing(pairs)}" if spacing(pairs) > 1 else ""
    scored = "" if validation else f" scored on {corpus.test_identity}"
    return f"{corpus.identity}-{vocabulary}{thinned}{scored}"


def _prepare(corpus: Corpus, vocabulary: int, path: Path) -> None:
    """Learn the vocabulary, cut the text into tokens, and write both."""
    texts = {split: corpus.read(split) for split in ("train", "test")}
    model = learn(*texts["train"], vocabulary)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    arrays: dict[str, Any] = {"model": np.frombuffer(model, np.uint8)}
    for split, lines in texts.items():
        for side, text in zip(SIDES, lines, strict=True):
            sentences = _encode(processor, text, f"tokens of {split}_{side}")
            arrays |= {f"{split}_{side}_tokens": sentences.tokens, f"{split}_{side}_ends": sentences.ends}
    with replacing(path) as temporary:
        np.savez(temporary, **arrays)


def _encode(processor: sentencepiece.SentencePieceProcessor, text: list[str], what: str) -> Sentences:
    # In parts: lists of numbers take ten times the memory of arrays.
    parts = [text[start : start + PART] for start in range(0, len(text), PART)]
    bar = progress(parts, desc=what, unit="part", disable=len(parts) == 1)
    return Sentences.joined([Sentences.of(processor.encode(part, add_eos=True)) for part in bar])


def _pairs(arrays: Mapping[str, np.ndarray], split: str, lengths: tuple[int, ...]) -> Pairs:
    source, target = (Sentences(arrays[f"{split}_{side}_tokens"], arrays[f"{split}_{side}_ends"]) for side in SIDES)
    return Pairs(source, target, lengths)


def _fit(pairs: Pairs, too_long: str) -> Pairs:
    """Drop or leave to be cut what is longer than the longest length, and say how many."""
    longer, longest = pairs.too_long(), pairs.lengths[-1]
    if not longer.any():
        return pairs
    what = "dropped" if too_long == "drop" else "cut off"
    LOG.warning("%d of %d training pairs are longer than %d tokens: %s", longer.sum(), pairs.size, longest, what)
    if too_long == "cut":
        return pairs
    if longer.all():
        raise UserError(f"every training pair is longer than {longest} tokens: give longer data.lengths")
    return pairs.chosen(np.flatnonzero(~longer))
