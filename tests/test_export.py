"""Exported networks: what the files compute, what is loaded again, and what is refused."""

import errno
import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import trees_equal

import td
from td import data, models
from td.evaluate.finetune import finetune_config
from td.evaluate.options import AS_IT_IS, ExportOptions, Options
from td.evaluate.prune_curve import prune_curve
from td.export import export, formats, load_exported, write
from td.export.card import model_card
from td.export.networks import compacted, parts_of, whole
from td.export.write import agreement, export_run
from td.io.files import write_text
from td.train.experiment import build, load_trained
from td.train.loop import train

pytestmark = pytest.mark.filterwarnings("ignore:.*donated.*:UserWarning")

MISSING = [name for f in formats.FORMATS.values() for name in f.packages if importlib.util.find_spec(name) is None]
installed = pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed: pip install '.[export]'")
UNITS = Options(granularity="unit", compact=True, timing_repeats=1)
HALF = ExportOptions(rate=0.5, format="safetensors")


@pytest.fixture(scope="module")
def made(finished, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "out"
    export_run(finished[1], out, HALF, UNITS, "the command")
    return out


def images_of(run, rows=5):
    return np.asarray(run.dataset.evaluation.images[:rows])


@installed
def test_what_is_loaded_is_the_exported_network_bit_for_bit(finished, made):
    run, state = load_trained(finished[1])
    mask = td.prune_mask(
        state.params, 0.5, "unit", scores=run.experiment.transform.scores(state.params, state.mask_vars)
    )
    variables = {"params": td.apply_mask(state.params, mask)}
    part = parts_of(run.experiment.model, {"name": "classification", "images": "raw", "shape": [8, 8, 1]})["model"]
    network, loaded = compacted(part, variables), load_exported(made)
    assert trees_equal(network.params, loaded.params)
    assert loaded.params.params["params"]["hidden"]["kernel"].shape == (64, 5)
    wanted = jax.jit(network.apply)(network.params, images_of(run))
    assert np.array_equal(loaded.apply(loaded.params, images_of(run)), wanted)
    plainly = run.experiment.model.apply(variables, data.standardize(images_of(run)))
    np.testing.assert_allclose(wanted, plainly, rtol=1e-5, atol=1e-6)


@installed
def test_the_files_say_what_was_measured(finished, made):
    run, state = load_trained(finished[1])
    (row,) = prune_curve(run, state, [0.5], UNITS)
    about, card = load_exported(made).about, (made / "README.md").read_text()
    assert about["measured"]["accuracy"] == about["agreement"]["safetensors"]["accuracy"] == row.accuracy
    assert about["measured"]["sparsity"] == pytest.approx(row.sparsity) and about["class_names"] == list("0123456789")
    assert about["parts"]["model"]["parameters"] == [64 * 10 + 10 + 10 * 10 + 10, 64 * 5 + 5 + 5 * 10 + 10]
    assert about["parts"]["model"]["flops"] == [2 * (64 * 10 + 10 * 10), 2 * (64 * 5 + 5 * 10)]
    assert f"{100 * row.accuracy:.2f}" in card and about["commit"] in card and "the command" in card and "CC BY" in card
    assert str(made.parent) not in (made / "model.json").read_text()


@installed
def test_the_check_of_safetensors_reads_model_json(finished, tmp_path, monkeypatch):
    described = write.describe
    standardized = {"name": "classification", "images": "standardized", "shape": [8, 8, 1]}
    monkeypatch.setattr(write, "describe", lambda *given: described(*given) | {"task": standardized})
    with pytest.raises(td.UserError, match="safetensors file computes something else"):
        export_run(finished[1], tmp_path / "out", HALF)


@installed
def test_model_json_has_the_type_of_the_run_and_the_files_compute_in_float32(smoke_config, tmp_path, monkeypatch):
    config = smoke_config("digits_resnet", "smoke")
    config.model.dtype = "bfloat16"
    made = build(config, data.load(config.data.to_dict()))
    monkeypatch.setattr(write, "load_trained", lambda _: made)
    monkeypatch.setattr(write, "load_config", lambda _: config)
    card = export_run(tmp_path, tmp_path / "out", AS_IT_IS._replace(format="safetensors"))
    loaded = load_exported(tmp_path / "out")
    assert loaded.about["config"]["model"]["dtype"] == "bfloat16" and "Trained in bfloat16" in card
    assert "bf16" not in str(jax.make_jaxpr(loaded.apply)(loaded.params, images_of(made[0])))


@installed
def test_a_card_says_where_stablehlo_was_run(made):
    about = json.loads((made / "model.json").read_text())
    files = about["files"] | {"model.stablehlo": [1, 1]}
    assert f"was run on {about['hardware']['devices']} only" in model_card(about | {"files": files})


@installed
def test_a_plan_of_another_jax_is_made_again(made, tmp_path, caplog):
    about = json.loads((made / "model.json").read_text())
    wanted = load_exported(made)
    about["plans"]["model"]["equations"] = ["of", "another", "time"]
    write_text(tmp_path / "model.json", json.dumps(about))
    (tmp_path / "model.safetensors").write_bytes((made / "model.safetensors").read_bytes())
    again = load_exported(tmp_path)
    assert "compacting again" in caplog.text and trees_equal(again.params, wanted.params)


@installed
def test_a_card_says_where_training_was_not_at_its_end(made):
    about = json.loads((made / "model.json").read_text())
    assert about["step"] == about["steps_of_run"] and "not trained to the end" not in model_card(about)
    assert "12 steps of 15: not trained to the end" in model_card(about | {"step": 12, "steps_of_run": 15})


@installed
def test_without_compact_shapes_stay(finished, tmp_path):
    export_run(finished[1], tmp_path / "out", HALF._replace(images="standardized"), Options(granularity="unit"))
    loaded = load_exported(tmp_path / "out")
    kernel = np.asarray(loaded.params["params"]["hidden"]["kernel"])
    assert (
        kernel.shape == (64, 10) and (kernel == 0).all(axis=0).sum() == 5 and loaded.about["plans"] == {"model": None}
    )
    assert loaded.apply(loaded.params, np.zeros((3, 8, 8, 1), np.float32)).shape == (3, 10)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rate=1.5"], "rate=1.5 is out of range"),
        (["--format=onxx"], "did you mean 'onnx'"),
        (["--images=row"], "did you mean 'raw'"),
        (["--granularity=units"], "did you mean 'unit'"),
        (["--round_to=0"], "round_to=0 is out of range"),
        (["--recalibrate_batch_norm"], "nothing to recalibrate"),
        (["--workdir=nowhere"], "no run in nowhere"),
    ],
)
@installed
def test_mistakes_are_one_line(command, finished, tmp_path, arguments, words):
    done = command("export.py", f"--workdir={finished[1]}", f"--out={tmp_path / 'out'}", *arguments)
    assert done.code == 2 and words in done.err and len(done.err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(td.UserError, match=r"format onnx needs jax2onnx, onnx, onnxruntime: pip install '.\[export\]'"):
        formats.check_formats("onnx")


@installed
def test_a_folder_in_use_is_left_alone(finished, made, tmp_path):
    before = {path: path.read_bytes() for path in made.iterdir()}
    with pytest.raises(td.UserError, match="not an empty folder"):
        export_run(finished[1], made, HALF)
    assert before == {path: path.read_bytes() for path in made.iterdir()}
    write_text(tmp_path / "note.txt", "mine")
    with pytest.raises(td.UserError, match="not an empty folder"):
        export_run(finished[1], tmp_path, HALF)
    with pytest.raises(td.UserError, match="not an empty folder"):
        export_run(finished[1], tmp_path / "note.txt", HALF)


def test_trap_an_output_that_is_no_number_agrees_with_nothing(finished):
    run, variables, about = write.prune(finished[1], AS_IT_IS, Options())
    broken = {"onnx": {"model": lambda images: [np.full((len(images), 10), np.nan, np.float32)]}}
    with pytest.raises(td.UserError, match="onnx file computes something else: outputs differ by nan"):
        agreement(run, variables, about["task"], broken, 128)


@installed
def test_a_full_disk_leaves_nothing(finished, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device"):
        export_run(finished[1], tmp_path / "out", HALF)
    assert not list(tmp_path.iterdir())


@installed
def test_what_is_no_export_is_not_loaded(made, tmp_path):
    with pytest.raises(td.UserError, match=r"cannot read .*model\.json"):
        load_exported(tmp_path)
    write_text(tmp_path / "model.json", '{"version": 99}')
    with pytest.raises(td.UserError, match="it is not an export"):
        load_exported(tmp_path)
    (tmp_path / "model.json").write_bytes((made / "model.json").read_bytes())
    with pytest.raises(td.UserError, match=r"has no model\.safetensors"):
        load_exported(tmp_path)
    with pytest.raises(td.UserError, match="part='decoder' is not known"):
        load_exported(made, "decoder")


@installed
@pytest.mark.slow
def test_the_whole_test_set_goes_through_every_file(command, trained, tmp_path):
    flags = [
        "--rate=0.5",
        "--granularity=unit",
        "--compact",
        "--timing_repeats=1",
        "--recalibrate_batch_norm",
        "--recalibration_batches=2",
    ]
    done = command("export.py", f"--workdir={trained}", *flags, f"--out={tmp_path / 'out'}")
    assert done.code == 0, done.err
    about = json.loads((tmp_path / "out" / "model.json").read_text())
    examples = load_trained(trained)[0].dataset.evaluation.size
    assert set(about["agreement"]) == {"onnx", "stablehlo", "safetensors"}
    for agreed in about["agreement"].values():
        assert agreed["accuracy"] == agreed["own"] == about["measured"]["recalibrated_accuracy"]
        assert agreed["difference"] < 1e-4 and agreed["changed"] == 0 and agreed["examples"] == examples
    import onnx

    metadata = {p.key: p.value for p in onnx.load(tmp_path / "out" / "model.onnx").metadata_props}
    assert json.loads(metadata["task"])["images"] == "raw" and json.loads(metadata["class_names"])[3] == "3"


@installed
@pytest.mark.slow
def test_a_fine_tuned_run_is_exported_with_its_zeros(plain, tmp_path, one_device):
    train(finetune_config(plain, 0.5, "unit", "3 steps"), tmp_path / "tuned", one_device)
    card = export_run(tmp_path / "tuned", tmp_path / "out", AS_IT_IS, UNITS)
    loaded = load_exported(tmp_path / "out")
    assert loaded.params.params["params"]["hidden"]["kernel"].shape == (64, 5)
    assert loaded.about["measured"]["fine_tuned"] == {"from": plain.name, "rate": 0.5} and "fine-tuned" in card


@installed
@pytest.mark.slow
def test_a_transformer_is_scored_token_after_token(smoke_config, tmp_path, monkeypatch):
    config = smoke_config("wmt14_transformer", "data=numbers,smoke")
    config.data.lengths = (16,)
    dataset = data.load(config.data.to_dict())
    few = dataset.evaluation.chosen(np.arange(40))
    run, state = build(config, dataset._replace(evaluation=few))
    monkeypatch.setattr(write, "load_trained", lambda _: (run, state))
    monkeypatch.setattr(write, "load_config", lambda _: config)
    export_run(tmp_path, tmp_path / "out", HALF, UNITS)
    about = load_exported(tmp_path / "out").about
    assert (tmp_path / "out" / "vocabulary.model").exists()
    assert all(a["difference"] < 1e-4 and a["accuracy"] == a["own"] for a in about["agreement"].values())
    decoder = load_exported(tmp_path / "out", "decoder")
    assert list(decoder.about["parts"]["decoder"]["inputs"])[:2] == ["token", "position"]


NETWORKS = {
    "mlp": {},
    "resnet": {"widths": (4, 8), "stage_sizes": (1, 1)},
    "wide_resnet": {"depth": 10, "width": 1},
    "vgg": {"stages": ((4,), (8,)), "hidden_units": (8,)},
    "large_resnet": {"depth": 10, "width": 4},
    "transformer": {"layers": 1, "width": 8, "heads": 2, "hidden_units": 8},
}


@installed
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "small"), [("vgg", False), ("transformer", False), *((name, True) for name in NETWORKS)]
)
def test_every_network_is_exported(name, small, tmp_path):
    text, rng = name == "transformer", np.random.default_rng(0)
    task = {"name": "classification", "images": "raw", "shape": [16, 16, 3]}
    task = {"name": "translation", "source_length": 5, "target_length": 7} if text else task
    model = models.build({"name": name, **NETWORKS[name]}, 10)
    example = (jnp.ones((2, 5), jnp.int32),) * 2 if text else (jnp.ones((2, 16, 16, 3)),)
    variables = jax.jit(model.init)(jax.random.key(0), *example)
    params = variables["params"]
    params = td.apply_mask(params, td.prune_mask(params, 0.5, "unit", kernels=".*" if text else td.KERNELS))
    for key, part in parts_of(model, task).items():
        network = (compacted if small else whole)(part, {**variables, "params": params})
        inputs = [jnp.asarray(_drawn(rng, (3, *i.shape[1:]) if i.shape else (), i.dtype)) for i in part.inputs.values()]
        apply = jax.jit(lambda variables, *inputs, part=part: part.apply(variables, *part.prepare(*inputs)))
        wanted = apply({**variables, "params": params}, *inputs)
        found = jax.jit(network.apply)(network.params, *inputs)
        jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5), wanted, found)
        files = export(network.apply, network.params, *inputs, path=tmp_path / key, formats=("onnx", "stablehlo"))
        assert {*files.batch.values()} == {"any"} and max(files.deviation.values()) <= 1e-5


def _drawn(rng, shape, dtype):
    drawn = rng.integers(1, 7, shape) if np.issubdtype(dtype, np.integer) else rng.normal(size=shape)
    return np.asarray(drawn, dtype)
