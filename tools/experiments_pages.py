"""Write the tables and figures of docs/experiments from stored runs. Run from the root.

``python tools/experiments_pages.py [OUT]`` first stores every run of an experiment that is in the
folder ``OUT``, where ``kinkcheck paper run`` wrote it. A table stands in a page between
``<!-- table NAME VIEW -->`` and ``<!-- end -->``, or ``NAME,NAME VIEW`` for several runs one below
the other; a figure is ``figures/NAME.svg`` or ``.png``,
whichever a page shows. What has no stored run is left as it is.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from kinkcheck.paper.catalogue import EXPERIMENTS
from kinkcheck.paper.experiments import (
    draws_by_images,
    forward_confound,
    lift,
    norm_against_sign,
    norm_pool,
    programs,
    relu_backward_confound,
    relu_dropout,
    relu_introduction,
    relu_volumes,
    relu_zeros,
    relu_zeros_by_architecture,
    spellings,
    standing,
    thresholds,
    tied_windows,
    variations,
    volumes,
    weight_divergence,
    zoo,
)
from kinkcheck.paper.harness.comparison import Sample
from kinkcheck.paper.harness.rows import Value, by
from kinkcheck.paper.harness.running import Numbers, read, to_json
from kinkcheck.paper.harness.trainings import Final, Trained
from kinkcheck.report import ink
from kinkcheck.study.spec import beta_of

PAGES = Path("docs/experiments")
RUNS = PAGES / "runs"
LARGEST = 300_000  # bytes of a stored run

TABLE = re.compile(r"(<!-- table (\S+) (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
FIGURE = re.compile(r"\(figures/(\S+)\.(svg|png)\)")

Cells: TypeAlias = Sequence[Sequence[str]]
"""The cells of a table, line by line; the first line is its head."""


# --- cells ---------------------------------------------------------------------------------------

_NUMBER = re.compile(r"[-−()\d.,e]*")
_NAMES = {
    "lenet5": "LeNet-5", "vgg": "VGG-", "resnet": "ResNet-", "densenet": "DenseNet-", "mlp": "MLP",
    "mnist": "MNIST", "cifar10": "CIFAR-10", "imagenet": "ImageNet",
    "sgd": "SGD", "adam": "Adam",
}  # fmt: skip


def grid(cells: Cells) -> str:
    """A table; columns of numbers are set to the right."""
    head, *lines = cells
    right = [all(_NUMBER.fullmatch(cell) for cell in column) for column in zip(*lines, strict=True)]
    rule = "|" + "".join("---:|" if each else "---|" for each in right)
    return "\n".join([_line(head), rule, *map(_line, lines)])


def _line(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def short(value: Value, digits: int = 2) -> str:
    """A number in so many digits; nothing where there is none."""
    if value is None:
        return ""
    value = float(value)
    text = f"{value:.{digits}g}"
    if value and not 1e-3 <= abs(value) < 10**digits:
        text = f"{value:,.0f}" if abs(value) >= 1 else f"{value:.{digits - 1}e}"
    return text.replace("-", "−", 1 if value < 0 else 0).replace("e-0", "e-")


def points(value: Value, decimals: int = 2) -> str:
    """Percent, or a difference in points."""
    return "" if value is None else f"{float(value):.{decimals}f}".replace("-", "−")


def named(name: str) -> str:
    """A network, an image set or an optimizer as people write it."""
    for start, said in _NAMES.items():
        if name.startswith(start):
            return said + name.removeprefix(start)
    return name


# --- views ---------------------------------------------------------------------------------------


def zero(rows: Sequence[programs.Row]) -> Cells:
    """The derivative of zero; precisions and places that agree in one line."""
    found = [row for row in rows if row.program == "zero" and row.entries != "1.14 1.14 1.14 1.14"]
    lines = by(found, lambda row: (row.entries, row.precision, row.derivative, row.exact))
    merged = by(lines.items(), lambda item: (item[0][0], *item[0][2:], tuple(r.t for r in item[1])))
    return [
        ("x", "t", "precision", "derivative of zero", "without rounding"),
        *(
            (
                f"({entries.replace(' ', ', ')})",
                ", ".join(f"{t:g}".replace("-", "−", int(t < 0)) for t in places),
                "any" if len(together) == 3 else ", ".join(key[1] for key, _ in together),
                short(derivative),
                short(exact),
            )
            for (entries, derivative, exact, places), together in merged.items()
        ),
    ]


def causes(rows: Sequence[tied_windows.Row]) -> Cells:
    """How many places tie, by cause."""
    return [
        ("picture", "program", "rounding", "exact", "dead"),
        *(
            (named(str(each["image"])), named(str(each["panel"])), *(
                str(each[cause]) for cause in ("rounding", "exact", "dead")
            ))
            for each in tied_windows.summarise(rows)
            if each["panel"] != "pixels"
        ),
    ]  # fmt: skip


def derivatives(rows: Sequence[relu_introduction.Row]) -> Cells:
    """The derivative of each program at 0 and 6, which is that of all precisions."""
    at = [row for row in rows if isinstance(row, relu_introduction.At)]
    found = {(row.function, row.program, row.x): row.derivative for row in at}
    agree = {(*key, value) for key, value in found.items()}
    assert agree == {(row.function, row.program, row.x, row.derivative) for row in at}
    return [
        ("function", "program", "derivative at 0", "at 6"),
        *(
            (function, f"`{program}`", *(short(found.get((function, program, x))) for x in (0, 6)))
            for function, program in dict.fromkeys((row.function, row.program) for row in at)
        ),
    ]


def parted(rows: Sequence[relu_introduction.Row]) -> Cells:
    """When networks part, and how much of the plane is in the zone."""
    lines = relu_introduction.summarise(rows)
    return [
        ("function", "precision", "steps", "of them at a kink", "native and slope 1 part at",
         "native and native", "of the plane in the zone, %"),
        *(
            (
                str(each["function"]), str(each["precision"]), str(each["steps"]),
                str(each["steps at a kink"]),
                *(
                    "never" if each[way] is None else str(each[way])
                    for way in ("differ from step", "native again from step")
                ),
                short(each["of the plane in the zone, %"], 3),
            )
            for each in lines
        ),
    ]  # fmt: skip


def lost(rows: Sequence[forward_confound.Row]) -> Cells:
    """What is lost, and to what."""
    return [
        ("precision", "β", "runs", "lost", "to the Jacobian", "to the forward value",
         "surely to", "forward error"),
        *(
            (
                str(each["precision"]), f"{each['beta']:,.0f}", str(each["runs"]),
                *(
                    str(each[part]).replace("-", "−")
                    for part in ("lost", "by Jacobian", "by forward value")
                ),
                str(each["lost to"]), short(each["forward_error"]),
            )
            for each in forward_confound.summarise(rows)
        ),
    ]  # fmt: skip


def partners(rows: Sequence[norm_against_sign.Row]) -> Cells:
    """Accuracy by selection, and the difference from the partner; partners first."""
    shown = sorted(
        (row for row in rows if row.partner or row.max_pool in ("hybrid:0", "hybrid:1")),
        key=lambda row: (row.norm, row.partner is not None),
    )
    return [
        ("selection", "norm", "accuracy, %", "against", "difference, points", "95 % interval"),
        *(
            (
                _selection(row.max_pool), short(row.norm), points(row.accuracy),
                _selection(row.partner or ""), points(row.difference),
                "" if row.low is None else f"{points(row.low)} to {points(row.high)}",
            )
            for row in shown
        ),
    ]  # fmt: skip


def _selection(name: str) -> str:
    return "native" if name == "hybrid:0" else name.replace(":-", ":−")


def norms(rows: Sequence[norm_pool.Row]) -> Cells:
    """The largest D of both vectors, and the noise floor, by precision."""
    found = {(each["precision"], each["selection"]): each for each in norm_pool.summarise(rows)}
    return [
        ("precision", "D, ones against 0", "D, half of it", "noise floor"),
        *(
            (
                precision,
                *(short(found[precision, f"branch:{value}"]["largest"]) for value in ("1", "0.5")),
                short(found[precision, "branch:1"]["noise_floor"]),
            )
            for precision in norm_pool.PRECISIONS
        ),
    ]


def zeros(rows: Sequence[relu_zeros.Row]) -> Cells:
    """Zeros per million inputs, a column a precision."""
    networks = by(rows, lambda row: (row.network, row.data))
    return [
        ("network", "images", *relu_zeros.PRECISIONS),
        *(
            (named(network), named(data), *(
                short(row.zeros_per_million, 3) for row in together
            ))
            for (network, data), together in networks.items()
        ),
    ]  # fmt: skip


def different(rows: Sequence[variations.Row]) -> Cells:
    """D of native and minimal, with and without noise."""
    return [
        ("precision", "noise", "D = 0", "least", "median", "largest", "published τ"),
        *(
            (
                str(each["precision"]), "yes" if each["noise"] else "no",
                f"{each['zero']} of {each['points']}",
                *(short(each[column]) for column in ("least", "median", "largest", "threshold")),
            )
            for each in variations.summarise(rows)
            if each["programs"] == "native and minimal"
        ),
    ]  # fmt: skip


def floors(rows: Sequence[thresholds.Measured]) -> Cells:
    """The noise floor and D of both pairs, by network and precision."""
    return [
        ("network", "images", "precision", "noise floor", "max pool", "ReLU'(0)", "published τ"),
        *(
            (
                named(str(each["network"])), named(str(each["data"])), str(each["precision"]),
                *(short(each[way]) for way in ("noise floor", "max pool", "ReLU'(0)", "τ")),
            )
            for each in thresholds.summarise(rows)
        ),
    ]  # fmt: skip


def shares(rows: Sequence[volumes.Row], factor: str) -> Cells:
    """Shares above the threshold, beside the published ones."""
    said = {True: "yes", False: "no", None: ""}
    compared = zip(rows, volumes.compare(rows, factor), strict=True)
    return [
        ("", "precision", "points", "above, %", "95 % interval", "published, %", "within"),
        *(
            (
                _bar(row), row.precision, str(row.points), short(row.percent, 3),
                between(row.low, row.high), short(each.published, 3), said[each.within],
            )
            for row, each in compared
            if factor == "precision" or row.precision == "float32"
        ),
    ]  # fmt: skip


def _bar(row: volumes.Row) -> str:
    if row.factor == "batch_size":
        return f"mini-batches of {row.value:,}"
    if row.factor == "batch_norm":
        return f"{'with' if row.value else 'without'} batch norm"
    return named(row.network)


def between(low: float, high: float) -> str:
    """An interval in percent."""
    return f"{short(low)}-{short(high, 3)}"


def judges(rows: Sequence[lift.Row]) -> Cells:
    """What the threshold and the lift say of all settings, by precision."""
    return [
        ("precision", "points", "above the threshold", "of them bifurcation", "compensation",
         "bifurcation", "wrong, %", "best wrong, %"),
        *(
            (
                each.precision, str(each.points), str(each.above), str(each.true),
                str(each.compensation), str(each.bifurcation), short(each.wrong),
                short(each.best_wrong),
            )
            for each in lift.by_setting(rows)
            if each.setting == "all"
        ),
    ]  # fmt: skip


def settings(rows: Sequence[lift.Row]) -> Cells:
    """Points above the threshold, and of them bifurcation, by setting."""
    return [
        ("setting", "precision", "points", "above the threshold", "of them bifurcation"),
        *(
            (named(each.setting), each.precision, *map(str, (each.points, each.above, each.true)))
            for each in lift.by_setting(rows)
            if each.setting != "all"
        ),
    ]


def accuracies(rows: Sequence[Trained]) -> Cells:
    """Mean accuracies by β; in brackets how many runs diverged."""
    finals = [row for row in rows if isinstance(row, Final)]
    betas = sorted({row.beta for row in finals})
    lines = by(finals, lambda row: (row.batch_norm, row.optimizer, row.precision))
    return [
        ("batch norm", "optimizer", "precision", *(f"β = {beta:,.0f}" for beta in betas)),
        *(
            (
                "yes" if norm else "no", named(optimizer), precision,
                *(" ".join(map(_runs, (r for r in together if r.beta == b))) for b in betas),
            )
            for (norm, optimizer, precision), together in lines.items()
        ),
    ]  # fmt: skip


def _runs(row: Final) -> str:
    lost = f" ({row.diverged})" if row.diverged else ""
    return f"{points(row.accuracy, 1)}{lost}".strip()


def pairs(rows: Sequence[Trained]) -> Cells:
    """The accuracy at β = 0 and at another β."""
    finals = [row for row in rows if isinstance(row, Final)]
    return [
        ("network", "images", "optimizer", "precision", "β", "at β = 0, %", "at β, %"),
        *(
            (
                f"{named(row.network)}{', batch norm' * row.batch_norm}", named(row.data),
                named(row.optimizer), row.precision, f"{row.beta:,.0f}", _runs(first), _runs(row),
            )
            for first, *others in by(
                finals, lambda row: (row.title, row.precision)
            ).values()
            for row in others
        ),
    ]  # fmt: skip


def alphas(rows: Sequence[Trained]) -> Cells:
    """Mean accuracies by α; in brackets how many runs diverged."""
    return [
        ("network", "images", "optimizer", "precision", "runs", "α", "accuracy, %"),
        *(
            (
                f"{named(row.network)}{', batch norm' * row.batch_norm}", named(row.data),
                named(row.optimizer), row.precision, str(row.runs),
                f"{row.varied[1]:g}".replace("-", "−"), _runs(row),
            )
            for row in rows
            if isinstance(row, Final) and row.varied is not None
        ),
    ]  # fmt: skip


def networks(rows: Sequence[weight_divergence.Row]) -> Cells:
    """Distance and accuracy of each network at the end, by precision."""
    return [
        ("precision", "network", "β", "‖θ₀ − θᵢ‖₁", "test accuracy, %"),
        *(
            (
                row.precision, str(row.network), f"{beta_of(row.max_pool):,.0f}", short(row.l1, 3),
                points(None if row.test_accuracy is None else 100 * row.test_accuracy, 1),
            )
            for row in weight_divergence.last(rows)
        ),
    ]  # fmt: skip


def draws(rows: Sequence[relu_volumes.Row]) -> Cells:
    """Shares of draws in percent, by what is varied."""
    return [
        ("", "", "images", *relu_volumes.PRECISIONS),
        *(
            (
                str(each["factor"]).replace("_", " "), f"{each['value']:,}",
                f"{each['images']:,}",
                *(short(each[name], 3) for name in relu_volumes.PRECISIONS),
            )
            for each in relu_volumes.summarise(rows)
        ),
    ]  # fmt: skip


def met(rows: Sequence[draws_by_images.Row]) -> Cells:
    """The share of draws that met the zone within some images, with its interval."""
    precisions = list(dict.fromkeys(row.precision for row in rows))
    lines = by(
        rows, lambda row: (row.network, row.batch_norm, row.mean_first, row.data, row.images)
    )
    return [
        ("network", "images looked at", "draws", *precisions),
        *(
            (
                f"{named(network)}{', batch norm' * norm}{', mean first' * mean_first}, "
                f"{named(data)}",
                f"{images:,}",
                str(together[0].draws),
                *(
                    f"{short(row.percent, 3)} ({between(row.low, row.high)})" for row in together
                ),
            )
            for (network, norm, mean_first, data, images), together in lines.items()
        ),
    ]  # fmt: skip


def over_training(rows: Sequence[relu_zeros_by_architecture.Row]) -> Cells:
    """Zeros per million before, after one epoch and at the end."""
    epochs = sorted({row.epoch for row in rows})
    chosen = [epochs[0], epochs[1], epochs[-1]]
    found = {(r.layers, r.neurons, r.precision, r.epoch): r.zeros_per_million for r in rows}
    return [
        ("layers", "neurons", *(
            f"{precision}, epoch {epoch}"
            for precision in relu_zeros_by_architecture.PRECISIONS
            for epoch in chosen
        )),
        *(
            (
                str(layers), str(neurons),
                *(
                    short(found[layers, neurons, precision, epoch])
                    for precision in relu_zeros_by_architecture.PRECISIONS
                    for epoch in chosen
                ),
            )
            for layers, neurons in dict.fromkeys((row.layers, row.neurons) for row in rows)
        ),
    ]  # fmt: skip


def dropped(rows: Sequence[relu_dropout.Row]) -> Cells:
    """Accuracies by dropout and α, and the zeros that were met."""
    alphas = list(dict.fromkeys(row.alpha for row in rows))
    lines = by(rows, lambda row: row.dropout)
    return [
        ("dropout", "runs", *(f"α = {alpha:g}, %" for alpha in alphas), "zeros met, α = 0"),
        *(
            (
                f"{dropout:g}", str(len({row.run for row in together})),
                *(
                    points(Sample.of([r.test_accuracy for r in together if r.alpha == a]).mean)
                    for a in alphas
                ),
                f"{sum(row.zeros for row in together if row.alpha == alphas[0]):,}",
            )
            for dropout, together in lines.items()
        ),
    ]  # fmt: skip


def gradients(rows: Sequence[relu_backward_confound.Row]) -> Cells:
    """Steps with zeros, the norm at the first, the largest, the accuracy: of both backward passes.

    A network that met no zero has no line.
    """
    met = [each for each in relu_backward_confound.summarise(rows) if each["with_zeros"]]
    cells = by(met, lambda each: (each["network"], each["alpha"], each["first"]))
    ways = relu_backward_confound.RETURNED.values()
    return [
        ("network", "α", "first zero at step", *(
            head
            for way in ways
            for head in (f"{way}: steps with zeros", "norm there", "largest", "accuracy, %")
        )),
        *(
            (
                named(str(network)), f"{alpha:g}", str(first),
                *(
                    cell
                    for each in both
                    for cell in (
                        str(each["with_zeros"]), short(each["norm_there"], 3),
                        short(each["largest_norm"], 3), points(each["accuracy"], 1),
                    )
                ),
            )
            for (network, alpha, first), both in cells.items()
        ),
    ]  # fmt: skip


def wrong(rows: Sequence[spellings.Row]) -> Cells:
    """The spellings whose gradient does not stand."""
    return [
        ("function", "spelling", "returned", "right", "standing"),
        *(
            (
                row.function, f"`{row.spelling}`", row.returned.replace("-", "−"),
                row.right.replace("-", "−"), row.standing,
            )
            for row in rows
            if isinstance(row, spellings.AtKink) and row.standing in ("wrong", "undecided")
        ),
    ]  # fmt: skip


def spelled(rows: Sequence[spellings.Row]) -> Cells:
    """Trainings in the spellings of the leaky ReLU."""
    return [
        ("activations", "spelling", "slope at 0", "standing", "apart, %", "accuracy, %",
         "difference, points", "95 % interval"),
        *(
            (
                row.setting.removesuffix(" activations"), f"`{row.spelling}`", f"{row.slope:g}",
                str(row.standing), short(row.apart), points(row.accuracy),
                points(row.difference),
                "" if row.low is None else f"{points(row.low)} to {points(row.high)}",
            )
            for row in spellings.differences(rows)
        ),
    ]  # fmt: skip


def certified(rows: Sequence[standing.Row]) -> Cells:
    """How many gradients are right, by setting and precision."""
    chosen = ("native", "minimal", "hybrid:10")
    return [
        ("setting", "precision", "points with a kink", "kinks a point", "at least, %", *chosen),
        *(
            (
                named(str(each["setting"])), str(each["precision"]), str(each["kinked"]),
                short(each["kinks"], 3), short(each["at_least"]),
                *(str(each.get(name) or "") for name in chosen),
            )
            for each in standing.summarise(rows)
        ),
    ]  # fmt: skip


def models(rows: Sequence[zoo.Row]) -> Cells:
    """The models that have ties, and how far other choices move the gradient."""
    return [
        ("model", "precision", "tied", "standing", "kinks", "minimal", "last"),
        *(
            (
                str(each["model"]), str(each["precision"]), str(each["tied"]),
                str(each["standing"] or ""), "" if each["kinks"] is None else str(each["kinks"]),
                short(each["minimal"]), short(each["last"]),
            )
            for each in zoo.summarise(rows)
            if each["tied"]
        ),
    ]  # fmt: skip


_PAIRED = (
    "accuracy-vgg11-cifar10", "accuracy-vgg11-svhn", "accuracy-resnet18-cifar10",
    "accuracy-densenet121-cifar10", "accuracy-resnet50-imagenet",
)  # fmt: skip
_BY_ALPHA = tuple(f"relu-training-{name}" for name in ("mnist", "cifar10", "svhn", "imagenet"))
VIEWS: dict[tuple[str, str], Callable[[Any], Cells]] = {
    ("programs", "zero"): zero,
    ("tied-windows", "causes"): causes,
    ("relu-introduction", "derivatives"): derivatives,
    ("relu-introduction", "parted"): parted,
    ("forward-confound", "lost"): lost,
    ("norm-against-sign", "partners"): partners,
    ("norm-pool", "norms"): norms,
    ("relu-zeros", "zeros"): zeros,
    ("variation-histograms", "different"): different,
    ("thresholds", "floors"): floors,
    **{
        (f"volume-by-{name}", "shares"): partial(shares, factor=factor)
        for name, factor in {
            "precision": "precision",
            "depth": "network",
            "batch-size": "batch_size",
            "batch-norm": "batch_norm",
        }.items()
    },
    ("threshold-against-lift", "judges"): judges,
    ("threshold-against-lift", "settings"): settings,
    ("accuracy-lenet5-mnist", "accuracies"): accuracies,
    **{(name, "pairs"): pairs for name in _PAIRED},
    **{(name, "alphas"): alphas for name in _BY_ALPHA},
    ("weight-divergence", "networks"): networks,
    ("relu-volumes", "draws"): draws,
    ("relu-sample-volumes", "met"): met,
    ("draws-in-zone", "met"): met,
    ("relu-zeros-by-architecture", "over-training"): over_training,
    ("relu-dropout", "dropped"): dropped,
    ("relu-backward-confound", "gradients"): gradients,
    ("spellings", "wrong"): wrong,
    ("spellings", "spelled"): spelled,
    ("standing", "certified"): certified,
    ("zoo", "models"): models,
}


# --- pages ---------------------------------------------------------------------------------------


def stored(name: str) -> Numbers[Any] | None:
    """A stored run; None if there is none."""
    return read(EXPERIMENTS[name], RUNS) if (RUNS / f"{name}.json").exists() else None


def page(text: str) -> str:
    """A page with its tables as the stored runs have them."""

    def table(found: re.Match[str]) -> str:
        start, names, view, end = found.groups()
        runs = {name: stored(name) for name in names.split(",")}
        cells = [VIEWS[name, view](run.rows) for name, run in runs.items() if run is not None]
        if len(cells) < len(runs):
            return found[0]
        lines = [line for each in cells for line in each[1:]]
        return f"{start}\n{grid([cells[0][0], *lines])}\n\n{end}"

    return TABLE.sub(table, text)


def figures(text: str) -> Iterator[tuple[Path, str, str]]:
    """The figures of a page that have a stored run: file, name and form."""
    for name, form in FIGURE.findall(text):
        if (RUNS / f"{name}.json").exists():
            yield PAGES / "figures" / f"{name}.{form}", name, form


def digest(name: str) -> str:
    """What a figure says of the run that it is drawn from."""
    return f"run {hashlib.sha256((RUNS / f'{name}.json').read_bytes()).hexdigest()[:16]}"


def store(out: Path) -> None:
    """Store the runs of a folder."""
    for name, experiment in EXPERIMENTS.items():
        if (out / f"{name}.json").exists():
            text = to_json(read(experiment, out))
            if len(text.encode()) > LARGEST:
                sys.exit(f"{name}: {len(text.encode()):,} bytes are more than {LARGEST:,}")
            RUNS.mkdir(exist_ok=True)
            (RUNS / f"{name}.json").write_text(text, encoding="utf-8")


def main(folders: Sequence[str]) -> None:
    """Store runs, then write pages and figures."""
    for folder in folders:
        store(Path(folder))
    for path in sorted(PAGES.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        path.write_text(page(text), encoding="utf-8")
        for figure, name, form in figures(text):
            rows = read(EXPERIMENTS[name], RUNS).rows
            drawn = ink.save(partial(EXPERIMENTS[name].draw, rows), form, digest(name))
            figure.write_bytes(drawn)


if __name__ == "__main__":
    main(sys.argv[1:])
