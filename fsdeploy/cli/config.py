"""`fsdeploy config`: write, check and show configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fsdeploy.cli.json_output import json_text

if TYPE_CHECKING:
    from fsdeploy.config.file import OptionValues


@click.group()
def config() -> None:
    """Write or check a configuration file for the option --config of train and convert.

    \b
    Examples:
      fsdeploy config init -o options.toml
      fsdeploy config check options.toml
      fsdeploy config show options.toml --json
    """


@config.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write. [default: to the terminal]")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def init(output: Path | None, force: bool) -> None:
    """Write a file that names and explains every option, those of all model and convert plugins included.

    \b
    Examples:
      fsdeploy config init -o options.toml
    """
    from fsdeploy.config.file import write_commented
    from fsdeploy.convert.settings import option_tables
    from fsdeploy.files import write_text
    from fsdeploy.training.setup import known_plugins

    text = write_commented(known_plugins(), option_tables())
    if output is None:
        click.echo(text, nl=False)
        return
    write_text(output, text, overwrite=force)
    click.echo(f"wrote {output}", err=True)


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Say whether every section, option and value of a file is valid.

    \b
    Examples:
      fsdeploy config check options.toml
    """
    values = _read(file)
    count = len(values.training) + sum(map(len, [*values.plugins.values(), *values.more.values()]))
    click.echo(f"{file}: {count} options, all valid")


@config.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def show(file: Path | None, as_json: bool) -> None:
    """Show every option with its value, default, range and meaning, with or without a file.

    \b
    Examples:
      fsdeploy config show
      fsdeploy config show options.toml --json
    """
    from fsdeploy.config.file import OptionValues, describe, option_rows
    from fsdeploy.convert.settings import option_tables
    from fsdeploy.training.setup import known_plugins

    rows = option_rows(OptionValues() if file is None else _read(file), known_plugins(), option_tables())
    if as_json:
        click.echo(json_text([row.as_json() for row in rows]))
        return
    from itertools import groupby

    from rich.table import Table
    from rich.text import Text

    from fsdeploy.terminal import console

    screen = console()
    for section, of_section in groupby(rows, key=lambda row: row.section):
        table = Table(title=f"[{section}]", title_justify="left")
        table.add_column("option", no_wrap=True)
        table.add_column("value", overflow="fold", min_width=12)
        table.add_column("meaning", overflow="fold", ratio=1)
        for row in of_section:
            is_set = row.value != row.default
            value = Text(f"{row.value} (default {row.default})" if is_set else str(row.value), "bold" if is_set else "")
            table.add_row(row.name, value, f"{row.spec.help} {describe(row.kind, row.spec)}".strip())
        screen.print(table)


def _read(file: Path) -> OptionValues:
    """Every option of a file, checked, those of convert plugins included."""
    from fsdeploy.config.file import read_file
    from fsdeploy.convert.settings import parse_values
    from fsdeploy.training.setup import known_plugins

    values = read_file(file, known_plugins())
    values.more = {f"convert.{plugin}": given for plugin, given in parse_values((), file).items()}
    return values
