"""Gaussian data, for which everything a network could learn is known in closed form."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unclip_jax.diffusion import GaussianProcess, PredictionType, make_denoiser


@dataclass(frozen=True)
class GaussianData:
    """x_0 ~ N(mean, basis diag(std^2) basis^T) in D dimensions; float64 numpy."""

    mean: np.ndarray
    std: np.ndarray
    basis: np.ndarray

    @property
    def covariance(self):
        return self.basis @ np.diag(self.std**2) @ self.basis.T

    def draw(self, rng, count):
        return self.mean + (rng.standard_normal((count, len(self.mean))) * self.std) @ self.basis.T

    def denoiser(self, schedule, prediction=PredictionType.X0, **options):
        """E[x_0 | x_t] = mean + alpha C (alpha^2 C + sigma^2)^-1 (x_t - alpha mean)."""
        process = GaussianProcess(schedule)
        alpha_bar = schedule.alpha_bars[:, None]
        total = alpha_bar * self.std**2 + 1 - alpha_bar
        gain = np.sqrt(alpha_bar) * self.std**2 / total
        gains = jnp.asarray(
            np.einsum("ij,tj,kj->tik", self.basis, gain, self.basis).astype(np.float32)
        )
        alphas = jnp.asarray(np.sqrt(schedule.alpha_bars).astype(np.float32))
        mean = jnp.asarray(self.mean, jnp.float32)[None]

        def network(x_t, t, conditioning):
            centred = x_t - alphas[t][:, None] * mean
            x0 = mean + jnp.einsum("bij,bj->bi", gains[t], centred)
            return process.convert(x0, PredictionType.X0, prediction, x_t, t)

        return make_denoiser(network, process, prediction, **options)

    def flow(self, schedule, x_T):
        """Where the probability-flow ODE carries x_T, of the schedule's last step, to."""
        alpha_bar = schedule.alpha_bars[-1]
        ratio = self.std / np.sqrt(alpha_bar * self.std**2 + 1 - alpha_bar)
        centred = (np.asarray(x_T, np.float64) - np.sqrt(alpha_bar) * self.mean) @ self.basis
        return self.mean + (centred * ratio) @ self.basis.T


@pytest.fixture(scope="session")
def gaussian_data():
    """Correlated, off-centre, wider and narrower than the noise."""
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    return GaussianData(np.array([0.4, -0.3, 0.1]), np.array([0.3, 0.8, 1.5]), basis)


@pytest.fixture(scope="session")
def isotropic_data():
    return GaussianData(np.array([0.5, -1.0]), np.array([0.6, 0.6]), np.eye(2))


@pytest.fixture(scope="session")
def keys():
    return jax.random.split(jax.random.key(0), 4)
