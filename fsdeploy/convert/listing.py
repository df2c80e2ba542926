"""Installed convert plugins and their options as text: for `--list-plugins` and for docs/convert.md."""

from __future__ import annotations

from collections.abc import Iterator

from fsdeploy.config.option import OptionSpec, specs
from fsdeploy.convert import plugin
from fsdeploy.convert.plugin import KINDS


def plugin_lines() -> Iterator[str]:
    """Kind, plugin and each option with its default, range or choices, and help."""
    for kind in KINDS:
        for name, loaded in plugin.usable(kind).items():
            yield f"{kind}.{name}: {loaded.describe()}"
            for option, (_, default, spec) in specs(loaded.Options).items():
                yield f"    {kind}.{name}.{option}={default!s:<12} {allowed(spec)}{spec.help}"


def plugin_tables() -> Iterator[str]:
    """The same as Markdown."""
    for kind in KINDS:
        for name, loaded in plugin.usable(kind).items():
            yield f"\n**`{kind}.{name}`** {loaded.describe()}\n"
            options = specs(loaded.Options)
            if options:
                yield "| option | default | values | meaning |\n|---|---|---|---|"
            for option, (_, default, spec) in options.items():
                shown = default if default != "" else '""'
                yield f"| `{option}` | {shown} | {allowed(spec).strip(' []') or 'any'} | {spec.help} |"


def allowed(spec: OptionSpec) -> str:
    """What an option accepts, "[...] " or nothing."""
    if spec.choices is not None:
        return f"[{', '.join(map(str, spec.choices))}] "
    if spec.minimum is not None or spec.maximum is not None:
        return f"[{spec.minimum}..{spec.maximum}] "
    return ""
