"""The log-spectral amplitude estimator.

Ephraim & Malah, "Speech enhancement using a minimum mean-square error log-spectral amplitude estimator" (IEEE TASSP
1985, https://doi.org/10.1109/TASSP.1985.1164550).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import exp1


def log_spectral_gain(prior: NDArray[np.float64], posterior: NDArray[np.float64]) -> NDArray[np.float64]:
    """The gain of that estimate, at most 1, by the prior and the posterior SNR, of one shape."""
    ratio = prior / (1 + prior)
    # exp1 has a pole at zero, where an empty bin would ask for infinite gain.
    return np.asarray(np.minimum(ratio * np.exp(exp1(np.maximum(ratio * posterior, 1e-10)) / 2), 1))
