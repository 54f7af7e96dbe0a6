"""Memory is bounded: many epochs, through threads, need no more than the first."""

import gc
import os
from pathlib import Path

from unclip_jax.data import BatchFields, Layout, open_dataset, train_batches


def resident_megabytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_memory_does_not_grow_with_the_samples_read(tmp_path, make_shards):
    folder = make_shards(tmp_path / "s", (40, 40))
    dataset = open_dataset(folder, BatchFields(image_sizes=(64,), context_length=77))
    loader = train_batches(dataset, 16, seed=0, layout=Layout(8, 4, 8), threads=2)
    sizes = []
    for step in range(360):
        next(loader)
        if step % 60 == 59:
            gc.collect()
            sizes.append(resident_megabytes())
    loader.close()
    # 300 batches are 65 MB of pictures, read after the first measurement.
    assert sizes[-1] - sizes[0] < 12, sizes
