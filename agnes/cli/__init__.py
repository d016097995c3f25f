"""The command line: a module per command, no logic; nothing here imports torch before a command needs it."""

from __future__ import annotations

import errno
import os
import sys
import warnings

import typer

from agnes.cli import apply, doctor, inspect, plugins, repair, run, schema
from agnes.cli.commands import Commands
from agnes.errors import AgnesError, OutputError, UsageError
from agnes.text import printable

_COMMAND_ERROR: type[Exception] = typer.BadParameter.__mro__[2]  # what typer raises for a wrong command line
INTERRUPTED = 130

app = typer.Typer(
    cls=Commands,
    help="Find, show and remove backdoors in trained image classifiers.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        import agnes

        print(f"agnes {agnes.__version__}")
        raise typer.Exit


for module in (run, repair, inspect, apply, plugins, doctor, schema):
    app.command(module.NAME)(module.command)


def main() -> None:
    """Run the command and leave with its exit code; whatever goes wrong is one line."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    sys.exit(invoke())


def invoke(arguments: list[str] | None = None) -> int:
    """The exit code of a command line; its errors are told on standard error."""
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="agnes", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except AgnesError as error:
        return _fail(str(error), error.exit_code)
    except _COMMAND_ERROR as error:
        return _fail(error.format_message(), UsageError.exit_code)  # type: ignore[attr-defined]
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted", INTERRUPTED)
    except OSError as error:
        return _unwritten(error)
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and isinstance(error.__context__, OSError):  # how typer ends on a closed pipe
            return _unwritten(error.__context__)
        if os.environ.get("AGNES_DEBUG"):
            raise
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        return _fail(f"internal error: {reason}; AGNES_DEBUG=1 shows where", AgnesError.exit_code)


def _unwritten(error: OSError) -> int:
    """Nothing failed where whoever read our output has gone; anything else, as a full disk, is told."""
    if error.errno != errno.EPIPE:
        return _fail(f"the output cannot be written: {error.strerror or error}", OutputError.exit_code)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _fail(message: str, code: int) -> int:
    print(f"agnes: {printable(' '.join(message.split()), 2000)}", file=sys.stderr)
    return code
