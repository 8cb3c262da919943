"""The site's parts that can be checked without building it; .ci/run builds it."""

import re

from conftest import ROOT

import td
from td.io.run_folder import flatten
from td.train.config import skeleton, text_data

PAGES = {path.name: path.read_text() for path in (ROOT / "docs" / "api").glob("*.md")}
MODULES = {"criteria", "importance", "masks", "select"}


def test_every_public_name_of_the_library_is_on_a_page():
    shown = set(re.findall(r"auto\w+:: td\.([\w.]+)", "".join(PAGES.values())))
    wanted = {*td.__all__} - MODULES | {*td.masks.__all__}
    assert {name.rpartition(".")[2] for name in shown} >= wanted


def test_every_page_of_the_api_and_every_tutorial_is_in_the_navigation():
    listed = (ROOT / "docs" / "index.md").read_text().splitlines()
    for folder in ("api", "tutorials"):
        assert {f"{folder}/{path.stem}" for path in (ROOT / "docs" / folder).glob("[!R]*.md")} <= {*listed}


def test_the_page_of_settings_has_every_default():
    parts = (ROOT / "docs" / "settings.md").read_text().split("## Text")
    own, text = (dict(re.findall(r"^\| `([\w.]+)` \| `(.*?)` \|", part, re.MULTILINE)) for part in parts)
    wanted = {name: str(value) or '""' for name, value in flatten(skeleton().to_dict()).items()}
    assert own == wanted
    of_text = {f"data.{name}": str(value) or '""' for name, value in text_data("text").items()}
    assert text == {name: value for name, value in of_text.items() if wanted.get(name) != value}
