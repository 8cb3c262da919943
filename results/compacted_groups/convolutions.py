"""Milliseconds of four 3x3 convolutions with as many channels in as out, for the sizes of the small ResNet's stages.

python results/compacted_groups/convolutions.py
"""

import time

import jax
import numpy as np
from jax import lax

SIZES = {16: (10, 12, 16, 22, 32), 8: (19, 20, 32, 45, 64), 4: (38, 40, 64, 90, 128)}  # height -> channels


def build(height: int, channels: int):
    x = jax.random.normal(jax.random.key(0), (128, height, height, channels))
    kernels = jax.random.normal(jax.random.key(1), (4, 3, 3, channels, channels)) / 10

    @jax.jit
    def network(x):
        for kernel in kernels:
            x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return x

    network(x).block_until_ready()
    return lambda: network(x).block_until_ready()


for height, widths in SIZES.items():
    calls, times = {width: build(height, width) for width in widths}, {width: [] for width in widths}
    for _ in range(31):
        for width, call in calls.items():
            start = time.perf_counter()
            call()
            times[width].append(1e3 * (time.perf_counter() - start))
    print(height, {width: round(float(np.median(each)), 2) for width, each in times.items()})
