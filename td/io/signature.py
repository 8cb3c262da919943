"""Command-line flags from the signature and the docstring of a function."""

import inspect
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

from absl import flags
from ml_collections import ConfigDict, config_flags

from td.errors import UserError
from td.io.files import as_path

REQUIRED = inspect.Parameter.empty
RARE = "Rarely needed"

DEFINE: dict[Any, Any] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    tuple: flags.DEFINE_multi_string,
    ConfigDict: config_flags.DEFINE_config_file,
}
"""Type of a parameter -> how its flag is defined; all others are strings."""


class Flag(NamedTuple):
    """One flag."""

    name: str
    kind: Any
    default: Any
    help: str
    rare: bool


def sections(docstring: str | None) -> dict[str, str]:
    """Split a docstring at its titles; what is before the first is named ""."""
    parts = re.split(r"^(\w[\w ]*):\n", inspect.cleandoc(docstring or ""), flags=re.MULTILINE)
    return {title: body.rstrip() for title, body in zip(["", *parts[1::2]], parts[::2], strict=True)}


def make_flag(name: str, kind: Any, default: Any, docstring: str | None) -> Flag:
    """Describe one flag from the docstring that has its help. Names that are Python words have a final underscore."""
    word, first = name.rstrip("_"), (get_args(kind) or (kind,))[0]
    for title, body in sections(docstring).items():
        if found := re.search(rf"^  {word}: (.*(?:\n    .*)*)", body, re.MULTILINE):
            plain = get_origin(kind) if get_origin(kind) is tuple else first
            return Flag(word, plain, default, " ".join(found[1].split()), title == RARE)
    raise LookupError(f"the docstring does not describe {word}")


def flags_of(main: Callable[..., Any]) -> dict[str, tuple[Any, list[Flag]]]:
    """Map every parameter to its type and flags: of a NamedTuple all fields that `Annotated` does not name."""
    found, hints = {}, get_type_hints(main, include_extras=True)
    for name, parameter in inspect.signature(main).parameters.items():
        kind, *left_out = get_args(hints[name]) if get_origin(hints[name]) is Annotated else [hints[name]]
        if hasattr(kind, "_fields"):
            fields = {field: of for field, of in get_type_hints(kind).items() if field not in left_out}
            found[name] = kind, [make_flag(f, of, kind._field_defaults[f], kind.__doc__) for f, of in fields.items()]
        else:
            positional = get_origin(kind) is list
            found[name] = kind, [] if positional else [make_flag(name, kind, parameter.default, main.__doc__)]
    return found


def define(main: Callable[..., Any]) -> Callable[[list[str]], dict[str, Any]]:
    """Define the flags of a function; returns `words that are no flags -> arguments`, for after they are parsed."""
    found = flags_of(main)
    for flag in (flag for _, defined in found.values() for flag in defined):
        required = flag.default is REQUIRED
        default = None if required else str(flag.default) if isinstance(flag.default, Path) else flag.default
        DEFINE.get(flag.kind, flags.DEFINE_string)(flag.name, default, flag.help)
        if required and flag.kind is not ConfigDict:
            flags.mark_flag_as_required(flag.name)

    def arguments(words: list[str]) -> dict[str, Any]:
        if words and not any(not defined for _, defined in found.values()):
            raise UserError(f"{words[0]!r} is not a flag: flags begin with --")
        given: dict[str, Any] = {}
        for name, (kind, defined) in found.items():
            values = {flag.name: _value(flag) for flag in defined}
            if hasattr(kind, "_fields"):
                given[name] = kind(**{**dict.fromkeys(kind._fields), **kind._field_defaults, **values})
            else:
                given[name] = next(iter(values.values()), words)
        return given

    return arguments


def _value(flag: Flag) -> Any:
    value: Any = flags.FLAGS[flag.name].value
    if flag.kind is ConfigDict and value is None:
        raise UserError("no --config: give one of configs/*.py, such as --config=digits_resnet")
    if flag.kind is Path and not str(value):
        raise UserError(f"--{flag.name} is empty: give a path, or --{flag.name}=. for this folder")
    return tuple(value or ()) if flag.kind is tuple else as_path(value) if flag.kind is Path else value


def help_text(main: Callable[..., Any]) -> str:
    """Format the help of a command: what it does, examples, everyday flags, and those that are rarely needed."""
    about, every = sections(main.__doc__), [flag for _, defined in flags_of(main).values() for flag in defined]
    parts = [about[""], f"Examples:\n{about['Examples']}"]
    for title, rare in (("Flags", False), (RARE, True)):
        chosen = [flag for flag in every if flag.rare == rare]
        shown = [f"  {_usage(flag)}\n{textwrap.indent(textwrap.fill(flag.help), ' ' * 6)}" for flag in chosen]
        parts += ["\n".join([f"{title}:", *shown])] if shown else []
    return "\n\n".join(parts)


def _usage(flag: Flag) -> str:
    if flag.kind is bool:
        return f"--[no]{flag.name}"
    if flag.default is REQUIRED:
        return f"--{flag.name}={flag.name.upper()} (required)"
    return f"--{flag.name}={'' if flag.default in (None, ()) else flag.default}"
