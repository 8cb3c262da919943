"""Evaluation of trained networks: prune curves, translations, their tables and pictures."""
