"""diffusers' unCLIP folders (karlo's layout), read and written without diffusers.

`names` says which tensor is which parameter, `configs` translates the components' settings, and
`folder` puts them together: `read_folder` and `write_folder`.
"""

from unclip_jax.interop.diffusers.folder import LAYOUTS, read_folder, write_folder

__all__ = ["LAYOUTS", "read_folder", "write_folder"]
