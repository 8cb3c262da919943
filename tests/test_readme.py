"""Python on pages runs as it stands, the files that pages name exist, and pages stay short."""

import re
import shlex

import pytest
from conftest import ROOT

from td.criteria import CRITERIA
from td.masks import METHODS
from td.select import SCOPES

TEXT = (ROOT / "README.md").read_text()
DOCS = [str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")]
RESULTS = [str(path.relative_to(ROOT)) for path in (ROOT / "results").rglob("README.md")]
PAGES = ["README.md", *DOCS, *RESULTS]
WORDS = {"README.md": 800, "results/README.md": 1300}
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_blocks_run(number):
    exec(compile(BLOCKS[number], f"README.md block {number}", "exec"), {})


@pytest.mark.slow
def test_the_recipe_of_an_experiment_ends_in_a_picture(command, tmp_path):
    (block,) = re.findall(r"## Run an experiment\n+```sh\n(.*?)```", TEXT, re.DOTALL)
    prepare, *commands = re.sub(
        r"for (\w+) in (.*); do (.*); done",
        lambda loop: "\n".join(loop[3].replace(f"${loop[1]}", value) for value in loop[2].split()),
        block.replace("cifar10_resnet32", "digits_resnet")
        .replace("scale=cpu", "smoke")
        .replace("--compact", "--compact --rates=0,0.5")
        .replace("runs/", f"{tmp_path}/"),
    ).splitlines()
    assert prepare == "td-prepare-data cifar10"  # digits come with scikit-learn
    for line in commands:
        name, *arguments = shlex.split(line.replace("comparison.png", str(tmp_path / "comparison.png")))
        assert command(f"{name.removeprefix('td-').replace('-', '_')}.py", *arguments).code == 0
    assert (tmp_path / "comparison.png").stat().st_size


def test_the_example_of_a_drop_rate_per_layer_runs(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "methods.md").read_text(), re.DOTALL)
    exec(compile(block, "docs/methods.md", "exec"), {})
    assert "first/kernel" in capsys.readouterr().out


@pytest.mark.parametrize("page", [*WORDS, *sorted(DOCS)])
def test_a_page_is_short_and_its_lines_fit(page):
    text = (ROOT / page).read_text()
    assert len(text.split()) <= WORDS.get(page, 1500)
    assert not [line for line in text.splitlines() if len(line) > 120 and not line.startswith("|")]


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
