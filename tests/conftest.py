"""What every test shares: eight simulated devices, small trees, and a way to run a script in this process."""

import ctypes
import gc
import json
import logging
import os
import runpy
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest
from absl import flags
from jax import lax
from matplotlib.figure import Figure
from PIL import Image

import td
from td.data import Dataset, Split
from td.data.base import classification
from td.reproduce import jobs
from td.reproduce.table import Request
from td.train.devices import Execution
from td.train.experiment import load_trained
from td.train.loop import train

# Two processes of tests on two cores: one thread each is faster than two that wait for each other. Half of what
# compiling takes is MLIR's emitters for fused loops, which JAX 0.10 can do without, and a tenth of the rest is cutting
# modules into parts to compile side by side (XLA_FLAGS= pytest: as users do).
QUICKER = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 "
QUICKER = QUICKER if jax.__version_info__ < (0, 11) else ""
os.environ.setdefault("XLA_FLAGS", f"{QUICKER}--xla_cpu_multi_thread_eigen=false")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_disable_most_optimizations", True)
# Many tests build the same network: what one of them has compiled, in any process, serves the others.
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).resolve().parent.parent / ".pytest_cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
# Looking for cyclic garbage after every 700 new objects takes a twentieth of what is left.
gc.set_threshold(50_000, 20, 20)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def cache_of_this_session(tmp_path_factory):
    """What is kept for later starts out empty; real processes compile as fast as the tests do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


DEVICES = Execution.__dict__["devices"]
"""The field as it is, for the one test that looks at its default."""


@pytest.fixture(scope="session", autouse=True)
def first_device_unless_told():
    """Eight devices compile and save slowly: a run that names none takes one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Execution, "devices", property(lambda execution: execution[0] or jax.devices()[:1]))
        yield


@pytest.fixture(scope="module", autouse=True)
def bounded_memory():
    """A worker that fills a sixth of the memory forgets what it compiled for earlier files, and gives it back."""
    yield
    if psutil.Process().memory_info().rss > psutil.virtual_memory().total / 6:
        jax.clear_caches()
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture
def one_device():
    return Execution(jax.devices()[:1])


def small_tree():
    """A tree with every container a user may have, kernels of several ranks, and None."""
    keys = iter(jax.random.split(jax.random.key(0), 9))
    return {
        "stem": {"kernel": jax.random.normal(next(keys), (3, 3, 1, 4))},
        "block": (
            {"kernel": jax.random.normal(next(keys), (3, 3, 4, 6)), "bias": jnp.ones(6)},
            [{"kernel": jax.random.normal(next(keys), (10, 8))}, None],
        ),
        "logits": {"kernel": jax.random.normal(next(keys), (8, 5)), "bias": jnp.zeros(5)},
    }


def small_network(params, images):
    """A function of the small tree: both convolutions are read by the dense layer."""
    convolve = partial(lax.conv_general_dilated, window_strides=(1, 1), padding="SAME")
    convolve = partial(convolve, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    conv, (dense, _) = params["block"]
    stem = jax.nn.relu(convolve(images, params["stem"]["kernel"]))
    body = jax.nn.relu(convolve(stem, conv["kernel"]) + conv["bias"])
    hidden = jax.nn.relu(jnp.concatenate([body, stem], -1).mean((1, 2)) @ dense["kernel"])
    return hidden @ params["logits"]["kernel"] + params["logits"]["bias"]


def small_structure():
    return td.trace(small_network, small_tree(), jnp.ones((1, 4, 4, 1)))


@pytest.fixture
def in_float64():
    """JAX's arrays of float64, for as long as the test lasts."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def params():
    return small_tree()


@pytest.fixture
def smoke_config():
    """The config of `configs/NAME.py`, shrunk, as a function of the name and further arguments."""

    def load(name="digits_resnet", arguments="smoke"):
        return runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"](arguments)

    return load


@pytest.fixture
def tiny_config(smoke_config):
    """The cheapest run there is: the dense toy network on digits, 12 steps, a checkpoint every 4."""
    config = smoke_config("mnist_mlp")
    config.duration = "12 steps"
    config.optim.learning_rate = 0.05
    config.optim.momentum = 0.9
    config.every.checkpoint = "4 steps"
    return config


class Finished(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def command(capsys, monkeypatch):
    """Run a script as its command line would be, in this process; give exit code and output."""

    def run(script, *arguments):
        before = set(flags.FLAGS)
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        monkeypatch.chdir(ROOT)
        try:
            runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code or 0
        finally:
            for name in set(flags.FLAGS) - before:
                delattr(flags.FLAGS, name)
            flags.FLAGS.unparse_flags()
            logging.getLogger("td").handlers.clear()  # they write to what pytest captures here
        captured = capsys.readouterr()
        return Finished(code, captured.out, captured.err)

    return run


def trees_equal(first, second):
    leaves = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in leaves)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """One uninterrupted run of 12 steps, for all tests that only look."""
    config = runpy.run_path(str(ROOT / "configs" / "mnist_mlp.py"))["get_config"]("mask=targeted,smoke")
    config.duration = "12 steps"
    config.optim.learning_rate = 0.05
    config.optim.momentum = 0.9
    config.every.checkpoint = "4 steps"
    folder = tmp_path_factory.mktemp("finished")
    result = train(config, folder, Execution(jax.devices()[:1]))
    return config, folder, result


LONG = {
    "duration": "400 steps",
    "every.checkpoint": "20 steps",
    "every.log": "10 steps",
    "every.evaluation": "400 steps",
}
"""Slow enough for a process to be caught in the middle, quick enough for a test."""


def long_run(folder, *more):
    """The command line of such a run."""
    settings = [f"--config.{name}={value}" for name, value in LONG.items()]
    config = "--config=configs/mnist_mlp.py:mask=targeted,smoke"
    return [sys.executable, "scripts/train.py", config, f"--workdir={folder}", *settings, *more]


@pytest.fixture
def long_config(smoke_config):
    """Its config, for a run in this process."""
    config = smoke_config("mnist_mlp", "mask=targeted,smoke")
    config.update_from_flattened_dict(LONG)
    return config


def newest(folder):
    """The step of the newest checkpoint that is whole: until then its folder has a longer name."""
    return max((int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdigit()), default=0)


def final_state(folder):
    return load_trained(folder, average=False)[1]


def sized(examples):
    """A data set of n black images."""
    split = Split(np.zeros((examples, 1, 1, 1), np.uint8), np.zeros(examples, np.int32))
    return Dataset(split, split, 10, classification())


def load_config(name, arguments):
    config = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"](arguments)
    config.every.checkpoint = config.every.evaluation = "6 steps"
    return config


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resnet")
    train(load_config("digits_resnet", "mask=targeted,smoke"), folder, Execution(jax.devices()[:1]))
    return folder


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlp")
    train(load_config("mnist_mlp", "mask=none,smoke"), folder, Execution(jax.devices()[:1]))
    return folder


TABLE = """
from td.reproduce.claims import beats
from td.reproduce.table import Table, networks

def get_table():
    sweep = [{"mask": "none"}, {"mask": "targeted", "mask.drop_rate": 0.66, "mask.target_proportion": 0.75}]
    return Table("A small table", networks("mnist_mlp", sweep, "0,0.5"), "weight", ("dense", "paper"),
                 {"accuracy": "table2_weight"}, (beats("targeted .66/.75", "none", 0.5, by=1),))
"""


def small_request(folder):
    """A request for two networks that take a second each, with a folder of configs of its own."""
    configs = folder / "configs"
    (configs / "tables").mkdir(parents=True)
    shutil.copy(ROOT / "configs" / "mnist_mlp.py", configs)
    (configs / "tables" / "small.py").write_text(TABLE)
    return Request(configs, ("small",), folder / "out", "smoke", seeds=1)


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory):
    """The small request, done: two networks, two seeds each, with their pictures."""
    request = small_request(tmp_path_factory.mktemp("reproduced"))._replace(seeds=2, data_note="embedded in sklearn")
    request = request._replace(changes={"every.log": "3 steps"})
    jobs.reproduce(request)
    return request


@pytest.fixture
def quick_pictures(monkeypatch):
    """Drawn but not rendered, which takes seconds; tests/test_table_reports.py renders once."""
    pixel = Image.new("RGB", (1, 1))
    monkeypatch.setattr(Figure, "savefig", lambda _, path, **options: pixel.save(path, "PNG", dpi=(160, 160)))


def arrays(shapes):
    """Ones, of shapes in any tree."""
    return jax.tree.map(jnp.ones, shapes, is_leaf=lambda leaf: isinstance(leaf, tuple) and isinstance(leaf[0], int))
