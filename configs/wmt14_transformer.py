"""Transformer on WMT14 English to German, or any pair of text files: the paper's Table 5, weight pruning.

Published BLEU (uncased, newstest2014) and token accuracy (%):

    weights pruned            0 %   50 %   60 %   70 %   80 %   90 %
    BLEU
    no dropout              26.01  25.08  23.31   8.89   0.24   0.01
    targeted weight .66/.75 26.52  26.03  25.62  24.07  12.39   0.07
    token accuracy
    no dropout              62.29  60.82  58.13  48.40  25.80   6.90
    targeted weight .66/.75 58.31  57.71  58.42  55.39  47.09  21.64

The released code keeps targets with probability .66, so the drop rate behind those numbers may be .34: run both.

Cost: 60,487,680 parameters with 32,000 tokens. The paper does not say how long it trained; 100,000 steps of 25,000
tokens are the schedule of Vaswani et al. 2017 for their base model. About a day on one GPU; too slow for a CPU.

    td-train --config=wmt14_transformer:mask=targeted --workdir=DIR
    td-prune-curve --workdir=DIR --rates=0:0.9:0.1 --bleu

    td-train --config=wmt14_transformer:mask=targeted,scale=cpu --workdir=DIR \\
      --config.data.train_source=train.en --config.data.train_target=train.de \\
      --config.data.test_source=test.en --config.data.test_target=test.de

Arguments after the colon: `data` (wmt14_translate/de-en, text, numbers), `mask` (any method of docs/methods.md),
`granularity` (weight, unit, group, head), `size` (base, small, tiny), `scale` (paper, short, cpu, smoke).
"""

from ml_collections import ConfigDict

from td.errors import lookup
from td.train.config import Scales, apply_scale, method, parse_arg, skeleton, text_data

PAPER = {"targeted": {"drop_rate": 0.66, "target_proportion": 0.75}}
"""The paper's numbers for this network, by method."""

SIZES = {
    "base": {"layers": 6, "width": 512, "hidden_units": 2048, "heads": 8, "dropout_rate": 0.1},
    "small": {"layers": 3, "width": 256, "hidden_units": 1024, "heads": 4, "dropout_rate": 0.2},
    "tiny": {"layers": 2, "width": 128, "hidden_units": 512, "heads": 4, "dropout_rate": 0.1},
}

SCALES: Scales = {
    "paper": {},
    "short": {"duration": "10000 steps"},
    "cpu": {
        "data": "text",
        "size": "tiny",
        "duration": "12 epochs",
        "data.batch_size": 1024,
        "data.vocabulary": 4000,
        "data.lengths": (16, 24, 32, 64),
        "optim.learning_rate": 2e-3,
        "optim.schedule": "cosine",
    },
    "smoke": {
        "data.name": "numbers",
        "data.batch_size": 128,
        "data.vocabulary": 80,
        "data.lengths": (8, 16),
        "model.layers": 1,
        "model.width": 16,
        "model.hidden_units": 32,
        "model.heads": 2,
        "optim.warmup": "2 steps",
    },
}


def get_config(text: str | None = None) -> ConfigDict:
    arg = parse_arg(text, SCALES, data="wmt14_translate/de-en", mask="none", granularity="weight", size="base")
    config = skeleton(arg.granularity)
    config.duration = "100000 steps"
    config.data = text_data(arg.data)
    config.data.update(batch_size=25_000, lengths=(16, 32, 48, 64, 96, 128, 256))
    config.model = ConfigDict({"name": "transformer", **lookup(SIZES, arg.size, "size"), "dtype": "float32"})
    config.optim.update(
        name="adam",
        learning_rate=2 * 512**-0.5 * 10_000**-0.5,
        b1=0.9,
        b2=0.98,
        schedule="inverse_sqrt",
        warmup="10%",  # 10,000 steps
        label_smoothing=0.1,
    )
    config.mask = method(arg.mask, arg.granularity, stage="20%", **PAPER.get(arg.mask, {}))
    return apply_scale(config, arg.scale, SCALES)
