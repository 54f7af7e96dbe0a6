"""Trained stages on disk: bundles, and weights in the formats of others."""

from unclip_jax.interop.bundle import Bundle, Extras, read_bundle, write_bundle

__all__ = ["Bundle", "Extras", "read_bundle", "write_bundle"]
