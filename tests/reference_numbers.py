"""Numbers of the one-unit map and of a non-normal matrix, in 50-digit arithmetic, printed to 25 digits.

    python tests/reference_numbers.py    # writes reference_numbers.json beside this file

The map is `x' = w s(x) + b` with the logistic function or tanh for s. Nothing here uses the library.
"""

import itertools
import json
import pathlib

import mpmath as mp

mp.mp.dps = 60
FILE = pathlib.Path(__file__).with_suffix(".json")


def logistic(x):
    return 1 / (1 + mp.exp(-x))


def text(x) -> str:
    return mp.nstr(mp.chop(x, tol=mp.mpf(10) ** -50), 25)


def special_points(function, slope_to_state, w, slope):
    """`[b, x]` of the two points where `w s'(x) = slope` and x is a fixed point, in ascending order of b."""
    x = slope_to_state(mp.mpf(slope) / w)
    return [[text(b), text(y)] for b, y in sorted((y - w * function(y), y) for y in (x, -x))]


def logistic_state(slope):
    """The x >= 0 with logistic'(x) = slope: s (1 - s) = slope."""
    s = (1 + mp.sqrt(1 - 4 * slope)) / 2
    return mp.log(s / (1 - s))


def tanh_state(slope):
    """The x >= 0 with 1 - tanh(x)^2 = slope."""
    return mp.atanh(mp.sqrt(1 - slope))


def fixed_points(w, b):
    """`[x, multiplier]` of every fixed point of the logistic map, from a fine scan refined by bisection."""

    def residual(x):
        return w * logistic(x) + b - x

    low, high = b - abs(w) - 1, b + abs(w) + 1
    grid = [low + (high - low) * mp.mpf(i) / 1999 for i in range(2000)]
    found = []
    for left, right in itertools.pairwise(grid):
        if residual(left) * residual(right) <= 0:
            x = mp.findroot(residual, (left, right), solver="anderson", tol=mp.mpf(10) ** -100)
            s = logistic(x)
            found.append([text(x), text(w * s * (1 - s))])
    return found


def cost_at(w, b, steps=50, start="0.5", target="0.7"):
    """The cost `(s(x_T) - target)^2`, its gradient and Hessian in (w, b), by the recursion of the derivatives."""
    x = mp.mpf(start)
    first, second = [mp.mpf(0)] * 2, [[mp.mpf(0)] * 2 for _ in range(2)]
    for _ in range(steps):
        s = logistic(x)
        d, e = s * (1 - s), s * (1 - s) * (1 - 2 * s)
        new = [w * d * first[0] + s, w * d * first[1] + 1]
        second = [
            [
                w * (e * first[i] * first[j] + d * second[i][j]) + d * ((i == 0) * first[j] + (j == 0) * first[i])
                for j in range(2)
            ]
            for i in range(2)
        ]
        first, x = new, w * s + b
    s = logistic(x)
    d, e = s * (1 - s), s * (1 - s) * (1 - 2 * s)
    gap = s - mp.mpf(target)
    gradient = [2 * gap * d * f for f in first]
    hessian = [
        [2 * (d * d + gap * e) * first[i] * first[j] + 2 * gap * d * second[i][j] for j in range(2)] for i in range(2)
    ]
    names = ("cost", "dw", "db", "dww", "dwb", "dbb", "x_T")
    values = (gap**2, *gradient, hessian[0][0], hessian[0][1], hessian[1][1], x)
    return dict(zip(names, map(text, values), strict=True))


def boundary(w):
    """The bias at which the start 0.5 is the unstable fixed point itself, and its multiplier."""
    s = logistic(mp.mpf("0.5"))
    return {"b_boundary": text(mp.mpf("0.5") - w * s), "multiplier": text(w * s * (1 - s))}


def non_normal():
    """`[[0.9, 5], [0, 0.9]]`: a spectral radius below 1 and powers of norm 19."""
    matrix = mp.matrix([["0.9", "5"], ["0", "0.9"]])
    power, norms = mp.eye(2), []
    for _ in range(79):
        power = power * matrix
        norms.append(mp.svd_r(power, compute_uv=False)[0])
    peak = max(range(len(norms)), key=norms.__getitem__)
    return {
        "W": [[0.9, 5.0], [0.0, 0.9]],
        "spectral_radius": 0.9,
        "peak_k": peak + 1,
        "peak_norm": text(norms[peak]),
        "norm_at_79": text(norms[78]),
    }


def compute() -> dict:
    """All numbers, as strings of 25 digits."""
    biases = {"5,-2.5": (5, "-2.5"), "5,-3": (5, -3), "8,-4": (8, -4)}
    costs = {"5,-2.5": (5, "-2.5"), "5,-2.2": (5, "-2.2"), "6,-3": (6, -3), "4,-2": (4, -2), "-6,3": (-6, 3)}
    return {
        "cusp": {"sigmoid": {"w": "4", "b": "-2", "x": "0"}, "tanh": {"w": "1", "b": "0", "x": "0"}},
        "folds_sigmoid": {w: special_points(logistic, logistic_state, mp.mpf(w), 1) for w in ("4.5", "5", "6", "8")},
        "flips_sigmoid": {w: special_points(logistic, logistic_state, mp.mpf(w), -1) for w in ("-5", "-6")},
        "folds_tanh": {w: special_points(mp.tanh, tanh_state, mp.mpf(w), 1) for w in ("1.2", "2")},
        "fixed_points_sigmoid": {k: fixed_points(mp.mpf(w), mp.mpf(b)) for k, (w, b) in biases.items()},
        "cost_T50": {k: cost_at(mp.mpf(w), mp.mpf(b)) for k, (w, b) in costs.items()},
        "cliff_w5": boundary(mp.mpf(5)),
        "non_normal": non_normal(),
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(compute(), indent=1) + "\n")
