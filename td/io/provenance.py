"""Provenance of a number: hardware, versions, date and commit."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")


def describe() -> dict[str, Any]:
    """Describe what this process runs on."""
    devices = jax.devices()
    return {
        "hardware": {
            "devices": f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})",
            "processor": processor(),
            "cores": os.cpu_count(),
        },
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
    }


def processor() -> str:
    """Name the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit() -> str:
    """The checkout's commit, with a + where tracked files have changed since; "unknown" outside a checkout."""
    checkout = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(checkout), "describe", "--always", "--exclude=*", "--abbrev=10", "--dirty=+"]
    if not (checkout / ".git").exists():
        return "unknown"
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
