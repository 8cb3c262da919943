"""Ramps against the paper's numbers."""

import numpy as np

import td


def test_ramping_follows_the_paper():
    gamma, alpha = td.ramp(0.9, 100), td.ramp(0.99, 100, knee=0.5)
    points = [0, 50, 100, 150, 200, 1000]
    np.testing.assert_allclose([gamma(t) for t in points], [0, 0.4275, 0.855, 0.8775, 0.9, 0.9], rtol=1e-6)
    np.testing.assert_allclose([alpha(t) for t in points], [0, 0.2475, 0.495, 0.7425, 0.99, 0.99], rtol=1e-6)
