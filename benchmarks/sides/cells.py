"""What both sides of `train_step.py` build, in numbers: layers, widths, batch and inputs.

CPU cells are small (7, 27 and 23 M parameters); GPU cells are the paper's stages, at the crops
that they are trained on, with batches that fill 80 GB. Inputs are random, the same on both sides.
"""

import argparse
import dataclasses

import numpy as np
import serving

CONTEXT = 81  # text tokens and image tokens of the decoder


@dataclasses.dataclass(frozen=True)
class PriorCell:
    """A causal transformer over text states, text embedding, time, image embedding and query."""

    width: int
    layers: int
    heads: int
    embedding_dim: int
    batch: int
    text: int = 77

    def inputs(self, batch: int) -> dict[str, np.ndarray]:
        """Channels last; the mask is True for real tokens."""
        rng = np.random.default_rng(0)
        f32 = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
        lengths = rng.integers(5, self.text, (batch, 1))
        return {
            "x_t": f32(batch, self.embedding_dim),
            "t": rng.integers(0, 1000, batch).astype(np.int32),
            "text_embedding": f32(batch, self.embedding_dim),
            "text_states": f32(batch, self.text, self.embedding_dim),
            "text_mask": np.arange(self.text)[None] < lengths,
            "target": f32(batch, self.embedding_dim),
        }


@dataclasses.dataclass(frozen=True)
class UNetCell:
    """An ADM U-Net; without a context width it is an upsampler: no attention, no conditioning."""

    size: int
    channels: int
    depth: int
    batch: int
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    context_width: int | None = None
    in_channels: int = 3

    def inputs(self, batch: int) -> dict[str, np.ndarray]:
        """Channels last."""
        rng = np.random.default_rng(0)
        f32 = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
        given = {
            "x": f32(batch, self.size, self.size, self.in_channels),
            "t": rng.integers(0, 1000, batch).astype(np.int32),
            "target": f32(batch, self.size, self.size, 6),
        }
        if self.context_width:
            given["embedding"] = f32(batch, 4 * self.channels)
            given["context"] = f32(batch, CONTEXT, self.context_width)
        return given


CELLS: dict[str, PriorCell | UNetCell] = {
    "prior": PriorCell(256, 8, 8, 256, batch=32),
    "unet": UNetCell(32, 64, 2, batch=8, context_width=256),
    "upsampler": UNetCell(64, 64, 2, batch=4, in_channels=6),
    "prior_1b": PriorCell(2048, 24, 32, 1024, batch=128),
    "decoder_64": UNetCell(64, 512, 3, batch=32, context_width=2048),
    "upsampler_256": UNetCell(64, 320, 3, batch=64, in_channels=6),
    "upsampler_1024": UNetCell(256, 192, 2, 16, (1, 1, 2, 2, 4, 4), in_channels=6),
    "prior_tiny": PriorCell(64, 2, 2, 64, batch=4),
    "unet_tiny": UNetCell(16, 32, 1, batch=2, multipliers=(1, 2), context_width=64),
    "upsampler_tiny": UNetCell(16, 32, 1, batch=2, multipliers=(1, 2), in_channels=6),
}


def arguments() -> argparse.Namespace:
    """The command line of a side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cell", choices=CELLS)
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--split", action="store_true", help="ours: a device for each thread")
    return serving.arguments(parser)
