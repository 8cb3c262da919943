"""The list of the API that is read where the code is hosted has every name of the site's reference."""

import importlib
import inspect
import re
import sys
from pathlib import Path

from conftest import ROOT

API = ROOT / "docs" / "api"
DIRECTIVE = re.compile(r"^\.\. auto(?:function|class|exception|data):: (td\.[\w.]+)", re.MULTILINE)


def row(name):
    """The line of one name; data have no docstring at run time, so that their line ends after the link."""
    module, _, attribute = name.rpartition(".")
    thing = getattr(importlib.import_module(module), attribute)
    if not callable(thing):
        return f"| [`{name}`](../../td/"
    file = Path(sys.modules[thing.__module__].__file__).relative_to(ROOT)
    sentence = " ".join(inspect.getdoc(thing).split("\n\n")[0].split()).replace("|", r"\|")
    return f"| [`{name}`](../../{file}) | {sentence} |"


def test_the_list_has_every_name_with_the_first_sentence_of_its_docstring():
    listed = (API / "README.md").read_text()
    wanted = [row(name) for page in API.glob("[!R]*.md") for name in DIRECTIVE.findall(page.read_text())]
    assert len(wanted) > 60
    assert [line for line in wanted if line not in listed] == []
