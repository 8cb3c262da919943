"""Every script is a console command too, and a wheel has all that they need."""

import configparser
import importlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT

from td.io import signature

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
ENTRIES = SETUP["options.entry_points"]["console_scripts"]
COMMANDS = {path.stem for path in (ROOT / "td" / "commands").glob("*.py")} - {"__init__"}


def test_every_command_has_a_script_and_an_entry_point():
    assert {path.stem for path in (ROOT / "scripts").glob("*.py")} == {*COMMANDS, "fuzz"}  # which wants the tests
    wanted = {f"td-{name.replace('_', '-')} = td.commands.{name}:main" for name in COMMANDS}
    assert {line for line in ENTRIES.splitlines() if line.strip() and not line.startswith("#")} == wanted
    for name in COMMANDS:
        assert f"td.commands.{name} import main" in (ROOT / "scripts" / f"{name}.py").read_text()


def test_an_entry_point_says_what_it_does_and_shows_its_flags(tmp_path):
    line = [sys.executable, "-c", "from td.commands.prune_curve import main; main()", "--help"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    everyday, rare = done.stdout.split("Rarely needed:")
    assert done.returncode == 0 and "Prune a trained network at several rates" in everyday
    assert "--rates=0:0.9:0.1" in everyday and "--[no]recalibrate_batch_norm" in everyday and "--beams=4" in rare


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_has_two_examples_whose_flags_exist(name):
    main = importlib.import_module(f"td.commands.{name}").main.__wrapped__
    examples = [line.split() for line in signature.sections(main.__doc__)["Examples"].splitlines()]
    known = {flag.name for _, flags in signature.flags_of(main).values() for flag in flags}
    assert len(examples) >= 2 and {words[0] for words in examples} == {f"td-{name.replace('_', '-')}"}
    given = {re.split(r"[=.]", word)[0] for words in examples for word in words if word.startswith("--")}
    assert given <= {f"--{flag}" for flag in known}


@pytest.mark.slow
def test_a_wheel_has_the_cards_and_the_published_tables(tmp_path):
    checkout = tmp_path / "checkout"
    for folder in ("td", "configs"):
        shutil.copytree(ROOT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (path for path in ROOT.iterdir() if path.is_file()):
        shutil.copy(path, checkout)
    line = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(checkout)]
    subprocess.run(line, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    cards = {f"td/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.py")}
    tables = {str(path.relative_to(ROOT)) for path in (ROOT / "td" / "reproduce" / "published").glob("*.csv")}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "td").rglob("*.py")}
    assert len(cards) >= 21 and len(tables) >= 13
    assert cards | tables | modules | {"td/py.typed"} <= inside
