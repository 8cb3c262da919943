"""Trained networks as files for other programs, and back."""

from td.export.function import Files, export
from td.export.networks import Exported, load_exported

__all__ = ["Exported", "Files", "export", "load_exported"]
