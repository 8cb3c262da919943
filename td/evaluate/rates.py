"""Prune rates as they are written on a command line."""

from decimal import Decimal

from td.errors import UserError, check_fraction


def parse_rates(text: str) -> list[float]:
    """Read prune rates: `first:last:step`, both ends included, or a list with commas.

    Example:
      >>> parse_rates("0:0.3:0.1")
      [0.0, 0.1, 0.2, 0.3]
      >>> parse_rates("0-0.9")
      Traceback (most recent call last):
        ...
      td.errors.UserError: rates '0-0.9' are malformed: write first:last:step, like 0:0.9:0.1, or a list, like 0.5,0.9
    """
    rest = Decimal(0)
    try:
        if ":" in text:
            first, last, step = (Decimal(part) for part in text.split(":"))
            count, rest = divmod(last - first, step)
            rates = [float(first + i * step) for i in range(int(count) + 1)]
        else:
            rates = [float(Decimal(part)) for part in text.split(",")]
    except (ValueError, ArithmeticError):
        rates = []
    if not rates:
        raise UserError(
            f"rates {text!r} are malformed: write first:last:step, like 0:0.9:0.1, or a list, like 0.5,0.9"
        ) from None
    if rest:
        nearest = f"{first}:{rates[-1]:g}:{step}"
        raise UserError(f"rates {text!r} end at {rates[-1]:g}, not at {last}: write {nearest}, or a list")
    for rate in rates:
        check_fraction("prune rate", rate)
    return list(dict.fromkeys(rates))
