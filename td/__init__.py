"""Targeted dropout and its neighbours as pure functions of a parameter tree, for any JAX training loop."""

from td import criteria, importance, masks, select
from td.base import MaskTransform, MaskVars, chain, identity
from td.compact import apply_plan, compact
from td.errors import UserError
from td.kernels import KERNELS, Kernels, describe
from td.masks import dropout, ramping, random_prune, targeted
from td.prune import Sparsity, apply_mask, prune_mask, sparsity
from td.rates import allocate
from td.recalibrate import recalibrate
from td.reconstruct import reconstruct
from td.schedules import ramp
from td.structure import Structure, trace

__version__ = "0.1.0"

__all__ = [
    "KERNELS",
    "Kernels",
    "MaskTransform",
    "MaskVars",
    "Sparsity",
    "Structure",
    "UserError",
    "allocate",
    "apply_mask",
    "apply_plan",
    "chain",
    "compact",
    "criteria",
    "describe",
    "dropout",
    "identity",
    "importance",
    "masks",
    "prune_mask",
    "ramp",
    "ramping",
    "random_prune",
    "recalibrate",
    "reconstruct",
    "select",
    "sparsity",
    "targeted",
    "trace",
]
