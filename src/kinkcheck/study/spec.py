"""A study in one small TOML file: what is trained, under which selections, how often.

>>> shipped("smoke").trials()[0].task.network
'lenet5'
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from kinkcheck import selection
from kinkcheck.arithmetic.precision_names import canonical
from kinkcheck.data.catalogue import Entry, lookup
from kinkcheck.errors import InputError, nearest, unknown
from kinkcheck.files import require_readable
from kinkcheck.named import source_of
from kinkcheck.networks.catalogue import INITIALISATIONS, require_network
from kinkcheck.ops.conventions import Form, meaning
from kinkcheck.ops.table import FAMILIES, ROWS
from kinkcheck.selection import As, Branch, Hybrid, Minimal, Native, Selection
from kinkcheck.study.settings import COLUMNS, Classification, Factory, Search, Settings
from kinkcheck.study.streams import stream

_Item = TypeVar("_Item")
_OF_IMAGES = tuple(field.name for field in fields(Classification))
"""The keys that say which images are classified, and with which network."""

MOST_TRIALS = 100_000
"""Of a study, before rules of ``exclude`` take some away: all are declared when it begins."""

_SPECS = resources.files("kinkcheck.study") / "specs"


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _some(values: tuple[_Item, ...]) -> tuple[_Item, ...]:
    if not values:
        raise InputError("must not be empty")
    return values


Many: TypeAlias = Annotated[tuple[_Item, ...], BeforeValidator(_tuple), AfterValidator(_some)]
"""One value, or a list of them."""


def _selections(table: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    found = {}
    for family, texts in table.items():
        row = next((row for row in ROWS if row.family == family), None)
        if row is None:
            raise unknown("family", family, FAMILIES)
        found[family] = tuple(str(row.require_fixed(selection.parse(text))) for text in texts)
    return found


def _network(name: str) -> str:
    require_network(name)
    return name


def _seeds(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise InputError(f"must be 1 or more, or a list of seeds, not {value}")
        if value > MOST_TRIALS:
            raise InputError(f"must be at most {MOST_TRIALS:,}, not {value:,}")
        return tuple(range(value))
    return _tuple(value)


def _learning_rates(value: Any) -> Any:
    if value == "search" or isinstance(value, Uniform):
        return value
    if isinstance(value, dict):
        try:
            return Uniform(**value)
        except ValidationError:
            raise InputError(
                f"must be {{low = ..., high = ...}} with two positive numbers, not {value!r}"
            ) from None
    rates = _tuple(value)
    for rate in rates:
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1e6:
            raise InputError(
                f"must be a positive number, a list of them, 'search' or "
                f"{{low = ..., high = ...}}, not {rate!r}"
            )
    return _some(tuple(float(rate) for rate in rates))


def _plain(arguments: dict[str, Any]) -> dict[str, Any]:
    for name, value in arguments.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raise InputError(
                f"{name} must be made of texts, finite numbers, truth values, lists and tables, "
                f"not {value!r}"
            ) from None
    return arguments


Positive: TypeAlias = Annotated[int, Field(ge=1, le=1_000_000_000)]
SeedValue: TypeAlias = Annotated[int, Field(ge=0, lt=2**53)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Uniform(_Table):
    """A learning rate drawn uniformly, once a seed."""

    low: float = Field(gt=0)
    high: float = Field(gt=0)


class TaskTable(_Table):
    """The table ``[task]``: a task of the user's own."""

    factory: str
    arguments: Annotated[dict[str, Any], AfterValidator(_plain)] = {}


class SearchTable(_Table):
    """The table ``[search]``: see :class:`kinkcheck.study.settings.Search`."""

    trials: int = Field(default=10, ge=1, le=10_000)
    epochs: Positive = 10
    low: float = Field(default=1e-5, gt=0)
    high: float = Field(default=1e-1, gt=0)
    pruning: bool = True
    per_selection: bool = False
    seed: SeedValue = 0


Rates: TypeAlias = Annotated[
    Literal["search"] | Uniform | tuple[float, ...], BeforeValidator(_learning_rates)
]


class Spec(_Table):
    """A declared study; made by :func:`load`, :func:`shipped` or :func:`parse`.

    The page on studies describes every key. A key that may have several values takes one or a
    list; the trials are the product of all lists, without what a rule of ``exclude`` matches.
    """

    description: str = ""
    source: str = ""
    experiment: Literal["training", "weight-divergence"] = "training"

    task: TaskTable | None = None

    data: str | None = None
    train_split: str = "train"
    test_split: str | None = None
    train_images: Positive | None = None
    test_images: Positive | None = None
    augment: bool | None = None

    network: Many[Annotated[str, AfterValidator(_network)]] = ()
    batch_norm: Many[bool] = (False,)
    init: Literal[INITIALISATIONS] = "default"  # type: ignore[valid-type]
    precision: Many[Annotated[str, BeforeValidator(canonical)]] = ("float32",)
    selections: Annotated[dict[str, Many[str]], AfterValidator(_selections)] = {}
    forward: Many[Literal["exact", "compound"]] = ("exact",)
    backward: Many[Literal["exact", "assigned"]] = ("exact",)
    exclude: tuple[dict[str, Any], ...] = ()

    seeds: Annotated[tuple[SeedValue, ...], BeforeValidator(_seeds), AfterValidator(_some)] = tuple(
        range(10)
    )
    init_seed: SeedValue | None = None
    order_seed: SeedValue | None = None
    augment_seed: SeedValue | None = None

    optimizer: Many[Literal["sgd", "adam"]] = ("sgd",)
    learning_rate: Rates = "search"
    momentum: float = Field(default=0.9, ge=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    clip_norm: float | None = Field(default=None, gt=0)
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    step_size: Positive = 30
    step_factor: float = Field(default=0.1, gt=0)
    epochs: Positive
    batch_size: Positive = 128
    devices: int = Field(default=1, ge=1, le=64)
    search: SearchTable = SearchTable()
    probe: bool = True

    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="before")
    @classmethod
    def _lists_to_tuples(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("exclude"), list):
            return {**values, "exclude": tuple(values["exclude"])}
        return values

    @model_validator(mode="after")
    def _coherent(self) -> Spec:
        self._require_task()
        for rate in (self.search, self.learning_rate):
            if isinstance(rate, SearchTable | Uniform) and rate.low > rate.high:
                raise InputError(f"learning rates: low {rate.low:g} is above high {rate.high:g}")
        if self.experiment == "weight-divergence":
            if "max_pool" not in self.selections:
                raise InputError(
                    "selections.max_pool: name the selections of the networks to compare"
                )
            if self.learning_rate == "search":
                raise InputError(
                    "learning_rate: a weight divergence takes a number, a list or "
                    "{low = ..., high = ...}, not 'search'"
                )
        if self.devices > self.batch_size:
            raise InputError(f"devices: {self.devices} are more than batch_size {self.batch_size}")
        cells = math.prod(len(values) for values in self._axes.values())
        if cells > MOST_TRIALS:
            raise InputError(
                f"the lists of values make {cells:,} trials; a study has at most {MOST_TRIALS:,}"
            )
        for number, rule in enumerate(self.exclude, start=1):
            self._require_rule(number, rule)
        return self

    def _require_task(self) -> None:
        """Check the keys that say what is trained."""
        if self.task is not None:
            given = [key for key in _OF_IMAGES if key in self.model_fields_set]
            if given:
                raise InputError(
                    f"{given[0]}: is for the classification of images; with a [task] its factory "
                    "decides, and task.arguments may tell it"
                )
            return
        for key in ("data", "network"):
            if not getattr(self, key):
                raise InputError(f"the key {key!r} is missing")
        entry = self._entry
        for split in (self.train_split, self._test_split):
            entry.require_split(split)
        if self.augment and not entry.augments:
            raise InputError(f"augment: {self.data} has no augmentation; accepted: false")
        if any(":" in name for name in self.network) and (
            True in self.batch_norm or self.init != "default"
        ):
            raise InputError(
                "network: batch_norm and init are for built-in networks; let the factory do it"
            )

    @property
    def folder(self) -> Path:
        """From which the paths of files are told: that of the spec, or the current one."""
        return self._folder

    @property
    def _entry(self) -> Entry:
        assert self.data is not None
        return lookup(self.data)

    @property
    def _test_split(self) -> str:
        return self.test_split or ("validation" if self.data == "imagenet" else "test")

    def trials(self) -> tuple[Settings, ...]:
        """The settings of every trial, in the order in which they run.

        Raises:
            InputError: the rules of ``exclude`` leave nothing, a compound forward without β, an
                assigned backward without α, or the file of a task is not there.
        """
        rules = [
            {key: self._matching(key, value) for key, value in rule.items()}
            for rule in self.exclude
        ]
        cells = [
            cell
            for cell in self._cells()
            if not any(all(cell[k] in accepted for k, accepted in r.items()) for r in rules)
        ]
        if not cells:
            raise InputError("exclude: the rules leave no trial")
        for cell in cells:
            if cell["forward"] == "compound":
                for text in self._side_by_side or (cell.get("max_pool", "native"),):
                    beta_of(text)
            if cell["backward"] == "assigned":
                alpha_of(cell.get("relu", "native"))
        own = self._own
        return tuple(self._settings(cell, own or self._classification(cell)) for cell in cells)

    @property
    def _own(self) -> Factory | None:
        """The user's own task."""
        if self.task is None:
            return None
        file = source_of(self.task.factory, "task", self.folder)
        return Factory(
            factory=self.task.factory,
            digest=hashlib.sha256(file).hexdigest(),
            arguments=self.task.arguments,
        )

    def _classification(self, cell: Mapping[str, Any]) -> Classification:
        augment = self._entry.augments if self.augment is None else self.augment
        return Classification(
            data=str(self.data),
            train_split=self.train_split,
            test_split=self._test_split,
            train_images=self.train_images,
            test_images=self.test_images,
            augment=augment,
            network=cell["network"],
            batch_norm=cell["batch_norm"],
            init=self.init,
        )

    @property
    def _side_by_side(self) -> tuple[str, ...]:
        """The selections of the networks that one trial trains together."""
        return self.selections["max_pool"] if self.experiment == "weight-divergence" else ()

    @property
    def _varied(self) -> tuple[str, ...]:
        """The families whose selections tell trials apart."""
        return tuple(f for f in self.selections if not (f == "max_pool" and self._side_by_side))

    @property
    def _axes(self) -> dict[str, tuple[Any, ...]]:
        """What a trial is one combination of, the slowest first: every seed completes a table."""
        rates = self.learning_rate
        of_task = {} if self.task else {"network": self.network, "batch_norm": self.batch_norm}
        return {
            "seed": self.seeds,
            **of_task,
            "precision": self.precision,
            "optimizer": self.optimizer,
            "forward": self.forward,
            "backward": self.backward,
            **{family: self.selections[family] for family in self._varied},
            "learning_rate": rates if isinstance(rates, tuple) else (None,),
        }

    def _require_rule(self, number: int, rule: Mapping[str, Any]) -> None:
        if not rule:
            raise InputError(f"exclude: rule {number} is empty")
        axes = self._axes
        for key, value in rule.items():
            if key not in axes:
                raise InputError(f"exclude: rule {number}: {unknown('key', key, axes)}")
            there = axes[key]
            for item in self._matching(key, value):
                if item not in there:
                    listed = ", ".join(str(each) for each in there if each is not None)
                    raise InputError(
                        f"exclude: rule {number}: the spec has no {key} {item!r}; "
                        f"accepted: {listed or f'nothing, the spec lists no {key}'}"
                    )

    def _cells(self) -> Iterator[dict[str, Any]]:
        axes = self._axes
        for values in product(*map(dict.fromkeys, axes.values())):
            yield dict(zip(axes, values, strict=True))

    def _matching(self, key: str, value: Any) -> tuple[Any, ...]:
        """The values of a grid key that a rule speaks of, in canonical form."""
        read = canonical if key == "precision" else _text if key in self.selections else None
        return tuple(read(item) if read else item for item in _tuple(value))

    def _settings(self, cell: Mapping[str, Any], task: Classification | Factory) -> Settings:
        seed, sgd = cell["seed"], cell["optimizer"] == "sgd"
        rate = cell["learning_rate"]
        if isinstance(self.learning_rate, Uniform):
            share = stream(seed, "learning rate") / 2**63
            rate = self.learning_rate.low + share * (
                self.learning_rate.high - self.learning_rate.low
            )
        return Settings(
            task=task,
            experiment=self.experiment,
            precision=cell["precision"],
            optimizer=cell["optimizer"],
            forward=cell["forward"],
            backward=cell["backward"],
            learning_rate=rate,
            selections={family: cell[family] for family in self._varied},
            seed=seed,
            momentum=self.momentum if sgd else 0.0,
            weight_decay=self.weight_decay if sgd else 0.0,
            clip_norm=self.clip_norm,
            search=Search(**self.search.model_dump()) if self.learning_rate == "search" else None,
            schedule=self.schedule,
            step_size=self.step_size,
            step_factor=self.step_factor,
            networks=self._side_by_side,
            init_seed=seed if self.init_seed is None else self.init_seed,
            order_seed=seed if self.order_seed is None else self.order_seed,
            augment_seed=seed if self.augment_seed is None else self.augment_seed,
            epochs=self.epochs,
            batch_size=self.batch_size,
            probe=self.probe,
            devices=self.devices,
        )


def parse(text: str, where: str, folder: Path = Path()) -> Spec:
    r"""The study that a TOML text declares.

    Args:
        text: TOML. The key ``extends`` names a shipped spec whose other keys are taken over.
        where: what to call the text in an error.
        folder: from which the paths of files are told.

    Raises:
        InputError: it is not TOML, or a key is unknown, missing or has a wrong value; one line
            that names the key, what was given and what is accepted.

    >>> parse('data = "mnist"\nnetwork = "lenet5"\nepoch = 3', "my.toml")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: my.toml: unknown key 'epoch'; did you mean 'epochs'? accepted: ...
    """
    try:
        values = _with_base(tomllib.loads(text), where)
        spec = Spec.model_validate(values)
        spec._folder = folder
        spec.trials()
    except RecursionError:
        raise InputError(f"{where}: is nested too deeply") from None
    except ValidationError as error:
        raise InputError(f"{where}: {_first(error)}") from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except ValueError as error:  # of tomllib, which lets those of int() pass
        raise InputError(f"{where}: is not TOML: {error}") from None
    return spec


def names() -> tuple[str, ...]:
    """The specs that ship with the package.

    >>> "smoke" in names()
    True
    """
    return tuple(sorted(f.name.removesuffix(".toml") for f in _SPECS.iterdir() if _is_toml(f.name)))


def source(name: str) -> str:
    """The TOML text of a shipped spec.

    Raises:
        InputError: there is no such spec.
    """
    if name not in names():
        raise unknown("spec", name, ("a .toml file", *names()))
    return (_SPECS / f"{name}.toml").read_text(encoding="utf-8")


def shipped(name: str) -> Spec:
    """A spec that ships with the package.

    Raises:
        InputError: there is no such spec.
    """
    return parse(source(name), name)


def load(text: str) -> Spec:
    """The spec that a name or a path to a TOML file stands for.

    Raises:
        InputError: it is neither, or the file cannot be read or is wrong.
    """
    if not _is_toml(text):
        return shipped(text)
    path = Path(text)
    require_readable(path)
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise InputError(f"{path} cannot be read: {reason}") from None
    return parse(content, str(path), path.parent)


def warnings(spec: Spec) -> list[str]:
    r"""What a study can be expected to trip over, each in one sentence that says why.

    >>> text = source("smoke").replace("learning_rate", 'optimizer = "adam"\nlearning_rate')
    >>> warnings(parse(text, "my.toml"))
    ["optimizer = 'adam' at float16: ..."]
    """
    found = []
    if "adam" in spec.optimizer and "float16" in spec.precision:
        found.append(
            "optimizer = 'adam' at float16: Adam's epsilon 1e-8 and the square of a gradient below "
            "2e-4 are 0 in float16, so that its step is 0/0 there; expect these trials to diverge"
        )
    for family, texts in spec.selections.items():
        for text in texts:
            if lacking := _lacking(selection.parse(text), family):
                found.append(f"selections.{family} = {text!r} is native where {'; '.join(lacking)}")
    return found


def _lacking(chosen: Selection, family: str) -> list[str]:
    """Why operations of a family have nothing of a convention."""
    rows = [row for row in ROWS if row.family == family] if isinstance(chosen, As) else []
    reasons = (meaning(chosen, Form(row.name)).why for row in rows if isinstance(chosen, As))
    return list(dict.fromkeys(why for why in reasons if why))


def beta_of(text: str) -> float:
    """β of a selection of max pooling that the published formula can express.

    Raises:
        InputError: it has none.

    >>> beta_of("native"), beta_of("minimal"), beta_of("hybrid:10")
    (0.0, 1.0, 10.0)
    """
    chosen = selection.parse(text)
    if isinstance(chosen, Hybrid):
        return chosen.beta
    if isinstance(chosen, Native | Minimal):
        return float(isinstance(chosen, Minimal))
    raise InputError(
        f"forward: compound has no {text}; accepted: native, minimal, hybrid:BETA, or exclude it"
    )


def alpha_of(text: str) -> float:
    """α of a selection of ReLU, which an assigned backward pass returns at 0.

    Raises:
        InputError: it has none.

    >>> alpha_of("native"), alpha_of("branch:0.5")
    (0.0, 0.5)
    """
    chosen = selection.parse(text)
    if isinstance(chosen, Branch):
        return chosen.alpha
    if isinstance(chosen, Native):
        return 0.0
    raise InputError(
        f"backward: assigned has no {text}; accepted: native, branch:ALPHA, or exclude it"
    )


def _is_toml(name: str) -> bool:
    return name.endswith(".toml")


def _with_base(values: dict[str, Any], where: str) -> dict[str, Any]:
    values = _with_table(values)
    base = values.pop("extends", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise InputError(f"extends: must be the name of a shipped spec, not {base!r}")
    below = _with_base(tomllib.loads(source(base)), base)
    merged = {**below, **values}
    for table in ("search", "selections"):
        if isinstance(below.get(table), dict) and isinstance(values.get(table), dict):
            merged[table] = {**below[table], **values[table]}
    return merged


def _with_table(values: dict[str, Any]) -> dict[str, Any]:
    """The values, with selections that are keys of their own, as there once were, in the table."""
    keys = {family: values.pop(family) for family in COLUMNS if family in values}
    table = values.get("selections", {})
    if not keys or not isinstance(table, dict):
        return values
    for family in keys:
        if family in table:
            raise InputError(f"{family}: is a key and in [selections]; keep it in one of them")
    return {**values, "selections": keys | table}


def _text(value: Any) -> str:
    return str(selection.parse(value))


def _first(error: ValidationError) -> str:
    """The first complaint in one line: key, what was given, what is accepted."""
    # An unknown key is likelier a slip than what is missing because of it.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    where = [str(part) for part in first["loc"] if isinstance(part, str)]
    in_table = where[:1] in (["search"], ["selections"], ["task"])
    key = ".".join(where[:2] if in_table else where[:1])
    if first["type"] == "extra_forbidden":
        return _unknown(key)
    if first["type"] == "missing":
        return f"the key {key!r} is missing"
    if first["type"] == "value_error":
        reason = str(first["ctx"]["error"])
        return f"{key}: {reason}" if key else reason
    message = first["msg"].removeprefix("Input ").replace("should be", "must be")
    expected = re.findall("'([^']+)'", str(first.get("ctx", {}).get("expected", "")))
    near = nearest(first["input"], expected)
    return f"{key}: {message}, not {first['input']!r}{near and ';'}{near}"


def _unknown(key: str) -> str:
    accepted: list[str]
    if key.startswith("search."):
        accepted = [f"search.{field.name}" for field in fields(Search)]
    elif key.startswith("task."):
        accepted = [f"task.{name}" for name in TaskTable.model_fields]
    else:
        accepted = [*Spec.model_fields, "extends"]
    close = [f"selections.{key}"] if key in FAMILIES else ()
    hint = f" did you mean {close[0]!r}?" if close else nearest(key, accepted)
    return f"unknown key {key!r};{hint} accepted: {', '.join(accepted)}"
