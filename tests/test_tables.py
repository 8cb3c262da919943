"""Every table of the paper: its file, its published numbers, its claims, and a run at smoke scale."""

import json

import jax
import pytest
from conftest import ROOT, sized

import td
from td import data, masks
from td.evaluate.curve_files import mode_settings
from td.io.files import read_json
from td.reproduce.claims import Measured, judge
from td.reproduce.jobs import SCALES, experiment, list_jobs, make_job, modes_of, reproduce, write_plan
from td.reproduce.report import write_report
from td.reproduce.results import notes, published
from td.reproduce.table import Request, load_table, table_names
from td.sweep.launch import HERE
from td.sweep.point import work
from td.train.config import to_steps
from td.train.experiment import build, in_steps

CONFIGS = ROOT / "configs"
SMOKE = Request(CONFIGS, (), ROOT, "smoke", seeds=1)
TABLES = [name for name in table_names(CONFIGS) if name != "groups"]  # which is not in the paper
OWN = {"table2_unit": {"group_lasso"}, "table5": {"targeted .34/.75"}}
"""Columns that are ours and not the paper's."""


def test_every_table_of_the_paper_has_its_file():
    weights_and_units = [f"table{n}_{g}" for n in (2, 3, 6) for g in ("weight", "unit")]
    assert sorted(TABLES) == sorted(
        ["table1", *weights_and_units, "table4", "table5", "table7a", "table7b", "table7c", "xtreme"]
    )


@pytest.mark.parametrize("name", [name for name in TABLES if name != "table1"])
def test_every_column_has_published_numbers_at_its_rates(name):
    table = load_table(CONFIGS, name)
    for quantity in table.published.values():
        cells = published(quantity)["published"]
        asked = {(n.column, rate) for n in table.networks for rate in n.rates if n.column not in OWN.get(name, ())}
        # Smallify and ramping of Table 6 are scored in every range, also where the paper shows one of them only.
        assert {*cells.index} <= asked if name == "table6_weight" else {*cells.index} == asked
        assert cells.between(0, 100).all()
        assert {*notes(quantity)["column"]} <= {*table.columns()}


@pytest.mark.parametrize("name", TABLES)
def test_every_claim_holds_in_the_published_numbers(name):
    table = load_table(CONFIGS, name)
    cells = published(next(iter(table.published.values())))["published"]
    known = {cell: Measured((value,)) for cell, value in cells.items()}
    for claim in table.claims:
        verdict = judge(claim, known.get, table.chance)
        assert verdict.outcome == "holds", f"{claim.text}: {verdict.detail}"
    assert table.claims or name == "table1"


def test_some_published_numbers_read_from_the_paper_by_eye():
    first, last = (published(name)["published"] for name in ("table2_weight", "table7a"))
    nine_tenths = [14.63, 10.05, 28.27, 27.04, 67.58, 92.48, 15.16, 21.08, 12.55]
    assert first.xs(0.9, level="prune_rate").to_list() == nine_tenths
    assert last["ramping"].to_list() == [93.29, 92.72, 92.51, 88.80]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", TABLES)
def test_every_run_has_a_config_of_its_own(name, scale):
    table = load_table(CONFIGS, name)
    if scale == "small" and name in ("table1", "table5"):
        with pytest.raises(td.UserError, match="unknown scale .small."):
            list_jobs(SMOKE._replace(scale=scale, seeds=2), name, table)
        return
    listed = list_jobs(SMOKE._replace(scale=scale, seeds=2), name, table)
    assert len({job.point.folder for job in listed}) == 2 * len(table.networks)
    assert [job.about["seed"] for job in listed] == sorted(job.point.config.seed for job in listed)
    for job in listed:
        for setting, value in (job.about["settings"] | job.about["searched"]).items():
            if setting.startswith("mask."):
                assert job.point.config.mask[setting.removeprefix("mask.")] == value


def test_costs_of_scale_small_are_tuned_and_columns_keep_their_names():
    table = load_table(CONFIGS, "table2_weight")
    costs = {}
    for scale in ("paper", "small"):
        listed = list_jobs(SMOKE._replace(scale=scale), "table2_weight", table)
        jobs = {job.about["column"]: job for job in listed}
        costs[scale] = jobs["l1 0.1"].point.config.mask.cost
        assert jobs["l1 0.1"].about["searched"] == ({"mask.cost": costs["small"]} if scale == "small" else {})
        assert not jobs["targeted .66/.75"].about["searched"]
    assert costs["paper"] == 0.1 and costs["small"] != 0.1
    groups = SMOKE._replace(scale="small", only=("group_lasso 3e-05",))
    (job,) = list_jobs(groups, "groups", load_table(CONFIGS, "groups"))
    assert job.about["searched"] == {"mask.cost": 3e-5}  # the one tuned for units
    request = SMOKE._replace(scale="small", only=("l1 0.1",), changes={"mask.cost": "7"})
    changed = list_jobs(request, "table2_weight", table)
    assert [(job.point.config.mask.cost, job.about["searched"]) for job in changed] == [(7.0, {})]


def test_the_paper_scale_is_the_papers():
    config = experiment(SMOKE._replace(scale="paper"), load_table(CONFIGS, "table2_weight").networks[0], 0)
    _, shapes = build(config, data.load({"name": "digits"})._replace(num_classes=10), shapes_only=True)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes.params)) > 1_800_000
    assert config.duration == "256 epochs" and config.optim.learning_rate == 0.4


COLUMN = {
    "table3_weight": "none",
    "table4": "targeted .33/.75",
    "table5": "none",
    "table7c": "ramping",
    "xtreme": "xtreme 3",
}
"""A table of every config; the others train the same configs with settings that are tested above."""


def test_every_card_of_a_table_is_trained_by_one_of_them():
    cards = {name: {network.config for network in load_table(CONFIGS, name).networks} for name in TABLES}
    assert set().union(*(cards[name] for name in ("table1", *COLUMN))) == set().union(*cards.values())


@pytest.mark.parametrize("name", sorted(set(TABLES) - {*COLUMN, "table1"}))
def test_every_method_of_the_other_tables_is_built(name):
    table = load_table(CONFIGS, name)
    for job in list_jobs(SMOKE, name, table):
        masks.build(in_steps(job.point.config, sized(1000))[0])


DENSE = {"none", "dropout", "l1", "l0", "variational", "smallify", "random_prune"}
IN_MODE = {
    "prune_targets": {
        "table2_weight": {"targeted .5/.5", "targeted .33/.75", "targeted .66/.75", "targeted .75/.9"},
        "table3_weight": {"targeted .5/.5"},
        "table5": {"targeted .66/.75", "targeted .66/.9", "targeted .34/.75"},
        "table6_unit": {"ramping .99/.9"},
        "table6_weight": {"targeted .66/.75", "ramping .99/.99"},
        "xtreme": {"xtreme 3", "xtreme 4", "ResNet-18"},
    },
    "stochastic": {
        "table2_unit": {"targeted .5/.5", "targeted .33/.75", "targeted .66/.75", "targeted .9/.75"},
        "table3_unit": {"targeted .5/.5"},
        "table4": {"targeted .33/.75"},
        "table6_unit": {"targeted .66/.75"},
    },
}
"""The columns that the paper did not score densely, by hand."""


@pytest.mark.parametrize("name", TABLES)
def test_every_column_is_scored_in_the_mode_of_the_released_code(name):
    table = load_table(CONFIGS, name)
    for job in list_jobs(SMOKE, name, table):
        expected = ["dense", *(mode for mode, tables in IN_MODE.items() if job.about["column"] in tables.get(name, ()))]
        assert modes_of(table, job.point.config.mask.name) == expected
        assert len(expected) == 1 or job.point.config.mask.name not in DENSE
        for mode in expected:
            mode_settings(job.point.config.mask, mode)  # the method has what this mode wants
    assert table.scorings == (("dense", "paper") if any(name in tables for tables in IN_MODE.values()) else ("dense",))


@pytest.mark.parametrize(("name", "cost", "reduction"), [("table3_weight", 1e-5, "sum"), ("table3_unit", 1e-3, "mean")])
def test_table_3_penalises_the_weights_of_the_network_it_calls_l1(name, cost, reduction):
    table = load_table(CONFIGS, name)
    (l1,) = (
        job.point.config.mask
        for job in list_jobs(SMOKE._replace(scale="paper"), name, table)
        if job.point.config.mask.name == "l1"
    )
    assert (l1.cost, l1.reduction) == (cost, reduction)


def test_table_7c_is_trained_as_long_as_in_the_released_code():
    """256 epochs of batches of 64; each of the two stages of its ramp takes a tenth, in short runs too."""
    table = load_table(CONFIGS, "table7c")
    for scale, steps in (("paper", 200_000), ("short", 26 * 781)):
        config = experiment(SMOKE._replace(scale=scale), table.networks[-1], 0)
        stage, whole = (to_steps(duration, 50_000, 64) for duration in (config.mask.stage, config.duration))
        assert whole == pytest.approx(steps, rel=1e-3) and stage / whole == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("name", ["table2_weight", "table3_weight", "table4", "table7c"])
@pytest.mark.parametrize("scale", ["paper", "short", "cpu"])
def test_gradients_are_clipped_as_in_the_released_code(name, scale):
    request = SMOKE._replace(scale=scale)
    assert experiment(request, load_table(CONFIGS, name).networks[0], 0).optim.clip_norm == 1.0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "column"), COLUMN.items())
def test_a_column_of_every_table_runs_at_smoke_scale(name, column, tmp_path, quick_pictures):
    table = load_table(CONFIGS, name)
    network = next(network for network in table.networks if network.column == column)
    ends = (0.5,) if table.beams else tuple(sorted({network.rates[0], network.rates[-1]}))
    request = Request(CONFIGS, (name,), tmp_path, "smoke", changes={"data.lengths": "16"} if table.beams else {})
    job = make_job(request, name, table, network._replace(rates=ends), 0)
    work([job.point], HERE)
    content = read_json(job.point.result)
    assert set(content["curves"]) == set(modes_of(table, job.point.config.mask.name))
    for rows in content["curves"].values():
        assert [row["prune_rate"] for row in rows] == list(ends)
        assert all((row["bleu"] is not None) == (table.beams > 0) for row in rows)
    assert [line["step"] for line in content["telemetry"]] == [3, 6]
    if name == "table5":  # has two quantities; tests/test_reproduce.py has the other reports
        write_plan(request, name, [job])
        text = write_report(CONFIGS, tmp_path, name).read_text()
        assert "Scale: **smoke**" in text and job.point.folder.name in text
        assert all((tmp_path / f"{name}{suffix}").stat().st_size for suffix in (".csv", ".tex", ".png", ".pdf"))
        assert all((tmp_path / f"{name}-{kind}.png").stat().st_size for kind in ("curves", "telemetry"))


@pytest.mark.slow
def test_table_1_runs_at_smoke_scale(tmp_path):
    told = reproduce(Request(CONFIGS, ("table1",), tmp_path, "smoke", seeds=1))
    assert "runs: 2 finished" in told
    text = (tmp_path / "table1.md").read_text()
    assert "actual change of loss" in text and "(0.1207)" in text and "n=1" in text
    results = [json.loads(path.read_text()) for path in (tmp_path / "table1").glob("mnist*.json")]
    for change in (result["change_of_loss"] for result in results):
        assert change["predicted"] == pytest.approx(abs(change["first_order"] + change["second_order"]))
        assert change["prune_rate"] == 0.75
    assert all((tmp_path / f"table1{suffix}").stat().st_size for suffix in (".csv", ".tex", ".png", ".pdf"))
