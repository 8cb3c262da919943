"""Numbers from 0 to 9,999 in English and German words: a translation task without a download."""

import numpy as np

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


def english(number: int) -> str:
    """Write a number in English words."""
    thousands, hundreds, tens, ones = _parts(number)
    words = [ENGLISH[thousands], "thousand"] if thousands else []
    words += [ENGLISH[hundreds], "hundred"] if hundreds else []
    words += [ENGLISH_TENS[tens - 2]] if tens else []
    return " ".join(words + ([ENGLISH[ones]] if ones or not number else []))


def german(number: int) -> str:
    """Write a number in German words, with spaces between thousands, hundreds and the rest."""
    thousands, hundreds, tens, ones = _parts(number)
    words = [f"{GERMAN[thousands]}tausend"] if thousands else []
    words += [f"{GERMAN[hundreds]}hundert"] if hundreds else []
    if tens:
        words += [(f"{GERMAN[ones]}und" if ones else "") + GERMAN_TENS[tens - 2]]
    elif ones or not number:
        words += ["eins" if ones == 1 else GERMAN[ones]]
    return " ".join(words)


def _parts(number: int) -> tuple[int, int, int, int]:
    """Split into thousands, hundreds, tens and ones; numbers up to nineteen have words of their own: all ones."""
    rest = number % 100
    return number // 1000, number // 100 % 10, *(divmod(rest, 10) if rest >= 20 else (0, rest))


def read(split: str) -> tuple[list[str], list[str]]:
    """Read the numbers of one split, in a fixed random order."""
    order = np.random.default_rng(0).permutation(10_000).tolist()
    chosen = order[:9_000] if split == "train" else order[9_000:]
    return [english(number) for number in chosen], [german(number) for number in chosen]
