"""A trained network as files for other programs, checked on the whole test set, with a model card."""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from td.errors import UserError, check_choice, check_share
from td.evaluate.options import AS_IT_IS, DEFAULT, IMAGES, ExportOptions, Options
from td.export import formats
from td.export.card import model_card
from td.export.facts import describe
from td.export.parts import Network, Part, compacted, parts_of, whole
from td.export.read import Exported, load_exported
from td.export.source import Source, load_source
from td.export.speed import speed
from td.export.verify import agreement
from td.io.files import new_folder, write_text

Networks = Mapping[str, Network]


def export(
    workdir: Path, out: Path, options: ExportOptions = AS_IT_IS, pruning: Options = DEFAULT, command: str = ""
) -> str:
    """Export a run's network to a new folder, which is there as a whole or not at all; gives the model card."""
    names, out = formats.parse_formats(options.format), out.resolve()  # which has a name, also of "."
    check_share("rate", options.rate)
    check_choice("images", options.images, IMAGES)
    _check_new(out)
    for name in ("criterion", "scope", "criterion_examples"):
        if not options.rate and getattr(pruning, name) != getattr(DEFAULT, name):
            raise UserError(
                f"{name}={getattr(pruning, name)} does nothing where nothing is pruned: give --rate as well"
            )
    source = load_source(workdir, options, pruning)
    parts = parts_of(source.run.experiment.model, source.task)
    dense = {name: whole(part, source.variables) for name, part in parts.items()}
    networks = dense
    if pruning.compact:
        networks = {name: compacted(part, source.variables, pruning.round_to) for name, part in parts.items()}
    about = describe(source, options, parts, dense, networks) | {"run": workdir.resolve().name, "command": command}
    with new_folder(out) as folder:
        _write_json(folder / "model.json", about)  # without what the files themselves say: their check reads it
        files = _write(folder, names, source, parts, networks, about)
        agreed = agreement(source.run, source.variables, source.task, files, source.rows)
        about["agreement"] = {name: found._asdict() for name, found in agreed.items()}
        about["files"] = {path.name: _bytes(path) for path in sorted(folder.iterdir()) if path.name != "model.json"}
        about["load"] = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        about["seconds"] = _seconds(folder, source, parts, dense, networks, names)
        _write_json(folder / "model.json", about)
        write_text(folder / "README.md", model_card(about))
    return f"{model_card(about)}\n\nexported to {out}"


def _check_new(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: choose another --out")
    if out.is_dir() and any(out.iterdir()):
        what = "holds another export" if (out / "model.json").exists() else "is not empty"
        raise UserError(f"{out} {what}: choose another --out, or delete it first")


def _write(
    folder: Path,
    names: list[str],
    source: Source,
    parts: Mapping[str, Part],
    networks: Networks,
    about: Mapping[str, Any],
) -> dict[str, dict[str, formats.Call]]:
    """Write every format, and open what was written."""
    files: dict[str, dict[str, formats.Call]] = {name: {} for name in names}
    for name, part in parts.items():
        if "onnx" in names:
            path = folder / f"{name}.onnx"
            path.write_bytes(formats.to_onnx(networks[name], part, name, _metadata(about)))
            files["onnx"][name] = formats.open_onnx(path.read_bytes())
        if "stablehlo" in names:
            path = folder / f"{name}.stablehlo"
            path.write_bytes(formats.to_stablehlo(networks[name], part))
            files["stablehlo"][name] = formats.open_stablehlo(path.read_bytes())
    if "safetensors" in names:
        path = folder / "model.safetensors"
        path.write_bytes(formats.to_safetensors(source.variables))
        for name in parts:
            files["safetensors"][name] = _call(load_exported(folder, name))
    if source.run.dataset.text is not None:
        (folder / "vocabulary.model").write_bytes(source.run.dataset.text.serialized_model_proto())
    return files


def _call(loaded: Exported) -> formats.Call:
    return lambda *inputs: [np.asarray(output) for output in jax.tree.leaves(loaded.apply(loaded.params, *inputs))]


def _metadata(about: Mapping[str, Any]) -> dict[str, str]:
    """What an ONNX file says of itself."""
    told = {"task": about["task"], "class_names": about["class_names"], "measured": about["measured"]}
    return {name: json.dumps(value) for name, value in told.items()} | {"td_commit": about["commit"]}


def _bytes(path: Path) -> list[int]:
    content = path.read_bytes()
    return [len(content), len(zlib.compress(content))]


def _seconds(
    folder: Path,
    source: Source,
    parts: Mapping[str, Part],
    dense: Networks,
    networks: Networks,
    names: list[str],
) -> dict[str, Any]:
    found = {}
    for name, part in parts.items():
        onnx = (folder / f"{name}.onnx").read_bytes() if "onnx" in names else None
        timed = speed(part, source.variables, dense[name], networks[name], onnx, source.pruning.timing_repeats)
        found[name] = {rows: [timing._asdict() for timing in timings] for rows, timings in timed.items()}
    return found


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    """One line a key: plans have thousands of indices."""
    lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in content.items())
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")
