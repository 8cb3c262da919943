"""The one table: what is known of each primitive."""

from td.compact import rules_conv, rules_dot, rules_elementwise, rules_index, rules_reduce, rules_shape
from td.compact.rule import Rule

RULES: dict[str, Rule] = {
    **rules_elementwise.RULES,
    **rules_shape.RULES,
    **rules_conv.RULES,
    **rules_dot.RULES,
    **rules_reduce.RULES,
    **rules_index.RULES,
}
