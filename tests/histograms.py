"""The ratio of two histograms, without bins."""

import numpy as np


def log_ratio_slope(first, second):
    """d/dx of ln p₂(x)/p₁(x) where that is linear, by maximum likelihood of which one a sample is from.

    Shirts, J. Chem. Theory Comput. 9, 909 (2013), doi:10.1021/ct300688p.
    """
    x = np.concatenate([first.ravel(), second.ravel()])
    is_second = np.r_[np.zeros(first.size), np.ones(second.size)]
    centre, scale = x.mean(), x.std()
    columns = np.stack([np.ones_like(x), (x - centre) / scale])
    theta = np.zeros(2)
    for _ in range(30):
        p = 1 / (1 + np.exp(-theta @ columns))
        theta = theta + np.linalg.solve((columns * (p * (1 - p))) @ columns.T, columns @ (is_second - p))
    return theta[1] / scale
