"""Numbers from 0 to 9,999 in English words and in German ones: a language small enough for a first try, no download."""

import numpy as np

from td.data.lines import Lines

# fmt: off
ENGLISH = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)
ENGLISH_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
GERMAN = (
    "null", "ein", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf",
    "dreizehn", "vierzehn", "fünfzehn", "sechzehn", "siebzehn", "achtzehn", "neunzehn",
)
GERMAN_TENS = ("zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig")
# fmt: on

TRAIN_EXAMPLES = 9_000


def english(number: int) -> str:
    """A number in English words.

    Args:
      number: 0 to 9,999.

    Returns:
      The words.

    Example:
      >>> english(4321)
      'four thousand three hundred twenty one'
    """
    parts = []
    for size, name in ((1000, "thousand"), (100, "hundred")):
        count, number = divmod(number, size)
        parts += [ENGLISH[count], name] if count else []
    tens, ones = divmod(number, 10) if number >= 20 else (0, number)
    parts += [ENGLISH_TENS[tens - 2]] if tens else []
    return " ".join(parts + ([ENGLISH[ones]] if ones or not (parts or tens) else []))


def german(number: int) -> str:
    """A number in German words, with spaces between thousands, hundreds and the rest.

    Args:
      number: 0 to 9,999.

    Returns:
      The words.

    Example:
      >>> german(4321)
      'viertausend dreihundert einundzwanzig'
    """
    parts = []
    for size, name in ((1000, "tausend"), (100, "hundert")):
        count, number = divmod(number, size)
        parts += [GERMAN[count] + name] if count else []
    tens, ones = divmod(number, 10) if number >= 20 else (0, number)
    last = "eins" if ones == 1 and not tens else GERMAN[ones]
    if tens:
        last = (f"{last}und" if ones else "") + GERMAN_TENS[tens - 2]
    return " ".join(parts + ([last] if number or not parts else []))


def read(split: str) -> Lines:
    """The numbers of one split, in a fixed random order.

    Args:
      split: "train", 9,000 numbers, or "test", the other 1,000.

    Returns:
      English and German lines.

    Example:
      >>> [len(lines) for lines in read("test")]
      [1000, 1000]
    """
    order = np.random.default_rng(0).permutation(10_000).tolist()
    chosen = order[:TRAIN_EXAMPLES] if split == "train" else order[TRAIN_EXAMPLES:]
    return [english(number) for number in chosen], [german(number) for number in chosen]
