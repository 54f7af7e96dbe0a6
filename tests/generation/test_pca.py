"""Principal components against a covariance of known eigenvectors."""

import numpy as np
import pytest

from unclip_jax.errors import UserError
from unclip_jax.generation.pca import principal_components


@pytest.fixture(scope="module")
def embeddings():
    """Variances 9, 4, 1 and nothing along a random frame of 6 dimensions; and the frame."""
    generator = np.random.default_rng(0)
    frame, _ = np.linalg.qr(generator.normal(size=(6, 6)))
    scores = generator.normal(size=(4000, 3))
    scores -= scores.mean(axis=0)
    scores = np.linalg.qr(scores)[0] * np.sqrt(3999) * [3, 2, 1]
    return scores @ frame[:, :3].T + 5.0, frame


def test_components_and_variances_are_those_of_the_covariance(embeddings):
    z, frame = embeddings
    basis = principal_components(z)
    np.testing.assert_allclose(basis.variances[:3], [9, 4, 1], rtol=1e-9)
    np.testing.assert_allclose(np.abs(basis.components[:3] @ frame[:, :3]), np.eye(3), atol=1e-6)
    np.testing.assert_allclose(basis.mean, 5.0, atol=1e-9)
    assert basis.explained(1) == pytest.approx(9 / 14)
    assert basis.explained(2) == pytest.approx(13 / 14)


def test_truncation_projects_about_the_mean(embeddings):
    z, frame = embeddings
    basis = principal_components(z)
    np.testing.assert_allclose(basis.truncate(z[:5], 0), np.full((5, 6), 5.0), atol=1e-6)
    np.testing.assert_allclose(basis.truncate(z[:5], 3), z[:5], atol=1e-5)
    one = 5 + (z[:5] - 5) @ np.outer(frame[:, 0], frame[:, 0])
    np.testing.assert_allclose(basis.truncate(z[:5], 1), one, atol=1e-5)


def test_too_many_components_are_refused(embeddings):
    basis = principal_components(embeddings[0][:4])
    assert len(basis.components) == 3
    with pytest.raises(UserError, match="but there are 3"):
        basis.truncate(embeddings[0], 4)
    with pytest.raises(UserError, match="at least two"):
        principal_components(embeddings[0][:1])
