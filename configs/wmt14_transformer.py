"""Transformer on WMT14 English to German, or any pair of text files: the paper's Table 5, weight pruning.

Published BLEU (uncased, newstest2014) at 0 / 50 / 60 / 70 / 80 / 90 % of the weights pruned: no dropout 26.01 / 25.08 /
23.31 / 8.89 / 0.24 / 0.01; targeted weight .66/.75 26.52 / 26.03 / 25.62 / 24.07 / 12.39 / 0.07. Token accuracy: no
dropout 62.29 / 60.82 / 58.13 / 48.40 / 25.80 / 6.90; targeted 58.31 / 57.71 / 58.42 / 55.39 / 47.09 / 21.64. The
released code has .66 as the share it keeps, so the drop rate behind those numbers may be .34: run both.

Cost: 60,487,680 parameters with 32,000 tokens; the paper does not say how long it trained, 100,000 steps of 25,000
tokens are taken, as for the base model of Vaswani et al. 2017: about a day on one GPU, out of reach of a CPU. The sizes
`small` and `tiny` are for small text and small machines.

    python scripts/train.py --config=configs/wmt14_transformer.py:mask=targeted --workdir=DIR
    python scripts/prune_curve.py --workdir=DIR --rates=0:0.9:0.1 --bleu

    python scripts/train.py --config=configs/wmt14_transformer.py:data=text,size=tiny,mask=targeted --workdir=DIR \\
      --config.data.train_source=train.en --config.data.train_target=train.de \\
      --config.data.test_source=test.en --config.data.test_target=test.de

Arguments after the colon: `data` (wmt14_translate/de-en, text, numbers), `mask` (any method of docs/methods.md),
`granularity` (weight, unit), `size` (base, small, tiny), `short` (for a CPU: `epochs` long, 20 unless told, small
batches, with what the method schedules in proportion), `smoke` (seconds on a CPU, on the embedded numbers).

The learning rate of `short` runs was not searched for (`scripts/search.py` does it, on held-out training data).
"""

from ml_collections import ConfigDict

from td.errors import lookup
from td.train.config import SMOKE, in_proportion, method, parse_arg, shrink, skeleton, text_data

PAPER = {"targeted": {"drop_rate": 0.66, "target_proportion": 0.75}}
"""The paper's numbers for this network, by method."""

SIZES = {
    "base": {"layers": 6, "width": 512, "hidden_units": 2048, "heads": 8, "dropout_rate": 0.1},
    "small": {"layers": 3, "width": 256, "hidden_units": 1024, "heads": 4, "dropout_rate": 0.2},
    "tiny": {"layers": 2, "width": 128, "hidden_units": 512, "heads": 4, "dropout_rate": 0.1},
}

SCALES = {
    "paper": {},
    "short": {"duration": "10000 steps", "optim.warmup": "1000 steps", "mask.stage": "2000 steps"},
    "cpu": {"data": "text", "size": "tiny", "short": True, "epochs": 12.0},
    "smoke": {"smoke": True},
}
"""What each scale of `scripts/reproduce.py` changes: arguments, and settings, which have a dot or are `duration`."""


def get_config(arg: str | None = None) -> ConfigDict:
    chosen = parse_arg(
        arg,
        data="wmt14_translate/de-en",
        mask="none",
        granularity="weight",
        size="base",
        short=False,
        epochs=20.0,
        smoke=False,
    )
    config = skeleton(chosen.granularity)
    config.duration = "100000 steps"
    config.kernels = ".*"  # the one table of embeddings is the first and the last layer, and is no kernel

    config.data = data = text_data(chosen.data)
    data.batch_size = 25_000
    data.lengths = (16, 32, 48, 64, 96, 128, 256)

    config.model = model = ConfigDict({"name": "transformer", **lookup(SIZES, chosen.size, "size")})
    model.dtype = "float32"

    numbers = PAPER.get(chosen.mask, {})
    config.mask = method(chosen.mask, chosen.granularity, stage="20000 steps", **numbers)

    optim = config.optim
    optim.name = "adam"
    optim.learning_rate = 2 * 512**-0.5 * 10_000**-0.5
    optim.schedule = "inverse_sqrt"
    optim.warmup = "10000 steps"
    optim.b1 = 0.9
    optim.b2 = 0.98
    optim.label_smoothing = 0.1

    if chosen.short:
        config.duration = f"{chosen.epochs:g} epochs"
        config.mask = method(chosen.mask, chosen.granularity, **numbers, **in_proportion(chosen.epochs, 0.2))
        data.batch_size = 1024
        data.vocabulary = 4000
        data.lengths = (16, 24, 32, 64)
        optim.learning_rate = 2e-3
        optim.schedule = "cosine"
        optim.warmup = f"{0.1 * chosen.epochs:g} epochs"
    if chosen.smoke:
        shrink(config)
        config.mask = method(chosen.mask, chosen.granularity, **numbers, **SMOKE)
        model.update(layers=1, width=16, hidden_units=32, heads=2)
        optim.warmup = "2 steps"
    return config
