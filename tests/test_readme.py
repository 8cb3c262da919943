"""The README's Python runs as it stands, the files that all pages name exist, and it stays short."""

import re

import pytest
from conftest import ROOT

from td.criteria import CRITERIA
from td.masks import METHODS
from td.select import SCOPES

TEXT = (ROOT / "README.md").read_text()
PAGES = ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_blocks_run(number):
    exec(compile(BLOCKS[number], f"README.md block {number}", "exec"), {})


def test_the_readme_is_read_at_once():
    assert BLOCKS and len(TEXT.splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page):
    text = (ROOT / page).read_text()
    named = re.findall(
        r"(?<![\w./])(?:td|scripts|configs|results|tests|docs|examples)/[\w./-]+\.(?:py|md|json|png)\b", text
    )
    linked = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    missing = {name for name in named if not (ROOT / name).exists()}
    missing |= {name for name in linked if not (ROOT / page).parent.joinpath(name).exists()}
    assert not missing


def test_the_page_of_methods_has_every_method_and_every_criterion():
    page = (ROOT / "docs" / "methods.md").read_text()
    rows = set(re.findall(r"^\| `([\w:]+)`", page, re.MULTILINE))
    assert rows >= {*METHODS, *CRITERIA, *SCOPES}
