"""Costs of the code, interleaved in one run: td-bench."""
