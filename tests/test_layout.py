"""The tests mirror the package: those of `td/x.py` are in `tests/test_x.py`, or where `TESTED_WITH` says."""

from conftest import ROOT

TESTED_WITH = {
    "test_bench.py": (
        "bench/curves.py",
        "bench/masks.py",
        "bench/networks.py",
        "bench/peers.py",
        "bench/populations.py",
        "bench/suites.py",
        "bench/timing.py",
        "bench/training.py",
    ),
    "test_cli.py": ("quickstart.py", "throughput.py"),
    "test_curve.py": ("evaluate.py",),
    "test_data.py": (
        "data/augment.py",
        "data/base.py",
        "data/digits.py",
        "data/images.py",
        "data/prepared.py",
        "files.py",
    ),
    "test_execution.py": ("feed.py",),
    "test_hosts.py": ("data/part.py",),
    "test_models.py": (
        "models/large_resnet.py",
        "models/mlp.py",
        "models/parts.py",
        "models/resnet.py",
        "models/vgg.py",
    ),
    "test_pairs.py": ("data/task.py",),
    "test_random_prune.py": ("masks/held.py",),
    "test_records.py": ("data/crops.py",),
    "test_reproduce.py": (
        "reproduce/cost.py",
        "reproduce/launch.py",
        "reproduce/plan.py",
        "reproduce/run.py",
        "reproduce/sweeps.py",
    ),
    "test_rounds.py": ("masks/lottery.py",),
    "test_select.py": ("count.py",),
    "test_table_reports.py": (
        "reproduce/export.py",
        "reproduce/picture.py",
        "reproduce/report.py",
        "reproduce/results.py",
        "reproduce/telemetry_section.py",
        "reproduce/views.py",
    ),
    "test_tables.py": ("reproduce/figure1.py", "reproduce/published.py", "reproduce/table.py"),
    "test_text.py": ("data/lines.py", "data/numbers.py", "data/vocabulary.py"),
    "test_train.py": ("progress.py", "provenance.py"),
}


def test_every_module_has_a_file_of_tests_or_is_said_to_be_tested_elsewhere():
    paths = [path.relative_to(ROOT / "td") for path in (ROOT / "td").rglob("*.py") if path.name != "__init__.py"]
    tests, owners = {path.name for path in (ROOT / "tests").glob("test_*.py")}, {}
    for path in sorted(paths, key=lambda path: (len(path.parts), path)):  # of two of one name, the outer one
        owners.setdefault(f"test_{path.stem}.py", path)
    own = {path.as_posix() for name, path in owners.items() if name in tests}
    elsewhere = [module for modules in TESTED_WITH.values() for module in modules]
    assert set(TESTED_WITH) <= tests
    assert sorted(elsewhere) == sorted({path.as_posix() for path in paths} - own)
