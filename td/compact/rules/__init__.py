"""Rules: how each primitive passes on constants, liveness and smaller arrays."""

from td.compact.rules import conv, dot, elementwise, indexing, reduce, shape
from td.compact.rules.base import Rule

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **shape.RULES,
    **conv.RULES,
    **dot.RULES,
    **reduce.RULES,
    **indexing.RULES,
}
"""The rules by the names of primitives."""


def register_rule(name: str, rule: Rule) -> None:
    """Teach `td.compact` a primitive.

    Args:
      name: of the primitive, as the summary names it: "frozen: my_primitive has no rule".
      rule: a rule of your own, or that of a primitive that treats entries alike, out of `td.compact.rules.RULES`.

    Example:
      >>> from td.compact.rules import RULES, register_rule
      >>> register_rule("my_activation", RULES["tanh"])  # elementwise, like tanh
    """
    RULES[name] = rule
