"""What each data set is: where it is published, its shape, its splits, its normalisation.

Known without PyTorch, like the place of a split on disk (:mod:`kinkcheck.data.source`).
"""

from __future__ import annotations

from dataclasses import dataclass

from kinkcheck.errors import InputError, nearest, unknown

_HALF = (0.5,)
_CIFAR_MEAN, _CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One data set of the catalogue.

    Attributes:
        name: the name that :func:`kinkcheck.data.load` takes.
        hub: its repository on the Hugging Face hub; empty for the bundled sample.
        config: its configuration there, which is also a folder name in some layouts; empty for the
            only one.
        folders: the names its folder may have inside ``data_dir``, the preferred one first.
        image_column: name of the column of encoded images.
        label_column: name of the column of integer labels.
        classes: number of classes; labels are 0, 1, ..., classes - 1.
        shape: (channels, height, width) of the images handed out.
        splits: the published number of images of each split.
        mean: per channel, of pixels scaled to [0, 1].
        std: per channel, of pixels scaled to [0, 1].
        crops_and_flips: whether the published training crops and mirrors decoded images at random,
            by :func:`kinkcheck.data.crop_and_flip`.
        streamed: photographs, too many to be decoded into memory; where they are augmented, a part
            of each is decoded at random.

    >>> lookup("svhn").splits
    {'train': 73257, 'test': 26032, 'extra': 531131}
    """

    name: str
    hub: str
    config: str
    folders: tuple[str, ...]
    image_column: str = "image"
    label_column: str = "label"
    classes: int = 10
    shape: tuple[int, int, int] = (1, 28, 28)
    splits: dict[str, int]
    mean: tuple[float, ...] = _HALF
    std: tuple[float, ...] = _HALF
    crops_and_flips: bool = False
    streamed: bool = False

    @property
    def augments(self) -> bool:
        """Whether the published training augments the images.

        >>> [name for name in NAMES if lookup(name).augments]
        ['cifar10', 'cifar100', 'imagenet']
        """
        return self.crops_and_flips or self.streamed

    def require_split(self, split: str) -> None:
        """Make sure that a split was published.

        Raises:
            InputError: it was not; the message says which were.

        >>> lookup("mnist").require_split("test")
        """
        if split not in self.splits:
            raise InputError(
                f"unknown split {split!r} of {self.name};{nearest(split, self.splits)} accepted: "
                f"{', '.join(self.splits)}"
            )


_ENTRIES = (
    Entry(
        name="mnist-sample",
        hub="",
        config="",
        folders=(),
        splits={"train": 4_000, "test": 1_000},
    ),
    Entry(
        name="mnist",
        hub="ylecun/mnist",
        config="mnist",
        folders=("mnist",),
        splits={"train": 60_000, "test": 10_000},
    ),
    Entry(
        name="fashion-mnist",
        hub="zalando-datasets/fashion_mnist",
        config="fashion_mnist",
        folders=("fashion-mnist", "fashion_mnist"),
        splits={"train": 60_000, "test": 10_000},
    ),
    Entry(
        name="kmnist",
        hub="tanganke/kmnist",
        config="",
        folders=("kmnist",),
        splits={"train": 60_000, "test": 10_000},
    ),
    Entry(
        name="cifar10",
        hub="uoft-cs/cifar10",
        config="plain_text",
        folders=("cifar10",),
        image_column="img",
        shape=(3, 32, 32),
        splits={"train": 50_000, "test": 10_000},
        mean=_CIFAR_MEAN,
        std=_CIFAR_STD,
        crops_and_flips=True,
    ),
    Entry(
        name="cifar100",
        hub="uoft-cs/cifar100",
        config="cifar100",
        folders=("cifar100",),
        image_column="img",
        label_column="fine_label",
        classes=100,
        shape=(3, 32, 32),
        splits={"train": 50_000, "test": 10_000},
        mean=_CIFAR_MEAN,
        std=_CIFAR_STD,
        crops_and_flips=True,
    ),
    Entry(
        name="svhn",
        hub="ufldl-stanford/svhn",
        config="cropped_digits",
        folders=("svhn",),
        shape=(3, 32, 32),
        splits={"train": 73_257, "test": 26_032, "extra": 531_131},
        mean=_HALF * 3,
        std=_HALF * 3,
    ),
    Entry(
        name="imagenet",
        hub="ILSVRC/imagenet-1k",
        config="",
        folders=("imagenet", "imagenet-1k", "imagenet-sample"),
        classes=1_000,
        shape=(3, 224, 224),
        # The hub's test split has no labels (all are -1) and is of no use here.
        splits={"train": 1_281_167, "validation": 50_000},
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        streamed=True,
    ),
)

CATALOGUE = {entry.name: entry for entry in _ENTRIES}

NAMES: tuple[str, ...] = tuple(CATALOGUE)
"""The names that :func:`kinkcheck.data.load` takes."""


def lookup(name: str) -> Entry:
    """The catalogue's entry for a name.

    Raises:
        InputError: there is no data set of that name.

    >>> lookup("mnist").hub
    'ylecun/mnist'
    >>> lookup("minst")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: unknown data set 'minst'; did you mean 'mnist'? accepted: ...
    """
    if name not in CATALOGUE:
        raise unknown("data set", name, NAMES)
    return CATALOGUE[name]
