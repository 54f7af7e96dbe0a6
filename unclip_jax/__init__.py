"""unclip_jax: train, evaluate, sample and export unCLIP (DALL·E 2) systems in JAX."""

__version__ = "0.1.0"
