"""What one trial's result depends on, in canonical form, and the identity that follows from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

COLUMNS = ("relu", "max_pool")
"""The families whose selections have columns of their own, from when there were no others."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a learning rate is looked for.

    Attributes:
        trials: learning rates that are tried.
        epochs: epochs of each, at a constant learning rate.
        low: smallest learning rate; they are drawn log-uniformly.
        high: largest.
        pruning: whether a candidate below the median of the earlier ones at its epoch is stopped.
        per_selection: look for each selection and forward separately, instead of once under
            ``native`` for all.
        seed: of the draws; candidate number n is trained from seed + n.

    The defaults are those of R. Boustany (TMLR 2024).
    """

    trials: int = 10
    epochs: int = 10
    low: float = 1e-5
    high: float = 1e-1
    pruning: bool = True
    per_selection: bool = False
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Classification:
    """A network that classifies images, and the images.

    Attributes:
        data: name of the data set.
        train_split, test_split: parts of it.
        train_images, test_images: only the first so many; None for all.
        augment: whether the training images are augmented.
        network: a built-in name, or where a factory is.
        batch_norm: of a built-in network.
        init: likewise.
    """

    data: str
    train_split: str
    test_split: str
    train_images: int | None
    test_images: int | None
    augment: bool
    network: str
    batch_norm: bool
    init: str

    @property
    def columns(self) -> dict[str, Any]:
        """What tells its trials apart, in columns of their own."""
        return {"data": self.data, "network": self.network, "batch_norm": self.batch_norm}

    @property
    def words(self) -> list[str]:
        """What its trials are called."""
        return [self.network, "batch norm"] if self.batch_norm else [self.network]


@dataclass(frozen=True, kw_only=True)
class Factory:
    """A task of the user's own, as a spec names it.

    Attributes:
        factory: where the function is that returns it.
        digest: of the file that it is in, SHA-256.
        arguments: of the function, by keyword; what JSON can say.
    """

    factory: str
    digest: str
    arguments: Mapping[str, Any] = field(hash=False)

    @property
    def columns(self) -> dict[str, Any]:
        """What tells its trials apart, in columns of their own."""
        return {"task": self.factory}

    @property
    def words(self) -> list[str]:
        """What its trials are called."""
        return [self.factory]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that the result of one trial depends on, but the data and the machine.

    Texts are canonical (``float16``, not ``16``; ``hybrid:10``, not ``hybrid:1e1``), so that equal
    trials have equal settings. See the page on studies for what each means.

    Attributes:
        task: what is trained, on what.
        experiment: ``training`` or ``weight-divergence``.
        selections: by family of operations; a family that is not there is native.
        forward: ``exact`` or ``compound``, see :class:`kinkcheck.nn.CompoundMaxPool2d`.
        backward: ``exact`` or ``assigned``, see :class:`kinkcheck.nn.AssignedReLU`.
        networks: in a weight divergence, the max-pooling selections of the networks that train
            side by side, the first being the one that the others are compared with.
        seed: the seed of the run, from which the other three are taken unless they are fixed.
        init_seed: of the parameters.
        order_seed: of the order of the data.
        augment_seed: of what the training samples draw: the augmentation of images.
        learning_rate: None if it is to be searched.
        search: how, if it is to be searched.
        devices: that share each mini-batch.
        candidate: whether this is a candidate in a search and not a result.
    """

    task: Classification | Factory
    experiment: str
    precision: str
    optimizer: str
    momentum: float
    weight_decay: float
    clip_norm: float | None
    learning_rate: float | None
    search: Search | None
    schedule: str
    step_size: int
    step_factor: float
    selections: Mapping[str, str] = field(hash=False)
    forward: str
    networks: tuple[str, ...] = ()
    seed: int
    init_seed: int
    order_seed: int
    augment_seed: int
    epochs: int
    batch_size: int
    probe: bool
    backward: str = "exact"
    devices: int = 1
    candidate: bool = False

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that equal settings have in common.

        >>> from kinkcheck.study.spec import shipped
        >>> first = shipped("smoke").trials()[0]
        >>> first.id == Settings.from_json(first.to_json()).id
        True
        """
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def to_json(self) -> str:
        """The settings as a JSON object with sorted keys.

        What could not be said once goes without saying, so that trials of old studies keep their
        ids: one device, that images are classified, that only max pooling and ReLU have
        selections, and that their derivatives are multiplied by the gradient.
        """
        said = asdict(self)
        if isinstance(self.task, Classification):
            said |= said.pop("task")
        others = said.pop("selections")
        said |= {family: others.pop(family, None) for family in COLUMNS}
        if others:
            said["selections"] = others
        if self.devices == 1:
            del said["devices"]
        if self.backward == "exact":
            del said["backward"]
        return json.dumps(said, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """The settings that :meth:`to_json` wrote."""
        read: dict[str, Any] = json.loads(text)
        search, others = read["search"], read.get("selections", {})
        task: Classification | Factory
        if "task" in read:
            task = Factory(**read.pop("task"))
        else:
            task = Classification(**{key.name: read.pop(key.name) for key in _OF_IMAGES})
        first = {family: chosen for family in COLUMNS if (chosen := read.pop(family)) is not None}
        return cls(
            **{
                **read,
                "task": task,
                "selections": first | others,
                "networks": tuple(read["networks"]),
                "search": None if search is None else Search(**search),
            }
        )


_OF_IMAGES = fields(Classification)
