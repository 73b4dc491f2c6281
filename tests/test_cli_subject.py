"""A function on the command line that brings its own batches and step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from command_line import Kinkcheck

PROGRAMS = """
import torch
from torch import nn

def step(model, batch):
    return model(batch["x"]).relu().square().sum()

def network():
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))

def make():
    return network(), [{"x": torch.rand(n, 3)} for n in (2, 4)], step

def other_sizes():  # each time another number of batches
    count = int(torch.randint(1, 100, ()))
    return network(), [{"x": torch.rand(2, 3)}] * count, step

def counted(made):
    with open("calls.txt", "a") as file:
        file.write("x")
    return made

def count_whole(): return counted(make())
def count_model(): return counted(network_of_images())

def network_of_images():
    return nn.Sequential(nn.Conv2d(1, 2, 9), nn.MaxPool2d(20), nn.Flatten(), nn.Linear(2, 10))

def pair(): return network(), []
def no_step(): return network(), [{"x": torch.rand(2, 3)}], 3
def no_batches(): return network(), [], step
def no_module(): return 3, [{"x": torch.rand(2, 3)}], step
def no_loss(): return network(), [{"x": torch.rand(2, 3)}], lambda model, batch: model(batch["x"])
def raises(): return network(), [{"y": torch.rand(2, 3)}], step
def fails(): raise ValueError("first\\nsecond")
"""


@pytest.fixture(autouse=True)
def programs(folder: Path) -> None:
    (folder / "programs.py").write_text(PROGRAMS)


def test_batches_and_step_of_a_function_are_audited(kinkcheck: Kinkcheck) -> None:
    run = kinkcheck("audit", "programs.py:make", "--draws", "2", "--json", "audit.json")
    assert (run.code, run.err) == (0, "")
    found = json.loads(Path("audit.json").read_text())
    assert (found["network"], found["data"]) == ("programs.py:make", "its own batches")
    expected = []
    torch.manual_seed(0)
    _, batches, _ = program()
    for draw in (0, 1):
        torch.manual_seed(draw)
        model, _, step = program()  # parameters are drawn again, batches are those of the first
        for batch in batches:
            gradient = torch.autograd.grad(step(model, batch), list(model.parameters()))
            expected.append(sum(each.double().abs().sum().item() for each in gradient))
    assert [point["gradient_l1"] for point in found["points"]] == expected


def program() -> tuple[torch.nn.Module, list[dict[str, torch.Tensor]], object]:
    namespace: dict[str, object] = {}
    exec(PROGRAMS, namespace)
    return namespace["make"]()  # type: ignore[operator]


@pytest.mark.parametrize("command", ["audit", "volume"])
@pytest.mark.parametrize(
    "option",
    [("--data", "mnist-sample"), ("--data-dir", "."), ("--batches", "2"), ("--batch-size", "4")],
)
def test_options_for_images_are_refused(
    command: str, option: tuple[str, str], kinkcheck: Kinkcheck
) -> None:
    run = kinkcheck(command, "programs.py:make", *option)
    assert (run.code, run.out) == (2, "")
    assert run.err == (
        f"kinkcheck: {option[0]}: programs.py:make brings its own batches; leave it out\n"
    )


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("pair", "network: pair must return a torch.nn.Module, or (model, batches, step), not "
         "(Sequential, list)"),
        ("no_module", "network: no_module must return a torch.nn.Module, or (model, batches, "
         "step), not (int, list, function)"),
        ("no_step", "step: must be a function of the model and a batch that returns the loss"),
        ("no_batches", "batches: at least one is needed"),
        ("no_loss", "loss: must be a single number in a tensor, not of shape (2, 2) "
         "(float32, draw 0, batch 0)"),
        ("raises", "network: failed on a batch of shape (2, 3) (float32, draw 0, batch 0): "
         "KeyError: 'x'"),
        ("fails", "network: fails failed: ValueError: first second"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["audit", "volume"])
def test_what_a_function_must_return(
    command: str, name: str, complaint: str, kinkcheck: Kinkcheck
) -> None:
    run = kinkcheck(command, f"programs.py:{name}")
    assert (run.code, run.out) == (2, "")
    assert run.err == f"kinkcheck: {complaint}\n"


def test_a_volume_of_a_function_goes_on_to_the_same_file(kinkcheck: Kinkcheck) -> None:
    arguments = ("volume", "programs.py:make", "--draws", "3", "--out")
    whole = kinkcheck(*arguments, "whole.jsonl")
    assert (whole.code, whole.err) == (0, "")
    lines = Path("whole.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 1 + 3 * 2
    settings = json.loads(lines[0])["settings"]
    assert (settings["batches"], settings["loss"]) == (2, "step")
    assert "batch_size" not in settings
    Path("part.jsonl").write_text("".join(lines[:4]))
    part = kinkcheck(*arguments, "part.jsonl")
    assert (part.code, part.out) == (0, whole.out)
    assert Path("part.jsonl").read_text() == "".join(lines)


@pytest.mark.parametrize("name", ["count_whole", "count_model"])
def test_a_function_runs_once_a_draw(name: str, kinkcheck: Kinkcheck) -> None:
    of_images = ("--batches", "1", "--batch-size", "2") if name == "count_model" else ()
    files = ("--json", "audit.json", "--html", "audit.html")  # with a picture of ties, of images
    run = kinkcheck("audit", f"programs.py:{name}", "--draws", "2", *of_images, *files)
    assert (run.code, run.err) == (0, "")
    assert Path("calls.txt").read_text() == "xx"
    found = json.loads(Path("audit.json").read_text())
    assert (found["ties_picture"] is not None) == (name == "count_model")


def test_every_draw_has_the_batches_of_the_first(kinkcheck: Kinkcheck) -> None:
    torch.manual_seed(0)
    namespace: dict[str, object] = {}
    exec(PROGRAMS, namespace)
    _, batches, _ = namespace["other_sizes"]()  # type: ignore[operator]
    run = kinkcheck("volume", "programs.py:other_sizes", "--draws", "2", "--out", "volume.jsonl")
    assert (run.code, run.err) == (0, "")
    assert len(Path("volume.jsonl").read_text().splitlines()) == 1 + 2 * len(batches)
