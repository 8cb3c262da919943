"""The command td-bench."""

from pathlib import Path

from td.io import cli


@cli.command
def main(
    suite: str = "masks,training,populations,input,curves,compact",
    network: str = "",
    out: Path = Path("runs/bench"),
    baselines: bool = True,
    timing_repeats: int = 0,
    target: str = "h100",
    dtype: str = "",
) -> None:
    """Measure the costs of the code, interleaved in one run.

    Examples:
      td-bench --suite=masks --network=ResNet-32 --out=runs/bench
      td-bench --suite=compiled --target=h100 --network=ResNet-32

    Flags:
      suite: What to measure, with commas: masks, training, populations, input, curves, compact, compiled.
      network: Networks to measure, with commas, as ResNet-32,VGG-16; default: those of the suite.
      out: Folder for a JSON and a Markdown file of each suite.

    Rarely needed:
      baselines: Also time PyTorch, Torch-Pruning and minimal Flax code.
      timing_repeats: Timed calls of each function; 0: the suite's default.
      target: Device that the suite "compiled" compiles for: h100 or v5e.
      dtype: Dtype in which td's networks compute, as bfloat16; default: the config's.
    """
    from td.bench import compiled, suites

    networks = network.split(",") if network else []
    for name in suite.split(","):
        if name == "compiled":
            parts = iter([compiled.report(target, networks, out)])
        else:
            parts = suites.run(name, networks, timing_repeats, baselines, out, dtype)
        for part in parts:
            print(f"{part}\n", flush=True)
