"""The command line: one file per command, imported only when that command runs, so that help stays quick."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import suppress
from typing import NoReturn

import click

from fsdeploy import __version__
from fsdeploy.errors import FsdeployError
from fsdeploy.terminal import guarded_streams

# Before click 8.2 a group prints its help itself.
_NO_COMMAND: type[click.UsageError] | tuple[()] = getattr(click.exceptions, "NoArgsIsHelpError", ())

# command: (module that holds a click command of the same name with "-" as "_", one line for the list)
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("fsdeploy.cli.demo", "Run the whole chain on drawn faces: train, export, convert, check."),
    "train": ("fsdeploy.cli.train", "Train a swap model on two folders of faces."),
    "add-headers": ("fsdeploy.cli.add_headers", "Make faces from before 2021 usable, by their alignments file."),
    "preview-data": ("fsdeploy.cli.preview_data", "Write a contact sheet of what the model is fed."),
    "export": ("fsdeploy.cli.export", "Export one direction of a model folder as ONNX."),
    "convert": ("fsdeploy.cli.convert", "Swap faces in a video or a folder of images."),
    "join": ("fsdeploy.cli.join", "Join the parts of a sharded conversion."),
    "migrate": ("fsdeploy.cli.migrate", "Turn a legacy Keras model into a model folder."),
    "inspect": ("fsdeploy.cli.inspect", "Say what a file or folder is: a model, faces, a video, a report."),
    "check": ("fsdeploy.cli.check", "Check an exported file against the rules of the apps that run it."),
    "bench": ("fsdeploy.cli.bench", "Measure an exported file on the execution providers of this machine."),
    "restore": ("fsdeploy.cli.restore", "Bring back a backup or a snapshot of a model folder."),
    "config": ("fsdeploy.cli.config", "Write or check a configuration file."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are run; the list of commands imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"No such command '{args[0]}'.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fsdeploy")
def cli() -> None:
    """Train face-swap models in torch, deploy them as ONNX.

    \b
    Examples:
      fsdeploy demo
      fsdeploy train -A faces_a -B faces_b -m my_model
      fsdeploy export my_model -o a2b.onnx
      fsdeploy convert -m a2b.onnx -i clip.mp4 -o swapped.mp4
    """


def main() -> NoReturn:
    """Entry point of the `fsdeploy` command: a user's error becomes one line and its exit code."""
    with guarded_streams():
        _run()


def _run() -> NoReturn:
    try:
        result = cli(standalone_mode=False)
    except FsdeployError as error:
        _fail(str(error), error.exit_code)
    except _NO_COMMAND as error:  # a command of commands, typed alone: its help
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("stopped", 130)
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        _fail(f"{named}{error.strerror or error}", 2)
    except Exception as error:
        if os.environ.get("FSDEPLOY_DEBUG"):
            raise
        _fail(f"internal error ({type(error).__name__}: {error}); set FSDEPLOY_DEBUG=1 to see where", 70)
    sys.exit(result if isinstance(result, int) else 0)


def _fail(message: str, exit_code: int) -> NoReturn:
    with suppress(OSError):  # nobody may be there to read it: the exit code says it as well
        click.echo("Error: " + " ".join(message.split()), err=True)
    sys.exit(exit_code)
