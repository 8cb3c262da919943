"""Translation data: parallel text, tokenized once with a learned vocabulary and kept in a cache file."""

import gzip
import hashlib
import io
import logging
import lzma
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sentencepiece

from td.data import number_words
from td.data.base import BEGIN, END, PADDING, UNKNOWN, Dataset, split_indices, translation
from td.data.sentence_pairs import Pairs, Sentences
from td.data.tfds_folder import cache_folder, find, folder_of
from td.errors import UserError, check_choice, lookup
from td.io.files import load_arrays, replacing
from td.io.progress import progress

LOG = logging.getLogger(__name__)

SIDES = ("source", "target")
Lines = tuple[list[str], list[str]]  # sentences and their translations


class Corpus(NamedTuple):
    """Text of two languages."""

    identity: str  # changes with the training text
    test_identity: str  # changes with the test text
    read: Callable[[str], Lines]  # split, "train" or "test" -> lines


def text_files(settings: Mapping[str, Any]) -> Corpus:
    """Build a corpus of your own text files."""
    names = [f"{split}_{side}" for split in ("train", "test") for side in SIDES]
    files = {name: _existing(f"data.{name}", settings[name]) for name in names}
    digests = {name: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for name, file in files.items()}
    train, test = ("-".join(digests[f"{split}_{side}"] for side in SIDES) for split in ("train", "test"))

    def read(split: str) -> Lines:
        source, target = files[f"{split}_source"], files[f"{split}_target"]
        lines = _read(source), _read(target)
        if len(lines[0]) != len(lines[1]):
            raise UserError(f"{source} has {len(lines[0])} lines, {target} has {len(lines[1])}: give one per sentence")
        return _without_blanks(*lines, f"{source} and {target}")

    return Corpus(f"text-{train}", test, read)


def _existing(name: str, path: str) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"{name}={path!r} is not a file: name a text file, plain, .gz or .xz")
    return file


def _read(path: Path) -> list[str]:
    opener: Any = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)
    try:
        with opener(path, "rt", encoding="utf-8", newline="\n") as file:
            return [line.rstrip("\r\n") for line in file]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except (lzma.LZMAError, EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is damaged: {error}") from None


def _without_blanks(source: list[str], target: list[str], where: str) -> Lines:
    """Keep the pairs of which neither side is blank."""
    pairs = [(a, b) for a, b in zip(source, target, strict=True) if a.strip() and b.strip()]
    if not pairs:
        raise UserError(f"{where} have only blank lines")
    dropped = len(source) - len(pairs)
    if dropped:
        LOG.warning("%d of %d pairs of %s are blank on one side: dropped", dropped, len(source), where)
    return [a for a, _ in pairs], [b for _, b in pairs]


def tfds_text(settings: Mapping[str, Any]) -> Corpus:
    """Build a corpus of a prepared TFDS translation set."""
    name = settings["name"]
    builder = find(name, folder_of(settings["data_dir"]))
    languages = [settings[side] for side in SIDES]
    for language in languages:
        check_choice("language", language, builder.info.features)

    def read(split: str) -> Lines:
        rows = [[row[language].decode() for language in languages] for row in builder.as_data_source(split)]
        where = f"{' and '.join(languages)} of {split} in {builder.data_dir}"
        return _without_blanks([source for source, _ in rows], [target for _, target in rows], where)

    return Corpus("-".join([name.replace("/", "-"), str(builder.version), *languages]), "test", read)


CORPORA: dict[str, Callable[[Mapping[str, Any]], Corpus]] = {
    "numbers": lambda _: Corpus("numbers", "test", number_words.read),
    "text": text_files,
    "wmt14_translate/de-en": tfds_text,
}

MOST_LINES = 1_000_000
"""Largest number of lines to learn a vocabulary from, evenly spaced, half of them in either language."""

CACHE_VERSION = "2"
"""Version of the cache, raised whenever the same text would give other tokens."""


def load(
    name: str,
    vocabulary: int = 32_000,
    lengths: Sequence[int] = (16, 32, 64, 128),
    too_long: str = "drop",
    validation: int = 0,
    cache_dir: str = "",
    **settings: Any,
) -> Dataset:
    """Load sentence pairs; the test text is scored (newstest2014 for WMT14)."""
    check_choice("data.too_long", too_long, ("drop", "cut"))
    lengths = tuple(lengths)
    if not lengths or list(lengths) != sorted(set(lengths)) or lengths[0] < 1:
        raise UserError(f"data.lengths={lengths} is malformed: give increasing positive numbers of tokens")
    corpus = lookup(CORPORA, name, "text")({"name": name, **settings})
    path = cache_folder(cache_dir) / f"{corpus.identity}-{vocabulary}-{corpus.test_identity}-{CACHE_VERSION}.npz"
    if not path.exists():
        _tokenize(corpus, vocabulary, path)
    arrays = load_arrays(path, f"cache file {path} is corrupt", "delete it and run again")
    processor = sentencepiece.SentencePieceProcessor(model_proto=arrays["model"].tobytes())
    pairs = _pairs(arrays, "train", lengths)
    identity = _identity(corpus, vocabulary, pairs.size, validation)
    pairs = _fit(pairs, too_long)
    if validation:
        rest, scored = split_indices(pairs.size, validation)
        evaluation = pairs.chosen(scored)
        evaluation = evaluation._replace(references=tuple(processor.decode(evaluation.target.lists())))
        pairs = pairs.chosen(rest)
    else:
        evaluation = _pairs(arrays, "test", lengths)._replace(references=tuple(corpus.read("test")[1]))
        cut = int(evaluation.too_long().sum())
        if cut:
            LOG.warning("%d of %d test pairs are truncated to %d tokens", cut, evaluation.size, lengths[-1])
    return Dataset(pairs, evaluation, vocabulary, translation(), processor, identity)


def _identity(corpus: Corpus, vocabulary: int, pairs: int, validation: int) -> str:
    # The spacing is in it because the vocabulary of a thinned text once had tokens of one language alone.
    thinned = f"-every{_spacing(pairs)}" if _spacing(pairs) > 1 else ""
    scored = "" if validation else f" scored on {corpus.test_identity}"
    return f"{corpus.identity}-{vocabulary}{thinned}{scored}"


def _spacing(pairs: int) -> int:
    """Return n if the vocabulary is learned from every n-th pair."""
    return -(-2 * pairs // MOST_LINES)  # rounded up


def _tokenize(corpus: Corpus, vocabulary: int, path: Path) -> None:
    """Learn the vocabulary, tokenize the text, and write both."""
    texts = {split: corpus.read(split) for split in ("train", "test")}
    model = learn_vocabulary(*texts["train"], vocabulary)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    arrays: dict[str, Any] = {"model": np.frombuffer(model, np.uint8)}
    for split, lines in texts.items():
        for side, text in zip(SIDES, lines, strict=True):
            sentences = _encode(processor, text, f"tokenize {split}_{side}")
            arrays |= {f"{split}_{side}_tokens": sentences.tokens, f"{split}_{side}_ends": sentences.ends}
    with replacing(path) as temporary:
        np.savez(temporary, **arrays)


def learn_vocabulary(source: Sequence[str], target: Sequence[str], size: int) -> bytes:
    """Learn byte-pair tokens of both languages (Sennrich et al. 2016; SentencePiece: Kudo and Richardson 2018)."""
    model = io.BytesIO()
    every = _spacing(len(source))
    pairs = zip(source[::every], target[::every], strict=True)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(line for pair in pairs for line in pair),
            model_writer=model,
            vocab_size=size,
            model_type="bpe",
            # A small alphabet is kept whole; of a text with names in other scripts the rarest characters are dropped.
            character_coverage=1.0 if len(set().union(*source, *target)) <= 256 else 0.9995,
            pad_id=PADDING,
            bos_id=BEGIN,
            eos_id=END,
            unk_id=UNKNOWN,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        # "INTERNAL: file(line) [condition] what is wrong or what to do with one of its own flags"
        reason = str(error).splitlines()[-1].rpartition("] ")[2].partition(" or decrease")[0]
        raise UserError(f"data.vocabulary={size} does not suit this text: {reason}") from None
    return model.getvalue()


def _encode(processor: sentencepiece.SentencePieceProcessor, text: list[str], what: str) -> Sentences:
    parts = [text[start : start + 100_000] for start in range(0, len(text), 100_000)]
    bar = progress(parts, desc=what, unit="part", disable=len(parts) == 1)
    return Sentences.of(tokens for part in bar for tokens in processor.encode(part, add_eos=True))


def _pairs(arrays: Mapping[str, np.ndarray], split: str, lengths: tuple[int, ...]) -> Pairs:
    source, target = (Sentences(arrays[f"{split}_{side}_tokens"], arrays[f"{split}_{side}_ends"]) for side in SIDES)
    return Pairs(source, target, lengths)


def _fit(pairs: Pairs, too_long: str) -> Pairs:
    """Drop the pairs that are longer than the longest length, or leave them to be truncated."""
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
