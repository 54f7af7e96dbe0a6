"""The random keys of pictures.

Image j of prompt i is drawn with the key

    fold_in(fold_in(key(seed), j), i)

from which each stage derives its own by name. A picture is therefore a function of the weights, the
seed, its prompt and the two numbers, and not of how many others are drawn, of the batch size or of
the number of devices (up to the rounding of matrix products, which may depend on shapes: see
docs/sampling.md for what is exact).
"""

import numpy as np
from jaxtyping import UInt32

from unclip_jax.errors import UserError
from unclip_jax.generation import programs
from unclip_jax.generation.batches import bucket

MAX_SEED = 2**32 - 1


def image_keys(prompts: int, images_per_prompt: int, seed: int) -> UInt32[np.ndarray, "n k"]:
    """The key data of all images [prompts * images_per_prompt], prompt by prompt, on the host.

    Raises:
      UserError: nothing to draw, or a seed out of range.
    """
    if prompts < 1 or images_per_prompt < 1:
        raise UserError(f"nothing to draw: {prompts} prompts with {images_per_prompt} images each")
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed: must be 0 to {MAX_SEED}, got {seed}")
    total = prompts * images_per_prompt
    numbers = np.arange(bucket(total), dtype=np.uint32)
    owners, images = np.divmod(numbers, np.uint32(images_per_prompt))
    return np.asarray(programs.image_keys(np.uint32(seed), images, owners))[:total]
