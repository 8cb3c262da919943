"""Measure what the code costs, side by side in one run: td-bench --suite=masks --out=DIR."""

from pathlib import Path

from absl import flags

from td.bench import compiled, suites
from td.errors import UserError
from td.io import cli

SUITE = flags.DEFINE_list("suite", list(suites.SUITES), f"What to measure, of: {', '.join(suites.SUITES)}, compiled.")
TARGET = flags.DEFINE_string("target", "h100", "For which device the suite compiled compiles: h100 or v5e.")
NETWORK = flags.DEFINE_list("network", list(suites.NETWORKS), "On which, of: " + ", ".join(suites.NETWORKS) + ".")
CALLS = flags.DEFINE_integer("calls", 0, "How often each function is timed; 0: as each suite has it.")
PEERS = flags.DEFINE_bool("peers", True, "Time other ways of doing the same beside ours.")
OUT = flags.DEFINE_string("out", "runs/bench", "Folder for one JSON and one Markdown file a suite.")


@cli.command
def main(_: list[str]) -> None:
    if TARGET.present and "compiled" not in SUITE.value:
        raise UserError("--target is of the suite compiled: give --suite=compiled, or leave it")
    for name in SUITE.value:
        if name == "compiled":
            parts = compiled.report(TARGET.value, NETWORK.value, Path(OUT.value))
        else:
            parts = suites.run(name, NETWORK.value, CALLS.value, PEERS.value, Path(OUT.value))
        for part in parts:
            print(f"{part}\n", flush=True)
