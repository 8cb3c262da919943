"""The distribution's name and version are the same wherever they stand."""

import configparser
import re

from conftest import ROOT

import td

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def test_extras_name_the_distribution():
    extras = "\n".join(SETUP["options.extras_require"].values())
    assert set(re.findall(r"^([\w-]+)\[[\w,]+\]$", extras, re.MULTILINE)) == {SETUP["metadata"]["name"]}


def test_citations_have_the_version():
    assert re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1] == td.__version__
    assert f"version = {{{td.__version__}}}" in (ROOT / "docs" / "citing.md").read_text()


def test_the_changelog_has_a_section_for_the_version_and_one_for_what_comes():
    sections = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[:2] == ["Unreleased", td.__version__]
