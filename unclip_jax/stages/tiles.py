"""A network on canvases larger than the pictures it was trained on: tiles that agree.

At every step the network sees overlapping square tiles, and its predictions are averaged where they
overlap, weighted by a tent that falls towards a tile's edges (MultiDiffusion, Bar-Tal et al. 2023,
eq. 5). All tiles then follow one canvas; they are not drawn one after another. The average is
meant for what the network predicts: x_0, epsilon and v are affine in each other with the same x_t,
so averaging one averages all.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from unclip_jax.diffusion.guidance import Network


def tiled(network: Network, side: int, overlap: int) -> Network:
    """The network on canvases of at least `side` pixels each way.

    Args:
      overlap: pixels that neighbouring tiles share at least.

    The conditioning is given to every tile whole, but for its field "known", which is a canvas.
    """

    def on_canvas(x_t: Float[Array, "b h w c"], t: Array, conditioning: Any) -> Array:
        corners = [
            (top, left)
            for top in offsets(x_t.shape[1], side, overlap)
            for left in offsets(x_t.shape[2], side, overlap)
        ]
        count, weight = len(corners), jnp.asarray(tent(side))[None, :, :, None]

        def cut(canvas: Array) -> Array:
            tiles = [canvas[:, top : top + side, left : left + side] for top, left in corners]
            return jnp.stack(tiles, axis=1).reshape(-1, side, side, canvas.shape[-1])

        def repeat(leaf: Array) -> Array:
            return jnp.repeat(leaf, count, axis=0)

        given = {
            name: cut(value) if name == "known" else jax.tree.map(repeat, value)
            for name, value in conditioning.items()
        }
        output = network(cut(x_t), repeat(t), given)
        output = output.reshape(len(x_t), count, *output.shape[1:]).astype(jnp.float32)
        total = jnp.zeros((*x_t.shape[:3], output.shape[-1]))
        weights = jnp.zeros((1, *x_t.shape[1:3], 1))
        for number, (top, left) in enumerate(corners):
            place = np.s_[:, top : top + side, left : left + side]
            total = total.at[place].add(weight * output[:, number])
            weights = weights.at[place].add(weight)
        return total / weights

    return on_canvas


def offsets(length: int, side: int, overlap: int) -> list[int]:
    """Where tiles begin along a canvas: the first at 0, the last at its end, evenly between."""
    count = 1 + -(-(length - side) // (side - overlap))
    return [round(i * (length - side) / max(count - 1, 1)) for i in range(count)]


def tent(side: int) -> Float[np.ndarray, "s s"]:
    """Weights that fall linearly from the centre to the edges, and are nowhere zero."""
    line = 1 - np.abs(2 * (np.arange(side) + 0.5) / side - 1)
    return np.outer(line, line).astype(np.float32)
