"""Ours: public architectures, built from their configurations: their kinks, what is right there."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
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
from kinkcheck.paper.harness.case import take
from kinkcheck.paper.harness.experiment import Cost, Experiment, Setup
from kinkcheck.paper.harness.parts import all_kept
from kinkcheck.paper.harness.rows import Line, line
from kinkcheck.report.ink import INKS, MARKERS
from kinkcheck.tape.directions import direction
from kinkcheck.tape.tangents import trace

SELECTIONS = ("minimal", "last")
_PRECISIONS = ("bfloat16", "float32")
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
_TAKES = {
    "ForImageClassification": "images",
    "ForObjectDetection": "images",
    "ForSequenceClassification": "sounds",
}
_SIDE = 32  # of an image of CIFAR-10
_RATE = 16_000  # of a sound, in numbers a second
_LENGTH = 32  # of a line of text, in bytes


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
    def takes(self) -> str:
        """What it is given: ``images``, ``sounds`` or ``texts``."""
        return _TAKES.get(self.task, "texts")

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
        common: dict[str, Any] = {"num_labels": 10}
        if self.takes == "texts":
            common = {"vocab_size": 256, **dict.fromkeys(_TOKENS, 0)}
        configured = config(**common, **sizes)
        for key, value in configured.to_dict().items():
            if "drop" in key and isinstance(value, float):
                setattr(configured, key, 0.0)
        made: Any = model(configured).train()
        if hasattr(made, "set_experts_implementation"):
            made.set_experts_implementation("eager")  # grouped products have no float64
        network: nn.Module = made
        return network


_IMAGES, _CAUSAL = "ForImageClassification", "ForCausalLM"
_WIDTHS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_WIDE = {**_WIDTHS, "intermediate_size": 64}
_STAGES = {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 16, 32, 32]}
_RESNET = {"model_type": "resnet", "out_features": ["stage4"]}
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
    Architecture(
        "Detr", "ForObjectDetection",
        {
            "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
            "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
            "num_queries": 5,
            "backbone_config": {**_RESNET, **_STAGES, "embedding_size": 16, "layer_type": "basic"},
        },
        {
            "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None,
            "backbone_config": _RESNET,
        },
    ),
    Architecture(
        "Wav2Vec2", "ForSequenceClassification",
        {
            **_WIDE, "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 16,
        },
        {"mask_time_prob": 0.0},
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


@dataclass(frozen=True)
class Row:
    """A model in one precision, at one mini-batch.

    Attributes:
        model: its name.
        attention: how attention is computed: ``as it is``, or by the ``math kernel``.
        refused: why no tangents pass through the model; None if they do.
        precision: name.
        tied: tied windows by operation, in words; None if there are none.
        standing: what the native gradient is; None where that was not asked.
        why: what was left out, or why nothing was decided; None if there is nothing to say.
        minimal, last: how far the gradient under this selection is from the native one,
            ‖g − native‖₁ / ‖native‖₁ in percent.
        unseen: operations whose kinks are not known, in words; None if there are none.
        ties, flat, kinks: see :class:`kinkcheck.measure.standing.records.Standing`.
    """

    model: str
    attention: str
    refused: str | None
    precision: str
    tied: str | None
    standing: str | None
    why: str | None
    minimal: float
    last: float
    unseen: str | None
    ties: int | None = None
    flat: int | None = None
    kinks: int | None = None


def measure(setup: Setup, architectures: Sequence[Architecture] = ARCHITECTURES) -> list[Row]:
    """A row a model and precision; two where no tangents pass attention as it is.

    Args:
        setup: where.
        architectures: what is built.
    """
    require("transformers", extra="transformers")
    images = data.load("cifar10", "train", data_dir=setup.data_dir)
    size = "reduced" if setup.reduced else "full"
    parts = {
        f"{architecture.name}, {size}": partial(_audited, architecture, images)
        for architecture in architectures
    }
    return [row for rows in all_kept(setup, Row, parts).values() for row in rows]


def _audited(architecture: Architecture, images: Images, setup: Setup) -> list[Row]:
    size = 4 if setup.reduced else 16
    given: dict[str, Callable[[], Any]] = {
        "images": lambda: take(images, size, 1)[0],
        "sounds": lambda: (sounds(size), torch.arange(size) % 10),
        "texts": lambda: texts(size),
    }
    batch = given[architecture.takes]()
    rows: list[Row] = []
    for attention in ("as it is", "math kernel"):
        refused = refusal(architecture.build(setup.reduced), attention, batch)
        report = audit(
            partial(architecture.build, setup.reduced),
            [batch],
            step=partial(step, attention),
            precisions=_PRECISIONS,
            selections=SELECTIONS,
            device=setup.device,
        )
        rows += [
            _row(architecture.name, attention, refused, report, precision)
            for precision in _PRECISIONS
        ]
        if refused is None:
            break
    return rows


def refusal(model: nn.Module, attention: str, batch: Any) -> str | None:
    """Why no tangents pass through a model, in float32 on a CPU; None if they do."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    try:
        trace(step(attention, model, batch), parameters, [direction(parameters, 0)])
    except InputError as error:
        return str(error).rpartition(": ")[2]
    return None


def step(attention: str, model: nn.Module, batch: Any) -> Tensor:
    """The loss of a mini-batch: cross entropy of classes or of bytes, or that of DETR.

    An image of CIFAR-10 is one object, which fills it.

    Args:
        attention: ``math kernel`` where attention is to be computed by PyTorch's plain formula.
        model: of transformers.
        batch: images or sounds, and labels; or bytes.
    """
    plain = sdpa_kernel(SDPBackend.MATH) if attention == "math kernel" else nullcontext()
    with plain:
        if isinstance(batch, Tensor):
            loss: Tensor = model(input_ids=batch, labels=batch).loss
            return loss
        given, labels = batch
        if given.dim() == 2:
            return F.cross_entropy(model(input_values=given).logits, labels)
        if type(model).__name__.endswith("Detection"):
            return _detected(model, model(pixel_values=given), labels)
        return F.cross_entropy(model(pixel_values=given).logits, labels)


def _detected(model: Any, found: Any, labels: Tensor) -> Tensor:
    """DETR's loss, in float32 where its matching of boxes has no 16 bits."""
    wide = torch.promote_types(found.logits.dtype, torch.float32)
    logits, boxes = found.logits.to(wide), found.pred_boxes.to(wide)
    whole = boxes.new_tensor([[0.5, 0.5, 1.0, 1.0]])
    objects = [{"class_labels": label[None], "boxes": whole} for label in labels]
    loss: Tensor = model.loss_function(logits, objects, logits.device, boxes, model.config)[0]
    return loss


def texts(count: int) -> Tensor:
    r"""Lines of real English, a byte a token: the documentation of Python's module ``statistics``.

    >>> bytes(texts(1)[0, :10].tolist())
    b'\nBasic sta'
    """
    line = str(statistics.__doc__).encode()[: count * _LENGTH]
    return torch.tensor(list(line)).view(count, _LENGTH)


def sounds(count: int) -> Tensor:
    """A quarter of a second of a tone, with two overtones; each an octave above the one before.

    >>> sounds(2).shape
    torch.Size([2, 4000])
    """
    time = torch.arange(_RATE // 4) / _RATE
    tones = 110.0 * 2.0 ** torch.arange(count)[:, None]
    return sum(
        (torch.sin(2 * torch.pi * over * tones * time) / over for over in (2, 3)),
        torch.sin(2 * torch.pi * tones * time),
    )


def _row(
    model: str, attention: str, refused: str | None, report: AuditReport, precision: str
) -> Row:
    points = {p.selection: p for p in report.points if p.precision == precision}
    minimal, last = (points[name] for name in SELECTIONS)
    tied: Counter[str] = Counter()
    for site in report.sites:
        if site.precision == precision:
            tied[site.operation] += site.tied
    row = Row(
        model=model,
        attention=attention,
        refused=refused,
        precision=precision,
        tied=", ".join(f"{name} {count}" for name, count in tied.items()) or None,
        standing=None,
        why="; ".join(each.what for each in report.left_out) or None,
        minimal=100 * minimal.variation.relative_l1,
        last=100 * last.variation.relative_l1,
        unseen=", ".join(dict.fromkeys(each.operation for each in report.unseen)) or None,
    )
    found = minimal.reference_standing
    if found is None:
        return row
    return replace(
        row, standing=str(found.kind), ties=found.ties, flat=found.flat, kinks=found.kinks,
        why=found.why,
    )  # fmt: skip


def summarise(rows: Sequence[Row]) -> list[Line]:
    """A line a model as it is and precision: tied windows by operation, and how tangents pass.

    >>> row = Row("ViT", "as it is", "x", "float32", None, "derivative", None, 0.0, 0.0, None)
    >>> summarise([row, replace(row, attention="math kernel", refused=None)])[0]["tangents"]
    'by the math kernel'
    """
    names = ("model", "precision", "tied", "standing", "kinks", *SELECTIONS)
    passing = {(row.model, row.attention) for row in rows if row.refused is None}
    found: list[Line] = []
    for row in _as_they_are(rows):
        tangents = "refused"
        if (row.model, "math kernel") in passing:
            tangents = "by the math kernel"
        if row.refused is None:
            tangents = "pass"
        found.append({**line(row, *names), "tangents": tangents})
    return found


def _as_they_are(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.attention == "as it is"]


def _standings(rows: Sequence[Row], model: str) -> str:
    """What the native gradient of a model is, all that was told in one precision or another."""
    told = dict.fromkeys(row.standing for row in rows if row.model == model and row.standing)
    return " or ".join(told) or "not told"


def draw(rows: Sequence[Row]) -> Figure:
    """How far the gradient moves when the last active branch is taken, by model and precision."""
    models = list(dict.fromkeys(row.model for row in rows))
    figure = Figure(figsize=(6.4, 1.2 + 0.24 * len(models)))
    axes = figure.subplots()
    for at, precision in enumerate(_PRECISIONS):
        there = [row for row in _as_they_are(rows) if row.precision == precision]
        axes.plot(
            [row.last for row in there],
            [models.index(row.model) + 0.2 * (at - 0.5) for row in there],
            MARKERS[at], color=INKS[2 - at], ms=5, label=precision, clip_on=False,
        )  # fmt: skip
    axes.set_yticks(range(len(models)), [f"{each}: {_standings(rows, each)}" for each in models])
    axes.set_ylim(len(models) - 0.5, -0.5)
    axes.set_xscale("symlog", linthresh=1e-7)
    axes.set_xlim(left=0)
    axes.set_xlabel("‖last − native‖₁ / ‖native‖₁, %")
    axes.legend(loc="lower right")
    return figure


ZOO = Experiment(
    name="zoo",
    source="kinkcheck",
    shows="the kinks of public architectures by operation, and whether their gradients are right",
    cost=Cost(
        "20 models in their published sizes, 16 images, sounds or lines of text",
        "hours",
        "1 core",
        ("cifar10",),
    ),
    cost_reduced=Cost(
        "20 narrow models, 4 images, sounds or lines of text",
        "1 min",
        "1 busy core",
        ("cifar10",),
        measured=True,
    ),
    row=Row,
    measure=measure,
    draw=draw,
    summarise=summarise,
    spreads=True,
    reduced_cannot=(
        "The reduced run has one mini-batch at the start of narrow models: it can show which kinds "
        "of kinks they have, not how often trained ones of full width meet them."
    ),
)
