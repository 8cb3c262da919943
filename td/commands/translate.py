"""The command td-translate."""

from td.io import cli
from td.io.files import Path


@cli.command
def main(workdir: Path, rate: float = 0.0, show: int = 10, beams: int = 4, length_penalty: float = 0.6) -> None:
    """Translate the test text with a trained network, and score it by BLEU.

    Examples:
      td-translate --workdir=runs/wmt
      td-translate --workdir=runs/wmt --rate=0.5 --show=3

    Flags:
      workdir: Run folder made by td-train.
      rate: Fraction to prune first.
      show: Sentences to print.

    Rarely needed:
      beams: Width of the beam search; 1 is greedy.
      length_penalty: Strength of the preference for longer translations.
    """
    from td.evaluate.translate import translate_run

    print(translate_run(workdir, rate, beams, length_penalty, show))
