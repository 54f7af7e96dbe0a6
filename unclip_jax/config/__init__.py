"""What a run is: typed schema, config files, overrides, durations. Free of jax."""

from unclip_jax.config.duration import to_steps
from unclip_jax.config.load import from_mapping, load_config, preset_dir, to_mapping
from unclip_jax.config.schema import RunConfig
from unclip_jax.config.variants import choose

__all__ = [
    "RunConfig",
    "choose",
    "from_mapping",
    "load_config",
    "preset_dir",
    "to_mapping",
    "to_steps",
]
