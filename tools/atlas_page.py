"""Write docs/atlas.md from the table of the atlas. Run from the root of the repository."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from kinkcheck.atlas.answers import Kinks, answers, differences, spoken, word
from kinkcheck.atlas.clarke import LIES
from kinkcheck.atlas.table import Column, Found, Table, read

PAGE = Path("docs/atlas.md")
TEMPLATE = Path("tools/atlas_page.md")

# Few that many programs meet: the head of a column, and the probe.
GLANCE = {
    "`relu` at 0": "relu: at 0",
    "`leaky_relu` at 0": "leaky_relu: at 0",
    "`abs` at 0": "abs: at 0",
    "`clamp` at its upper bound": "clamp: at 1",
    "`maximum`": "maximum: tie of 2",
    "`amax`": "amax: tie of 3",
    "`max_pool2d`": "max_pool2d: tie of 3",
    "2-norm of 0": "norm: zero",
}

SOURCES = (
    (
        "Rules for all operations",
        "PyTorch's note [Autograd mechanics]"
        "(https://pytorch.org/docs/stable/notes/autograd.html): the subgradient of least norm, if "
        "the function is convex",
    ),
    (
        "`clamp` at a bound",
        "1 for what lies on the bound: {pytorch/pytorch#7002}, {pytorch/pytorch#7049} "
        "(2018). At odds with `relu`, `relu6` and `maximum`: {pytorch/pytorch#184572}, "
        "{pytorch/pytorch#184574}. 0 from 2.14 on: {pytorch/pytorch#191142}. What it did to "
        "quantisation-aware training: {pytorch/ao#4806}. TensorFlow.js takes TensorFlow's 1: "
        "{tensorflow/tfjs-core#1076}",
    ),
    (
        "`relu6` at 6",
        "JAX from 0.5 to 0: {jax-ml/jax#14682}; tinygrad after 0.14 to 0: "
        "{tinygrad/tinygrad#18029}",
    ),
    (
        "`abs` at 0",
        "JAX's 1: {jax-ml/jax#37820}; Dr.Jit from 1 to PyTorch's 0: {mitsuba-renderer/drjit#366}",
    ),
    ("`maximum` of equal numbers", "JAX's 0.5: {jax-ml/jax#2195}, {jax-ml/jax#37821}"),
    (
        "The largest of entries that tie",
        "TensorFlow shares in `reduce_max` and takes one in `max_pool`: "
        "{tensorflow/tensorflow#4886}, {tensorflow/tensorflow#51681}, documented in "
        "{tensorflow/tensorflow#109337}. Theano's 1 for each, which PyTensor has: "
        "{Theano/Theano#4568}; its pooling: {Theano/Theano#5404}",
    ),
    (
        "A norm at 0",
        "PyTorch from NaN to 0: {pytorch/pytorch#2421}; JAX's NaN is meant: {jax-ml/jax#4177}, "
        "0 is proposed: {jax-ml/jax#39792}; TensorFlow: {tensorflow/tensorflow#12071}; "
        "Autograd: {HIPS/autograd#151}",
    ),
)


def page(table: Table) -> str:
    """The text of the page."""
    columns = list(table.columns.values())
    return TEMPLATE.read_text(encoding="utf-8").format(
        columns=len(columns),
        glance=_glance(table),
        lies="\n".join(f"| {name} | {means} |" for name, means in LIES.items()),
        frameworks=_grid(
            ("column", "brought by", "types", "compiler", "kinks"),
            (
                (
                    f"`{column.name}`", f"`{column.install}`", ", ".join(column.dtypes),
                    f"`{column.compiler}`" if column.compiler else "", str(len(column.found)),
                )
                for column in columns
            ),
        ),
        machines=", ".join(dict.fromkeys(column.machine for column in columns)),
        pythons=", ".join(dict.fromkeys(column.python for column in columns)),
        outside=_lying(table, "outside"),
        nan=_lying(table, "nan"),
        versions=_versions(table),
        departs=_departs(table),
        fails=_fails(columns),
        sources="\n".join(f"| {what} | {_linked(where)} |" for what, where in SOURCES),
        whole="\n\n".join(_whole(table)),
    )  # fmt: skip


def _grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _linked(text: str) -> str:
    """``{owner/repository#1}`` as a link."""
    parts = text.split("{")
    said = parts[0]
    for part in parts[1:]:
        name, _, rest = part.partition("}")
        repository, _, number = name.partition("#")
        said += f"[{name}](https://github.com/{repository}/issues/{number}){rest}"
    return said


def _glance(table: Table) -> str:
    probes = [table.probes[name] for name in GLANCE.values()]
    rows = (
        (f"`{column.name}`", *(_or_nothing(word(p, column.found.get(p.name))) for p in probes))
        for column in table.columns.values()
    )
    return _grid(("", *GLANCE), rows)


def _or_nothing(said: str) -> str:
    return "" if said == "lacking" else said


def _lying(table: Table, where: str) -> str:
    rows: dict[tuple[str, str, str, str], list[str]] = {}
    for kinks in answers(table, list(table.columns.values()), table.probes.values()):
        for answer in kinks.answers:
            if answer.lies == (where,):
                names = spoken(answer.columns, table)
                key = (f"`{kinks.operation}`", kinks.form, answer.returned, names)
                rows.setdefault(key, []).extend(kinks.kinks)
    return _grid(
        ("operation", "", "where", "returned", "frameworks"),
        (
            (operation, form, Kinks(operation, form, tuple(there)).where, returned, names)
            for (operation, form, returned, names), there in rows.items()
        ),
    )


def _versions(table: Table) -> str:
    torches = [column for column in table.columns.values() if column.framework == "torch"]
    rows: list[tuple[str, ...]] = []
    for one, other in pairwise(torches):
        found = [each for each in differences(table, one, other) if not each.how]
        steps = f"`{one.name}` to `{other.name}`"
        rows += [
            (steps, f"`{each.operation}`", each.form, each.where, *each.returned) for each in found
        ] or [(steps, "", "", "nothing", "", "")]
    return _grid(("", "operation", "", "where", "before", "after"), rows)


def _departs(table: Table) -> str:
    rows: dict[tuple[str, str, str, str, str], list[str]] = {}
    for column in table.columns.values():
        for name, found in column.found.items():
            probe = table.probes[name]
            usual = word(probe, found)
            for other in found.differs:
                said = word(probe, other)
                if "error" not in (said, usual) and said != usual:
                    key = (column.name, probe.operation, other.how, usual, said)
                    form = f"{probe.form}: " if probe.form else ""
                    rows.setdefault(key, []).append(form + probe.kink)
    return _grid(
        ("column", "operation", "where", "in", "usual", "there"),
        (
            (f"`{column}`", f"`{operation}`", "; ".join(where), how, usual, said)
            for (column, operation, how, usual, said), where in rows.items()
        ),
    )


def _fails(columns: Iterable[Column]) -> str:
    rows = []
    for column in columns:
        failing: dict[str, dict[str, None]] = {}
        for name, found in column.found.items():
            for each in (found, *found.differs):
                if each.error:
                    operation = name.partition(":")[0].partition(",")[0]
                    failing.setdefault(_way(each, column), {})[f"`{operation}`"] = None
        rows += [(f"`{column.name}`", how, ", ".join(names)) for how, names in failing.items()]
    return _grid(("column", "in", "operations"), rows)


def _way(found: Found, column: Column) -> str:
    return found.how or column.dtypes[0]


def _whole(table: Table) -> Iterator[str]:
    columns = list(table.columns.values())
    for operation in dict.fromkeys(probe.operation for probe in table.probes.values()):
        probes = [probe for probe in table.probes.values() if probe.operation == operation]
        rows = []
        for kinks in answers(table, columns, probes, lacking=True):
            where = f"{kinks.form}: {kinks.where}" if kinks.form else kinks.where
            for answer in kinks.answers:
                lies = ", ".join(answer.lies)
                rows.append((where, answer.returned, lies, spoken(answer.columns, table)))
                where = ""
        yield f"### {operation}"
        yield _spellings(columns, list(dict.fromkeys(probe.call for probe in probes)))
        yield _grid(("where", "returned", "lies", "frameworks"), rows)


def _spellings(columns: Iterable[Column], calls: Iterable[str]) -> str:
    said: dict[str, None] = {}
    for call in calls:
        for column in columns:
            if call in column.calls:
                said[f"`{column.calls[call]}`"] = None
    return ", ".join(said)


if __name__ == "__main__":
    PAGE.write_text(page(read()), encoding="utf-8")
