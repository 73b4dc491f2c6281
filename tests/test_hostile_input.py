"""Command lines and specs drawn at random, with hostile values: how they may end, and how not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from command_line import Kinkcheck, Run, folder, kinkcheck

__all__ = ["folder", "kinkcheck"]

PROGRAMS = """
import sys
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleDict({"[red]": nn.Linear(784, 10), "\\x1b[31m": nn.ReLU()})
    def forward(self, x):
        x = x.flatten(1)
        for layer in self.layers.values(): x = layer(x)
        return x

def whole():
    return Net(), [(torch.ones(2, 784), torch.tensor([0, 1]))], step
def step(model, batch): return nn.functional.cross_entropy(model(batch[0]), batch[1])
def leaves(): sys.exit(0)
class Leaving(Net):
    def forward(self, x): sys.exit(0)
def meta():
    with torch.device("meta"): return Net()
"""

SPEC = {
    "data": "'mnist-sample'",
    "network": "'lenet5'",
    "epochs": "1",
    "learning_rate": "0.1",
    "seeds": "1",
    "train_images": "8",
    "test_images": "8",
    "batch_size": "8",
    "probe": "false",
}

TEXTS = [
    "", "x", "[/]", "[red]", "-", "x" * 300, "x" * 300 + ".py:net", "x:y", "..", "\x1b[31m", "é",
    "\udcff", "%s", "a\nb",
]  # fmt: skip
NUMBERS = ["1", "2", "0", "-1", "1025", str(2**31), str(2**63 - 1), str(2**63), str(10**30),
           "1" * 5000, "1.5", "nan", "1e400", "x", ""]  # fmt: skip
FLOATS = ["0.5", "0", "1", "-1", "nan", "inf", "1e-320", "0.9999999999999999", "x", ""]
PATHS = ["a.json", "a.html", "no/such/folder", ".", "/dev/full", "pipe", "broken.json", "deep.json",
         "x" * 300, "my.toml", "grad.npz", ""]  # fmt: skip
NETWORKS = ["hostile.py:Net", "hostile.py:whole", "hostile.py:leaves", "hostile.py:Leaving",
            "hostile.py:meta", "hostile.py:none", "none.py:net", "lenet5"]  # fmt: skip
SELECTIONS = ["minimal", "native", "hybrid:1e308", "hybrid:nan", f"random:{2**64}", "limit:1",
              "as:jax", "mix:", "branch:", "every"]  # fmt: skip
DEVICES = ["cpu", "hpu", "meta", "cuda:99", "cpu:-1", "cpu:1"]

OPTIONS: dict[str, list[str]] = {
    "--precision": ["16", "32", "64", "bfloat16", "mixed", "8"],
    "--selection": SELECTIONS, "--reference": SELECTIONS,
    "--operation": ["max_pool", "relu", "clamp", "x"],
    "--draws": NUMBERS, "--batches": NUMBERS, "--batch-size": NUMBERS, "--seed": NUMBERS,
    "--device": DEVICES, "--threads": NUMBERS, "--json": PATHS, "--html": PATHS, "--out": PATHS,
    "--tolerance": FLOATS, "--confidence": FLOATS, "--until-width": FLOATS, "--gpu-share": FLOATS,
    "--data": ["mnist-sample", "mnist", "imagenet"], "--data-dir": PATHS, "--init": ["kaiming"],
    "--batch": NUMBERS, "--gradient": PATHS, "--format": ["csv", "json", "svg"],
    "--table": ["epochs", "trials"], "--tensorboard": PATHS,
    "--framework": ["jax", "torch"], "--kink": ["tie", "at 0"],
}  # fmt: skip
FLAGS = ["--layers", "--lift", "--no-lift", "--exact", "--batch-norm", "-v", "--timing", "--help"]
SMALL = ["--batches", "1", "--batch-size", "2"]

COMMANDS: dict[str, tuple[list[str], list[str], list[str]]] = {
    # what it takes without an option; what it is always given first; its options
    "audit": (NETWORKS, SMALL, [
        "--precision", "--selection", "--reference", "--operation", "--seed", "--device",
        "--draws", "--batches", "--batch-size", "--json", "--html", "--tolerance", "--data",
        "--data-dir", "--init",
    ]),
    "volume": (NETWORKS, [*SMALL, "--draws", "1"], [
        "--precision", "--selection", "--reference", "--operation", "--seed", "--device",
        "--draws", "--batches", "--batch-size", "--out", "--threads", "--confidence",
        "--until-width", "--gpu-share", "--data", "--data-dir",
    ]),
    "explain": (NETWORKS, ["--gradient", "grad.npz"], [
        "--batch", "--seed", "--gradient", "--json",
    ]),
    "report": (PATHS, [], ["--html"]),
    "verify": (PATHS, [], ["--data-dir"]),
    "doctor": ([], [], ["--data-dir"]),
    "atlas": ([], [], ["--operation", "--framework", "--kink"]),
    "atlas diff": (["jax", "torch-2.13"], ["torch-2.15"], []),
    "study specs": (["smoke"], [], []),
    "study check": (PATHS, [], ["--device", "--threads", "--data-dir"]),
    "study run": (PATHS, ["--out", "s"], [
        "--out", "--device", "--threads", "--data-dir", "--gpu-share", "--tensorboard",
    ]),
    "study status": (PATHS, [], []),
    "study table": (PATHS, [], []),
    "study export": (PATHS, [], ["--format", "--table", "--out"]),
    "study plot": (PATHS, ["--out", "plots"], ["--out", "--format"]),
    "paper list": (["programs"], [], []),
    "paper compare": (["programs", "all"], [], ["--out"]),
}  # fmt: skip


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with an argument and up to three options, good, on the edge or hostile."""
    command = draw(st.sampled_from(sorted(COMMANDS)))
    taken, first, options = COMMANDS[command]
    given = [draw(st.sampled_from([*taken, *TEXTS]))] if taken else []
    chosen = draw(st.lists(st.sampled_from(options), max_size=3)) if options else []
    values = [
        part
        for option in chosen
        for part in (option, draw(st.sampled_from([*OPTIONS[option], *TEXTS])))
    ]
    flags = draw(st.lists(st.sampled_from(FLAGS), max_size=1))
    return [*command.split(), *given, *first, *values, *flags]


VALUES = [
    "1", "0", "-1", "1000000", str(10**18), str(10**30), "'x'", "''", "'[/]'", "'\\u001b[31m'",
    "true", "[]", "{}", "nan", "inf", "1e-320", "1e308", "2020-01-01", "'search'", "[1, 2, 'x']",
    "{low = 1, high = 0}", "['lenet5', 'mlp']", "'hostile.py:Leaving'", "'hostile.py:leaves'",
    "[" * 3000 + "]" * 3000, "{a=" * 300 + "1" + "}" * 300, "'native'", "{max_pool = 'random:x'}",
    "'" + "x" * 300 + ".py:net'", "[0.1, 0.2]", "'adam'", "'64'", "['16', '32']", "'step'", "64",
]  # fmt: skip
KEYS = [
    *SPEC, "extends", "task", "selections", "search", "exclude", "precision", "optimizer",
    "momentum", "weight_decay", "clip_norm", "schedule", "step_size", "step_factor", "devices",
    "init", "init_seed", "batch_norm", "forward", "experiment", "description", "source", "augment",
    "train_split", "test_split", "unknown", "'\\u001b[31m'", "a.b.c",
]  # fmt: skip


@st.composite
def specs(draw: st.DrawFn) -> str:
    """A small study of which up to two keys have another value."""
    keys = dict(SPEC)
    for key in draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=2)):
        keys[key] = draw(st.sampled_from(VALUES))
    return "\n".join(f"{key} = {value}" for key, value in keys.items())


SMALLEST = "\n".join(f"{key} = {value}" for key, value in SPEC.items())

Hostile = Callable[..., Run]


def fill(folder: Path, spec: str) -> None:
    """The files that command lines name."""
    (folder / "hostile.py").write_text(PROGRAMS)
    (folder / "my.toml").write_text(spec)
    (folder / "broken.json").write_bytes(b'{"schema": "kinkcheck.audit/3", "\xff')
    (folder / "deep.json").write_text("[" * 100_000)
    np.savez(folder / "grad.npz", w=np.ones(3, dtype=np.float32))
    os.mkfifo(folder / "pipe")


def require_accepted(run: Run, arguments: object) -> None:
    """Exit 0 with output; or 1 or 2 with a line that says why, and no traceback."""
    assert "Traceback" not in run.out + run.err, (arguments, run)
    assert all(each.isprintable() or each == "\n" for each in run.out + run.err), (arguments, run)
    if run.code == 0:
        assert run.out, (arguments, run)
        return
    assert run.code in (1, 2), (arguments, run)
    *before, last = run.err.splitlines() or [""]
    assert last.startswith("kinkcheck: ") or run.out, (arguments, run)
    # A study that has begun has told of its trials; warnings come before what they warn of.
    assert run.code == 1 or not [each for each in before if not told(each)], (arguments, run)


def told(line: str) -> bool:
    return line.startswith(("kinkcheck: warning: ", "[0/", "[1/")) or " of them done" in line


@pytest.fixture
def hostile(kinkcheck: Kinkcheck, folder: Path) -> Iterator[Hostile]:
    """The command line in a folder with hostile files, which every call finds as they were."""
    threads = torch.get_num_threads()

    def run(arguments: Sequence[str], spec: str = SMALLEST) -> Run:
        for each in folder.iterdir():
            if each.name not in ("my_nets.py", "some_sibling.py"):
                remove(each)
        fill(folder, spec)
        return kinkcheck(*arguments)

    yield run
    torch.set_num_threads(threads)
    for name in [name for name in sys.modules if name.startswith("kinkcheck_network_hostile")]:
        del sys.modules[name]


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for each in path.iterdir():
            remove(each)
        path.rmdir()
    else:
        path.unlink()


COMMON = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
FAST = settings(max_examples=40, derandomize=True, **COMMON)  # type: ignore[arg-type]
LONG = settings(max_examples=3000, derandomize=False, **COMMON)  # type: ignore[arg-type]


@FAST
@given(command_lines())
def test_command_lines_end_well(hostile: Hostile, arguments: list[str]) -> None:
    require_accepted(hostile(arguments), arguments)


@FAST
@given(specs(), st.booleans())
def test_specs_end_well(hostile: Hostile, text: str, is_run: bool) -> None:
    require_accepted(hostile(of_spec(is_run), text), text)


@pytest.mark.torture
@LONG
@given(command_lines())
def test_many_command_lines_end_well(hostile: Hostile, arguments: list[str]) -> None:
    require_accepted(hostile(arguments), arguments)


@pytest.mark.torture
@LONG
@given(specs(), st.booleans())
def test_many_specs_end_well(hostile: Hostile, text: str, is_run: bool) -> None:
    require_accepted(hostile(of_spec(is_run), text), text)


def of_spec(is_run: bool) -> list[str]:
    return ["study", "run", "my.toml", "--out", "s"] if is_run else ["study", "check", "my.toml"]
