"""The example of docs/diffusion.md runs, and does what it says."""

import pathlib
import re

import numpy as np

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "diffusion.md"


def test_the_example_learns_the_circle(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    exec(compile(code, str(PAGE), "exec"), names)
    points = np.asarray(names["points"])
    radius = np.linalg.norm(points, axis=1)
    assert abs(radius.mean() - 1) < 0.05
    assert radius.std() < 0.2
    # All the way round: every quadrant has its share of the 512.
    quadrants = np.bincount(2 * (points[:, 0] > 0) + (points[:, 1] > 0), minlength=4)
    assert quadrants.min() > 80
    np.testing.assert_allclose(float(capsys.readouterr().out), radius.mean(), rtol=1e-4)
