"""The house: what may import what, and which tests belong to which module."""

import ast
import sys
from graphlib import TopologicalSorter

from conftest import ROOT

from td.masks import METHODS

TESTED_WITH = {
    "test_bench.py": (
        "bench/baselines.py",
        "bench/compaction.py",
        "bench/compiled.py",
        "bench/networks.py",
        "bench/suites.py",
        "bench/overhead.py",
        "evaluate/timing.py",
    ),
    "test_cli.py": ("reproduce/quickstart.py",),
    "test_data.py": (
        "data/base.py",
        "data/in_memory.py",
        "data/tfds_folder.py",
    ),
    "test_store.py": ("io/files.py",),
    "test_commands.py": (
        "io/signature.py",
        *(f"commands/{path.name}" for path in (ROOT / "td" / "commands").glob("*.py") if path.name != "__init__.py"),
    ),
    "test_compact.py": (
        "compact/analysis.py",
        "compact/api.py",
        "compact/emit.py",
        "compact/fold.py",
        "compact/forced.py",
        "program/indices.py",
        "compact/plan.py",
        "program/equations.py",
        "compact/rules/base.py",
        "compact/rules/conv.py",
        "compact/rules/dot.py",
        "compact/rules/elementwise.py",
        "compact/rules/parts.py",
        "compact/rules/reduce.py",
        "compact/rules/shape.py",
        "compact/rules/terms.py",
        "program/trace.py",
        "compact/values.py",
    ),
    "test_compact_along.py": (
        "compact/rules/passing.py",
        "program/simplify.py",
    ),
    "test_compact_custom.py": ("program/custom.py",),
    "test_compact_factors.py": ("compact/factors.py", "program/links.py"),
    "test_compact_order.py": ("compact/order.py",),
    "test_compact_loops.py": ("compact/loops.py",),
    "test_compact_unroll.py": ("program/stacks.py",),
    "test_compact_keep.py": ("compact/speed.py",),
    "test_compact_sizes.py": ("program/sizes.py",),
    "test_compact_flops.py": (
        "program/flops.py",
        "compact/summary.py",
    ),
    "test_curve_tables.py": ("evaluate/plots.py",),
    "test_export.py": (
        "export/formats.py",
        "export/networks.py",
        "export/card.py",
        "export/write.py",
        "evaluate/deviation.py",
    ),
    "test_export_function.py": ("export/function.py",),
    "test_imagenet.py": ("data/image_files.py", "data/image_sources.py"),
    "test_network_file.py": ("export/run_copy.py",),
    "test_kernels.py": ("_kernel_axes.py",),
    "test_loop.py": ("io/log.py", "io/progress.py", "io/provenance.py"),
    "test_models.py": ("models/images.py", "models/layers.py"),
    "test_prune_curve.py": ("evaluate/point.py", "train/calibrate.py", "train/score.py"),
    "test_random_prune.py": ("masks/fixed.py",),
    "test_reconstruct.py": ("reconstruct/products.py", "reconstruct/run.py", "reconstruct/solve.py"),
    "test_reproduce.py": ("reproduce/jobs.py",),
    "test_rounds.py": ("masks/lottery.py",),
    "test_step.py": ("train/state.py",),
    "test_table_reports.py": (
        "reproduce/plots.py",
        "reproduce/report.py",
        "reproduce/results.py",
    ),
    "test_radix_select.py": ("_radix_select/accelerator.py", "_radix_select/bits.py", "_radix_select/cpu.py"),
    "test_structure.py": (
        "structure/classes.py",
        "structure/families.py",
        "structure/known.py",
        "structure/products.py",
        "structure/result.py",
        "structure/rules.py",
        "structure/run.py",
        "structure/state.py",
        "structure/values.py",
    ),
    "test_sweep.py": ("sweep/cost.py", "sweep/curves.py", "sweep/launch.py", "sweep/point.py"),
    "test_tables.py": ("reproduce/table.py",),
    "test_translation.py": ("data/number_words.py",),
}


def test_every_module_has_a_file_of_tests_or_is_said_to_be_tested_elsewhere():
    paths = [path.relative_to(ROOT / "td") for path in (ROOT / "td").rglob("*.py") if path.name != "__init__.py"]
    tests, owners = {path.name for path in (ROOT / "tests").glob("test_*.py")}, {}
    for path in sorted(paths, key=lambda path: (len(path.parts), path)):  # of two of one name, the outer one
        if path.parts[0] != "commands":  # named after what they call
            owners.setdefault(f"test_{path.stem.lstrip('_')}.py", path)
    own = {path.as_posix() for name, path in owners.items() if name in tests}
    elsewhere = [module for modules in TESTED_WITH.values() for module in modules]
    assert set(TESTED_WITH) <= tests
    assert sorted(elsewhere) == sorted({path.as_posix() for path in paths} - own)


LAYERS = ("library", "io", "data", "models", "train", "evaluate", "export", "sweep", "reproduce", "bench", "commands")
"""From the ground up: no folder imports one further on."""

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "td").rglob("*.py")
}
LIBRARY_IMPORTS = {"jax", "jaxtyping", "numpy"}


def layer(module):
    folder = MODULES[module].relative_to(ROOT / "td").parts[0]
    return LAYERS.index(folder) if folder in LAYERS else LAYERS.index("library")


def imports_of(module):
    """What a module imports: modules of ours at the top of the file, the names of other packages, and all of it."""
    tree = ast.parse(MODULES[module].read_text())
    own, others, lazy = set(), set(), set()
    for node in ast.walk(tree):
        named = []
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            named = [name if name in MODULES else node.module for name in inner]
        for name in named:
            if name in MODULES:
                (own if node.col_offset == 0 else lazy).add(name)
            elif node.col_offset == 0:
                others.add(name.partition(".")[0])
    return own, others, lazy


def test_nothing_imports_upwards_and_no_library_file_imports_the_laboratory():
    for module in MODULES:
        own, _, lazy = imports_of(module)
        above = sorted(name for name in own | lazy if layer(name) > layer(module))
        assert not above, f"{module} imports {above}"
        if layer(module) in (LAYERS.index("data"), LAYERS.index("models")):
            beside = {LAYERS[layer(name)] for name in own | lazy} - {LAYERS[layer(module)], "library", "io"}
            assert not beside, f"{module} imports {beside}"


def test_the_library_imports_jax_numpy_and_jaxtyping_alone():
    standard = set(sys.stdlib_module_names)
    for module in (module for module in MODULES if layer(module) == 0):
        assert imports_of(module)[1] <= LIBRARY_IMPORTS | standard, module


def test_no_module_imports_itself_by_way_of_others():
    graph = {module: imports_of(module)[0] for module in MODULES}
    assert tuple(TopologicalSorter(graph).static_order())  # raises CycleError with the cycle


def test_no_file_outside_masks_compares_a_methods_name():
    """A method is its file and its record; `METHODS` says the rest."""
    found = []
    for module, path in MODULES.items():
        compared = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Compare)]
        constants = [part.value for node in compared for part in ast.walk(node) if isinstance(part, ast.Constant)]
        if not module.startswith("td.masks"):
            found += [f"{module}: {value!r}" for value in constants if value in {*METHODS}]
    assert not found
