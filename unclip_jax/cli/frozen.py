"""The frozen CLIP of a run: its weights, and the statistics of its embeddings of the training set.

A run that builds on a CLIP keeps `frozen.json` in its workdir: which CLIP (path, hash of its
weights, config) and which statistics. A resumed run must find the same weights.
"""

import dataclasses
import itertools
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unclip_jax import data, stages
from unclip_jax.cli.initial import initial_statistics
from unclip_jax.config import RunConfig, load_config, to_mapping
from unclip_jax.config.needs import BatchNeeds
from unclip_jax.config.schema import ClipModel
from unclip_jax.core.hashing import weights_hash
from unclip_jax.data.files import replace_file
from unclip_jax.errors import UserError
from unclip_jax.parallel.processes import is_primary
from unclip_jax.stages import features
from unclip_jax.stages.clip import make_clip
from unclip_jax.stages.embedding import DIRECTION_ONLY
from unclip_jax.training.datasets import training_data, whole
from unclip_jax.training.restore import load_ema_params

STATISTICS_EXAMPLES = 16_384  # enough for means and variances; more would only cost time


@dataclasses.dataclass(frozen=True)
class FrozenClip:
    """A trained CLIP: where it came from, its config, parameters and their hash."""

    path: str
    config: RunConfig
    params: Any
    sha256: str

    @property
    def model(self) -> ClipModel:
        """The sizes of its towers."""
        assert isinstance(self.config.model, ClipModel)
        return self.config.model


def load_clip(path: str) -> FrozenClip:
    """The CLIP of a run's workdir (its averaged weights) or of a bundle."""
    folder = pathlib.Path(path)
    if (folder / "bundle.json").is_file():
        from unclip_jax.interop.bundle import read_bundle

        clip = read_bundle(folder, ["clip"]).cascade.clip
        assert clip is not None
        return FrozenClip(path, clip.config, clip.params, clip.weights_sha256)
    if (folder / "config.json").is_file():
        config = load_config(str(folder / "config.json"))
        if config.stage != "clip":
            raise UserError(f"config.clip.path={path} holds a {config.stage!r} run, not a CLIP")
        abstract = jax.eval_shape(stages.build(config).init, jax.random.key(0))
        params, _ = load_ema_params(folder, abstract)
    else:
        raise UserError(
            f"config.clip.path={path} is neither a run's workdir nor a bundle: train a CLIP first "
            "with `unclip train --config clip:…`"
        )
    return FrozenClip(path, config, params, weights_hash(params))


def frozen_parameters(config: RunConfig, clip: FrozenClip, workdir: pathlib.Path) -> dict[str, Any]:
    """What a prior or decoder is given: {"clip": …, "statistics": …}; written to frozen.json.

    A resumed run reads the statistics back, and refuses a CLIP other than its own.
    """
    path = workdir / "frozen.json"
    if path.exists():
        record = json.loads(path.read_text())
        if record["clip"]["sha256"] != clip.sha256:
            raise UserError(
                f"{workdir} was trained against another CLIP than {clip.path} now holds: "
                "give another --workdir"
            )
    else:
        record = {
            "clip": {
                "path": clip.path,
                "sha256": clip.sha256,
                "config": to_mapping(clip.config),
            },
            "statistics": _statistics(config, clip),
        }
        if is_primary():
            workdir.mkdir(parents=True, exist_ok=True)
            replace_file(path, json.dumps(record).encode())
    return {"clip": clip.params} | _as_arrays(record["statistics"])


def _as_arrays(statistics: dict[str, list[float]] | None) -> dict[str, Any]:
    if statistics is None:
        return {}
    return {"statistics": {k: jnp.asarray(v, jnp.float32) for k, v in statistics.items()}}


def _statistics(config: RunConfig, clip: FrozenClip) -> dict[str, list[float]] | None:
    """Mean and standard deviation [D] of the training set's raw image embeddings, if needed."""
    stored = config.data.embeddings == "stored"
    kinds: tuple[str, ...] = ("image",) if stored else ()
    kinds += ("text",) if config.data.text_features == "stored" else ()
    if kinds:
        dataset = whole(training_data(config.data, BatchNeeds(embeddings=kinds)))
        for kind in kinds:
            _check_provenance(dataset.provenance(kind), config, clip)
    if getattr(config.model, "embedding_scale", None) != "whiten":
        return None
    # A network that goes on training goes on in the space that it knows.
    inherited = initial_statistics(config)
    if inherited is not None:
        return inherited
    if stored:
        found = dataset.statistics("image")
        mean, std = found.mean, found.std
    else:
        mean, std = _computed_statistics(config, clip)
    return {"mean": np.asarray(mean).tolist(), "std": np.asarray(std).tolist()}


def _check_provenance(made_by: data.Provenance, config: RunConfig, clip: FrozenClip) -> None:
    if made_by.model_hash == "unknown":
        raise UserError(
            f"nobody says which CLIP made the stored embeddings: put a provenance.json with model, "
            f"model_hash {clip.sha256} and normalised beside them if it was {clip.path}"
        )
    if made_by.model_hash != clip.sha256:
        raise UserError(
            f"the stored embeddings were made by another CLIP ({made_by.model}) than "
            f"{clip.path}: run `unclip embed --clip {clip.path}` again"
        )
    scale = getattr(config.model, "embedding_scale", "raw")
    if made_by.normalised and scale not in DIRECTION_ONLY:
        raise UserError(
            f"config.model.embedding_scale={scale} needs the length of the embeddings, but the "
            f"stored ones are normalised: use one of {', '.join(DIRECTION_ONLY)}"
        )


def _computed_statistics(config: RunConfig, clip: FrozenClip) -> tuple[np.ndarray, np.ndarray]:
    size, batch_size = clip.model.image_size, config.train.batch_size
    dataset = whole(training_data(config.data, BatchNeeds(image_sizes=(size,))))
    net = make_clip(clip.model, config.precision.compute)
    embed = jax.jit(lambda batch: features.image_embedding(net, {"clip": clip.params}, batch))
    batches = itertools.islice(
        data.eval_batches(dataset, batch_size), -(-STATISTICS_EXAMPLES // batch_size)
    )
    rows = []
    for batch in batches:
        valid = batch.pop("valid")
        rows.append(np.asarray(embed(batch), np.float64)[valid])
    z = np.concatenate(rows)
    return z.mean(axis=0), z.std(axis=0)
