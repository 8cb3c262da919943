"""Layer-wise least squares after pruning."""

from td.reconstruct.api import reconstruct as reconstruct
