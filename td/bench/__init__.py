"""What the code costs, measured side by side in one run: `scripts/bench.py` prints it."""
