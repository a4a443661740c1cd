"""The closed form that the validation compares two neurons with, without the library."""

import numpy as np
import pytest
from experiments.figures import validation


@pytest.mark.parametrize("kind", ["fold", "flip", "Neimark-Sacker"])
def test_analytic_every_point_of_the_closed_form_has_a_critical_multiplier(kind):
    w, second = validation.TWO_NEURONS, validation.SECOND_BIAS
    found = validation.manifold(kind, w, second, (-8.0, 8.0))
    assert found
    for b1 in found:
        # All fixed points, by Newton from a grid in plain numpy.
        x = np.stack(np.meshgrid(*[np.linspace(-6, 6, 41)] * 2), -1).reshape(-1, 2)
        for _ in range(60):
            jacobian = (1 - np.tanh(x) ** 2)[:, None, :] * w.T
            step = np.linalg.solve(np.eye(2) - jacobian, (np.tanh(x) @ w + [b1, second] - x)[..., None])[..., 0]
            x = x + np.clip(step, -1, 1)
        still = np.abs(np.tanh(x) @ w + [b1, second] - x).max(1) < 1e-6
        values = np.linalg.eigvals((1 - np.tanh(x[still]) ** 2)[:, None, :] * w.T)
        critical = {"fold": values - 1, "flip": values + 1, "Neimark-Sacker": np.abs(values) - 1}[kind]
        assert np.abs(critical).min() < 1e-3, b1
