"""Helpers for config files: typed arguments after the colon, and a method's settings with its own defaults."""

from typing import Any

from ml_collections import ConfigDict

from td import masks
from td.criteria import GRANULARITIES
from td.errors import UserError, check_choice, nearest
from td.io.run_folder import flatten

KERNELS = r"^(?!(.*/)?(stem|logits|embedding)(/|$))"
"""Every kernel but those of modules that the networks here call `stem` or `logits`, and embeddings."""

SMOKE = {
    "stage": "2 steps",
    "warmup": "3 steps",
    "begin": "1 steps",
    "end": "4 steps",
    "interval": "2 steps",
    "rewind": "2 steps",
    "rounds": 1,
}
"""What a method schedules, in a run of six steps."""


SELDOM = {f"every.{what}": "8 epochs" for what in ("checkpoint", "evaluation", "telemetry")}
"""For hundreds of epochs of a few seconds: saving and scoring after each would take as long as training."""


IMAGE_SETTINGS = {
    "path": "",  # of your own images: a folder for the name "folder", a file for "npz"
    "pad": 0,  # pixels around an image in memory before a random crop
    "flip": False,  # whether training images are mirrored at random
    "image_size": 224,  # of images that stay on disk, which are cropped at random
    "workers": 0,  # processes that decode those; 0: threads
    "skip_corrupt": False,  # whether the next one takes the place of one of those that cannot be decoded
}
"""Settings that some sets of images take, with values that ask for nothing."""


def parse_arg(arg: str | None, **defaults: Any) -> ConfigDict:
    """Read the text behind a config file's colon: `mask=targeted,granularity=unit,smoke`.

    Example:
      >>> parse_arg("mask=targeted,smoke", mask="none", smoke=False, seed=0).to_dict() == {
      ...     "mask": "targeted", "smoke": True, "seed": 0}
      True
    """
    values = dict(defaults)
    for part in filter(None, (arg or "").split(",")):
        name, equals, text = part.partition("=")
        if name not in defaults:
            raise UserError(f"unknown config argument {name!r}: {nearest(name, defaults)}")
        values[name] = _convert(name, text if equals else "true", type(defaults[name]))
    return ConfigDict(values)


def _convert(name: str, text: str, kind: type) -> Any:
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise UserError(f"config argument {name}={text!r} is not of type {kind.__name__}") from None


def method(name: str, granularity: str = "weight", **settings: Any) -> ConfigDict:
    """A method's settings for a config: every argument of its factory, with the factory's defaults.

    `settings` replace them where the method has such.
    """
    check_choice("granularity", granularity, GRANULARITIES)
    record = masks.find(name)
    # 0 examples: as many as the run has. Local noise is for a trainer that calls the model inside `context`, as ours.
    values = {"granularity": granularity, "examples": 0, "local": True, **settings}
    chosen = {
        key: values.get(key, parameter.default) for key, parameter in record.arguments.items() if key != "kernels"
    }
    lengths = {key: f"{chosen[key]} steps" for key in record.durations if isinstance(chosen[key], int)}
    return ConfigDict({"name": name, **chosen, **lengths})


def in_proportion(epochs: float, stage: float = 49 / 256) -> dict[str, str]:
    """What a method schedules, in proportion to the length of a run; a ramp has two of the paper's stages.

    Example:
      >>> in_proportion(5.0)["stage"], in_proportion(5.0)["rewind"]
      ('0.957031 epochs', '0.5 epochs')
    """
    # Beside the stage, which a card says, all leave room to begin and to end.
    shares = {"stage": stage, "warmup": 0.4, "begin": 0.2, "end": 0.8, "interval": 0.02, "rewind": 0.1}
    return {name: f"{round(share * epochs, 6):f}".rstrip("0").rstrip(".") + " epochs" for name, share in shares.items()}


def shorten(config: ConfigDict, epochs: float) -> None:
    """Make a run short: so many epochs, with a warm-up over a fifth of them and a cosine.

    Example:
      >>> config = skeleton()
      >>> shorten(config, 5.0)
      >>> config.duration, config.optim.warmup
      ('5 epochs', '1 epochs')
    """
    config.duration = f"{epochs:g} epochs"
    config.optim.schedule = "cosine"
    config.optim.warmup = f"{0.2 * epochs:g} epochs"


def shrink(config: ConfigDict) -> None:
    """Make a run tiny: six steps of embedded digits or numbers, with everything that happens in a run happening.

    Example:
      >>> config = skeleton()
      >>> shrink(config)
      >>> config.duration, config.data.batch_size
      ('6 steps', 16)
    """
    config.duration = "6 steps"
    if "warmup" in config.optim and config.optim.warmup != "0 steps":
        config.optim.warmup = "2 steps"
    data = config.data
    if "vocabulary" in data:
        data.update(name="numbers", batch_size=128, vocabulary=80, lengths=(8, 16))
    else:
        data.update({**IMAGE_SETTINGS, "name": "digits", "batch_size": 16, "pad": min(data.pad, 1)})
    data.validation = 60
    config.every.log = "2 steps"
    config.every.checkpoint = "2 steps"
    config.every.evaluation = "3 steps"
    config.every.telemetry = "3 steps"


def text_data(name: str) -> ConfigDict:
    """Every setting of translation data: what takes the place of the data section in a config for text."""
    data = ConfigDict()
    data.name = name
    data.batch_size = 4096  # tokens, on either side
    data.vocabulary = 32_000  # tokens of both languages together
    data.lengths = (16, 32, 64, 128)  # in tokens: sentences are padded to the next of these
    data.too_long = "drop"  # or "cut": what becomes of longer training sentences
    data.validation = 0  # training pairs to hold out and score instead of the test text
    data.train_source = ""  # files of one sentence a line, plain, .gz or .xz
    data.train_target = ""
    data.test_source = ""
    data.test_target = ""
    data.source = "en"  # languages of a TFDS set
    data.target = "de"
    data.data_dir = ""  # empty: TFDS_DATA_DIR, else ~/tensorflow_datasets
    data.cache_dir = ""  # empty: the user's cache folder
    return data


def weight_decay(name: str, l2: float) -> float:
    """The L2 coefficient for a method: 0 where the method's own prior takes its place.

    Example:
      >>> weight_decay("targeted", 2e-4), weight_decay("variational", 2e-4)
      (0.0002, 0.0)
    """
    return 0.0 if masks.find(name).replaces_weight_decay else l2


def skeleton(granularity: str = "weight") -> ConfigDict:
    """Every setting there is, with a neutral value: what a config file starts from and then changes.

    Durations carry their unit: "3 epochs", "500 steps" or "64000 examples".
    """
    config = ConfigDict()
    config.seed = 0
    config.rng = "threefry2x32"  # or rbg, unsafe_rbg: the device's own generator, faster on TPUs, other bits on each
    config.granularity = granularity
    config.duration = "1 epochs"
    config.kernels = KERNELS

    config.data = data = ConfigDict()
    data.name = "digits"
    data.batch_size = 128
    data.validation = 0  # training examples to hold out and score instead of the test split
    data.update(IMAGE_SETTINGS)  # path, pad, flip, image_size, workers, skip_corrupt
    data.data_dir = ""  # empty: TFDS_DATA_DIR, else ~/tensorflow_datasets
    data.cache_dir = ""  # empty: the user's cache folder

    config.optim = optim = ConfigDict()
    optim.name = "sgd"
    optim.learning_rate = 0.1
    optim.schedule = "constant"
    optim.boundaries = ()
    optim.decay = 0.1
    optim.warmup = "0 steps"
    optim.begin = (
        "0 steps"  # where in its schedule a run begins, as one that fine-tunes with the last part of another's
    )
    optim.momentum = 0.9
    optim.nesterov = False
    optim.b1 = 0.9
    optim.b2 = 0.999
    optim.gate_rate = 1.0  # the gates' learning rate, as a multiple
    optim.clip_norm = 0.0  # of the global gradient; 0: no clipping
    optim.clip_rms = 0.0  # of each leaf's gradient; 0: no clipping
    optim.accumulate = 1  # batches whose mean gradient makes one update
    optim.label_smoothing = 0.0
    optim.average = 0.0  # decay of the moving average of the parameters that is scored, as 0.999; 0: none
    optim.l2 = 0.0  # l2 * sum(w^2) / 2 over all kernels

    config.start = start = ConfigDict()
    start.workdir = ""  # a run whose network, pruned, is what this one starts from, its masks fixed; empty: none
    start.prune_rate = 0.0

    config.every = every = ConfigDict()
    every.log = "100 steps"
    every.checkpoint = "1 epochs"
    every.evaluation = "1 epochs"
    every.telemetry = "0 steps"  # how often to watch the method's targets; 0: never
    return config


def check_settings(config: ConfigDict) -> None:
    """Refuse what nothing reads, as a name that was misspelt in a config file, and the lack of what something does."""
    known, given = ({name for name in flatten(of.to_dict()) if _common(name)} for of in (skeleton(), config))
    for name in sorted(given - known):
        raise UserError(f"the config has {name}, which nothing reads: {nearest(name, known)}")
    for name in sorted(known - given):
        raise UserError(f"the config has no {name}: begin with td.train.config.skeleton()")


def fill_in(config: ConfigDict) -> None:
    """Give a config of before a setting was added the neutral value of that setting."""
    given = flatten(config.to_dict())
    lacking = {name: value for name, value in flatten(skeleton().to_dict()).items() if name not in given}
    config.update_from_flattened_dict({name: value for name, value in lacking.items() if _common(name)})


def _common(name: str) -> bool:
    """Whether a setting is of every config, and not of one model, data set or method, which look at theirs."""
    return name.partition(".")[0] not in ("data", "model", "mask")
