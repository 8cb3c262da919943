"""Table 5: Transformer base on WMT14 English to German, BLEU and token accuracy.

    td-reproduce table5 --seeds=1 --workdir=DIR

For text in files, as in every smaller run, add `--set=data.train_source=FILE` and so on. The fourth column is not in
the paper, whose released code *keeps* targets with probability .66.
"""

from td.reproduce.claims import beats, keeps
from td.reproduce.table import Settings, Table, networks


def get_table() -> Table:
    targeted = ((0.66, 0.75), (0.66, 0.9), (0.34, 0.75))  # drop rate, target proportion
    sweep: list[Settings] = [
        {"mask": "none"},
        *({"mask": "targeted", "mask.drop_rate": alpha, "mask.target_proportion": gamma} for alpha, gamma in targeted),
    ]
    return Table(
        title="Table 5: Transformer on English to German",
        networks=networks("wmt14_transformer", sweep, "0:0.9:0.1"),
        granularity="weight",
        scorings=("dense", "paper"),
        published={"bleu": "table5_bleu", "accuracy": "table5_token_accuracy"},
        claims=(
            keeps("targeted .66/.75", 0.6, within=1),
            beats("targeted .66/.75", "none", 0.7, by=10),
            beats("targeted .66/.75", "none", 0.8, by=10),
            beats("targeted .66/.75", "none", 0.0),
        ),
        beams=4,
        chance=0.0,
    )
