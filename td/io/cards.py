"""Where the experiment cards are: beside `td` in a checkout, inside of it when installed."""

from pathlib import Path

from td.errors import UserError, nearest

PACKAGE = Path(__file__).resolve().parents[1]
FOLDER = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parent / "configs"
"""The folder of cards that came with this package."""


def find(name: str) -> Path:
    """Find a config file: the user's own, else the card of that name.

    Args:
      name: a file, as "my/own.py"; a card, as "cifar10_resnet32"; or a card as a checkout has it,
        "configs/cifar10_resnet32.py", from any folder.

    Returns:
      The file.

    Raises:
      UserError: there is neither; the line gives the nearest valid name.

    Example:
      >>> find("mnist_mlp") == find("configs/mnist_mlp.py").resolve()
      True
      >>> find("mnist_mpl")
      Traceback (most recent call last):
        ...
      td.errors.UserError: no config file mnist_mpl: did you mean 'mnist_mlp'? (valid: ...)
    """
    path = Path(name)
    if not path.name:
        raise UserError(f"--config={name} is not a file: give one of configs/*.py, as configs/digits_resnet.py")
    if path.is_file():
        return path
    card = FOLDER / path.with_suffix(".py").name
    own_folder = path.parent not in (Path(), Path("configs"))
    if card.is_file() and not own_folder:
        return card
    beside = {file.name for file in path.parent.glob("*.py")}
    cards = {file.name for file in FOLDER.glob("*.py")}
    if path.suffix != ".py":
        cards = {Path(file).stem for file in cards}
    known = beside if own_folder else beside | cards
    raise UserError(f"no config file {path}: {nearest(path.name, known)}")
