"""Trained networks as files for other programs, and back."""

from td.export.formats import Exported, load_exported

__all__ = ["Exported", "load_exported"]
