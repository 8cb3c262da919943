"""Exports a run: its network pruned and scored, written in every format, checked against td, with a model card."""

import json
import os
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from td.data import standardize
from td.data.base import BEGIN
from td.errors import UserError, check_choice, check_fraction
from td.evaluate.deviation import TOLERANCE
from td.evaluate.options import AS_IT_IS, DEFAULT, IMAGES, ExportOptions, Options, as_trained
from td.evaluate.prune_curve import scored_by_batch
from td.evaluate.timing import Timing, side_by_side
from td.evaluate.translate import LONGER
from td.export import networks
from td.export.card import model_card
from td.export.formats import FORMATS, Call, check_formats, to_safetensors
from td.export.function import export
from td.export.networks import Network, Part, load_exported
from td.export.run_copy import new_folder
from td.io import provenance
from td.io.files import write_text
from td.io.run_folder import load_config, portable
from td.train.experiment import Run, load_trained
from td.train.score import score
from td.train.state import eval_params, predict
from td.train.step import make_eval_step


class Agreement(NamedTuple):
    """A file compared with td on the whole test set."""

    accuracy: float  # of the file
    own: float  # of td, with the same parameters
    difference: float  # largest of an output, relative to the largest output of its batch
    changed: int  # predictions that differ: ties within the tolerance
    examples: int  # images or tokens that were scored


def agreement(
    run: Run, variables: Mapping[str, Any], task: Mapping[str, Any], files: Mapping[str, Mapping[str, Call]], rows: int
) -> dict[str, Agreement]:
    """Score every format; raises UserError if an output differs by more than the tolerance."""
    stats = variables.get("batch_stats", {})
    own = jax.jit(lambda params, stats, batch: predict(run.experiment, params, stats, batch))
    sums = {name: np.zeros(4) for name in files}
    largest = dict.fromkeys(files, 0.0)
    for batch in run.dataset.evaluation.eval_batches(min(rows, run.dataset.evaluation.size)):
        labels, weights = (np.asarray(part) for part in run.experiment.task.targets(batch))
        wanted, scored = np.asarray(own(variables["params"], stats, batch)), weights > 0
        for name, calls in files.items():
            found = _logits(calls, batch, task, run.experiment.task.inputs)
            difference = np.abs(found - wanted)[scored].max(initial=0) / np.abs(wanted[scored]).max(initial=1e-30)
            largest[name] = float(np.maximum(largest[name], difference))  # Python's max would lose a NaN
            chosen, ours = found.argmax(-1), wanted.argmax(-1)
            counted = (chosen == labels, ours == labels, chosen != ours, scored)
            sums[name] += [float((flags & scored).sum()) for flags in counted]
    for name, difference in largest.items():
        if not difference <= TOLERANCE:
            what = f"the {name} file computes something else: outputs differ by {difference:.1e} of the largest"
            raise UserError(f"{what}; nothing was written: leave out this format, and report it")
    return {
        name: Agreement(right / count, ours / count, largest[name], int(changed), int(count))
        for name, (right, ours, changed, count) in sums.items()
    }


def _logits(calls: Mapping[str, Call], batch: Any, task: Mapping[str, Any], inputs: Any) -> np.ndarray:
    """Compute the logits of a batch: of a text token after token, with the cache."""
    if task["name"] != "translation":
        return calls["model"](np.asarray(batch.images) if task["images"] == "raw" else inputs(batch, None)[0])[0]
    source, before = (np.asarray(part) for part in (batch.source, batch.target))
    source = np.pad(source, ((0, 0), (0, task["source_length"] - source.shape[1])))
    before = np.pad(before[:, :-1], ((0, 0), (1, 0)), constant_values=BEGIN).astype(np.int32)
    (memory,) = calls["encoder"](source)
    caches = [np.zeros((len(source), *shape), np.float32) for shape in task["caches"]]
    logits = []
    for position in range(before.shape[1]):
        found, *caches = calls["decoder"](before[:, position], np.int32(position), memory, source, *caches)
        logits.append(found)
    return np.stack(logits, axis=1)


def speed(
    part: Part, dense: Network, network: Network, variables: Any, onnx: Mapping[str, Call], repeats: int
) -> dict[str, list[Timing]]:
    """Time a part as trained and as exported, by batch size."""
    runs: dict[str, Callable[..., Any]] = {"JAX, dense": partial(jax.jit(part.on_file_inputs(part.apply)), variables)}
    if network is not dense:
        runs["JAX, compacted"] = partial(jax.jit(network.apply), network.params)
    runs |= {f"ONNX Runtime, {name}": call for name, call in onnx.items()}
    found = {}
    for rows in (1, 32):
        inputs = [np.zeros((rows, *i.shape[1:]) if i.shape else (), i.dtype) for i in part.inputs.values()]
        cases: dict[str, Callable[[], Any]] = {name: partial(call, *inputs) for name, call in runs.items()}
        found[f"batch {rows}"] = side_by_side(cases, repeats, f"batch {rows}")
    return found


Parts = dict[str, tuple[Part, Network, Network]]
"""Each part with its network as trained and as exported."""


def export_run(
    workdir: Path, out: Path, options: ExportOptions = AS_IT_IS, pruning: Options = DEFAULT, command: str = ""
) -> str:
    """Export a run's network to a new folder, all files or none; returns the model card."""
    names = check_formats(options.format)
    check_fraction("rate", options.rate)
    check_choice("images", options.images, IMAGES)
    with new_folder(out) as folder:
        about = _export(workdir, folder, names, options, pruning, command)
    return f"{model_card(about)}\n\nexported to {out.resolve()}"


def _export(
    workdir: Path, folder: Path, names: list[str], options: ExportOptions, pruning: Options, command: str
) -> dict[str, Any]:
    """Write all files to an empty folder; returns the contents of `model.json`."""
    run, variables, about = prune(workdir, options, pruning)
    task = about["task"]
    parts: Parts = {}
    for name, part in networks.parts_of(run.experiment.model, task).items():
        dense = networks.whole(part, variables)
        small = networks.compacted(part, variables, pruning.round_to) if pruning.compact else dense
        parts[name] = (part, dense, small)
    about |= describe(run, parts) | {"options": options._asdict(), "run": workdir.resolve().name, "command": command}
    _write_json(folder / "model.json", about)  # read by the check of safetensors; completed below
    files = _write(folder, names, run, variables, parts, about)
    agreed = agreement(run, variables, task, files, about["pruning"]["batch_size"])
    about["agreement"] = {name: found._asdict() for name, found in agreed.items()}
    contents = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "model.json"}
    about["files"] = {name: [len(content), len(zlib.compress(content))] for name, content in contents.items()}
    about["load"] = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    about["seconds"] = {}
    for name, (part, dense, network) in parts.items():
        onnx = {"dense" if network is dense else "compacted": files["onnx"][name]} if "onnx" in names else {}
        if onnx and network is not dense:
            onnx = {"dense": _exported(part, dense, folder.with_name("dense"), ["onnx"])["onnx"], **onnx}
        timed = speed(part, dense, network, variables, onnx, pruning.timing_repeats)
        about["seconds"][name] = {rows: [timing._asdict() for timing in found] for rows, found in timed.items()}
    _write_json(folder / "model.json", about)
    write_text(folder / "README.md", model_card(about))
    return about


def prune(workdir: Path, options: ExportOptions, pruning: Options) -> tuple[Run, dict[str, Any], dict[str, Any]]:
    """Read a run in float32, prune its network and score it; returns also its variables and what was measured."""
    pruning = as_trained(pruning, load_config(workdir))._replace(mode="dense")
    run, state = load_trained(workdir)
    model = networks.build_float32(run.config.model.to_dict(), run.dataset.num_classes)
    run = run._replace(experiment=run.experiment._replace(model=model))
    task = _task_of(run, options.images)
    # Logits of sentences have the size of the vocabulary at every position.
    rows = min(pruning.batch_size, run.dataset.train.size, *([32] if run.dataset.text is not None else []))
    pruning = pruning._replace(batch_size=rows)
    row, variables = scored_by_batch(run, state, pruning)(options.rate)
    unpruned, start = eval_params(run.experiment, state), run.config.start
    before = score(make_eval_step(run.experiment), unpruned, state.batch_stats, run.dataset.evaluation, rows)
    names = ["intrinsic_sparsity", "sparsity", "dead_units"]
    names += [f"{view}accuracy" for view in ("", "recalibrated_", "reconstructed_")]
    measured = {
        **{name: getattr(row, name) for name in names},
        "unpruned_accuracy": before.accuracy,
        "prune_rate": options.rate,
        "fine_tuned": {"from": Path(start.workdir).name, "rate": start.prune_rate} if start.workdir else None,
    }
    about = {"task": task, "pruning": pruning._asdict(), "step": int(state.step), "measured": measured}
    return run, {name: part for name, part in variables.items() if part}, about


def _task_of(run: Run, images: str) -> dict[str, Any]:
    """Describe the inputs of the files: images, or sentences of the data's longest length."""
    if run.dataset.text is not None:
        longest, model = run.config.data.lengths[-1], run.experiment.model
        cache, target = [longest + LONGER, model.heads, model.width // model.heads], longest + LONGER
        sizes = {"source_length": longest, "target_length": target, "caches": [cache] * (2 * model.layers)}
        return {"name": "translation", **sizes}
    batch = next(iter(run.dataset.evaluation.eval_batches(1)))
    prepared = np.asarray(run.experiment.task.inputs(batch, None)[0])
    if images == "raw" and not np.array_equal(prepared, np.asarray(standardize(batch.images))):
        raise UserError("td.data.standardize does not prepare these data: give --images=standardized")
    return {"name": "classification", "images": images, "shape": list(prepared.shape[1:])}


def describe(run: Run, parts: Parts) -> dict[str, Any]:
    """Describe an export for `model.json`, but for its task and what is measured."""
    dataset, config = run.dataset, portable(run.config).to_dict()
    named = dict(enumerate(dataset.class_names))
    classes = [] if dataset.text is not None else [named.get(i, str(i)) for i in range(dataset.num_classes)]
    return {
        "version": networks.VERSION,
        "config": config,
        "num_classes": dataset.num_classes,
        "class_names": classes,
        "steps_of_run": run.steps,
        **provenance.describe(),
        "parts": {name: _describe_part(*networks) for name, networks in parts.items()},
        "plans": {name: network.plan for name, (_, _, network) in parts.items()},
    }


def _describe_part(part: Part, *networks: Network) -> dict[str, Any]:
    shapes = {name: ["batch", *i.shape[1:]] if i.shape else [] for name, i in part.inputs.items()}
    return {
        "inputs": {name: [shape, str(np.dtype(part.inputs[name].dtype))] for name, shape in shapes.items()},
        "outputs": list(part.outputs),
        "parameters": [sum(leaf.size for leaf in jax.tree.leaves(network.params)) for network in networks],
        "flops": [network.flops for network in networks],
    }


def _write(
    folder: Path, names: list[str], run: Run, variables: Any, parts: Parts, about: Mapping[str, Any]
) -> dict[str, dict[str, Call]]:
    """Write every format, and open what was written."""
    metadata = {name: json.dumps(about[name]) for name in ("task", "class_names", "measured")}
    metadata["td_commit"] = about["commit"]
    files: dict[str, dict[str, Call]] = {name: {} for name in names}
    if "safetensors" in names:
        (folder / "model.safetensors").write_bytes(to_safetensors(variables))
        files["safetensors"] = {name: _loaded(folder, name) for name in parts}
    others = [name for name in names if name != "safetensors"]  # of the variables, whatever the part
    for part_name, (part, _, network) in parts.items():
        for name, call in _exported(part, network, folder / part_name, others, metadata).items():
            files[name][part_name] = call
    if run.dataset.text is not None:
        (folder / "vocabulary.model").write_bytes(run.dataset.text.serialized_model_proto())
    return files


def _exported(
    part: Part, network: Network, path: Path, formats: list[str], metadata: Mapping[str, str] | None = None
) -> dict[str, Call]:
    """Export a part for a batch of any size, and open its files."""
    files = export(
        network.apply,
        network.params,
        *part.inputs.values(),
        path=path,
        formats=formats,
        input_names=[*part.inputs],
        output_names=part.outputs,
        metadata=metadata,
    )
    if {*files.batch.values()} - {"any"}:
        raise UserError("the model takes no batch of any size: export it by td.export.export, with batch='fixed'")
    return {name: FORMATS[name].open(file.read_bytes(), None) for name, file in files.paths.items()}


def _loaded(folder: Path, name: str) -> Call:
    loaded = load_exported(folder, name)
    return lambda *inputs: [np.asarray(output) for output in jax.tree.leaves(loaded.apply(loaded.params, *inputs))]


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write one line a key: plans have thousands of indices."""
    lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in content.items())
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")
