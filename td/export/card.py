"""The model card of an export, from its `model.json`."""

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from td.evaluate.curve_tables import label
from td.evaluate.timing import Timing, as_table

_CIFAR = "No licence stated by its authors (Krizhevsky 2009), who ask to be cited."

LICENCES = {
    "digits": "CC BY 4.0: Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998), UCI Repository.",
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "mnist": "CC BY-SA 3.0 (LeCun, Cortes and Burges).",
    "fashion_mnist": "MIT (Zalando SE).",
    "imagenet2012": "Terms of access of image-net.org: research and education, not commercial.",
    "numbers": "Apache-2.0: made by td itself.",
    "wmt14_translate/de-en": "No common licence: each corpus (Europarl, Common Crawl, News Commentary) has its own.",
}

INPUTS = {
    "raw": "Images {shape}, uint8 as the data set has them; the file standardises them itself.",
    "standardized": "Images {shape}, float32, each minus its mean, divided by its standard deviation (at least "
    "1/sqrt(its numbers)).",
    "text": "Sentences of {source_length} tokens, padded with 0; up to {target_length} tokens come out, one a step; "
    "`vocabulary.model` is the vocabulary (SentencePiece).",
}


def model_card(about: Mapping[str, Any]) -> str:
    """Write purpose, accuracy, size, time, files and origin as Markdown."""
    return "\n\n".join(section(about) for section in (_purpose, _accuracy, _size, _time, _files, _origin))


def _purpose(about: Mapping[str, Any]) -> str:
    config, task, names = about["config"], about["task"], about["class_names"]
    dtype = config["model"].get("dtype", "float32")
    notes = [INPUTS[task.get("images", "text")].format(**task), "The batch is of any size."]
    notes += [f"Trained in {dtype}; the files compute in float32."] if dtype != "float32" else []
    notes += [f"Classes: {', '.join(names)}."] if 0 < len(names) <= 20 else []
    end = "" if about["step"] == about["steps_of_run"] else f" of {about['steps_of_run']}: not trained to the end"
    zeros = "its empty units removed" if about["pruning"]["compact"] else "its zeros kept in place"
    return (
        f"# {config['model']['name']} on {config['data']['name']}\n\n"
        f"A network for {task['name']} ({label(config['mask'])}, {about['step']} steps{end}), "
        f"{100 * about['measured']['prune_rate']:g} % of its {about['pruning']['granularity']}s pruned after training, "
        f"{zeros}. {' '.join(notes)}"
    )


def _accuracy(about: Mapping[str, Any]) -> str:
    measured, tuned = about["measured"], about["measured"]["fine_tuned"]
    first = f"fine-tuned ({tuned['from']} pruned at {100 * tuned['rate']:g} %)" if tuned else "before pruning"
    rows = [
        (first, measured["intrinsic_sparsity"], measured["unpruned_accuracy"]),
        ("pruned, as trained", measured["sparsity"], measured["accuracy"]),
        ("pruned, BatchNorm recalibrated", measured["sparsity"], measured["recalibrated_accuracy"]),
        ("pruned, reconstructed", measured["sparsity"], measured["reconstructed_accuracy"]),
    ]
    own = [(name, f"{100 * zeros:.2f}", f"{100 * score:.2f}") for name, zeros, score in rows if score is not None]
    files = [
        (name, f"{100 * a['accuracy']:.2f}", f"{100 * a['own']:.2f}", f"{a['changed']}", f"{a['difference']:.1e}")
        for name, a in about["agreement"].items()
    ]
    examples = next(iter(about["agreement"].values()))["examples"]
    counted = "tokens" if about["task"]["name"] == "translation" else "images"
    return (
        f"## Accuracy\n\n{_table(('network', 'weights that are zero, %', 'accuracy, %'), own)}\n\n"
        "The last row is what was exported. One network, so no standard deviation. The whole test set, "
        f"{examples} {counted}, through the files:\n\n"
        + _table(("file", "accuracy, %", "td's, %", "other predictions", "largest difference of an output"), files)
    )


def _size(about: Mapping[str, Any]) -> str:
    sizes = {name: (*part["parameters"], *part["flops"]) for name, part in about["parts"].items()}
    lines = [(name, *(f"{number:,}" for number in numbers)) for name, numbers in sizes.items()]
    heads = ("part", "parameters before", "exported", "FLOPs before", "exported")
    return f"## Size\n\n{_table(heads, lines)}\n\nParameters with BatchNorm's statistics; FLOPs of one example."


def _time(about: Mapping[str, Any]) -> str:
    hardware = about["hardware"]
    where = f"{hardware['devices']}; {hardware['processor']}, {hardware['cores']} cores"
    busy = f"the load average was {about['load']:.1f}" if about["load"] is not None else "the load is unknown"
    sections = [f"## Time\n\nInterleaved, on {where}; ONNX Runtime on the CPU; {busy}."]
    for part, batches in about["seconds"].items():
        tables = {rows: as_table([Timing(**t) for t in timings], "of the first") for rows, timings in batches.items()}
        sections += [f"{part}, {rows}:\n\n{table}" for rows, table in tables.items()]
    return "\n\n".join(sections)


def _files(about: Mapping[str, Any]) -> str:
    lines = [(f"`{name}`", f"{size:,}", f"{zipped:,}") for name, (size, zipped) in about["files"].items()]
    notes = []
    if any(name.endswith(".stablehlo") for name in about["files"]):
        notes.append(
            f"StableHLO is lowered for cpu, cuda and tpu by JAX {about['versions']['jax']}, and was run on "
            f"{about['hardware']['devices']} only. JAX promises to load it with its own releases of the following six "
            "months: export again for later ones."
        )
    if "model.safetensors" in about["files"]:
        notes.append('`model.safetensors` with `model.json` does not expire: `td.export.load_exported("FOLDER")`.')
    return "\n\n".join([f"## Files\n\n{_table(('file', 'bytes', 'zipped'), lines)}", *notes])


def _origin(about: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    data = about["config"]["data"]["name"]
    terms = LICENCES.get(data, "Unknown to td: state the licence of your data here.")
    command = f"```sh\n{about['command']}\n```\n\n" if about["command"] else ""
    return (
        f"## Origin\n\n{command}Run `{about['run']}`, whose config is in `model.json`; td commit {about['commit']}, "
        f"{about['date']}; {versions}.\n\nData: {data}. {terms}"
    )


def _table(heads: tuple[str, ...], lines: list[Any]) -> str:
    align = ("left", *["right"] * (len(heads) - 1))
    return tabulate(lines, heads, "github", disable_numparse=True, colalign=align)
