"""Table of the data sets that are known by name: contents, licence, files. Imports nothing heavy.

A new data set is a row here and a reader in `train/data/sources.py`.
"""

import dataclasses

DIGITS = tuple(map(str, range(10)))
GARMENTS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
EMOJI = (
    *("Activities", "Animals & Nature", "Food & Drink", "Objects"),
    *("People & Body", "Smileys & Emotion", "Symbols", "Travel & Places"),
)
LAND_USES = (
    *("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial"),
    *("Pasture", "PermanentCrop", "Residential", "River", "SeaLake"),
)

_MNIST = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
_FASHION = ("https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",)
_SHAKESPEARE = ("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/",)
_TORONTO = ("https://www.cs.toronto.edu/~kriz/",)


@dataclasses.dataclass(frozen=True)
class KnownFile:
    """One file below the data folder.

    Args:
        name: of the file, within the data set's folder.
        size: bytes; no more are read or downloaded.
        sha256: of the whole file, lower-case hexadecimal.
        places: addresses that it is published under, up to its name, in order of preference; none if unpublished.
    """

    name: str
    size: int
    sha256: str
    places: tuple[str, ...] = ()

    @property
    def urls(self) -> tuple[str, ...]:
        """Addresses of the file, tried in order."""
        return tuple(place + self.name for place in self.places)


@dataclasses.dataclass(frozen=True)
class KnownSet:
    """One data set.

    Args:
        title: of the publication.
        licence: of the data.
        files: by which it is read; none where a package brings them.
        shape: `(height, width, channels)` of the images; empty for a text.
        classes: names by label; empty for a text.
        levels: grey levels of a pixel.
        captions: images have texts.
        masks: classes of a pixel, of images with masks.
        pairs: two texts a line.
        rate: samples a second, of sounds.
    """

    title: str
    licence: str
    files: tuple[KnownFile, ...] = ()
    shape: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    levels: int = 256
    captions: bool = False
    masks: tuple[str, ...] = ()
    pairs: bool = False
    rate: int = 0


def _files(places: tuple[str, ...], *rows: str) -> tuple[KnownFile, ...]:
    """Files of `name size sha256`."""
    return tuple(KnownFile(name, int(size), sha256, places) for name, size, sha256 in map(str.split, rows))


KNOWN = {
    "digits": KnownSet(
        title="Optical Recognition of Handwritten Digits, UCI Machine Learning Repository",
        licence="CC BY 4.0",
        shape=(8, 8, 1),
        classes=DIGITS,
        levels=17,
    ),
    "mnist": KnownSet(
        title="MNIST, Y. LeCun, C. Cortes and C. Burges",
        licence="CC BY-SA 3.0",
        shape=(28, 28, 1),
        classes=DIGITS,
        files=_files(
            _MNIST,
            "train-images-idx3-ubyte.gz 9912422 440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels-idx1-ubyte.gz 28881 3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "t10k-images-idx3-ubyte.gz 1648877 8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels-idx1-ubyte.gz 4542 f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    "fashion_mnist": KnownSet(
        title="Fashion-MNIST, Zalando SE",
        licence="MIT",
        shape=(28, 28, 1),
        classes=GARMENTS,
        files=_files(
            _FASHION,
            "train-images-idx3-ubyte.gz 26421880 3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte.gz 29515 a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images-idx3-ubyte.gz 4422102 346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte.gz 5148 67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
    "cifar10": KnownSet(
        title="CIFAR-10, A. Krizhevsky",
        licence="none is stated",
        shape=(32, 32, 3),
        classes=OBJECTS,
        files=_files(
            _TORONTO,
            "cifar-10-binary.tar.gz 170052171 c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            "data_batch_1.npz 23261968 9d04d19d5dc64945e46da2a1b6b1b4120f373e98e2023d80c3efba5b7294069f",
            "data_batch_2.npz 23299068 059f2efef69c1cbfd001ec00e9ff58cd7e0bd41044226c42fba762ecc9e289c0",
            "test_batch_first5000.npz 11634909 3dd154acd1d4f6a4f16e9954b858f409f671978b9b71783c5071ba9e27d4df8a",
        ),
    ),
    "eurosat64": KnownSet(
        title="EuroSAT, P. Helber et al.",
        licence="MIT",
        shape=(64, 64, 3),
        classes=LAND_USES,
        files=_files(
            (),
            "eurosat64_every10th.npz 16515016 76cc4d542aa66bc06655424b8f0d2d2aaae362ceee54b5b7330f4b214c7d42b1",
        ),
    ),
    "captioned_digits": KnownSet(
        title="Scenes of coloured digits with captions, made of Optical Recognition of Handwritten Digits",
        licence="CC BY 4.0",
        shape=(24, 24, 3),
        classes=("count", "relation", "size"),
        captions=True,
    ),
    "emoji64": KnownSet(
        title="Emoji of Noto, Google, and of Twemoji, Twitter and contributors, with names and keywords",
        licence="Apache-2.0 (Noto), CC BY 4.0 (Twemoji), MIT (words)",
        shape=(64, 64, 3),
        classes=EMOJI,
        captions=True,
        files=_files(
            (),
            "emoji.tsv 223273 03a78e6b5579ee873e6d57d3c8a538c011cda4bef271ab1ad213a85923463ba6",
            "google.npz 3412219 d84b169482dd0db94852710916f16de1ff1c6d60e6d58055d8abaa2cfd87debe",
            "twitter.npz 2591788 f527bb9561cfc7b4546d11b3313c4e717e2c235532a4fe578f032709eef62a4c",
        ),
    ),
    "isbi_membrane": KnownSet(
        title="ISBI 2012 challenge, training part, A. Cardona et al. 2010 and I. Arganda-Carreras et al. 2015",
        licence="for research; cite both",
        shape=(512, 512, 1),
        masks=("membrane", "inside"),
        files=_files(
            (),
            "isbi_membrane.npz 6593936 366c08adabf46982cc55d4b145f5bb4470a7d9d7926f501804844d11c3d5c850",
        ),
    ),
    "tiny_shakespeare": KnownSet(
        title="Tiny Shakespeare, from the works of W. Shakespeare",
        licence="public domain",
        files=_files(
            _SHAKESPEARE, "input.txt 1115394 86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
        ),
    ),
    "text_classification": KnownSet(
        title="SST (Socher et al.), MR, Subj (Pang, Lee), TREC (Li, Roth), CR (Hu, Liu) and MPQA (Wiebe et al.)",
        licence="none is stated: research",
        files=_files(
            (),
            "cr.tsv 374094 6fe88707de7c66515c84eb94aae8b33f89fe4eb751a41630c8d9eaef9e82d20b",
            "mpqa.tsv 229972 c89cb5317f504d5e30607d25e696951332106455aad7e23715010c4f48b25adb",
            "mr.tsv 1260094 5ce4fb82c0d084926a71a3a2c2e4d0481c25a1ba4d9c69d64876456316902aa1",
            "sst2.dev.tsv 94400 ecff64a246f7527d9222f044a6b704a0f1480df8bd1335467356c80a93549a0c",
            "sst2.test.tsv 193562 899e95cf02d91ad0577f133dc68567edfa994bfb18c72cfd9dd4a08e6aae11b6",
            "sst2.train.tsv 738844 447fe95b2ccfb18711b1adaec0eab0c8fa672a5c24e25ff29863e44785aee9af",
            "sst5.dev.tsv 117239 0330fcfa53fa2acf52e345040289249c4d706c8492c74e6ca4518e62bc5b04dd",
            "sst5.test.tsv 233634 c5817993bc7760d5f49959a93b1bbad5c47cf014c061baa3e06425f4d91f4693",
            "sst5.train.tsv 902818 3c70cffa87b8e6adc4ced657c7e1c031076ca7593872d372440973b9e047c692",
            "subj.tsv 1320472 96e40ce279feacd19d3c8d567cb1cc8c5e370aab37cd132e822d21b543bb2dc9",
            "trec.test.tsv 19479 20813be1306604e1b54386dc9ef13d6c777cac26f17e479cad07f3706d05df89",
            "trec.train.tsv 292403 09ba0b820f9d469d291211478c46ae8cc64070b6f3935a5a23ad89f58eb5bd64",
        ),
    ),
    "glue": KnownSet(
        title="CoLA (Warstadt et al.), MRPC (Dolan, Brockett) and the sentences of VADER (Hutto, Gilbert)",
        licence="research (CoLA, MRPC), MIT (VADER)",
        files=_files(
            (),
            "cola.dev_in_domain.tsv 25957 77176f6a03faa5a1c4f23c69971fc1bff565931112fb65af47b2d6e24b7f42f7",
            "cola.dev_out_of_domain.tsv 27755 60001c2dd0c42516bf6401682c6d2a597032a01725d68f92fadf8f9fd5156e83",
            "cola.train.tsv 428578 f320a10f92d3bce6b29152fde322a362eac39238e50d8de0c8815457fdf4fc12",
            "mrpc.dev.tsv 105573 795ef6744273e66e064f2f4abd86bb069460f7ab0102b445769607733e1ec436",
            "mrpc.test.tsv 441232 e008ddd2215896cda9ff12e42b048bab6442c6b0a5469397f774c6f1223e3e37",
            "mrpc.train.tsv 941428 d4795344fbf1b58f1c2af388b2b8edc7b9e49adf27f71deba54b337ee131b40b",
            "vader.amazon.tsv 369451 7b538701eb7e1e74e909cd44d55e2d7de9452b6b1188844129056610c8fc381c",
            "vader.movie.tsv 1372495 cf25b6b5aab5257bf38c6177db68db91dc5c0a07f5a4a344fc735c4d2dcdddbe",
            "vader.nyt.tsv 602441 66bbca1169af6c83664f9423eec55b8f6775f0ee7ed0adfb1c45e7cafca47a23",
            "vader.tweets.tsv 385688 d3559c1d392b334cbc4facd5dee13cdcb6c6fc3c91b7952d1e37c829beae6e01",
        ),
    ),
    "cmudict": KnownSet(
        title="CMU Pronouncing Dictionary, Carnegie Mellon University",
        licence="BSD-2-Clause, in the words of Carnegie Mellon University",
        pairs=True,
        files=_files(
            (),
            "cmudict.train.tsv 3228238 24a3c4b9816aab430f0d560adc9131de26763896c206520f76d0ac3799737738",
            "cmudict.dev.tsv 182048 9d3ba958fff78f9d4de722cb00ae07a69aedb59449b8ebae886fd4a0a3cad5af",
            "cmudict.test.tsv 180557 f8aac4352591036c7c29ec510003dbf33eef2a6827ec8bdf1115fb0f01bec9d2",
        ),
    ),
    "fsdd": KnownSet(
        title="Free Spoken Digit Dataset, Z. Jackson et al.",
        licence="CC BY-SA 4.0",
        rate=8000,
        files=_files((), "fsdd.npz 13004146 363103725c6ea0001fe7640a8763779e8d188d8baee12ed9bd24971044f07ba0"),
    ),
}
"""By the name of the folder, which but for those of `COLLECTIONS` is the name that --data.name takes."""

IMAGES = tuple(name for name, known in KNOWN.items() if known.shape and not known.masks)
PAIRS = tuple(name for name, known in KNOWN.items() if known.masks)
COLLECTIONS = ("text_classification", "glue")
"""Folders of the tables that the tasks of `train.config.tasks` are read from."""
TEXT_PAIRS = tuple(name for name, known in KNOWN.items() if known.pairs)
SOUNDS = tuple(name for name, known in KNOWN.items() if known.rate)
TEXTS = tuple(
    name for name, known in KNOWN.items() if not (known.shape or known.pairs or known.rate or name in COLLECTIONS)
)
