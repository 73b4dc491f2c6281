"""Programs that leave, texts that a terminal would obey, outputs that cannot be written."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from command_line import Kinkcheck, Run, folder, kinkcheck
from kinkcheck import cli
from kinkcheck.errors import InputError
from kinkcheck.files import Claim
from kinkcheck.seal import KEY
from kinkcheck.study import seals
from kinkcheck.terminal import Terminal, shown

__all__ = ["folder", "kinkcheck"]

SMALL = ("--batches", "1", "--batch-size", "2")

LEAVING = """
import sys
import torch
from torch import nn
from kinkcheck.study import Metric, Task

class Odd(BaseException): pass
def leave(): sys.exit(0)
def odd(): raise Odd("odd")
def close(): raise GeneratorExit
def fail(): raise ValueError("first\\nsecond")

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(784, 10)
    def forward(self, x): return self.linear(x.flatten(1)).relu()

class Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, how):
        ctx.how = how
        return x.clone()
    @staticmethod
    def backward(ctx, gradient): ctx.how()

HOW = HOW_HERE

def factory(): HOW()
class Forward(Net):
    def forward(self, x): HOW()
class Backward(Net):
    def forward(self, x): return Function.apply(super().forward(x), HOW)
def hook():
    net = Net()
    net.linear.weight.register_hook(lambda gradient: HOW())
    return net
class Parameters(Net):
    def named_parameters(self, *args, **kwargs): HOW()
class Batches(list):
    def __iter__(self): HOW()
def batches(): return Net(), Batches([0]), lambda model, batch: model(batch).sum()
def step(): return Net(), [torch.ones(1, 784)], lambda model, batch: HOW()

class Mine(Task):
    train = test = [(torch.ones(784), torch.tensor(0))] * 4
    metrics = (Metric("error", lambda each: each.float().mean(), larger_is_better=False),)
    def network(self): return Net()
    def step(self, model, batch):
        made = model(batch[0])
        return nn.functional.cross_entropy(made, batch[1]), made
class TaskFactory(Mine):
    def __init__(self): HOW()
class TaskNetwork(Mine):
    def network(self): HOW()
class TaskStep(Mine):
    def step(self, model, batch): HOW()
class TaskMetric(Mine):
    metrics = (Metric("error", lambda each: HOW(), larger_is_better=False),)
class Later(Mine):
    steps = 0
    def step(self, model, batch):
        Later.steps += model.training
        return HOW() if Later.steps > 2 else super().step(model, batch)
"""


def is_one_complaint(run: Run, code: int = 2) -> bool:
    return (
        run.code == code
        and run.out == ""
        and run.err.startswith("kinkcheck: ")
        and run.err.endswith("\n")
        and run.err.count("\n") == 1
    )


@pytest.mark.parametrize(
    "where", ["factory", "Forward", "Backward", "hook", "Parameters", "batches", "step"]
)
@pytest.mark.parametrize("how", ["leave", "odd", "close", "fail"])
@pytest.mark.parametrize("command", ["audit", "volume"])
def test_a_program_that_leaves_has_failed(
    where: str, how: str, command: str, kinkcheck: Kinkcheck, folder: Path
) -> None:
    (folder / "leaving.py").write_text(LEAVING.replace("HOW_HERE", how))
    data = () if where in ("batches", "step") else SMALL
    run = kinkcheck(command, f"leaving.py:{where}", *data)
    assert is_one_complaint(run), run
    kind = {"leave": "SystemExit: 0", "odd": "Odd: odd", "close": "GeneratorExit", "fail": "first"}
    assert kind[how] in run.err


def spec(task: str) -> str:
    return f"""
epochs = 1
batch_size = 2
seeds = 1
learning_rate = 0.1
probe = false
[task]
factory = "leaving.py:{task}"
"""


@pytest.mark.parametrize("task", ["TaskFactory", "TaskNetwork", "TaskStep", "TaskMetric"])
@pytest.mark.parametrize("how", ["leave", "odd"])
def test_a_task_that_leaves_has_failed(
    task: str, how: str, kinkcheck: Kinkcheck, folder: Path
) -> None:
    (folder / "leaving.py").write_text(LEAVING.replace("HOW_HERE", how))
    (folder / "my.toml").write_text(spec(task))
    for command in (("check", "my.toml"), ("run", "my.toml", "--out", "s")):
        run = kinkcheck("study", *command)
        assert is_one_complaint(run), run
        assert {"leave": "SystemExit: 0", "odd": "Odd: odd"}[how] in run.err
    assert not (folder / "s").exists()


@pytest.mark.parametrize("how", ["leave", "odd", "close"])
def test_a_trial_that_leaves_has_failed(how: str, kinkcheck: Kinkcheck, folder: Path) -> None:
    (folder / "leaving.py").write_text(LEAVING.replace("HOW_HERE", how))
    (folder / "my.toml").write_text(spec("Later"))
    run = kinkcheck("study", "run", "my.toml", "--out", "s")
    assert run.code == 1
    assert {"leave": "SystemExit: 0", "odd": "Odd: odd", "close": "GeneratorExit"}[how] in run.err
    assert "1 trials failed" in run.err


@pytest.mark.parametrize("network", ["Forward", "factory", "Backward"])
def test_a_network_that_leaves_while_a_study_is_checked_has_failed(
    network: str, kinkcheck: Kinkcheck, folder: Path
) -> None:
    (folder / "leaving.py").write_text(LEAVING.replace("HOW_HERE", "leave"))
    (folder / "my.toml").write_text(
        f"data = 'mnist-sample'\nnetwork = 'leaving.py:{network}'\nepochs = 1\nlearning_rate = 1\n"
    )
    run = kinkcheck("study", "check", "my.toml")
    assert is_one_complaint(run), run
    assert "SystemExit: 0" in run.err


ESCAPE = "\x1b[31m\x1b]0;title\x07"
HOSTILE = [ESCAPE, "[/]", "[red]", "[link=x]", "\ud800", "\u202e", ":smile:"]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON of an audit."""
    file = tmp_path_factory.mktemp("document") / "a.json"
    with pytest.MonkeyPatch.context() as patch:
        argv = ["kinkcheck", "audit", "lenet5", *SMALL, "--layers", "--json", str(file)]
        patch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit):
            cli.main()
    found: dict[str, Any] = json.loads(file.read_text())
    del found[KEY]  # or what is changed in it would be damage
    return found


def with_all(value: Any, key: str, text: str) -> Any:
    """A JSON value with one text for every value of a key."""
    if isinstance(value, dict):
        return {k: text if k == key else with_all(v, key, text) for k, v in value.items()}
    return [with_all(each, key, text) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
@pytest.mark.parametrize("key", ["verdict", "layer", "operation", "network", "precision"])
def test_a_text_of_a_file_is_shown_as_text(
    key: str, text: str, document: dict[str, Any], kinkcheck: Kinkcheck, folder: Path
) -> None:
    (folder / "a.json").write_text(json.dumps(with_all(document, key, text)))
    for detail in ((), ("-v",)):
        run = kinkcheck("report", "a.json", *detail)
        assert (run.code, run.err) == (0, "")
        assert all(each.isprintable() or each == "\n" for each in run.out)
    if key in ("verdict", "layer", "precision"):
        assert shown(text)[:5] in run.out
    again = kinkcheck("verify", "a.json")
    assert again.code == 0 or is_one_complaint(again), again
    assert all(each.isprintable() or each == "\n" for each in again.out + again.err)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_a_complaint_shows_a_text_as_text(text: str, kinkcheck: Kinkcheck) -> None:
    given = os.fsdecode(text.encode("utf-8", "surrogatepass"))
    for arguments in (
        ("audit", given), ("audit", f"{given}:net"), ("audit", f"my_nets.py:{given}"),
        ("audit", "mlp", "--device", given), ("report", given), ("study", "status", given),
        ("study", "run", given, "--out", "s"), ("paper", "run", given), ("atlas", "--kink", given),
        (given,), ("audit", "mlp", f"--{given}"), ("audit", "mlp", "--batches", given),
    ):  # fmt: skip
        run = kinkcheck(*arguments)
        assert is_one_complaint(run), run
        assert all(each.isprintable() or each == "\n" for each in run.err)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_a_terminal_shows_what_is_waited_for_as_text(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Terminal(force_terminal=True).waiting(text):
        pass
    assert ESCAPE not in capsys.readouterr().out


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    "arguments", [("--version",), ("study", "specs"), ("study", "specs", "smoke"), ("atlas",)]
)
def test_a_full_disk_behind_standard_output_is_one_line(arguments: tuple[str, ...]) -> None:
    with FULL.open("w") as full:
        run = subprocess.run(
            [sys.executable, "-c", "from kinkcheck.cli import main; main()", *arguments],
            stdout=full, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])},
        )  # fmt: skip
    assert (run.returncode, run.stderr) == (
        1, "kinkcheck: standard output: No space left on device\n",
    )  # fmt: skip


SMALLEST = (
    "data = 'mnist-sample'\nnetwork = 'lenet5'\nepochs = 1\nlearning_rate = 0.1\nseeds = 1\n"
    "train_images = 8\ntest_images = 8\nbatch_size = 8\nprobe = false\n"
)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("audit mlp --draws 9223372036854775807", "--draws must be at most 1,000,000, not 9,223"),
        ("volume mlp --draws 1000000 --batches 11", "draws: 1,000,000 draws of 11 mini-batches"),
        (
            "audit mlp --seed 9223372036854775808",
            "--seed must be at most 9,223,372,036,854,775,807",
        ),
        ("audit mlp --device hpu", "device 'hpu' cannot be used: "),
        ("audit mlp --device meta", "device 'meta' cannot be used: "),
        (f"audit mlp --json {'x' * 300}", "--json: xxx"),
        (f"report {'x' * 300}", "cannot be read: File name too long"),
        ("report pipe", "pipe cannot be read: it is a pipe or a device"),
        ("audit mlp --json pipe", "--json: pipe cannot be written: it is a pipe, not a file"),
        ("audit mlp --html pipe", "--html: pipe cannot be written: it is a pipe, not a file"),
        ("volume mlp --out pipe", "--out: pipe cannot be written: it is a pipe, not a file"),
        ("study export . --out pipe", "--out: pipe cannot be written: it is a pipe, not a file"),
        ("study check pipe.toml", "pipe.toml cannot be read: it is a pipe or a device"),
        ("explain my_nets.py:Net --gradient pipe", "pipe cannot be read: it is a pipe"),
        (
            "study run my.toml --out s --threads 9223372036854775807",
            "--threads must be at most 1,0",
        ),
        ("study check my.toml --threads 2147483648", "--threads must be at most 1,024"),
        ("study run my.toml --out s --device hpu", "device 'hpu' cannot be used: "),
    ],
)
def test_what_is_out_of_bounds_is_named(
    arguments: str, complaint: str, kinkcheck: Kinkcheck, folder: Path
) -> None:
    (folder / "my.toml").write_text(SMALLEST)
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "pipe.toml")
    run = kinkcheck(*arguments.split())
    assert is_one_complaint(run), run
    assert complaint in run.err
    assert not (folder / "s").exists()


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_a_file_that_another_audit_writes_is_left_to_it(
    option: str, kinkcheck: Kinkcheck, folder: Path
) -> None:
    with Claim(folder / "a"):
        run = kinkcheck("audit", "mlp", option, "a")
    assert is_one_complaint(run), run
    assert f"is being written by process {os.getpid()} on " in run.err
    assert not (folder / "a").exists()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("seeds = 10000000", "seeds: must be at most 100,000, not 10,000,000"),
        ("seeds = 1000000000000000000000000000000", "seeds: must be at most 100,000"),
        ("seeds = 60000\nprecision = ['16', '32']", "make 120,000 trials; a study has at most 100"),
        ("epochs = 1000000000000000000", "epochs: "),
        ("devices = 1000000\nbatch_size = 1000000", "devices: "),
        (f"description = {'[' * 3000}{']' * 3000}", "my.toml: is nested too deeply"),
        (f"epochs = {'1' * 5000}", "my.toml: is not TOML: Exceeds the limit"),
    ],
    ids=range(7),
)
def test_a_spec_has_bounds(line: str, complaint: str, kinkcheck: Kinkcheck, folder: Path) -> None:
    keys = [each.split(" = ")[0] for each in line.splitlines()]
    kept = [each for each in SMALLEST.splitlines() if each.split(" = ")[0] not in keys]
    (folder / "my.toml").write_text("\n".join([*kept, line]))
    for command in (("check", "my.toml"), ("run", "my.toml", "--out", "s")):
        run = kinkcheck("study", *command)
        assert is_one_complaint(run), run
        assert complaint in run.err


@pytest.mark.parametrize("value", ["x", "", "0", "9223372036854775807", "1" * 5000, "-1"])
def test_threads_of_a_study_that_cannot_be_had_are_said(
    value: str, kinkcheck: Kinkcheck, folder: Path
) -> None:
    (folder / "my.toml").write_text(SMALLEST)
    assert kinkcheck("study", "run", "my.toml", "--out", "s").code == 0
    with closing(sqlite3.connect(folder / "s" / "study.db")) as connection, connection:
        connection.execute("UPDATE study SET value = ? WHERE key = 'threads'", (value,))
        seals.seal_all(connection)  # or it would be damage
    run = kinkcheck("study", "run", "my.toml", "--out", "s")
    assert is_one_complaint(run), run
    assert run.err.startswith("kinkcheck: s: threads must be")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE trials SET settings = 'x'",
        "UPDATE trials SET settings = '{}'",
        "UPDATE trials SET settings = '[1]'",
        "UPDATE trials SET settings = json_set(settings, '$.network', json('[1]'))",
        "UPDATE trials SET epochs = 'x'",
        "UPDATE epochs SET test_accuracy = 'x'",
        "UPDATE study SET value = '1' WHERE key = 'task'",
        "UPDATE study SET value = 'x' WHERE key = 'spec'",
        "DELETE FROM study",
        "DROP TABLE study",
        "DROP TABLE trials",
        "DROP TABLE epochs",
        "UPDATE trials SET state = char(27) || '[31m'",
        "UPDATE trials SET state = 'failed', reason = char(27) || '[31m'",
    ],
)
def test_a_study_that_was_edited_by_hand_is_said_to_be(
    statement: str, kinkcheck: Kinkcheck, folder: Path
) -> None:
    (folder / "my.toml").write_text(SMALLEST)
    assert kinkcheck("study", "run", "my.toml", "--out", "s").code == 0
    with closing(sqlite3.connect(folder / "s" / "study.db")) as connection, connection:
        connection.execute(statement)
    for command in (
        "status s", "table s", "export s", "export s --table trials",
        "plot s --out p --format svg", "run my.toml --out s",
    ):  # fmt: skip
        run = kinkcheck("study", *command.split())
        assert run.code == 0 or run.err.splitlines()[-1].startswith("kinkcheck: s"), run
        if not command.startswith("export"):  # which writes data, as they are
            assert all(each.isprintable() or each == "\n" for each in run.out + run.err)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"{}", b'{"schema": "kinkcheck.paper/1"}',
        b'{"schema": "kinkcheck.paper/1", "experiment": "x", "reduced": "no", "kinkcheck": "1",'
        b' "torch": "1", "rows": []}',
        b'{"schema": "kinkcheck.paper/1", "experiment": "x", "reduced": true, "kinkcheck": "1",'
        b' "torch": "1", "rows": [{}]}',
        b'{"schema": "kinkcheck.paper/1", "experiment": "x", "reduced": true, "kinkcheck": "1",'
        b' "torch": "1", "rows": 1}',
    ],
    ids=range(10),
)  # fmt: skip
def test_damaged_numbers_of_an_experiment_are_said_to_be(
    content: bytes, kinkcheck: Kinkcheck, folder: Path
) -> None:
    (folder / "paper").mkdir()
    for name in ("programs", "volume"):
        (folder / "paper" / f"{name}.json").write_bytes(content)
    for command in ("run", "compare"):
        run = kinkcheck("paper", command, "programs", *["--reduced"] * (command == "run"))
        # What is damaged is measured again.
        assert is_one_complaint(run) or run.code == 0, run
        assert run.code == 0 or "paper/programs.json" in run.err


def test_an_image_of_too_many_pixels_is_refused() -> None:
    from kinkcheck.data import decode

    pillow = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    pillow.new("1", (20_000, 20_000)).save(file, "png")
    for read in (decode.exact, decode.centre):
        with pytest.raises(InputError, match="more than 89,478,485 pixels"):
            read(file.getvalue(), (3, 224, 224))
    file = io.BytesIO()
    pillow.new("1", (9_000, 9_000)).save(file, "png")
    with pytest.raises(InputError, match="9000 by 9000 pixels, expected 224 by 224"):
        decode.exact(file.getvalue(), (3, 224, 224))


@pytest.mark.parametrize("network", ["meta", "sparse"])
def test_parameters_without_numbers_are_refused(
    network: str, kinkcheck: Kinkcheck, folder: Path
) -> None:
    (folder / "odd.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def meta():\n    with torch.device('meta'): return nn.Linear(784, 10)\n"
        "class sparse(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.w = nn.Parameter(torch.eye(784, 10).to_sparse())\n"
        "    def forward(self, x): return torch.sparse.mm(self.w.t(), x.flatten(1).t()).t()\n"
    )
    for command in ("audit", "volume"):
        run = kinkcheck(command, f"odd.py:{network}", *SMALL)
        assert is_one_complaint(run), run
        assert run.err.startswith("kinkcheck: network: ")


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_a_device_is_no_data(kind: str, kinkcheck: Kinkcheck, folder: Path) -> None:
    (folder / "mnist").mkdir()
    for split in ("train", "test"):
        file = folder / "mnist" / f"{split}-00000-of-00001.parquet"
        if kind == "pipe":
            os.mkfifo(file)
        else:
            file.symlink_to("/dev/zero")
    run = kinkcheck("audit", "lenet5", "--data", "mnist", "--data-dir", ".")
    assert is_one_complaint(run), run
    assert "it is a pipe or a device" in run.err
