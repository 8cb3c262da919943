"""Helpers for config files: typed arguments after the colon, scales, neutral values of every setting, durations."""

import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from ml_collections import ConfigDict

from td import masks
from td.criteria import GRANULARITIES
from td.errors import UserError, check_choice, lookup, nearest
from td.io.run_folder import TEXTS, flatten

SHORTER = {"mask.warmup": "40%", "mask.begin": "20%", "mask.end": "80%", "mask.interval": "2%", "mask.rewind": "10%"}
"""Schedules of methods at every scale but paper and smoke; each config says how long a ramp's stage is."""

SMOKE = {
    "duration": "6 steps",
    "data.name": "digits",
    "data.batch_size": 16,
    "data.pad": 0,
    "data.flip": False,
    "data.validation": 60,
    "mask.stage": "2 steps",
    "mask.warmup": "3 steps",
    "mask.begin": "1 steps",
    "mask.end": "4 steps",
    "mask.interval": "2 steps",
    "mask.rewind": "2 steps",
    "mask.rounds": 1,
    "every.log": "2 steps",
    "every.checkpoint": "2 steps",
    "every.evaluation": "3 steps",
    "every.telemetry": "3 steps",
}
"""A run of six steps that exercises every part of a run."""

IMAGE_SETTINGS = {
    "path": "",  # of your own images: a folder for the name "folder", a file for "npz"
    "pad": 0,  # pixels around an image in memory before a random crop
    "flip": False,  # whether training images are mirrored at random
    "image_size": 224,  # of images that stay on disk, which are cropped at random
    "workers": 0,  # processes that decode those; 0: threads
    "skip_corrupt": False,  # whether the next image replaces one that cannot be decoded
}
"""Settings of some image data sets, with neutral values."""

FOLDERS = {
    "data_dir": "",  # of prepared data; empty: TFDS_DATA_DIR, else ~/tensorflow_datasets
    "cache_dir": "",  # of decoded data; empty: the user's cache folder
}

Scales = Mapping[str, Mapping[str, Any]]
"""Scale -> its changes of a config: defaults of arguments, and settings (`duration`, or with a dot)."""


TRACED = "traced"  # `kernels` as td.trace finds them: all but the first and the last


def parse_arg(text: str | None, scales: Scales | None = None, **defaults: Any) -> ConfigDict:
    """Read the text after a config's colon into values of the defaults' types; a word alone is a scale, or true."""
    given, known = {}, {**defaults, **({"scale": "paper"} if scales else {})}
    for part in filter(None, (text or "").split(",")):
        name, equals, value = ("scale", "=", part) if part in (scales or {}) else part.partition("=")
        if name not in known:
            setting = f"; for a setting write --config.SECTION.{name}={value}, for example --config.mask.drop_rate=0.5"
            raise UserError(f"unknown config argument {name!r}: {nearest(name, known)}{setting}")
        given[name] = convert(name, value if equals else "true", known[name])
    scale = lookup(scales, given.get("scale", "paper"), "scale") if scales else {}
    return ConfigDict({**known, **{name: value for name, value in scale.items() if name in known}, **given})


def convert(name: str, text: str, old: Any) -> Any:
    """Convert the text of an argument or setting to the type of its old value."""
    try:
        if isinstance(old, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(old, tuple | list):
            return tuple(convert(name, part, old[0] if old else "") for part in text.split(","))
        return type(old)(text)
    except (KeyError, ValueError):
        raise UserError(f"{name}={text!r} is not of type {type(old).__name__}") from None


def apply_scale(config: ConfigDict, scale: str, scales: Scales, tuned: Mapping[str, Any] | None = None) -> ConfigDict:
    """Change what a scale changes in all configs, in this one, and by `tuned[scale][method, granularity]`."""
    known = flatten(config.to_dict())
    shared = {"paper": {}, "smoke": SMOKE}.get(scale, SHORTER)
    config.update_from_flattened_dict({name: value for name, value in shared.items() if name in known})
    own = {name: value for name, value in scales[scale].items() if "." in name or name == "duration"}
    numbers = (tuned or {}).get(scale, {}).get((config.mask.name, weight_or_unit(config.granularity)), {})
    config.update_from_flattened_dict({**own, **numbers})
    return config


def method(name: str, granularity: str = "weight", **settings: Any) -> ConfigDict:
    """A method's settings: every argument of its factory, with the factory's defaults or, where it has such, these."""
    check_choice("granularity", granularity, GRANULARITIES)
    record = masks.find(name)
    # 0 examples: as many as the run has. Local noise is for a trainer that calls the model inside `context`, as ours.
    values = {"granularity": granularity, "over": granularity, "examples": 0, "local": True, **settings}
    if granularity == "weight":
        del values["over"]
    chosen = {key: values.get(key, its.default) for key, its in record.arguments.items() if key != "kernels"}
    lengths = {key: f"{chosen[key]} steps" for key in record.durations if isinstance(chosen[key], int)}
    return ConfigDict({"name": name, **chosen, **lengths})


def weight_or_unit(granularity: str) -> str:
    """The granularity whose numbers a config uses: those of units serve groups and heads."""
    return "weight" if granularity == "weight" else "unit"


def weight_decay(name: str, l2: float) -> float:
    """The L2 coefficient of a run: 0 if the method's own prior replaces it."""
    return 0.0 if masks.find(name).replaces_weight_decay else l2


def text_data(name: str) -> ConfigDict:
    """All settings of translation data, for a config's section `data`."""
    data = ConfigDict({"name": name, "batch_size": 4096})  # tokens, on either side
    data.vocabulary = 32_000  # tokens of both languages together
    data.lengths = (16, 32, 64, 128)  # in tokens: sentences are padded to the next of these
    data.too_long = "drop"  # or "cut": what becomes of longer training sentences
    data.validation = 0  # training pairs to hold out and score instead of the test text
    data.update({name.removeprefix("data."): "" for name in TEXTS})  # files of one sentence a line, plain, .gz or .xz
    data.update(source="en", target="de")  # languages of a TFDS set
    data.update(FOLDERS)
    return data


def skeleton(granularity: str = "weight") -> ConfigDict:
    """All settings with neutral values, for a config file to change.

    Durations have a unit: "3 epochs", "500 steps", "64000 examples" or, except for `duration` itself, "20%" of the run.
    """
    config = ConfigDict()
    config.seed = 0
    config.rng = "threefry2x32"  # or rbg, unsafe_rbg: the device's own generator, faster on TPUs, other bits on each
    config.granularity = granularity
    config.duration = "1 epochs"
    config.kernels = TRACED  # or patterns of paths

    config.data = data = ConfigDict({"name": "digits", "batch_size": 128})
    data.validation = 0  # training examples to hold out and score instead of the test split
    data.update(IMAGE_SETTINGS | FOLDERS)

    config.optim = optim = ConfigDict({"name": "sgd", "learning_rate": 0.1})
    optim.update(schedule="constant", boundaries=(), decay=0.1, warmup="0 steps")
    optim.begin = "0 steps"  # where in the schedule the run starts, for fine-tuning with the last part of another's
    optim.update(momentum=0.9, nesterov=False, b1=0.9, b2=0.999)
    optim.gate_lr_multiplier = 1.0  # the gates' learning rate, as a multiple
    optim.update(clip_norm=0.0, clip_rms=0.0)  # of the global gradient, and of each leaf's; 0: no clipping
    optim.accumulate = 1  # batches whose mean gradient makes one update
    optim.label_smoothing = 0.0
    optim.ema_decay = 0.0  # decay of the moving average of the parameters that is scored, as 0.999; 0: none
    optim.l2 = 0.0  # l2 * sum(w^2) / 2 over all kernels

    # a run whose network, pruned, is what this one starts from, its masks fixed; empty: none
    config.start = ConfigDict({"workdir": "", "prune_rate": 0.0})
    config.start.reconstruct_examples = 0  # training examples to reconstruct it with; 0: only pruned
    config.every = ConfigDict({"log": "100 steps", "checkpoint": "1 epochs", "evaluation": "1 epochs"})
    config.every.telemetry = "0 steps"  # how often to watch the method's targets; 0: never
    return config


def check_settings(config: ConfigDict) -> None:
    """Reject settings that nothing reads, as misspelt names in a config file, and missing ones."""
    own = ("data", "model", "mask")  # data sets, models and methods check their settings
    known, given = (
        {name for name in flatten(of.to_dict()) if name.partition(".")[0] not in own} for of in (skeleton(), config)
    )
    for name in sorted(given - known):
        raise UserError(f"the config has {name}, which nothing reads: {nearest(name, known)}")
    for name in sorted(known - given):
        raise UserError(f"the config has no {name}: start from td.train.config.skeleton()")


def check_config(config: ConfigDict) -> None:
    """Reject also settings that contradict each other, under which a run's numbers would mean something else."""
    check_settings(config)
    if masks.find(config.mask.name).starts_pruned != bool(config.start.workdir):
        raise UserError("mask=fixed, and no other, needs a pruned network: set start.workdir=RUN, or use td-finetune")
    granularity = config.mask.get("granularity", config.granularity)
    check_choice("granularity", config.granularity, GRANULARITIES)
    if granularity != config.granularity:
        raise UserError(f"mask.granularity={granularity!r}, but granularity={config.granularity!r}: set both")


_DURATION = re.compile(r"(\d+(?:\.\d+)?) *(steps?|epochs?|examples?)")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?) *%")


def to_steps(duration: str, train_examples: int, batch_size: int | float) -> int:
    """Convert a duration to steps, rounded to the nearest whole one."""
    number, unit = _parse(duration)
    examples = {"step": number * batch_size, "epoch": number * train_examples, "example": number}[unit.rstrip("s")]
    return round(examples / batch_size)


def _parse(duration: str) -> tuple[float, str]:
    match = _DURATION.fullmatch(duration.strip())
    if match is None:
        raise UserError(f"duration {duration!r} is not understood: write a number and steps, epochs or examples")
    return float(match[1]), match[2]


def expand_percent(config: ConfigDict) -> ConfigDict:
    """Replace durations in percent of the run by durations in the unit of the run's own."""

    def expand(value: Any) -> Any:
        match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            return value
        length, unit = _parse(config.duration)
        return f"{float(match[1]) / 100 * length:.6f}".rstrip("0").rstrip(".") + f" {unit}"

    expanded = ConfigDict(config.to_dict())
    for name, value in flatten(config.to_dict()).items():
        if "%" in str(value):
            expanded.update_from_flattened_dict({name: _each(expand, value)})
    return expanded


def resolve(
    settings: Mapping[str, Any], names: Collection[str], train_examples: int, batch_size: int | float
) -> dict[str, Any]:
    """Convert the named settings of a config section, durations or tuples of them, to steps."""
    steps = partial(_each, lambda value: to_steps(str(value), train_examples, batch_size))
    return {name: steps(value) if name in names else value for name, value in settings.items()}


def _each(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply a function to a setting, or to every entry of a tuple."""
    return tuple(map(function, value)) if isinstance(value, tuple | list) else function(value)
