"""Networks made physically smaller, with equal outputs, by a pass over their equations."""

from td.compact.api import Compact, CompactParams, apply_plan, compact

__all__ = ["Compact", "CompactParams", "apply_plan", "compact"]
