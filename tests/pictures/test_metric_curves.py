"""Curves: what is smoothed, what is drawn, and that a failed step is seen."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from unclip_jax.pictures import curves, metric_curves
from unclip_jax.pictures.metric_curves import is_noisy, smoothed

RNG = np.random.default_rng(0)


def records(values, name="loss"):
    return [{"step": 10 * index, name: value} for index, value in enumerate(values)]


@pytest.fixture
def figures(monkeypatch):
    """The matplotlib figures behind the pictures."""
    made = []

    class Kept(Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(metric_curves, "Figure", Kept)
    return made


def drawn_lines(figure, panel=0):
    return [line for line in figure.axes[panel].lines if len(line.get_xdata())]


def test_smoothing_keeps_straight_lines_and_does_not_lag():
    ramp = np.arange(200.0)
    np.testing.assert_allclose(smoothed(ramp, 3.0)[20:-20], ramp[20:-20], atol=1e-9)
    np.testing.assert_allclose(smoothed(np.full(50, 7.0), 3.0), 7.0)


def test_smoothing_reduces_noise_as_a_gaussian_window_does():
    # Averaging white noise with a Gaussian of sigma s divides its variance by 2 s sqrt(pi).
    noise = RNG.normal(size=200_000)
    assert smoothed(noise, 4.0).var() == pytest.approx(1 / (8 * np.pi**0.5), rel=0.05)


def test_smoothing_passes_over_missing_values():
    values = np.full(100, 2.0)
    values[40:43] = np.nan, np.inf, -np.inf
    np.testing.assert_allclose(smoothed(values, 2.0), 2.0)
    assert np.isnan(smoothed(np.full(5, np.nan), 2.0)).all()


def test_noise_is_told_from_a_schedule():
    assert is_noisy(RNG.normal(size=200))
    assert not is_noisy(np.cos(np.linspace(0, 6, 200)))
    assert not is_noisy(RNG.normal(size=20))  # too few points to smooth


def test_the_curve_that_is_drawn_is_the_data(figures):
    values = np.linspace(3, 1, 30)
    curves({"run": records(values)})
    (line,) = drawn_lines(figures[0])
    np.testing.assert_array_equal(line.get_xdata(), 10 * np.arange(30))
    np.testing.assert_array_equal(line.get_ydata(), values)


def test_noisy_data_stay_visible_behind_the_smooth_curve(figures):
    values = 1 + 0.1 * RNG.normal(size=300)
    curves({"run": records(values)})
    faint, smooth = drawn_lines(figures[0])
    np.testing.assert_array_equal(faint.get_ydata(), values)
    assert faint.get_alpha() < 0.5
    assert np.std(smooth.get_ydata()) < 0.5 * np.std(values)


def test_a_value_that_was_not_finite_is_marked(figures):
    curves({"run": records([1.0, None, 3.0])})
    line, cross = drawn_lines(figures[0])
    assert np.isnan(line.get_ydata()[1])
    assert list(cross.get_xdata()) == [10]
    assert cross.get_marker() == "x"


def test_train_and_validation_share_a_panel_and_other_metrics_do_not(figures):
    rows = [{"step": 1, "loss": 2.0, "grad_norm": 1.0}, {"step": 2, "validation/loss": 3.0}]
    curves({"run": rows})
    titles = [axis.get_title(loc="left") for axis in figures[0].axes if axis.get_visible()]
    assert titles == ["loss", "grad norm"]
    labels = [text.get_text() for text in figures[0].axes[0].get_legend().get_texts()]
    assert labels == ["loss", "validation/loss"]
    assert figures[0].axes[1].get_legend() is None


def test_several_runs_are_told_apart(figures):
    curves({"cosine": records([1.0, 2.0]), "linear": records([2.0, 3.0])}, ["loss"])
    labels = [text.get_text() for text in figures[0].axes[0].get_legend().get_texts()]
    colors = {line.get_color() for line in drawn_lines(figures[0])}
    assert labels == ["cosine", "linear"]
    assert len(colors) == 2


def test_a_wide_range_gets_a_log_scale(figures):
    curves({"run": records(np.geomspace(1000, 1, 30))})
    curves({"run": records(np.linspace(3, 1, 30))})
    curves({"run": records(np.linspace(-3, 100, 30))})
    assert [figure.axes[0].get_yscale() for figure in figures] == ["log", "linear", "linear"]


def test_the_picture_is_the_same_every_time():
    rows = records(np.linspace(3, 1, 30))
    first, second = (np.asarray(curves({"run": rows}, title="t", dpi=50)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 10


@pytest.mark.parametrize("runs", [{}, {"run": []}, {"run": [{"step": 3}]}])
def test_nothing_to_draw_is_an_error(runs):
    with pytest.raises(ValueError, match="no records of any metric"):
        curves(runs)


def test_an_unknown_metric_is_an_error():
    with pytest.raises(ValueError, match=r"no records of \['los'\]"):
        curves({"run": records([1.0])}, ["los"])
