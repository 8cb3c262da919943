"""Compact drawn networks and print the wrong ones: python scripts/fuzz.py --networks=1000 --seed=0."""

import argparse
import sys
from pathlib import Path

import jax

from td.io.progress import progress

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))


def main() -> None:
    """Draw networks of successive seeds; exit with 1 where any is wrong."""
    from fuzz_networks import problem_of  # type: ignore[import-not-found]

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=1000, help="number of networks")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first; the others follow")
    asked = parser.parse_args()
    jax.config.update("jax_disable_most_optimizations", True)
    bar, wrong = progress(range(asked.seed, asked.seed + asked.networks), unit="network"), 0
    for seed in bar:
        problem = problem_of(seed)
        if problem:
            wrong += 1
            bar.write(f"{problem}\n")
    bar.close()
    print(f"{wrong} of {asked.networks} networks are wrong")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
