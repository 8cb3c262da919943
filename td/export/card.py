"""The model card of an export, from what its `model.json` says."""

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from td.data.licences import licence
from td.evaluate.report import label
from td.evaluate.timing import Timing, as_table

HALF_A_YEAR = "JAX promises to load it with its own releases of the following six months: export again for later ones"


def model_card(about: Mapping[str, Any]) -> str:
    """Markdown: what it is, data, accuracy, size, time, commands, licence."""
    parts = [_what(about), _accuracy(about), _size(about), _time(about), _files(about), _origin(about)]
    return "\n\n".join(parts)


def _what(about: Mapping[str, Any]) -> str:
    config, task, pruning = about["config"], about["task"], about["pruning"]
    compacted = "its empty units removed for good" if pruning["compact"] else "its zeros kept in place"
    takes = (
        f"Sentences of {task['source_length']} tokens, padded with 0; up to {task['target_length']} tokens come out, "
        "one a step; `vocabulary.model` is the vocabulary (SentencePiece)."
        if task["name"] == "translation"
        else f"Images {task['shape']}, "
        + (
            "uint8 as the data set has them; the file standardises them itself."
            if task["images"] == "raw"
            else "float32, standardised: each image minus its mean, divided by its standard deviation (at least "
            "1/sqrt(its numbers))."
        )
    )
    names = about["class_names"]
    classes = f" Classes: {', '.join(names)}." if 0 < len(names) <= 20 else ""
    dtype = config["model"].get("dtype", "float32")
    trained_in = "" if dtype == "float32" else f" Trained in {dtype}; the files compute in float32."
    end = "" if about["step"] == about["steps_of_run"] else f" of {about['steps_of_run']}: not trained to the end"
    return (
        f"# {config['model']['name']} on {config['data']['name']}\n\n"
        f"A network for {task['name']} ({label(config['mask'])}, {about['step']} steps{end}), "
        f"{100 * about['measured']['prune_rate']:g} % of its {pruning['granularity']}s pruned after training, "
        f"{compacted}. {takes} The batch is of any size.{trained_in}{classes}"
    )


def _accuracy(about: Mapping[str, Any]) -> str:
    measured, tuned = about["measured"], about["measured"]["fine_tuned"]
    first = "before pruning"
    if tuned:
        first = f"fine-tuned ({tuned['from']} pruned at {100 * tuned['rate']:g} %)"
    rows = [(first, measured["intrinsic_sparsity"], measured["unpruned_accuracy"])]
    rows.append(("pruned, raw", measured["sparsity"], measured["accuracy"]))
    if measured["recalibrated_accuracy"] is not None:
        rows.append(("pruned, BatchNorm recalibrated", measured["sparsity"], measured["recalibrated_accuracy"]))
    lines = [(name, f"{100 * sparsity:.2f}", f"{100 * accuracy:.2f}") for name, sparsity, accuracy in rows]
    own = _table(("network", "weights that are zero, %", "accuracy, %"), lines)
    through = [
        (name, f"{100 * a['accuracy']:.2f}", f"{100 * a['own']:.2f}", f"{a['changed']}", f"{a['difference']:.1e}")
        for name, a in about["agreement"].items()
    ]
    heads = ("file", "accuracy, %", "td's, %", "other predictions", "largest difference of an output")
    first_file = next(iter(about["agreement"].values()))
    counted = "tokens" if about["task"]["name"] == "translation" else "images"
    return (
        f"## Accuracy\n\n{own}\n\nThe last row is what was exported. One network, so no standard deviation. The whole "
        f"test set, {first_file['examples']} {counted}, through the files:\n\n{_table(heads, through)}"
    )


def _size(about: Mapping[str, Any]) -> str:
    lines = [
        (name, *(f"{number:,}" for number in (*part["parameters"], *part["flops"])))
        for name, part in about["parts"].items()
    ]
    heads = ("part", "parameters before", "exported", "FLOPs before", "exported")
    return f"## Size\n\n{_table(heads, lines)}\n\nParameters with BatchNorm's statistics; FLOPs of one row."


def _time(about: Mapping[str, Any]) -> str:
    hardware, sections = about["hardware"], []
    for part, batches in about["seconds"].items():
        for rows, timings in batches.items():
            sections.append(f"{part}, {rows}:\n\n{as_table([Timing(**t) for t in timings], 'of the first')}")
    where = f"{hardware['devices']}; {hardware['processor']}, {hardware['cores']} cores"
    busy = f"its load average was {about['load']:.1f}" if about["load"] is not None else "its load is not known"
    return "\n\n".join([f"## Time\n\nIn turns, on {where}; ONNX Runtime on the CPU; {busy}.", *sections])


def _files(about: Mapping[str, Any]) -> str:
    lines = [(f"`{name}`", f"{size:,}", f"{zipped:,}") for name, (size, zipped) in about["files"].items()]
    notes = []
    if any(name.endswith(".stablehlo") for name in about["files"]):
        notes.append(
            f"StableHLO is lowered for cpu, cuda and tpu by JAX {about['versions']['jax']}, and was run on "
            f"{about['hardware']['devices']} only. {HALF_A_YEAR}."
        )
    if "model.safetensors" in about["files"]:
        notes.append(
            "`model.safetensors` with `model.json` is the form that lasts: all parameters, zeros included, and what to "
            'remove; `td.export.load_exported("FOLDER")`.'
        )
    return "\n\n".join([f"## Files\n\n{_table(('file', 'bytes', 'zipped'), lines)}", *notes])


def _origin(about: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    command = f"```sh\n{about['command']}\n```\n\n" if about["command"] else ""
    return (
        f"## Origin\n\n{command}Run `{about['run']}`, whose config is in `model.json`; td commit {about['commit']}, "
        f"{about['date']}; {versions}.\n\nData: {about['config']['data']['name']}. {licence(about['config']['data'])}"
    )


def _table(heads: tuple[str, ...], lines: list[Any]) -> str:
    align = ("left", *["right"] * (len(heads) - 1))
    return tabulate(lines, heads, "github", disable_numparse=True, colalign=align)
