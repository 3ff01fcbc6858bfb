import pytest


@pytest.fixture
def fails(capsys):
    """A function: calls a command that must end with `code` and one line on stderr; gives that line."""

    def call(main, *argv, code):
        capsys.readouterr()
        assert main(["command", *map(str, argv)]) == code
        out, err = capsys.readouterr()
        lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
        assert len(lines) == 1, err
        assert lines[0].startswith("error: ")
        assert "Traceback" not in out + err
        return lines[0]

    return call
