"""Principal components of image embeddings (paper, sections 2.2 and 4).

The prior of the paper keeps 319 of 1024 dimensions with less than 1 % of the variance lost; here
they show what an embedding holds: pictures decoded from few components keep what varies most.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from unclip_jax.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """An orthonormal basis of embeddings about their mean.

    Attributes:
      mean: float64 [D].
      components: float64 [K, D], orthonormal rows, by falling variance.
      variances: float64 [K].
    """

    mean: Float[np.ndarray, " d"]
    components: Float[np.ndarray, "k d"]
    variances: Float[np.ndarray, " k"]

    def truncate(self, z: Float[np.ndarray, "n d"], kept: int) -> Float[np.ndarray, "n d"]:
        """Embeddings with all but the first `kept` components at their mean."""
        if not 0 <= kept <= len(self.components):
            raise UserError(
                f"{kept} components asked for, but there are {len(self.components)}: they are as "
                "many as the embeddings they were found in, at most, less one"
            )
        basis = self.components[:kept]
        return (self.mean + (z - self.mean) @ basis.T @ basis).astype(np.float32)

    def explained(self, kept: int) -> float:
        """The share of the variance that the first `kept` components hold."""
        total = self.variances.sum()
        return float(self.variances[:kept].sum() / total) if total else 1.0


def principal_components(z: Float[np.ndarray, "n d"]) -> PrincipalComponents:
    """The principal components of embeddings.

    Raises:
      UserError: fewer than two embeddings.
    """
    if len(z) < 2:
        raise UserError(f"principal components need at least two embeddings, got {len(z)}")
    z = np.asarray(z, np.float64)
    mean = z.mean(axis=0)
    _, singular, rows = np.linalg.svd(z - mean, full_matrices=False)
    rank = min(len(z) - 1, z.shape[1])
    return PrincipalComponents(mean, rows[:rank], singular[:rank] ** 2 / (len(z) - 1))
