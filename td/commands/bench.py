"""The command td-bench."""

from pathlib import Path

from td.io import cli


@cli.command
def main(
    suite: str = "masks,training,populations,input,curves,compact",
    network: str = "ResNet-32,WRN-28-10,VGG-16,Transformer base",
    out: Path = Path("runs/bench"),
    baselines: bool = True,
    timing_repeats: int = 0,
    target: str = "h100",
) -> None:
    """Measure the costs of the code, interleaved in one run.

    Examples:
      td-bench --suite=masks --network=ResNet-32 --out=runs/bench
      td-bench --suite=compiled --target=h100 --network=ResNet-32

    Flags:
      suite: What to measure, with commas: masks, training, populations, input, curves, compact, compiled.
      network: Networks to measure, with commas: ResNet-32, WRN-28-10, VGG-16, Transformer base.
      out: Folder for a JSON and a Markdown file of each suite.

    Rarely needed:
      baselines: Also time other implementations of the same.
      timing_repeats: Timed calls of each function; 0: the suite's default.
      target: Device that the suite "compiled" compiles for: h100 or v5e.
    """
    from td.bench import compiled, suites

    for name in suite.split(","):
        if name == "compiled":
            parts = compiled.report(target, network.split(","), out)
        else:
            parts = suites.run(name, network.split(","), timing_repeats, baselines, out)
        for part in parts:
            print(f"{part}\n", flush=True)
