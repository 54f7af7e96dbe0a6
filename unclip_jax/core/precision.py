"""Mixed precision: parameters stay float32, matrix products and convolutions run in `compute`.

Softmax, norm statistics, schedule coefficients, loss reductions and the EMA are float32 islands
inside the code that owns them; this policy only says what networks compute in.
"""

import jax.numpy as jnp

COMPUTE_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
PARAM_DTYPE = jnp.float32


def compute_dtype(name: str) -> jnp.dtype:
    """The dtype called `name`, "float32" or "bfloat16"."""
    return jnp.dtype(COMPUTE_DTYPES[name])
