"""The command line answers without PyTorch whatever needs no PyTorch, and names have one source."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from typer.main import get_command

import kinkcheck
from kinkcheck import cli, data, errors, networks
from kinkcheck.arithmetic import precision, precision_names
from kinkcheck.networks import building, initialisation
from kinkcheck.paper import catalogue, names

HEAVY = "torch numpy scipy matplotlib pandas datasets pyarrow PIL mlxtend jinja2 ray optuna"

# Says at the end which of the packages were imported.
PROGRAM = f"""
import sys
from kinkcheck.cli import main
sys.argv[0] = "kinkcheck"
try:
    main()
finally:
    imported = {{name.partition(".")[0] for name in sys.modules}}
    print(*sorted(imported & set({HEAVY!r}.split())), file=open("imported.txt", "w"))
"""


def commands(command: object, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command of the command line, as the words that name it."""
    below = getattr(command, "commands", {})
    return [words, *(each for name in below for each in commands(below[name], (*words, name)))]


COMMANDS = commands(get_command(cli.app))


def answer(folder: Path, *arguments: str) -> tuple[int, str, str, list[str]]:
    """Exit code, output, complaints, and the heavy packages that were imported."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={
            **{k: v for k, v in os.environ.items() if k != "KINKCHECK_DATA_DIR"},
            "PYTHONPATH": str(Path(cli.__file__).parents[2]),
            "PYTHONIOENCODING": "utf-8",
            "COLUMNS": "80",
        },
        timeout=300,
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr, (folder / "imported.txt").read_text().split()


def test_all_commands_are_known_here() -> None:
    assert {("audit",), ("study", "run"), ("paper", "compare"), ("doctor",)} < set(COMMANDS)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_without_pytorch(words: tuple[str, ...], tmp_path: Path) -> None:
    code, out, err, imported = answer(tmp_path, *words, "--help")
    assert (code, err, imported) == (0, "", [])
    assert "Usage" in out


def test_version_without_pytorch(tmp_path: Path) -> None:
    assert answer(tmp_path, "--version") == (0, "0.1.0\n", "", [])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("odit", "No such command 'odit'"),
        ("--bogus", "No such option: --bogus"),
        ("audit", "Missing argument 'NETWORK'; example: kinkcheck audit lenet5 --precision 16,32"),
        ("explain", "Missing argument 'PROGRAM'; example: kinkcheck explain "),
        ("audit lenet5 --selectoin minimal", "No such option: --selectoin (Possible options: --s"),
        (
            "audit my_nets.py",
            "names nothing in my_nets.py; write my_nets.py:make; it has draw, mak",
        ),
        ("audit my_nets", "names nothing in my_nets.py; write my_nets.py:make; it has draw, make"),
        ("audit my_nets.make", "names nothing in my_nets.py; write my_nets.py:make; it has draw,"),
        ("explain my_nets.py --gradient my_nets.py", "names nothing in my_nets.py; write my_nets"),
        (
            "audit lenet5 --fail-on worng",
            "unknown condition 'worng'; did you mean 'wrong'? accept",
        ),
        ("audit lenet5 -v -q", "--quiet and --verbose exclude each other"),
        ("audit lenet5 --bogus", "No such option: --bogus"),
        ("audit lenet5 --batches many", "'--batches'"),
        ("audit lenet5 --batches 0", "--batches must be at least 1, not 0"),
        ("audit lenet5 --tolerance -1", "--tolerance must be a number of at least 0, not -1"),
        ("audit lenet", "unknown network 'lenet'; did you mean 'lenet5'? accepted: lenet5, "),
        ("audit lenet5 --data minst", "--data: unknown data set 'minst'; did you mean 'mnist'?"),
        ("audit lenet5 --precision 16,bf61", "unknown precision 'bf61'; did you mean 'bf16'?"),
        ("audit lenet5 --precision flaot16", "did you mean 'float16'? accepted: float16, "),
        ("audit lenet5 --selection minimla", "did you mean 'minimal'? accepted: native, "),
        ("audit lenet5 --selection last,minimla", "unknown selection 'minimla'; did you mean 'min"),
        ("audit lenet5 --operation relu,max_pol", "unknown operation 'max_pol'; did you mean 'max"),
        ("audit lenet5 --selection hybrid", "did you mean 'hybrid:BETA'? accepted: native, "),
        ("audit lenet5 --reference bogus", "--reference: unknown selection 'bogus'; accepted: "),
        ("audit lenet5 --operation max_pol", "did you mean 'max_pool'? accepted: "),
        ("audit lenet5 --init kaimign", "--init: unknown init 'kaimign'; did you mean 'kaiming'?"),
        ("audit none.py:make", "the file none.py does not exist"),
        ("audit none.py:make --init kaiming", "--init are for built-in networks"),
        ("audit lenet5 --json nowhere/a.json", "--json: the folder nowhere does not exist"),
        ("audit lenet5 --data mnist --data-dir nowhere", "data_dir nowhere is not a folder"),
        ("audit lenet5 --data mnist --data-dir .", "does not hold mnist in the hub's layout"),
        ("volume lenet6", "unknown network 'lenet6'; did you mean 'lenet5'?"),
        ("volume lenet5 --confidence 95", "--confidence must be between 0 and 1"),
        ("volume lenet5 --until-width 2", "--until-width must be between 0 and 1, not 2.0"),
        ("volume lenet5 --operation rellu", "did you mean 'relu'? accepted: "),
        ("explain none.py:make --gradient none.npz", "none.npz cannot be read: No such file"),
        ("explain none.py:make", "Missing option '--gradient'"),
        ("atlas --operation clampp", "unknown operation 'clampp'; did you mean 'clamp'?"),
        ("atlas --framework jaxx", "unknown framework 'jaxx'; did you mean 'jax'?"),
        ("atlas --kink tye", "unknown kink 'tye'; accepted: tie of 2, "),
        ("atlas --operation relu --kink zero", "relu has no kink 'zero'; accepted: at 0, at -0"),
        ("atlas diff torch-2.13 torch-2.131", "'torch-2.131'; did you mean 'torch-2.13'? accept"),
        ("atlas run jaxx", "unknown framework 'jaxx'; did you mean 'jax'? accepted: torch, "),
        ("report none.json", "none.json cannot be read: No such file or directory"),
        ("study specs smok", "unknown spec 'smok'; did you mean 'smoke'? accepted: "),
        ("study run smok --out s", "unknown spec 'smok'; did you mean 'smoke'? accepted: "),
        ("study run none.toml --out s", "none.toml cannot be read: No such file or directory"),
        ("study run wrong.toml --out s", "wrong.toml: network: unknown network 'lenet'; did you"),
        ("study check wrong.toml", "wrong.toml: network: unknown network 'lenet'; did you mean"),
        ("study status .", ". holds no study"),
        ("study table .", ". holds no study"),
        ("study export . --format cvs", "--format: unknown format 'cvs'; did you mean 'csv'?"),
        (
            "study plot . --out p --format pgn",
            "unknown format 'pgn'; did you mean 'png'?",
        ),
        ("paper run relu-zero", "unknown experiment 'relu-zero'; did you mean 'relu-zeros'?"),
        ("paper list relu-zero", "unknown experiment 'relu-zero'; did you mean 'relu-zeros'?"),
        ("paper compare all --out nowhere", "--out: nowhere holds no numbers of an experiment; "),
        (
            "paper compare thresholds --out nowhere",
            "--out: nowhere holds no numbers of thresholds; kinkcheck paper run thresholds --out n",
        ),
        ("paper compare bogus", "unknown experiment 'bogus'; accepted: programs, "),
    ],
)
def test_complaint_without_pytorch(arguments: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "my_nets.py").write_text("def _own(): ...\ndef draw(): ...\ndef make(): ...\n")
    (tmp_path / "wrong.toml").write_text('data = "mnist"\nnetwork = "lenet"\nepochs = 1\n')
    code, out, err, imported = answer(tmp_path, *arguments.split())
    assert (code, out, imported) == (2, "", [])
    assert err.startswith("kinkcheck: ")
    assert err.count("\n") == 1
    assert words in err


def test_exact_arithmetic_that_is_not_installed_is_asked_for_at_once(tmp_path: Path) -> None:
    (tmp_path / "flint.py").write_text("raise ImportError('none here')")
    complaint = 'kinkcheck: flint is needed (none here): pip install "kinkcheck[exact]"\n'
    assert answer(tmp_path, "audit", "lenet5", "--exact") == (2, "", complaint, [])


@pytest.mark.parametrize("name", ["precision", "selection", "operation"])
def test_options_are_known_by_their_names_of_old_too(name: str, tmp_path: Path) -> None:
    for given in ([f"--{name}s", "x"], [f"--{name}s=x"]):
        code, out, err, imported = answer(tmp_path, "audit", "lenet5", *given)
        hint, complaint = err.splitlines()
        assert hint == f"kinkcheck: --{name}s is called --{name} now"
        assert complaint.startswith(f"kinkcheck: --{name}: unknown {name} 'x'")
        assert (code, out, imported) == (2, "", [])


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("kinkcheck vol", "volume"),
        ("kinkcheck audit len", "lenet5"),
        ("kinkcheck audit lenet5 --prec", "--precision"),
        ("kinkcheck audit lenet5 --precision b", "bfloat16"),
        ("kinkcheck audit lenet5 --selection as:j", "as:jax-0.10"),
        ("kinkcheck volume lenet5 --reference as:torch-2.9", "as:torch-2.9"),
        ("kinkcheck audit lenet5 --data mnist-", "mnist-sample"),
        ("kinkcheck audit lenet5 --fail-on w", "wrong"),
        ("kinkcheck study st", "status"),
        ("kinkcheck paper run volume-by-p", "volume-by-precision"),
        ("kinkcheck atlas --operation maxi", "maximum"),
    ],
)
def test_a_shell_completes(
    line: str, completed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_KINKCHECK_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    assert answer(tmp_path) == (0, f"{completed}\n", "", [])


def test_module_is_the_command(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "kinkcheck", "--version"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])},
        timeout=300,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "0.1.0\n", "")


# --- names ---------------------------------------------------------------------------------------


def test_every_name_has_what_it_names() -> None:
    assert tuple(building._CONSTRUCTORS) == networks.NAMES
    assert tuple(initialisation._INITIALISATIONS) == networks.INITIALISATIONS
    assert tuple(precision.PRECISIONS) == precision_names.NAMES
    assert tuple(catalogue.EXPERIMENTS) == names.NAMES
    unpublished = [name for name, each in catalogue.EXPERIMENTS.items() if each.compare is None]
    assert tuple(unpublished) == names.UNPUBLISHED


@pytest.mark.parametrize("package", [kinkcheck, networks, data])
def test_public_names_are_there(package: object) -> None:
    listed = package.__all__  # type: ignore[attr-defined]
    assert set(listed) <= set(dir(package))
    found = {name: getattr(package, name) for name in listed}
    # What a package says where its names come from is what type checkers see.
    for name, place in package._places.items():  # type: ignore[attr-defined]
        module, colon, attribute = place.partition(":")
        there = import_module(module)
        assert found[name] is (getattr(there, attribute) if colon else there)


def test_the_function_audit_stays_where_its_package_is_imported() -> None:
    program = (
        "import kinkcheck.measure.zones, kinkcheck, sys\n"
        "assert callable(kinkcheck.audit), kinkcheck.audit\n"
        "from kinkcheck import *\n"
        "assert audit is kinkcheck.audit is sys.modules['kinkcheck.audit'].audit\n"
        "assert nn is sys.modules['kinkcheck.nn']\n"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])},
        timeout=300,
        check=True,
    )


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("VGG-11", " did you mean 'vgg11'?"),
        ("hybird:3", " did you mean 'hybrid:BETA'?"),
        (16, " did you mean '16'?"),
        ("zzz", ""),
    ],
)
def test_nearest_name(given: object, nearest: str) -> None:
    complaint = errors.unknown("thing", given, ["vgg11", "hybrid:BETA", "16"])
    assert str(complaint) == f"unknown thing {given!r};{nearest} accepted: vgg11, hybrid:BETA, 16"
