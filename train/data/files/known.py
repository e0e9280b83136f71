"""The files that are known: their sums, their sizes, and where they are published."""

import dataclasses
from types import MappingProxyType


@dataclasses.dataclass(frozen=True)
class KnownFile:
    """One file below the data folder.

    Args:
        sha256: of the whole file, lower-case hexadecimal.
        size: bytes; no more are read or downloaded.
        urls: tried in order; empty where the file is published nowhere that we know.
    """

    sha256: str
    size: int
    urls: tuple[str, ...] = ()


_MNIST = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
_FASHION = ("https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",)
_SHAKESPEARE = ("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/",)
_TORONTO = ("https://www.cs.toronto.edu/~kriz/",)

# folder, file, bytes, SHA-256, places
_TABLE = (
    ("mnist", "train-images-idx3-ubyte.gz", 9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", _MNIST),
    ("mnist", "train-labels-idx1-ubyte.gz", 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", _MNIST),
    ("mnist", "t10k-images-idx3-ubyte.gz", 1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", _MNIST),
    ("mnist", "t10k-labels-idx1-ubyte.gz", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", _MNIST),
    ("fashion_mnist", "train-images-idx3-ubyte.gz", 26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", _FASHION),
    ("fashion_mnist", "train-labels-idx1-ubyte.gz", 29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", _FASHION),
    ("fashion_mnist", "t10k-images-idx3-ubyte.gz", 4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", _FASHION),
    ("fashion_mnist", "t10k-labels-idx1-ubyte.gz", 5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", _FASHION),
    ("cifar10", "cifar-10-binary.tar.gz", 170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd", _TORONTO),
    ("cifar10", "data_batch_1.npz", 23_261_968, "9d04d19d5dc64945e46da2a1b6b1b4120f373e98e2023d80c3efba5b7294069f", ()),
    ("cifar10", "data_batch_2.npz", 23_299_068, "059f2efef69c1cbfd001ec00e9ff58cd7e0bd41044226c42fba762ecc9e289c0", ()),
    ("cifar10", "test_batch_first5000.npz", 11_634_909, "3dd154acd1d4f6a4f16e9954b858f409f671978b9b71783c5071ba9e27d4df8a", ()),
    ("eurosat64", "eurosat64_every10th.npz", 16_515_016, "76cc4d542aa66bc06655424b8f0d2d2aaae362ceee54b5b7330f4b214c7d42b1", ()),
    ("tiny_shakespeare", "input.txt", 1_115_394, "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed", _SHAKESPEARE),
)  # fmt: skip

FILES = MappingProxyType(
    {
        f"{folder}/{file}": KnownFile(sha256, size, tuple(place + file for place in places))
        for folder, file, size, sha256, places in _TABLE
    }
)
