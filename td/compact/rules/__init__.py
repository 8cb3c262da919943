"""Rules of primitives: constant propagation, liveness and emission."""

from td.compact.rules import conv, dot, elementwise, parts, passing, reduce, shape
from td.compact.rules.base import Rule

RULES: dict[str, Rule] = {
    name: rule
    for module in (elementwise, shape, parts, conv, dot, reduce, passing)
    for name, rule in module.RULES.items()
}
"""The rules by the names of primitives."""


def register_rule(name: str, rule: Rule) -> None:
    """Add a rule for a primitive to `td.compact`, or replace one.

    Args:
      name: of the primitive, as the summary has it: "frozen: my_primitive has no rule".
      rule: your own `Rule`, or that of a primitive that treats entries alike, from `td.compact.rules.RULES`.

    Example:
      >>> from td.compact.rules import RULES, register_rule
      >>> register_rule("my_activation", RULES["tanh"])  # elementwise, like tanh
    """
    RULES[name] = rule
