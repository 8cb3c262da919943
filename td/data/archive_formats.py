"""The forms that CIFAR and MNIST are given away in, as arrays: binary records, pickles and idx files."""

import pickle
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np

from td.errors import UserError

CIFAR_SHAPE = (3, 32, 32)
MNIST_SHAPE = (28, 28)


class Images(NamedTuple):
    """A split as its archive has it."""

    images: np.ndarray  # uint8 [n, height, width, channels]
    labels: Mapping[str, np.ndarray]  # feature -> uint8 [n]


class Form(NamedTuple):
    """One of the forms of a data set."""

    splits: Mapping[str, tuple[str, ...]]  # split -> its files, in order
    read: Callable[[Sequence[bytes]], Images]  # the content of those files -> the split
    names: Mapping[str, str]  # feature -> the file that names its classes
    read_names: Callable[[str, bytes], list[str]]  # the feature and the content of that file -> the names

    def files(self) -> set[str]:
        """All files."""
        return {file for files in self.splits.values() for file in files} | set(self.names.values())


def cifar_binary(features: Sequence[str], contents: Sequence[bytes]) -> Images:
    """Records of one byte a label and an image, red first.

    Example:
      >>> cifar_binary(["label"], [bytes([7]) + bytes(3072)]).labels["label"]
      array([7], dtype=uint8)
    """
    length = len(features) + int(np.prod(CIFAR_SHAPE))
    for content in contents:
        if not content or len(content) % length:
            raise ValueError(f"{len(content)} bytes are no whole number of records of {length}")
    records = np.concatenate([np.frombuffer(content, np.uint8).reshape(-1, length) for content in contents])
    labels = {feature: records[:, i] for i, feature in enumerate(features)}
    return Images(_channels_last(records[:, len(features) :]), labels)


def cifar_pickle(keys: Mapping[str, str], contents: Sequence[bytes]) -> Images:
    """Pickled dicts of `data` and of labels, whose keys are given by feature."""
    batches = [_unpickle(content) for content in contents]
    pixels = [np.asarray(batch["data"]) for batch in batches]
    for part in pixels:
        if part.dtype != np.uint8 or part.shape[1:] != (np.prod(CIFAR_SHAPE),):
            raise ValueError(f"data is {part.dtype} {part.shape}, not uint8 images of 32 x 32 x 3")
    labels = {feature: np.concatenate([np.asarray(batch[key]) for batch in batches]) for feature, key in keys.items()}
    return Images(_channels_last(np.concatenate(pixels)), labels)


def _channels_last(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(-1, *CIFAR_SHAPE).transpose(0, 2, 3, 1)


def mnist_idx(contents: Sequence[bytes]) -> Images:
    """An idx file of images and one of labels."""
    images, labels = (_idx(content, dimensions) for content, dimensions in zip(contents, (3, 1), strict=True))
    if images.shape[1:] != MNIST_SHAPE:
        raise ValueError(f"images are {' x '.join(map(str, images.shape[1:]))}, not 28 x 28")
    return Images(images[..., None], {"label": labels})


def _idx(content: bytes, dimensions: int) -> np.ndarray:
    # Two zero bytes, 8 for uint8, the number of dimensions, and each of them in four bytes, the highest first.
    start = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) < start:
        raise ValueError(f"it does not begin as an idx file of {dimensions} dimensions")
    shape = np.frombuffer(content, ">u4", dimensions, 4).astype(int)
    if len(content) - start != shape.prod():
        raise ValueError(f"{len(content) - start} bytes are not the {shape.prod()} that it announces")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def text_names(feature: str, content: bytes) -> list[str]:
    """One name a line, for any feature."""
    del feature
    return content.decode().split()


def pickled_names(keys: Mapping[str, str], feature: str, content: bytes) -> list[str]:
    """The names under the key of a feature."""
    names = _unpickle(content)[keys[feature]]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


ALLOWED: Mapping[str, Any] = {
    "numpy.core.multiarray._reconstruct": np.empty(0).__reduce__()[0],  # by no path: numpy has moved it once
    "numpy._core.multiarray._reconstruct": np.empty(0).__reduce__()[0],
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": lambda kind, *_: np.dtype(kind),  # two flags follow, as numbers, which NumPy gives up to take
    "_codecs.encode": lambda text, _: text.encode("latin1"),  # bytes, in pickles that Python 2 can read
}
"""What arrays and bytes are pickled with. A pickle that asks for anything else may run any code."""


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in ALLOWED:
            raise UserError(
                f"a pickle of the archive asks for {module}.{name}, which no CIFAR file needs: it was not run; "
                "take the binary version, as cifar-10-binary.tar.gz"
            )
        return ALLOWED[f"{module}.{name}"]


def _unpickle(content: bytes) -> dict[str, Any]:
    try:
        entries = _ArraysOnly(BytesIO(content), encoding="bytes").load()
        return {key.decode() if isinstance(key, bytes) else key: value for key, value in entries.items()}
    except UserError:
        raise
    except Exception as error:  # a damaged pickle shows as one of a dozen unrelated types
        raise ValueError(f"no pickle of a dict: {error}") from None
