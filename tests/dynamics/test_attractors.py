"""What trajectories settle on."""

import jax.numpy as jnp
import numpy as np
import pytest

from cliffs.dynamics import InputPath, attractor_diagram
from cliffs.recurrent import OneUnitParams, one_unit_step


def logistic(r, x, _):
    return r * x * (1 - x)


def test_analytic_logistic_attractors(x64):
    r = np.array([0.5, 2.5, 3.3, 3.5])
    states = attractor_diagram(logistic, 0.0, (), r, np.array([[0.2], [0.7]]), transient=3000, record=8)
    assert states.shape == (4, 2, 8, 1)
    x = np.asarray(states)[..., 0]
    np.testing.assert_allclose(x[0], 0, atol=1e-12)
    np.testing.assert_allclose(x[1], 1 - 1 / 2.5, atol=1e-12)
    two = (3.3 + 1 + np.array([-1, 1]) * np.sqrt((3.3 - 3) * (3.3 + 1))) / (2 * 3.3)
    np.testing.assert_allclose(np.sort(x[2], axis=1), np.tile(np.repeat(two, 4), (2, 1)), atol=1e-12)
    np.testing.assert_allclose(x[3][:, :4], x[3][:, 4:], atol=1e-10)  # a cycle of four
    assert len(np.unique(x[3].round(6))) == 4


def test_analytic_two_attractors_of_the_one_unit_map_at_once(x64, reference):
    params, starts = OneUnitParams(5.0, 0.0), np.array([[-3.0], [3.0]])
    states = attractor_diagram(one_unit_step, params, "b", np.array([-3.0, -2.5]), starts, record=1)
    below, between = np.asarray(states)[:, :, 0, 0]
    np.testing.assert_allclose(below, float(reference["fixed_points_sigmoid"]["5,-3"][0][0]), atol=1e-12)
    want = [float(reference["fixed_points_sigmoid"]["5,-2.5"][i][0]) for i in (0, 2)]
    np.testing.assert_allclose(between, want, atol=1e-12)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"path": "c"}, "no field 'c'"),
        ({"values": 1.0}, "values must be"),
        ({"record": 0}, "record"),
        ({"transient": -1}, "transient"),
        ({"starts": jnp.zeros(3)}, "starts"),
        ({"step": lambda p, x, u: x[:0]}, "shape"),
    ],
)
def test_wrong_use_names_the_argument(options, words):
    options = {
        "step": one_unit_step,
        "params": OneUnitParams(5.0, -3.0),
        "path": "b",
        "values": jnp.ones(2),
        "starts": jnp.zeros((2, 1)),
        **options,
    }
    with pytest.raises(ValueError, match=words):
        attractor_diagram(**options)


def test_analytic_an_input_may_be_the_parameter(x64):
    """x = u / (1 - a) of the leaky unit; the path may hold numpy's integers."""

    def leaky(a, x, u):
        return a * x + u["drive"][1]

    inputs, values = {"drive": jnp.array([1.0, 2.0])}, np.array([-1.0, 3.0])
    path = InputPath(("drive", np.int64(1)))
    states = attractor_diagram(leaky, jnp.asarray(0.5), path, values, jnp.zeros((1, 1)), inputs, record=1)
    np.testing.assert_allclose(states[:, 0, 0, 0], values / 0.5, atol=1e-12)
