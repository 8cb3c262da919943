"""Trained networks as files for other programs, and back."""

from td.evaluate.export.load import Exported, load_exported

__all__ = ["Exported", "load_exported"]
