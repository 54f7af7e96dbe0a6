"""Pictures for people: tables and galleries of samples, and curves of metrics."""

from unclip_jax.pictures.gallery import captioned_gallery
from unclip_jax.pictures.grid import labelled_grid
from unclip_jax.pictures.metric_curves import curves

__all__ = ["captioned_gallery", "curves", "labelled_grid"]
