"""The `ssd` program: its list of commands, and what it passes on to them."""

import ast
import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

import ssd_tf
from ssd_tf import cli

ROOT = pathlib.Path(__file__).parents[1]


def run(*argv, **options):
    return subprocess.run(
        [sys.executable, *argv], capture_output=True, text=True, cwd=ROOT, **options
    )


def test_help_lists_every_command_and_imports_nothing_slow():
    code = (
        "import sys; from ssd_tf import cli; print(cli.main(['ssd', '--help']));"
        "print([name for name in ('tensorflow', 'numpy', 'pydantic') if name in sys.modules])"
    )
    done = run("-c", code)
    assert done.stderr == ""
    *lines, exit_code, imported = done.stdout.splitlines()
    assert (exit_code, imported) == ("0", "[]")
    for name, command in cli.COMMANDS.items():
        assert [line for line in lines if name in line and command.summary in line], name


def test_python_m_runs_a_command():
    done = run("-m", "ssd_tf", "convert", "coco", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--annotations" in done.stdout


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (["exprot"], "did you mean export?"),
        (["fit_boxes"], "did you mean fit-boxes?"),
        (["convert", "vcc"], "did you mean convert voc?"),
        (["convert"], "coco, voc, yolo, csv"),
        (["convert", "--images", "x"], "coco, voc, yolo, csv"),
        (["--data", "x"], "'--data'"),
    ],
)
def test_an_unknown_command_ends_with_2(capsys, argv, hint):
    assert cli.main(["ssd", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    assert hint in err


def test_help_of_convert_lists_its_formats(capsys):
    assert cli.main(["ssd", "convert", "--help"]) == 0
    assert "convert yolo" in capsys.readouterr().out


def test_without_a_command_the_list_is_shown(capsys):
    assert cli.main(["ssd"]) == 2
    assert "show-input" in capsys.readouterr().out


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_a_main_that_runs_as_a_module_too(name):
    spec = importlib.util.find_spec(cli.COMMANDS[name].module)
    source = pathlib.Path(spec.origin).read_text()
    functions = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    assert "main" in functions
    assert source.endswith('if __name__ == "__main__":\n    sys.exit(main())\n')


@pytest.mark.parametrize("name", ssd_tf.__all__)
def test_the_public_functions_exist(name):
    assert callable(getattr(ssd_tf, name))


def test_a_reader_that_leaves_ends_a_command_quietly():
    """`ssd --help | true`: neither a traceback nor an error, and the exit code of a broken pipe."""
    code = (
        "import os, sys\n"
        "reader, writer = os.pipe()\n"
        "os.dup2(writer, 1)\n"
        "os.close(writer)\n"
        "os.close(reader)\n"
        "from ssd_tf import cli\n"
        "sys.exit(cli.main(['ssd', *sys.argv[1:]]))\n"
    )
    for argv, unbuffered in (
        (["--help"], ""),
        (["import", "--list"], ""),
        (["import", "--list"], "1"),
    ):
        done = run("-c", code, *argv, env={**os.environ, "PYTHONUNBUFFERED": unbuffered})
        assert (done.returncode, done.stderr) == (141, ""), argv
