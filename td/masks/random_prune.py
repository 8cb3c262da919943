"""Random pruning before training: the control that shows what a smaller network can do anyway."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from td import criteria, prune, tree
from td.base import MaskTransform, MaskVars, Params, RandomKey, Step
from td.errors import check_choice, check_share


def random_prune(
    granularity: str = "weight", proportion: float = 0.5, *, kernels: tree.Patterns = tree.KERNELS
) -> MaskTransform:
    """Remove a random share of every column, or of the columns, before training and for good.

    The keep-masks are drawn once, by `init`, and travel in `stats`. `apply` uses them in training and in evaluation
    alike. `prune` sets the stored weights to zero; call it after `init` and after every update, and neither
    momentum nor weight decay brings them back.

    Args:
      granularity: "weight" removes the same number of weights from each column, "unit" whole columns.
      proportion: the share to remove, in [0, 1].
      kernels: regular expressions on paths; by default all kernels but `stem` and `logits`.

    Returns:
      A `MaskTransform` whose `stats` are `{path: mask}`, True = kept.

    Raises:
      UserError: a share out of range or an unknown word.

    Example:
      >>> import jax, jax.numpy as jnp, td
      >>> transform = td.random_prune(proportion=0.75)
      >>> params = {"w": jnp.ones((8, 5))}
      >>> mask_vars = transform.init(jax.random.key(0), params)
      >>> pruned, _ = transform.apply(params, mask_vars, key=None, step=0)
      >>> (pruned["w"] != 0).sum(axis=0).tolist()
      [2, 2, 2, 2, 2]

    Source: Gomez et al. 2019, section 5.4 (the random-prune control).
    """
    check_choice("granularity", granularity, criteria.GRANULARITIES)
    check_share("proportion", proportion)

    def init(key: RandomKey, params: Params) -> MaskVars:
        def draw(path: str, kernel: Array) -> Array:
            rows = kernel.size // kernel.shape[-1] if granularity == "weight" else 1
            scores = jax.random.uniform(tree.kernel_key(key, 0, path), (rows, kernel.shape[-1]))
            return prune.keep_mask(scores, proportion, granularity)

        return MaskVars(stats={path: draw(path, w) for path, w in tree.select_kernels(params, kernels).items()})

    def apply(params: Params, mask_vars: MaskVars, *, key: RandomKey | None, step: Step) -> tuple[Params, MaskVars]:
        del key, step
        return prune_for_good(params, mask_vars), mask_vars

    def prune_for_good(params: Params, mask_vars: MaskVars) -> Params:
        def remove(path: str, kernel: Array) -> Array:
            matrix = tree.as_matrix(kernel)
            return jnp.where(mask_vars.stats[path], matrix, jnp.zeros_like(matrix)).reshape(kernel.shape)

        return tree.map_kernels(remove, params, kernels)

    return MaskTransform(init, apply, prune=prune_for_good)
