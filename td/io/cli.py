"""The frame of every command line: the config it names, one clear line for a mistake, an exit code, no traceback."""

import errno
import functools
import hashlib
import logging
import os
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
import platformdirs
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags
from tqdm.contrib.logging import logging_redirect_tqdm

from td.errors import UserError, nearest
from td.io import provenance, signature
from td.io.interrupt import STOPPED, Stopped
from td.io.run_folder import SECTIONS, flatten

MISTAKE = 2  # exit code of a mistake in what the user gave
HELP = {"--help", "-help", "-h", "--helpshort", "--helpfull"}

PACKAGE = Path(__file__).resolve().parents[1]
CONFIGS = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parent / "configs"
"""Configs that came with `td`: next to it in a checkout, inside of it when installed."""


def config_flag() -> tuple[Path, str, dict[str, Any]]:
    """Take `--config=PATH:ARGUMENTS --config.SETTING=VALUE` apart, for commands that make several configs of it."""
    name, _, arguments = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    return Path(name), arguments, config_flags.get_override_values(flags.FLAGS["config"])


def command(main: Callable[..., None]) -> Callable[[], None]:
    """Make a command line of a function: flags from its signature, help from its docstring, one line for mistakes."""

    @functools.wraps(main)
    def run() -> None:
        if HELP & set(sys.argv[1:]):
            print(signature.help_text(main))
            return
        arguments = signature.define(main)
        own = logging.getLogger("td")
        own.setLevel(logging.INFO)
        own.propagate = False
        own.addHandler(logging.StreamHandler())
        keep_compiled()
        with logging_redirect_tqdm([own]):  # lines above the bars
            app.run(lambda argv: _guarded(lambda: main(**arguments(argv[1:]))), flags_parser=_parse)

    return run


def keep_compiled() -> None:
    """Let JAX keep what it compiles in the user's cache folder, unless a folder is configured already."""
    # One folder a processor: machines of several kinds may share a home, and code for one may not run on another.
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        processor = hashlib.sha256(provenance.processor().encode()).hexdigest()[:8]
        jax.config.update("jax_compilation_cache_dir", str(platformdirs.user_cache_path("td") / f"jax-{processor}"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def _guarded(action: Callable[[], None]) -> None:
    try:
        action()
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(STOPPED)
    except OSError as error:
        full = ": make room there, and rerun the same command" if error.errno == errno.ENOSPC else ""
        _fail(f"{error}{full}")
    except UserError as error:
        _fail(str(error))
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        reason = str(error).splitlines()[0]
        print(f"error: another host is gone: rerun the same command on all of them ({reason})", file=sys.stderr)
        sys.stderr.flush()
        os._exit(MISTAKE)  # JAX would wait minutes for that host to say goodbye
    except KeyboardInterrupt:
        _fail("interrupted: rerun the same command to resume from the last checkpoint", 130)


def _fail(message: str, code: int = MISTAKE) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        rest = flags.FLAGS(with_config(argv))
    except Exception as error:  # a config file runs its own code, and overrides fail in many types
        _fail(str(error))
    if not flags.FLAGS["verbosity"].present:
        absl_logging.set_verbosity(absl_logging.FATAL)  # Orbax shows errors with tracebacks before it raises them
    return rest


def with_config(argv: Sequence[str]) -> list[str]:
    """Find the config, and check its arguments and overrides, whose mistakes the flag library reports at length."""
    line = re.sub(r"(^|\0)--?config[=\0]", r"\1--config=", "\0".join(argv)).split("\0")
    chosen = [number for number, argument in enumerate(line) if argument.startswith("--config=")]
    if not chosen:
        return line
    name, colon, text = line[chosen[-1]].removeprefix("--config=").partition(":")
    if not name:
        raise UserError("--config is empty: give one of configs/*.py, such as --config=digits_resnet")
    path = find_config(name)
    line[chosen[-1]] = f"--config={path}{colon}{text}"
    made = _made(path, text)
    if not isinstance(made, ConfigDict) or any(section not in made for section in SECTIONS):
        raise UserError(f"{path} is not a config file: it needs a get_config(), see td.train.config.skeleton()")
    settings = flatten(made.to_dict())
    for flag in (argument.partition("=")[0].removeprefix("--") for argument in line if argument.startswith("--")):
        if not flag.startswith("config."):
            ends = [f"--config.{known}=" for known in settings if known.rpartition(".")[2] == flag]
            if ends and flag not in flags.FLAGS:  # --seed=1 instead of --config.seed=1
                raise UserError(f"unknown flag --{flag}: settings are given as {' or '.join(ends)}")
            continue
        setting = flag.removeprefix("config.")
        section = setting.rpartition(".")[0]
        if inner := [known for known in settings if known.startswith(f"{setting}.")]:
            raise UserError(f"{setting} is a section: set one of its settings, as --config.{inner[0]}")
        if setting not in settings:
            beside = [known for known in settings if known.rpartition(".")[0] == section] or list(settings)
            method = "; choose a method, as mask=targeted" if beside == ["mask.name"] else ""
            raise UserError(f"the config has no setting {setting!r}: {nearest(setting, beside)}{method}")
    return line


def _made(path: Path, text: str) -> Any:
    """Run a config file; its errors are reported with the line."""
    try:
        get_config = runpy.run_path(str(path)).get("get_config")
        return (get_config(text) if text else get_config()) if callable(get_config) else None
    except UserError:
        raise
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        if isinstance(error, SyntaxError) and error.filename == str(path):
            lines = [error.lineno]
        where = f"{path}, line {lines[-1]}" if lines else path
        raise UserError(f"{where}: {type(error).__name__}: {error}") from None


def find_config(name: str) -> Path:
    """Find a config: your own file, else one that came with this package, with or without folder and suffix."""
    path = Path(name)
    if path.is_file():
        return path
    shipped, own = CONFIGS / path.with_suffix(".py").name, path.parent.glob("*.py")
    if path.parent not in (Path(), Path("configs")):
        raise UserError(f"no config file {path}: {nearest(path.name, {file.name for file in own})}")
    if shipped.is_file():
        return shipped
    known = {file.name for file in own} | {file.name if path.suffix else file.stem for file in CONFIGS.glob("*.py")}
    raise UserError(f"no config file {path}: {nearest(path.name, known)}")
