"""A table and a method of your own, by path."""

import json

import pytest
from conftest import ROOT, small_request

from td.errors import UserError
from td.reproduce.jobs import list_jobs, modes_of, planned, reproduce
from td.reproduce.report import write_report
from td.reproduce.table import Request, load_table

CONFIGS = ROOT / "configs"

pytestmark = pytest.mark.usefixtures("quick_pictures")

OWN_METHOD = """
import td
from td.masks import Method, targeted

def mine(drop_rate=0.5, target_proportion=0.75, evaluation="dense", *, kernels=td.KERNELS):
    return targeted("weight", target_proportion, drop_rate, evaluation=evaluation, kernels=kernels)

mine.method = Method(mine, published_modes={"weight": "prune_targets"})
"""

OWN_TABLE = """
from td.reproduce.claims import beats
from td.reproduce.table import Table, networks

def get_table():
    own = [{"mask": "my_methods:mine", "mask.drop_rate": 0.66}]
    columns = networks("mnist_mlp", [{"mask": "none"}], "0,0.5") + networks("mnist_mlp", own, "0,0.5", column="mine")
    return Table("Mine", columns, scorings=("paper",), claims=(beats("mine", "none", 0.5),))
"""


def test_a_table_of_your_own_by_path_with_a_method_of_your_own(tmp_path, monkeypatch):
    (tmp_path / "my_methods.py").write_text(OWN_METHOD)
    (tmp_path / "my.table.py").write_text(OWN_TABLE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    request = small_request(tmp_path)._replace(tables=("./my.table.py",))
    assert "2 finished" in reproduce(request)
    results = [json.loads(path.read_text()) for path in (request.folder / "my.table").glob("mnist*.json")]
    assert {result["column"]: [*result["curves"]] for result in results} == {
        "none": ["dense"],
        "mine": ["dense", "prune_targets"],
    }
    text = (request.folder / "my.table.md").read_text()
    assert "scripts/reproduce.py ./my.table.py --scale=smoke" in text
    (heading,) = [line for line in text.splitlines() if line.startswith("| claim")]
    assert "| mine above none at 50 %" in text and "published" not in heading
    (tmp_path / "my.table.py").unlink()  # the folder of results has a copy
    assert write_report(request.configs, request.folder, "my.table").read_text() == text
    with pytest.raises(UserError, match=r"no file \./my\.table\.py"):
        reproduce(request)


def test_the_own_table_of_the_docs_has_its_runs(tmp_path, monkeypatch):
    (tmp_path / "my_methods.py").write_text(OWN_METHOD)
    monkeypatch.syspath_prepend(tmp_path)
    blocks = (ROOT / "docs" / "reproduce.md").read_text().split("```python\n")[1:]
    path = tmp_path / "my_table.py"
    path.write_text(blocks[0].partition("```")[0])
    table = load_table(CONFIGS, str(path))
    listed = list_jobs(Request(CONFIGS, (), tmp_path, "smoke", seeds=1), "my_table", table)
    assert table.columns() == ["targeted .66/.75", "mine"]
    assert [modes_of(table, job.point.config.mask.name) for job in listed] == [["dense", "prune_targets"]] * 2


def test_a_table_that_changes_is_scored_again_or_refused(tmp_path):
    request = small_request(tmp_path)._replace(only=("targeted .66/.75",))
    reproduce(request)
    table, (result,) = request.configs / "tables" / "small.py", (request.folder / "small").glob("mnist*.json")
    table.write_text(table.read_text().replace('"0,0.5"', '"0,0.5,0.9"'))
    assert "1 finished" in reproduce(request)
    assert [row["prune_rate"] for row in json.loads(result.read_text())["curves"]["dense"]] == [0, 0.5, 0.9]
    table.write_text(
        table.read_text().replace('"0,0.5,0.9"', '"0,0.9"').replace('rate": 0.66', 'rate": 0.66, "optim.momentum": 0.5')
    )
    with pytest.raises(UserError, match="is another run"):
        reproduce(request)


@pytest.mark.parametrize(
    ("written", "other", "words"),
    [
        ('("paper",)', '("papers",)', "scoring='papers' is not known: did you mean 'paper'"),
        ('"none", 0.5', '"non", 0.5', "column='non' is not known: did you mean 'none'"),
        ("claims=", 'granularity="units", claims=', "granularity='units' is not known: did you mean 'unit'"),
        ("claims=", 'published={"accuracy": "table7"}, claims=', "unknown published table 'table7'"),
    ],
)
def test_mistakes_in_a_table_are_told_before_anything_is_trained(tmp_path, written, other, words):
    (tmp_path / "mine.py").write_text(OWN_TABLE.replace("my_methods:mine", "targeted").replace(written, other))
    with pytest.raises(UserError, match=words):
        planned(small_request(tmp_path)._replace(tables=(str(tmp_path / "mine.py"),)))


def test_a_column_that_is_renamed_keeps_its_results(tmp_path):
    request = small_request(tmp_path)._replace(only=("none",))
    reproduce(request)
    table = request.configs / "tables" / "small.py"
    table.write_text(
        table.read_text()
        .replace('"none", 0.5', '"ours", 0.5')
        .replace("sweep, ", "sweep[:1], ")
        .replace('"0,0.5")', '"0,0.5", column="ours")')
        .replace('beats("targeted .66/.75"', 'beats("ours"')
    )
    reproduce(request._replace(only=("ours",)))
    assert "ours (n=1)" in (request.folder / "small.md").read_text()


def test_two_tables_of_one_name_are_refused(tmp_path):
    with pytest.raises(UserError, match="one name"):
        reproduce(small_request(tmp_path)._replace(tables=("small", str(tmp_path / "configs" / "tables" / "small.py"))))
