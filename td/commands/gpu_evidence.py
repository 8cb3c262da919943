"""The command td-gpu-evidence."""

from pathlib import Path

from td.io import cli


@cli.command
def main(out: Path, from_: str = "", minutes: float = 14.0, scale: str = "paper") -> None:
    """Use a quarter of an hour of a GPU for what is worth most. Rerun the same command to continue.

    Examples:
      td-gpu-evidence --minutes=14 --out=evidence
      td-gpu-evidence --minutes=9 --out=second --from=first

    Flags:
      out: Folder for a summary, results and checkpoints, in files below 16 MiB.
      from: Folder of an earlier call to continue; default: out.
      minutes: Time for everything.
      scale: Size of the networks of Table 2: paper, short, small, cpu or smoke.
    """
    from td.bench.evidence import gather

    print(gather(minutes, out, Path(from_) if from_ else out, scale))
