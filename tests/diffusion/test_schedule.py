import math

import numpy as np
import pytest

from unclip_jax.diffusion import (
    NoiseSchedule,
    make_schedule,
    rescale_zero_terminal_snr,
    respace,
    shift_log_snr,
    spaced_timesteps,
)
from unclip_jax.errors import UserError

# Published lists: Improved DDPM's and GLIDE's `space_timesteps` at 1000 steps, as karlo uses them.
OF_25 = (
    "0,42,83,125,166,208,250,291,333,375,416,458,500,541,583,624,666,708,749,791,832,874,"
    "916,957,999"
)
OF_7 = "0,166,333,500,666,832,999"


def test_cosine_follows_its_curve_up_to_the_cap():
    schedule = make_schedule("cosine")
    curve = [math.cos((i / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(1001)]
    np.testing.assert_allclose(
        schedule.alpha_bars[:-1], np.array(curve[1:-1]) / curve[0], rtol=1e-12
    )
    assert schedule.betas[-1] == pytest.approx(0.999, abs=1e-12)
    assert schedule.betas.max() == schedule.betas[-1]
    # The curve ends in 0; capping leaves a thousandth of the last step but one.
    np.testing.assert_allclose(schedule.alpha_bars[-1], 2.428e-9, rtol=1e-3)


def test_squaredcos_cap_v2_is_another_name_of_cosine():
    np.testing.assert_array_equal(
        make_schedule("squaredcos_cap_v2").alpha_bars, make_schedule("cosine").alpha_bars
    )


@pytest.mark.parametrize(
    ("name", "first", "middle", "last"),
    [
        # beta_0, beta_500, beta_999
        ("linear", 1e-4, 1e-4 + 500 * (0.0199 / 999), 0.02),
        ("scaled_linear", 0.00085, (0.00085**0.5 * 499 / 999 + 0.012**0.5 * 500 / 999) ** 2, 0.012),
        (
            "sigmoid",
            1e-4 + 0.0199 / (1 + math.exp(6)),
            1e-4 + 0.0199 / (1 + math.exp(6 - 12 * 500 / 999)),
            1e-4 + 0.0199 / (1 + math.exp(-6)),
        ),
    ],
)
def test_beta_schedules(name, first, middle, last):
    betas = make_schedule(name).betas
    np.testing.assert_allclose(betas[[0, 500, 999]], [first, middle, last], rtol=1e-9)


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "sigmoid", "cosine"])
def test_number_of_steps_hardly_changes_the_end(name):
    """Fewer steps are larger ones: about as little signal is left after 250 as after 1000."""
    coarse, fine = make_schedule(name, 250), make_schedule(name, 1000)
    np.testing.assert_allclose(coarse.log_snr[125], fine.log_snr[503], atol=0.05)


def test_alpha_bars_are_products_of_alphas():
    schedule = make_schedule("linear", 50)
    product = 1.0
    for alpha, beta, alpha_bar in zip(
        schedule.alphas, schedule.betas, schedule.alpha_bars, strict=True
    ):
        product *= 1 - beta
        assert alpha == pytest.approx(1 - beta, rel=1e-14)
        assert alpha_bar == pytest.approx(product, rel=1e-12)


def test_schedules_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        make_schedule("cosine", 10).alpha_bars[0] = 1


def test_shift_log_snr_divides_the_noise_to_signal_ratio():
    schedule = make_schedule("cosine")
    shifted = shift_log_snr(schedule, 256, reference_size=64)
    np.testing.assert_allclose(shifted.snr, schedule.snr / 16, rtol=1e-9)
    np.testing.assert_array_equal(shift_log_snr(schedule, 64).timesteps, schedule.timesteps)


def test_zero_terminal_snr():
    schedule = make_schedule("scaled_linear")
    rescaled = rescale_zero_terminal_snr(schedule)
    assert rescaled.alpha_bars[-1] == 0
    assert rescaled.alpha_bars[0] == pytest.approx(schedule.alpha_bars[0], rel=1e-14)
    # sqrt(alpha_bar) is transformed affinely: second differences keep their proportions.
    before, after = (np.diff(np.sqrt(s.alpha_bars)) for s in (schedule, rescaled))
    np.testing.assert_allclose(after / after[0], before / before[0], rtol=1e-9)
    assert rescaled.log_snr[-1] == -np.inf


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("25", OF_25),
        (25, OF_25),
        ([25], OF_25),
        ("7", OF_7),
        ("10,10,3,2,2", None),
        ("2", "0,999"),
        ("1", "999"),
        ("ddim10", "0,100,200,300,400,500,600,700,800,900"),
        (
            "fast27",
            "0,22,44,66,88,111,133,155,177,199,200,222,244,266,288,311,333,355,377,399,"
            "400,500,599,600,799,800,997",
        ),
    ],
)
def test_published_spacings(spec, expected):
    timesteps = spaced_timesteps(1000, spec)
    if expected is None:
        expected = [*spaced_timesteps(1000, "fast27")[:-1], 999]
    else:
        expected = [int(t) for t in expected.split(",")]
    assert timesteps.tolist() == expected


def test_sections_include_both_their_ends():
    np.testing.assert_array_equal(spaced_timesteps(1000, 1000), np.arange(1000))
    # 11 steps in 3 sections: 0-3, 4-7, 8-10
    assert spaced_timesteps(11, [2, 2, 3]).tolist() == [0, 3, 4, 7, 8, 9, 10]


def test_respaced_schedule_keeps_alpha_bars_and_original_timesteps():
    schedule = make_schedule("cosine")
    twice = respace(respace(schedule, spaced_timesteps(1000, 100)), spaced_timesteps(100, 10))
    np.testing.assert_array_equal(twice.alpha_bars, schedule.alpha_bars[twice.timesteps])
    assert (twice.timesteps[0], twice.timesteps[-1], twice.num_steps) == (0, 999, 10)
    # The betas are those of the long jumps: together they remove the same signal.
    np.testing.assert_allclose(np.prod(1 - twice.betas), schedule.alpha_bars[-1], rtol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_schedule("cosin"), "did you mean 'cosine'"),
        (lambda: make_schedule("linear", beta_first=1.0), "no option 'beta_first'"),
        (lambda: make_schedule("linear", 0), "at least one step"),
        (lambda: spaced_timesteps(1000, "quick"), "cannot read"),
        (lambda: spaced_timesteps(1000, "ddim"), "cannot read"),
        (lambda: spaced_timesteps(1000, "ddim300"), "no integer stride"),
        (lambda: spaced_timesteps(10, "11"), "cannot visit 11"),
        (lambda: spaced_timesteps(10, "0"), "cannot visit 0"),
        (lambda: respace(make_schedule("linear", 10), [3, 2]), "rise strictly"),
        (lambda: respace(make_schedule("linear", 10), [3, 10]), "rise strictly"),
        (lambda: NoiseSchedule(np.array([0.5, 0.6]), np.arange(2)), "fall strictly"),
        (lambda: NoiseSchedule(np.array([0.5, 0.4]), np.arange(3)), "as many"),
        (lambda: rescale_zero_terminal_snr(make_schedule("linear", 1)), "two steps"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call()
