"""Ours: public architectures, built from their configurations: their kinks, and what is right there."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from kinkcheck import data
from kinkcheck.audit.report import AuditReport
from kinkcheck.audit.run import audit
from kinkcheck.data import Images
from kinkcheck.errors import InputError
from kinkcheck.extras import require
from kinkcheck.measure.standing.records import Kind
from kinkcheck.paper.experiment import Experiment, Row, Setup
from kinkcheck.paper.gradients import take
from kinkcheck.paper.parts import kept
from kinkcheck.paper.trainings import number
from kinkcheck.report.ink import INKS, MARKERS

SELECTIONS = ("minimal", "branch:0.5")
_SIDE = 32  # of an image of CIFAR-10
_LENGTH = 32  # of a line of text, in bytes
_SEED = 0


@dataclass(frozen=True)
class Architecture:
    """A model of transformers, to be built from a configuration.

    Attributes:
        name: of its classes, without their endings.
        task: the ending of the class, ``ForImageClassification``, say.
        small: of the configuration at the reduced size, beside what the task needs.
        always: of the configuration at each size.
    """

    name: str
    task: str
    small: Mapping[str, Any]
    always: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sees(self) -> bool:
        """Whether it is given images; else it is given text."""
        return self.task == "ForImageClassification"

    def build(self, reduced: bool) -> nn.Module:
        """The model in training mode without dropout, its parameters drawn from torch's generator.

        Raises:
            InputError: transformers is not installed, or too old to have it.
        """
        library = require("transformers", extra="transformers")
        try:
            config = getattr(library, f"{self.name}Config")
            model = getattr(library, f"{self.name}{self.task}")
        except AttributeError as error:
            raise InputError(f"{self.name} is not in transformers {library.__version__}") from error
        sizes = {**self.always, **(self.small if reduced else {})}
        common: dict[str, Any] = {"num_labels": 10} if self.sees else {"vocab_size": 256}
        made: nn.Module = model(config(**common, **sizes)).train()
        for module in made.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        return made


_IMAGES, _CAUSAL = "ForImageClassification", "ForCausalLM"
_WIDTHS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_WIDE = {**_WIDTHS, "intermediate_size": 64}
_STAGES = {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 16, 32, 32]}
_PATCHES = {"image_size": _SIDE, "patch_size": 8}

ARCHITECTURES = (
    Architecture("ResNet", _IMAGES, {**_STAGES, "embedding_size": 16, "layer_type": "basic"}),
    Architecture("RegNet", _IMAGES, {**_STAGES, "embedding_size": 16, "groups_width": 8}),
    Architecture("Bit", _IMAGES, {**_STAGES, "embedding_size": 16, "num_groups": 4}),
    Architecture("MobileNetV1", _IMAGES, {"depth_multiplier": 0.25}, {"image_size": _SIDE}),
    Architecture("MobileNetV2", _IMAGES, {"depth_multiplier": 0.25}, {"image_size": _SIDE}),
    Architecture("ConvNext", _IMAGES, _STAGES, {"image_size": _SIDE}),
    Architecture("PoolFormer", _IMAGES, _STAGES),
    Architecture("ViT", _IMAGES, _WIDE, _PATCHES),
    Architecture(
        "Swin", _IMAGES, {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2]},
        {"image_size": _SIDE, "patch_size": 2, "window_size": 4},
    ),
    Architecture(
        "Segformer", _IMAGES,
        {
            "depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 16, 16],
            "num_attention_heads": [1, 2, 2, 2], "decoder_hidden_size": 16,
        },
    ),
    Architecture("Bert", "ForMaskedLM", _WIDE),
    Architecture("DistilBert", "ForMaskedLM", {"dim": 32, "n_layers": 2, "n_heads": 2,
                                               "hidden_dim": 64}),
    Architecture("GPT2", "LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 2}),
    Architecture("OPT", _CAUSAL, {**_WIDTHS, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    Architecture("Llama", _CAUSAL, _WIDE),
    Architecture("Mixtral", _CAUSAL, {**_WIDE, "num_local_experts": 4, "num_key_value_heads": 2}),
    Architecture("T5", "ForConditionalGeneration", {"d_model": 32, "d_kv": 16, "d_ff": 64,
                                                    "num_layers": 2, "num_heads": 2}),
    Architecture("Bart", "ForConditionalGeneration", {
        "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
    }),
)  # fmt: skip


def measure(setup: Setup, architectures: Sequence[Architecture] = ARCHITECTURES) -> list[Row]:
    """A row a model and precision; two where another kernel of attention lets tangents pass.

    Args:
        setup: where.
        architectures: what is built.
    """
    require("transformers", extra="transformers")
    images = data.load("cifar10", "train", data_dir=setup.data_dir)
    rows: list[Row] = []
    for done, architecture in enumerate(architectures):
        setup.on_progress("architectures", done, len(architectures))
        size = "reduced" if setup.reduced else "full"
        name = f"{architecture.name}, {size}"
        rows += kept(setup, name, partial(_audited, setup, architecture, images))
    return rows


def _audited(setup: Setup, architecture: Architecture, images: Images) -> list[Row]:
    rows = _rows(setup, architecture, images, "as it is")
    if any("forward mode" in str(row["why"]) for row in rows):
        rows += _rows(setup, architecture, images, "math kernel")
    return rows


def _rows(setup: Setup, architecture: Architecture, images: Images, attention: str) -> list[Row]:
    few = setup.reduced
    size = 4 if few else 16
    batches = take(images, size, 1) if architecture.sees else [texts(size)]
    try:
        report = audit(
            lambda: architecture.build(few),
            batches,
            step=partial(step, attention),
            precisions=("bfloat16", "float32"),
            selections=SELECTIONS,
            device=setup.device,
            seed=_SEED,
        )
    except InputError as error:
        if setup.device == "cpu" and architecture.name in str(error):
            raise
        return [{"model": architecture.name, "attention": attention, "why": str(error)}]
    return [
        _row(report, architecture, attention, precision) for precision in ("bfloat16", "float32")
    ]


def step(attention: str, model: nn.Module, batch: Any) -> Tensor:
    """The loss of a mini-batch: cross entropy of classes, or of bytes.

    Args:
        attention: ``math kernel`` where attention is to be computed by PyTorch's plain formula.
        model: of transformers.
        batch: images and labels, or bytes.
    """
    plain = sdpa_kernel(SDPBackend.MATH) if attention == "math kernel" else nullcontext()
    with plain:
        if isinstance(batch, Tensor):
            loss: Tensor = model(input_ids=batch, labels=batch).loss
            return loss
        pixels, labels = batch
        return F.cross_entropy(model(pixel_values=pixels).logits, labels)


def texts(count: int) -> Tensor:
    """Lines of real English, a byte a token: the documentation of Python's module ``statistics``.

    >>> bytes(texts(1)[0, :10].tolist())
    b'\\nBasic sta'
    """
    line = str(statistics.__doc__).encode()[: count * _LENGTH]
    return torch.tensor(list(line)).view(count, _LENGTH)


def _row(
    report: AuditReport, architecture: Architecture, attention: str, precision: str
) -> Row:
    points = {p.selection: p for p in report.points if p.precision == precision}
    found = points[SELECTIONS[0]].reference_standing
    tied: Counter[str] = Counter()
    for site in report.sites:
        if site.precision == precision:
            tied[site.operation] += site.tied
    row: Row = {
        "model": architecture.name,
        "attention": attention,
        "precision": precision,
        "operations": ", ".join(f"{name} {count}" for name, count in tied.items()) or "none known",
        "standing": None if found is None else str(found.kind),
        "ties": found and found.ties,
        "flat": found and found.flat,
        "kinks": found and found.kinks,
        **{name: 100 * point.variation.relative_l1 for name, point in points.items()},
        "unseen": ", ".join(dict.fromkeys(each.operation for each in report.unseen)) or None,
        "why": found.why if found else "; ".join(each.what for each in report.left_out),
    }
    return row
