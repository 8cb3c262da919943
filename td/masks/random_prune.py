"""Random pruning before training: the control for the size of the network."""

import jax

from td import criteria, select
from td._entries import draw_entries
from td.base import MaskTransform, MaskVars, Params, RandomKey
from td.errors import check_choice, check_fraction
from td.kernels import KERNELS, Patterns
from td.masks.fixed import fixed


def random_prune(granularity: str = "weight", proportion: float = 0.5, *, kernels: Patterns = KERNELS) -> MaskTransform:
    """Remove a random proportion of every unit's weights, or of the units, permanently before training.

    `init` draws the keep-masks, and `apply` uses them in training and at evaluation. `prune` sets the stored weights
    to zero: call it after `init` and every update, against momentum and weight decay.

    Args:
      granularity: "weight" removes the same number of weights from each unit, "unit" whole units, "group" and "head"
        those of a structure.
      proportion: the proportion to remove, in [0, 1].
      kernels: which leaves, as in `td.kernels.find_kernels`; by default all but first and last layers and embeddings.

    Returns:
      A `MaskTransform` whose `stats` are `{path: mask}`, True = kept.

    Raises:
      UserError: a proportion out of range or an unknown word.

    Example:
      >>> import jax, jax.numpy as jnp, td
      >>> transform = td.random_prune(proportion=0.75, kernels="w")
      >>> params = {"w": jnp.ones((8, 5))}
      >>> mask_vars = transform.init(jax.random.key(0), params)
      >>> pruned, _ = transform.apply(params, mask_vars, key=None, step=0)
      >>> (pruned["w"] != 0).sum(axis=0).tolist()
      [2, 2, 2, 2, 2]

    Source: Gomez et al. 2019, section 5.4 (the random-prune control).
    """
    check_choice("granularity", granularity, criteria.GRANULARITIES)
    check_fraction("proportion", proportion)

    def init(key: RandomKey, params: Params) -> MaskVars:
        scores = draw_entries(jax.random.uniform, key, params, granularity, kernels)
        return MaskVars(stats=select.keep_masks(scores, proportion, granularity))

    return fixed(granularity, kernels)._replace(init=init)
