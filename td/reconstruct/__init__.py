"""Layer-wise least squares after pruning."""

from td.reconstruct.run import reconstruct as reconstruct
