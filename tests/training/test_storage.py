"""Which errors mean that the workdir can't be written, and which do not."""

import errno
import pathlib

import pytest

from unclip_jax.errors import StorageError
from unclip_jax.training.storage import storage_errors

WORKDIR = pathlib.Path("/runs/clip")


def os_error(number, filename=None):
    return OSError(number, "as the system says", filename)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (os_error(errno.ENOSPC), "no space is left"),
        (os_error(errno.EROFS, "/runs/clip/x"), "it is read-only"),
        (os_error(errno.ENOENT, "/runs/clip/metrics.jsonl"), "it has vanished"),
        (ValueError("Error writing /runs/clip/7: No space left on device"), "no space is left"),
        (ValueError("NOT_FOUND: /runs/clip/7: No such file or directory"), "it has vanished"),
    ],
)
def test_the_reason_is_told(error, reason):
    with pytest.raises(StorageError, match=reason) as raised, storage_errors(WORKDIR):
        raise error
    assert raised.value.exit_code == 74


@pytest.mark.parametrize(
    "error",
    [os_error(errno.ENOENT, "/data/train-0.tar"), os_error(errno.EACCES), ValueError("a defect")],
)
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as raised, storage_errors(WORKDIR):
        raise error
    assert raised.value is error


def test_the_cause_behind_an_error_counts():
    error = RuntimeError("the save failed")
    error.__cause__ = os_error(errno.EDQUOT)
    with pytest.raises(StorageError, match="quota"), storage_errors(WORKDIR):
        raise error
