"""The vocabulary of a text: byte-pair tokens, learned with SentencePiece."""

import io
from collections.abc import Sequence

import sentencepiece

from td.data.task import BEGIN, END, PADDING, UNKNOWN
from td.errors import UserError

MOST_LINES = 1_000_000
"""A vocabulary is learned from so many lines at most, as many of either language, spread evenly."""


def spacing(pairs: int) -> int:
    """Of so many pairs every how many-th is learned from.

    Example:
      >>> spacing(500_000), spacing(500_001), spacing(4_500_000)
      (1, 2, 9)
    """
    return -(-2 * pairs // MOST_LINES)  # rounded up


def learn(source: Sequence[str], target: Sequence[str], size: int) -> bytes:
    """Learn byte-pair tokens of both languages with SentencePiece.

    Source: Sennrich et al. 2016 (byte pairs); Kudo and Richardson 2018.
    """
    model = io.BytesIO()
    every = spacing(len(source))
    pairs = zip(source[::every], target[::every], strict=True)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(line for pair in pairs for line in pair),
            model_writer=model,
            vocab_size=size,
            model_type="bpe",
            # An alphabet is kept whole; of a text with names in other scripts the rarest characters are left out.
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
