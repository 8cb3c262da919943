"""The vocabulary of a text: byte-pair tokens, learned with SentencePiece."""

import io
from collections.abc import Sequence

import sentencepiece

from td.data.task import BEGIN, END, PADDING, UNKNOWN
from td.errors import UserError

MOST_LINES = 1_000_000
"""A vocabulary is learned from so many lines at most, spread evenly."""


def learn(lines: Sequence[str], size: int) -> bytes:
    """Learn byte-pair tokens with SentencePiece.

    Source: Sennrich et al. 2016 (byte pairs); Kudo and Richardson 2018.
    """
    model = io.BytesIO()
    every = -(-len(lines) // MOST_LINES)  # rounded up
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines[::every]),
            model_writer=model,
            vocab_size=size,
            model_type="bpe",
            # An alphabet is kept whole; of a text with names in other scripts the rarest characters are left out.
            character_coverage=1.0 if len(set().union(*lines)) <= 256 else 0.9995,
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
