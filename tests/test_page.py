"""The page of prune curves: what is in it, what its charts compute, and what a browser makes of it."""

import csv
import html
import io
import itertools
import json
import re
import shlex
import shutil
import sys

import numpy as np
import pytest
from conftest import ROOT

from td.commands import report
from td.errors import UserError

vl_convert = pytest.importorskip("vl_convert", reason="the extra [html] is not installed")
page = pytest.importorskip("td.evaluate.page", reason="the extra [html] is not installed")

METHODS, SEEDS, RATES = ("no dropout", "targeted unit .5/.5"), (0, 1, 2), (0.0, 0.5, 0.9)
MADE = {"date": "2026-11-30", "commit": "abc", "hardware": {"devices": "1 x cpu"}}


def write_curve(folder, method, seed, accuracies, flops, config=None, **about):
    """A run folder with one curve: accuracy as trained, ten points less than recalibrated."""
    rows = [
        {"prune_rate": rate, "sparsity": rate, "accuracy": accuracy - 0.1, "recalibrated_accuracy": accuracy}
        | {"flops": cost, "parameters": cost // 10}
        for rate, accuracy, cost in zip(RATES, accuracies, flops, strict=False)
    ]
    content = {"method": method, "granularity": "unit", "mode": "dense", "seed": seed, "rows": rows, **MADE, **about}
    folder.mkdir(parents=True)
    (folder / "prune_curve-unit-dense.json").write_text(json.dumps(content))
    if config:
        (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def drawn(tmp_path):
    """Two methods of three seeds with drawn numbers: the folder, and the numbers by method and seed."""
    rng, numbers = np.random.default_rng(0), {}
    for method, seed in itertools.product(METHODS, SEEDS):
        numbers[method, seed] = rng.uniform(0.2, 1, 3).round(4), rng.integers(1e6, 9e6, 3)
        write_curve(
            tmp_path / "runs" / f"{method[:4]}{seed}", method, seed, *(n.tolist() for n in numbers[method, seed])
        )
    return tmp_path / "runs", numbers


def computed(points, x, layer, expression):
    """Values of an expression at every datum of a layer of the chart, as Vega computes them."""
    chart = page.make_chart(x, ["as trained", "recalibrated"]).to_dict()
    spec = chart | {"layer": [chart["layer"][layer]], "datasets": {"points": points}}
    spec["layer"][0] |= {"mark": "point"}
    spec["layer"][0]["transform"].append({"calculate": f"'=' + {expression}", "as": "told"})
    spec["layer"][0]["encoding"]["description"] = {"field": "told"}
    return [html.unescape(found) for found in re.findall(r'aria-label="=(.*?)"', vl_convert.vegalite_to_svg(spec))]


def points_of(folder):
    return [{**run, **point} for run in page.read_runs([folder]) for point in run["points"]]


def expected(numbers, method, statistic):
    """A statistic over seeds of accuracy in per cent, recalibrated, by rate."""
    return statistic([100 * numbers[method, seed][0] for seed in SEEDS], axis=0)


def test_points_are_those_of_the_files(drawn):
    folder, numbers = drawn
    points = {(p["method"], p["seed"], p["pruned %"]): p for p in points_of(folder)}
    assert len(points) == 18
    for (method, seed), (accuracies, flops) in numbers.items():
        for rate, accuracy, cost in zip(RATES, accuracies, flops, strict=True):
            point = points[method, seed, 100 * rate]
            assert point["recalibrated"] == pytest.approx(100 * accuracy)
            assert point["as trained"] == pytest.approx(100 * accuracy - 10)
            assert point["FLOPs"] == cost and "ms, batch 1" not in point
    assert {p["experiment"] for p in points.values()} == {"unit pruning"}


def test_means_and_bands_are_numpys(drawn):
    folder, numbers = drawn
    told = " + '|' + ".join(f"datum['{name}']" for name in ("state", "method", "pruned %", "mean", "low", "high"))
    found = [each.split("|") for each in computed(points_of(folder), "pruned %", 1, told)]
    cells = {
        (method, float(rate)): [*map(float, rest)] for state, method, rate, *rest in found if state != "as trained"
    }
    assert len(cells) == 6
    for method in METHODS:
        sd = expected(numbers, method, lambda values, axis: np.std(values, axis=axis, ddof=1))
        for rate, mean, spread in zip(RATES, expected(numbers, method, np.mean), sd, strict=True):
            np.testing.assert_allclose(cells[method, 100 * rate], [mean, mean - spread, mean + spread], rtol=1e-6)


def test_a_single_seed_has_no_band(tmp_path):
    write_curve(tmp_path / "runs" / "a", "none", 0, [0.9, 0.8, 0.7], [3, 2, 1])
    points = points_of(tmp_path / "runs")
    assert computed(points, "pruned %", 1, "datum.n") == []
    assert all("±" not in text for text in computed(points, "pruned %", 3, "datum.score"))


@pytest.mark.parametrize(("x", "sign"), [("pruned %", -1), ("FLOPs", 1)])
def test_the_pareto_front_is_what_nothing_dominates(drawn, x, sign):
    """Brute force over all means: nothing else costs at most as much and is at least as accurate."""
    told = "datum.x + ' ' + datum.mean"
    means, front = (
        {tuple(map(float, each.split())) for each in computed(points_of(drawn[0]), x, layer, told)} for layer in (2, 0)
    )
    assert len(means) == 12
    assert front == {
        (cost, accuracy)
        for cost, accuracy in means
        if not any(sign * c <= sign * cost and a >= accuracy and (c, a) != (cost, accuracy) for c, a in means)
    }


def test_runs_that_differ_are_not_averaged(tmp_path):
    rates = {"optim": {"learning_rate": 0.1}}, {"optim": {"learning_rate": 0.2}}
    for name, seed, config in (("a", 0, rates[0]), ("b", 1, rates[1]), ("c", 1, rates[1])):
        config = {**config, "seed": seed, "data": {"name": "digits"}}
        write_curve(tmp_path / "runs" / name, "none", seed, [0.9], [1], config)
    runs = page.read_runs([tmp_path / "runs"])
    assert {run["experiment"] for run in runs} == {"digits, unit pruning"}
    assert [run["method"].partition(" (")[0] for run in runs] == [
        f"none, optim.learning_rate {rate}" for rate in (0.1, 0.2, 0.2)
    ]
    assert runs[1]["method"] != runs[2]["method"] and runs[2]["method"].endswith("runs/c)")
    assert runs[0]["colour"] != runs[1]["colour"]


def test_commands_make_the_curve_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_curve(tmp_path / "runs" / "a", "none", 3, [0.9, 0.8], [2, 1], mode="stochastic", recalibration_batches=8)
    (run,) = page.read_runs([tmp_path / "runs" / "a"])
    words = "--granularity=unit --mode=stochastic --recalibration_batches=8 --seed=3 --recalibrate_batch_norm --compact"
    assert run["command"] == f"td-prune-curve --workdir=runs/a --rates=0,0.5 {words}"
    assert run["method"] == "none, stochastic"


def test_results_of_tables_have_their_columns_and_rates():
    folder = ROOT / "results" / "reconstructed_digits"
    runs = {(run["experiment"], run["method"], run["seed"]): run for run in page.read_runs([folder])}
    files = [json.loads(path.read_text()) for path in folder.glob("*/*-seed*.json")]
    assert len(files) > 50 and len(runs) == sum(len(file["curves"]) for file in files)
    for file in files:
        experiment = f"{file['table']}, digits, {file['granularity']} pruning"
        run = runs[experiment, file["column"], file["seed"]]
        rows = [row for row in file["curves"]["dense"] if row["prune_rate"] in file["rates"]]
        assert [p["as trained"] for p in run["points"]] == pytest.approx([100 * row["accuracy"] for row in rows])
        words = ["td-reproduce", file["table"], f"--scale={file['scale']}", f"--only={file['column']}", "--reconstruct"]
        assert {*words, f"--seeds={file['seed'] + 1}"} <= {*shlex.split(run["command"])}


def test_folders_without_curves_and_a_missing_package_are_one_line(tmp_path, monkeypatch):
    (tmp_path / "result.json").write_text('{"accuracy": 1}')
    with pytest.raises(UserError, match="no prune curves"):
        page.read_runs([tmp_path])
    with pytest.raises(UserError, match="no prune curves"):
        page.read_runs([tmp_path / "missing"])
    monkeypatch.delitem(sys.modules, "td.evaluate.page")
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(UserError, match="pip install"):
        report.main.__wrapped__([str(tmp_path)], html=str(tmp_path / "page.html"))


@pytest.fixture
def browser(tmp_path):
    """Chromium without a window, at a page of drawn curves."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed (extra test)")
    paths = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in paths:
        pytest.skip("Chromium is not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    for word in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking", "no-first-run"):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(paths[1]))
    yield driver
    driver.quit()


MARKS = "#chart path[aria-roledescription=point]"


def tick(driver, group, value):
    """Click the tick box of a method, a state or a seed."""
    driver.find_element("css selector", f"#{group} input[value='{value}']").click()


def column(driver, name):
    """Cells of a column of the table."""
    heads = [head.text.strip(" ▲▼") for head in driver.find_elements("css selector", "thead th")]
    cells = driver.find_elements("css selector", f"tbody tr > :nth-child({heads.index(name) + 1})")
    return [cell.text for cell in cells]


@pytest.mark.slow
def test_a_browser_draws_ticks_sorts_and_copies(drawn, browser, tmp_path):
    folder, _ = drawn
    assert "18 points" in page.write_page([folder], tmp_path / "page.html")
    browser.get(f"file://{tmp_path / 'page.html'}")
    wait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait(browser, 60)

    def count(marks):
        wait.until(lambda driver: len(driver.find_elements("css selector", MARKS)) == marks)

    count(12)  # two methods in two states at three rates
    tick(browser, "states", "recalibrated")
    count(6)
    tick(browser, "methods", METHODS[0])
    count(3)
    assert {*column(browser, "method")} == {METHODS[1]} and len(column(browser, "seed")) == 9
    labels = [mark.get_attribute("aria-label") for mark in browser.find_elements("css selector", MARKS)]
    assert all("±" in label for label in labels)
    for seed in ("1", "2"):
        tick(browser, "seeds", seed)
    wait.until(lambda driver: "±" not in driver.find_element("css selector", MARKS).get_attribute("aria-label"))
    for sign in (1, -1):
        browser.find_element("xpath", "//thead//button[starts-with(text(), 'FLOPs')]").click()
        numbers = [sign * int(text.replace(",", "")) for text in column(browser, "FLOPs")]
        assert len(numbers) == 3 and numbers == sorted(numbers)
    browser.find_element("id", "copy").click()
    browser.execute_script("document.body.append(Object.assign(document.createElement('textarea'), {id: 'pasted'}))")
    browser.find_element("id", "pasted").send_keys("\ue009v")  # control and v
    lines = list(csv.DictReader(io.StringIO(browser.find_element("id", "pasted").get_property("value"))))
    assert [f"{int(line['FLOPs']):,}" for line in lines] == column(browser, "FLOPs")
    assert [line["command"] for line in lines] == [run["command"] for run in page.read_runs([folder])][3:4] * 3
    browser.find_element("css selector", "tbody th button").click()
    assert lines[0]["command"] in browser.find_element("id", "about").text
    browser.find_element("css selector", "#x option:last-child").click()
    wait.until(lambda driver: "FLOPs, of the compacted network" in driver.find_element("id", "chart").text)
    (about,) = browser.find_elements("css selector", "#chart [role=graphics-document]")
    assert about.get_attribute("aria-label").startswith("Accuracy against FLOPs")
    assert len(browser.find_elements("css selector", "tbody th[scope=row]")) == 3
    assert browser.find_element("css selector", "th[scope=col][aria-sort]").text == "FLOPs ▼"
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0  # no network
    assert browser.get_log("browser") == []


@pytest.mark.slow
def test_a_phone_needs_no_sideways_scrolling(drawn, browser, tmp_path):
    page.write_page([drawn[0]], tmp_path / "page.html")
    device = {"width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    browser.get(f"file://{tmp_path / 'page.html'}")
    (mark, *_) = browser.find_elements("css selector", MARKS)
    mark.click()
    wait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait(
        browser, 30
    )  # until the chart has its width
    wait.until(lambda _: browser.execute_script("return document.documentElement.scrollWidth") == 390)
    tooltip = browser.find_element("id", "vg-tooltip-element").rect
    assert tooltip["x"] >= 0 and tooltip["x"] + tooltip["width"] <= 390
