"""A quarter of an hour of a GPU, used for what docs/gpu.md lists: most informative first, bounded, resumable."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from td.errors import UserError
from td.evaluate.timing import as_markdown
from td.io import log
from td.io.files import read_json, replacing, write_json, write_text
from td.io.interrupt import STOPPED, Stopped, listening

LIMIT = 16 * 2**20
"""Bytes of a file that is brought back."""

GRACE = 20.0
"""Seconds for a command to save its state after SIGTERM."""

COLUMNS = {"table2_weight": ("none", "targeted .66/.75", "targeted .75/.9"), "table2_unit": ("targeted .9/.75",)}

FINISHED, UNFINISHED, FAILED = "finished", "cut off", "failed"


class Item(NamedTuple):
    """Commands that run at once."""

    name: str
    share: float  # of the time that is left, relative to the items after it
    commands: Sequence[Sequence[str]]


def plan(scale: str, work: Path) -> list[Item]:
    """List the items, most informative first, with their shares in seconds of 14 minutes."""
    small = ["--network=digits ResNet", "--timing_repeats=1"] if scale == "smoke" else []
    one = [*(small or ["--network=ResNet-32"]), "--dtype=bfloat16", "--nobaselines"]
    shared = [f"--scale={scale}", f"--workdir={work / 'tables'}", "--seeds=1", "--retry_failed"]
    shared += ["--set=model.dtype=bfloat16"]
    columns = [(table, f"--only={column}") for table, names in COLUMNS.items() for column in names]
    return [
        Item("step", 100, [_command("bench", "--suite=training", f"--out={work / 'step'}", *one)]),
        Item("table2", 560, [_command("reproduce", *column, *shared) for column in columns]),
        Item("population", 80, [_command("bench", "--suite=populations", f"--out={work / 'population'}", *one)]),
        Item("suites", 100, [_command("bench", "--suite=training,compact,masks", f"--out={work / 'bench'}", *small)]),
    ]


def _command(name: str, *flags: str) -> list[str]:
    return [sys.executable, "-c", f"from td.commands.{name} import main; main()", *flags]


def gather(minutes: float, out: Path, before: Path, scale: str) -> str:
    """Run the items within the time. Returns the summary, and writes it to `out` with all that resuming needs."""
    end = time.monotonic() + 60 * minutes
    with TemporaryDirectory() as folder, listening() as stops:
        work = Path(folder)
        former = read_json(before / "evidence.json") if (before / "evidence.json").exists() else {"items": []}
        if former.get("scale", scale) != scale:
            raise UserError(f"{before} is of scale {former['scale']}: give that --scale, or another folder")
        for path in [*before.glob("results.tar"), *before.glob("checkpoint-*.tar")]:
            with tarfile.open(path) as archive:
                archive.extractall(work, filter="data")
        about = _about()
        done = {each["name"]: each for each in former["items"] if each["state"] == FINISHED}
        done = done if former.get("commit") == about["commit"] else {}
        left, text = [item for item in plan(scale, work) if item.name not in done], ""
        for number, item in enumerate(left):
            share = item.share / sum(later.share for later in left[number:])
            done[item.name] = _run(item, share * (end - time.monotonic()), work, stops)
            text = _write(out, work, {"minutes": minutes, "scale": scale, "items": [*done.values()], **about})
            if stops(0):
                raise Stopped(f"after {item.name}")
        return text or _write(out, work, {"minutes": minutes, "scale": scale, "items": [*done.values()], **about})


def _about() -> dict[str, Any]:
    """Describe the machine from another process: this one keeps off the device."""
    code = "import json; from td.io import provenance; print(json.dumps(provenance.describe()))"
    return dict(json.loads(subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE).stdout))


def _run(item: Item, seconds: float, work: Path, stops: Any) -> dict[str, Any]:
    """Run the commands of an item at once, and stop them at its limit."""
    start, grace, logs = time.monotonic(), min(GRACE, seconds / 4), work / "logs"
    logs.mkdir(exist_ok=True)
    with ExitStack() as stack:
        environment = stack.enter_context(_multi_process_service(len(item.commands) > 1))
        children, names = [], [f"{item.name}-{number}" for number in range(len(item.commands))]
        for name, command in zip(names, item.commands, strict=True):
            files = [stack.enter_context((logs / f"{name}.{kind}").open("w")) for kind in ("out", "err")]
            child = subprocess.Popen(command, stdout=files[0], stderr=files[1], env=environment)
            stack.callback(child.wait)
            stack.callback(child.kill)
            children.append(child)
        while any(child.poll() is None for child in children) and not stops(0):
            if time.monotonic() > start + seconds - grace:
                break
            time.sleep(0.1)
        cut = [child for child in children if child.poll() is None]
        for child in cut:
            child.terminate()
        while any(child.poll() is None for child in cut) and time.monotonic() < start + seconds:
            time.sleep(0.1)
    failed = [child not in cut and child.returncode not in (0, STOPPED) for child in children]
    errors = [(logs / f"{name}.err").read_text().strip() for name, bad in zip(names, failed, strict=True) if bad]
    return {
        "name": item.name,
        "state": FAILED if any(failed) else UNFINISHED if any(child.returncode for child in children) else FINISHED,
        "seconds": round(time.monotonic() - start, 1),
        "limit": round(seconds, 1),
        "errors": [(text.splitlines() or [""])[-1] for text in errors],
    }


@contextmanager
def _multi_process_service(wanted: bool) -> Iterator[Mapping[str, str]]:
    """Start NVIDIA's service where it is installed. Yields the environment of processes that share the device."""
    control, environment = shutil.which("nvidia-cuda-mps-control"), {**os.environ}
    if wanted:
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if not wanted or control is None:
        yield environment
        return
    with TemporaryDirectory() as folder:
        environment |= dict.fromkeys(("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"), folder)
        subprocess.run([control, "-d"], env=environment, check=True)
        try:
            yield environment
        finally:
            subprocess.run([control], input="quit\n", text=True, env=environment, check=False)


def _write(out: Path, work: Path, summary: dict[str, Any]) -> str:
    """Write archives of at most 16 MiB each, `evidence.json` and `evidence.md`."""
    tables = work / "tables"
    finished = {path.stem for path in tables.glob("table*/*.json")}
    kept: dict[str, list[Path]] = {"results": [path for path in work.rglob("*") if "checkpoints" not in path.parts]}
    for folder in tables.glob("runs/*/checkpoints"):
        steps = sorted((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
        if folder.parent.name not in finished and steps:
            kept[f"checkpoint-{folder.parent.name}"] = [steps[-1], *steps[-1].rglob("*")]
    for name, paths in kept.items():
        with replacing(out / f"{name}.tar") as path, tarfile.open(path, "w") as archive:
            for each in paths:
                archive.add(each, each.relative_to(work), recursive=False)
    for path in out.glob("checkpoint-*.tar"):
        if path.stem not in kept:
            path.unlink()
    summary["runs"] = [_state(path.parent) for path in sorted(tables.glob("runs/*/metrics.jsonl"))]
    summary["too large"] = [path.name for path in out.iterdir() if path.stat().st_size > LIMIT]
    text = _markdown(summary, work)
    write_json(out / "evidence.json", summary)
    write_text(out / "evidence.md", text)
    return text


def _state(run: Path) -> dict[str, Any]:
    """Describe how far a run is."""
    lines = log.read(run)
    found = {name: [line[name] for line in lines if name in line] for name in ("images_per_second", "eval/accuracy")}
    rate = float(np.median(found["images_per_second"] or [0.0]))
    accuracy = (found["eval/accuracy"] or [float("nan")])[-1]
    return {"run": run.name, "step": lines[-1]["step"] if lines else 0, "images a second": rate, "accuracy": accuracy}


def _markdown(summary: Mapping[str, Any], work: Path) -> str:
    rows = [{**each, "errors": "; ".join(each["errors"])} for each in summary["items"]]
    runs = [
        {**run, "images a second": f"{run['images a second']:,.0f}", "accuracy": f"{run['accuracy']:.4f}"}
        for run in summary["runs"]
    ]
    hardware = f"{summary['hardware']['devices']}, {summary['hardware']['processor']}"
    where = f"{hardware}; JAX {summary['versions']['jax']}; {summary['date']}; commit {summary['commit']}."
    where += f" Too large to bring back: {', '.join(summary['too large'])}." * bool(summary["too large"])
    reports = [path.read_text().strip() for path in sorted(work.glob("*/*.md"))]
    head = f"# {summary['minutes']:g} minutes, scale {summary['scale']}"
    return "\n\n".join([head, where, *map(as_markdown, filter(None, (rows, runs))), *reports]) + "\n"
