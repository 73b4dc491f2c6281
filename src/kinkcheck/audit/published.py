"""The published threshold and volume experiments: their settings, run on data that is given.

Source: R. Boustany (TMLR 2024, section 3) and its notebooks. There the images are cropped and
flipped at random, in stored order; here they are as :meth:`kinkcheck.data.Images.batches` shuffles
them, without augmentation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from kinkcheck import networks
from kinkcheck.audit.volume import Volume, estimate_volume
from kinkcheck.data import Images
from kinkcheck.errors import InputError
from kinkcheck.measure.records import Point
from kinkcheck.measure.variation import Variation

PRECISIONS = ("float16", "float32", "float64")


@dataclass(frozen=True)
class Histogram:
    """How many variations lie in each bin of log10.

    Attributes:
        zero: variations that are exactly 0, which have no logarithm.
        exponents: lower edges of the bins, log10, in steps of ``step``, without gaps.
        counts: variations from 10^exponent up to, not including, 10^(exponent + step).
        step: width of a bin in log10.
        non_finite: variations that are infinite or no number.
    """

    zero: int
    exponents: list[float]
    counts: list[int]
    step: float
    non_finite: int


def variation_histograms(
    points: Iterable[Point], *, norm: str = "l1", step: float = 1.0
) -> dict[tuple[str, str], Histogram]:
    """The histogram of the variation for each precision and selection.

    Args:
        points: of any number of precisions and selections.
        norm: an attribute of :class:`kinkcheck.audit.Variation`; the published histograms and
            thresholds are of ``l1``, the volumes of ``linf_by_tensor``.
        step: width of a bin in log10.

    Raises:
        InputError: there is no such norm, or ``step`` is not positive.

    >>> variations = (Variation(d, d, d, d, d) for d in (0.0, 2e-3, 5e-3, 0.5))
    >>> points = [
    ...     Point("float16", 0, i, "minimal", 2.3, 1.0, d) for i, d in enumerate(variations)
    ... ]
    >>> variation_histograms(points)["float16", "minimal"]
    Histogram(zero=1, exponents=[-3.0, -2.0, -1.0], counts=[2, 0, 1], step=1.0, non_finite=0)
    """
    accepted = [field.name for field in fields(Variation)]
    if norm not in accepted:
        raise InputError(f"norm must be one of {', '.join(accepted)}, not {norm!r}")
    if not (math.isfinite(step) and step > 0):
        raise InputError(f"step must be positive, not {step}")
    groups: dict[tuple[str, str], list[float]] = {}
    for point in points:
        values = groups.setdefault((point.precision, point.selection), [])
        values.append(getattr(point.variation, norm))
    return {key: _histogram(values, step) for key, values in groups.items()}


def _histogram(values: Sequence[float], step: float) -> Histogram:
    bins = Counter(math.floor(math.log10(value) / step) for value in values if 0 < value < math.inf)
    numbers = range(min(bins), max(bins) + 1) if bins else range(0)
    return Histogram(
        zero=sum(value == 0 for value in values),
        exponents=[number * step for number in numbers],
        counts=[bins[number] for number in numbers],
        step=step,
        non_finite=sum(not math.isfinite(value) for value in values),
    )


def with_input_noise(
    batches: Iterable[tuple[Tensor, Tensor]], *, seed: int = 0, scale: float = 1.0
) -> list[tuple[Tensor, Tensor]]:
    """The same mini-batches with independent normal noise added to every pixel.

    Equal neighbours, such as the black border of a digit, tie in every window that they fill;
    noise undoes these ties and leaves those that a network makes by itself. The published
    experiments add noise of deviation 1 to the normalised images.

    Args:
        batches: pairs of images and targets; the images are not changed in place.
        seed: of the noise, which depends on nothing else.
        scale: standard deviation, in the units of the images.

    >>> ((noisy, _),) = with_input_noise([(torch.zeros(1, 1, 4, 4), torch.tensor([0]))])
    >>> len(noisy.unique())
    16
    """
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            images + scale * torch.randn(images.shape, generator=generator, dtype=images.dtype),
            targets,
        )
        for images, targets in batches
    ]


@dataclass(frozen=True)
class Setting:
    """One bar of a published bar chart of volumes.

    Attributes:
        factor: what is varied: ``network``, ``batch_size`` or ``batch_norm``.
        network: name of the network.
        batch_size: images in a mini-batch.
        batch_norm: whether the network has batch norm.
    """

    factor: str
    network: str = "vgg11"
    batch_size: int = 128
    batch_norm: bool = False

    @property
    def value(self) -> str | int | bool:
        """The value of the factor.

        >>> Setting("batch_size", batch_size=64).value
        64
        """
        found: str | int | bool = getattr(self, self.factor)
        return found


FACTORS: dict[str, tuple[Setting, ...]] = {
    "network": tuple(
        Setting("network", network=name) for name in ("vgg11", "vgg13", "vgg16", "vgg19")
    ),
    "batch_size": tuple(Setting("batch_size", batch_size=size) for size in (64, 256, 512, 1024)),
    "batch_norm": tuple(Setting("batch_norm", batch_norm=there) for there in (False, True)),
}
"""The settings of each published bar chart; what is not varied is VGG 11, 128 images, no norm."""


def volumes(
    settings: Iterable[Setting],
    images: Images,
    *,
    draws: int = 1,
    batches: int | None = None,
    precisions: Sequence[str] = PRECISIONS,
    lifted: bool = True,
    device: str = "cpu",
    seed: int = 0,
    confidence: float = 0.95,
    until_width: float | None = None,
    out: Path | None = None,
    on_point: Callable[[Setting, int, int], None] = lambda setting, done, total: None,
) -> Iterator[tuple[Setting, Volume]]:
    """Estimate the volumes of a published bar chart: native against minimal, Kaiming parameters.

    Args:
        settings: an entry of :data:`FACTORS`, or settings of one's own.
        images: where mini-batches come from; published for CIFAR-10.
        draws: parameter draws.
        batches: mini-batches; None for as many whole ones as the images make.
        precisions: names as in :mod:`kinkcheck.arithmetic.precision`.
        lifted: also judge every point by the lift.
        device: where to run.
        seed: of parameters and data order.
        confidence: of every interval.
        until_width: as in :func:`kinkcheck.audit.volume.estimate_volume`.
        out: a folder for one file a setting, with which an interrupted run goes on.
        on_point: called with the setting, the number of points done, and in all.

    Yields:
        Each setting with its volume, as soon as it is done.

    Raises:
        InputError: an argument cannot be used, or there are too few images for a setting.

    >>> [setting.value for setting in FACTORS["network"]]
    ['vgg11', 'vgg13', 'vgg16', 'vgg19']
    """
    for setting in settings:
        whole = len(images) // setting.batch_size
        count = whole if batches is None else batches
        if not 1 <= count <= whole:
            raise InputError(
                f"batches: {count} of {setting.batch_size} images each: {images.name} has "
                f"{len(images):,} images, enough for {whole}"
            )
        name = f"{setting.network}-{setting.batch_size}{'-bn' if setting.batch_norm else ''}"
        yield (
            setting,
            estimate_volume(
                partial(
                    networks.build,
                    setting.network,
                    in_channels=images.channels,
                    classes=images.classes,
                    image_size=images.image_size[0],
                    batch_norm=setting.batch_norm,
                    init="kaiming",
                ),
                list(islice(images.batches(setting.batch_size, seed=seed), count)),
                draws=draws,
                precisions=precisions,
                operations=["max_pool"],
                lifted=lifted,
                device=device,
                seed=seed,
                confidence=confidence,
                until_width=until_width,
                out=None if out is None else out / f"{name}.jsonl",
                network_name=name,
                data_name=images.name,
                on_point=partial(on_point, setting),
            ),
        )
