"""Sweeps: many settings of one config, trained and pruned on one machine or many."""
