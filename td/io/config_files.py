"""Config files that came with `td`: next to it in a checkout, inside of it when installed."""

from pathlib import Path

from td.errors import UserError, nearest

PACKAGE = Path(__file__).resolve().parents[1]
FOLDER = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parent / "configs"
"""The folder of these configs."""


def find(name: str) -> Path:
    """Find a config: your own file, else one that came with this package, with or without folder and suffix."""
    path = Path(name)
    if path.is_file():
        return path
    shipped, own = FOLDER / path.with_suffix(".py").name, path.parent.glob("*.py")
    if path.parent not in (Path(), Path("configs")):
        raise UserError(f"no config file {path}: {nearest(path.name, {file.name for file in own})}")
    if shipped.is_file():
        return shipped
    known = {file.name for file in own} | {file.name if path.suffix else file.stem for file in FOLDER.glob("*.py")}
    raise UserError(f"no config file {path}: {nearest(path.name, known)}")
