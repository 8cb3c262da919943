"""The README's Python runs as it stands, and the files that it names exist."""

import re

import pytest
from conftest import ROOT

from td.criteria import CRITERIA
from td.masks import METHODS
from td.select import SCOPES

TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_blocks_run(number):
    assert len(BLOCKS) >= 3
    exec(compile(BLOCKS[number], f"README.md block {number}", "exec"), {})


def test_files_that_are_named_exist():
    named = set(re.findall(r"\b(?:scripts|configs|results|tests|docs)/[\w./-]+\.\w+", TEXT))
    assert len(named) > 5 and not [name for name in named if not (ROOT / name).exists()]


def test_the_page_of_methods_has_every_method_and_every_criterion():
    page = (ROOT / "docs" / "methods.md").read_text()
    rows = set(re.findall(r"^\| `([\w:]+)`", page, re.MULTILINE))
    assert rows >= {*METHODS, *CRITERIA, *SCOPES}
