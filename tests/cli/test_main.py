"""The command table: complete, light, and polite."""

import subprocess
import sys
from pathlib import Path

import pytest

import rorqual
from rorqual.cli import main as command_line

SOURCE = Path(command_line.__file__).parent


def run(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    program = ["-c", code] if code else ["-m", "rorqual.cli.main"]
    return subprocess.run(
        [sys.executable, *program, *arguments], capture_output=True, text=True, timeout=120
    )


def test_every_command_file_is_in_the_table_and_in_help() -> None:
    files = {path.stem for path in SOURCE.glob("*.py")} - {
        "__init__",
        "main",
        "options",
        "run_options",
    }
    assert {command.module.rsplit(".", 1)[1] for command in command_line.COMMANDS.values()} == files
    listed = run("--help").stdout
    for name, command in command_line.COMMANDS.items():
        assert name in listed and command.summary.split(",")[0][:30] in listed


def test_version_is_the_packages() -> None:
    assert run("--version").stdout == f"rorqual {rorqual.__version__}\n"


def test_help_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; sys.argv = ['rorqual', '--help']\n"
        "from rorqual.cli.main import main\n"
        "try:\n    main()\n"
        "finally:\n    assert not {'torch', 'numpy', 'tokenizers'} & sys.modules.keys()\n"
    )
    done = run(code=code)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


@pytest.mark.parametrize("arguments", [["nonsense"], ["plan"], ["plan", "v3", "--nonsense"]])
def test_usage_errors_exit_2(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_interrupt_is_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(verb: str | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "build_app", interrupted)
    monkeypatch.setattr("sys.argv", ["rorqual"])
    with pytest.raises(SystemExit) as stopped:
        command_line.main()
    assert stopped.value.code == 1
