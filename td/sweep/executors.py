"""Where the points of a sweep run: in this process, in several, in one program, or on a cluster."""

import glob
import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any

import jax

from td.errors import UserError, check_at_least, extra, lookup
from td.io import cli, track
from td.io.interrupt import STOPPED, Stopped, listening
from td.io.run_folder import flatten
from td.sweep.board import Board, Unit
from td.sweep.launch import Launch, pairs
from td.sweep.point import Point, work
from td.train.devices import PLAIN
from td.train.population import VARIED, train_population

LOG = logging.getLogger(__name__)


def execute(points: Sequence[Point], launch: Launch, report: Callable[[], str]) -> str:
    """Run the points that are not finished, and write the report, whatever happens; returns what to print."""
    check_at_least("jobs", launch.jobs, 1)
    executor = lookup(EXECUTORS, launch.executor, "executor")
    track.check(launch.track)
    folders: dict[Any, list[Point]] = {}
    for point in points:
        if point.state() not in ("finished", *([] if launch.retry_failed else ["failed"])):
            folders.setdefault(point.folder, []).append(point)
    units = [*folders.values()]
    if executor is submit:
        return submit(units, launch, report)
    if executor is local and launch.jobs > 1:
        executor = side_by_side
    if executor in (side_by_side, on_ray):
        jax.config.update("jax_platforms", "cpu")  # this process computes nothing, and must not take a GPU's memory
    try:
        with listening() as stops, Board(units) as board:
            for ended in executor(units, launch):
                board.show(ended)
                if stops(0):
                    raise Stopped("the sweep")
    except BaseException:
        with suppress(UserError, OSError):  # the first error is the one to report
            report()
        raise
    counts = Counter(point.state() for point in points)
    text = f"runs: {', '.join(f'{count} {state}' for state, count in counts.items())}\n{report()}"
    if counts["failed"]:
        print(text)
        raise UserError(f"{counts['failed']} runs failed, see their .failed.txt files: try again with --retry_failed")
    return text


def local(units: Sequence[Unit], launch: Launch) -> Iterator[Sequence[Unit]]:
    """Run one unit after the other in this process."""
    for unit in units:
        work(unit, launch)
        yield [unit]


def side_by_side(units: Sequence[Unit], launch: Launch) -> Iterator[Sequence[Unit]]:
    """Run every unit in a process of its own, several at once. One that is killed has failed; the others go on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # imported once, not for every unit
    waiting, free = deque(units), [*range(launch.jobs)]
    running: dict[Any, tuple[Any, int, Unit]] = {}
    try:
        while waiting or running:
            while waiting and free:
                number, unit = free.pop(), waiting.popleft()
                process: Any = context.Process(target=_work_alone, args=(unit, launch, number))
                process.start()
                running[process.sentinel] = process, number, unit
            ended = [running.pop(sentinel) for sentinel in wait([*running], timeout=0.5)]
            for process, number, unit in ended:
                process.join()
                free.append(number)
                if process.exitcode not in (0, STOPPED, -signal.SIGTERM):
                    for point in unit:
                        point.fail(f"its process ended with exit code {process.exitcode}; -9: out of memory, or killed")
            yield [unit for _, _, unit in ended]
    finally:
        for process, *_ in running.values():
            process.terminate()
        for process, *_ in running.values():
            process.join()


def _work_alone(unit: Unit, launch: Launch, number: int) -> None:
    """Run a unit in a process that ends with its parent, on the number-th part of the machine."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's, which asks for an end by SIGTERM
    threading.Thread(target=_end_with_parent, daemon=True).start()
    share_machine(number, launch.jobs)
    try:
        _work_quietly(unit, launch)
    except Stopped:
        sys.exit(STOPPED)


def _work_quietly(unit: Unit, launch: Launch) -> None:
    cli.keep_compiled()
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # of Orbax, as in a command
    work(unit, launch)


def _end_with_parent() -> None:
    wait([multiprocessing.parent_process().sentinel])  # type: ignore[union-attr]
    os.kill(os.getpid(), signal.SIGTERM)


def share_machine(number: int, jobs: int) -> None:
    """Take a part of the cores, a GPU and a part of its memory, before JAX starts."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[number::jobs] or cores[number % len(cores) :][:1])
    gpus = [str(i) for i in range(len(glob.glob("/dev/nvidia[0-9]*")))]
    if gpus := list(filter(None, os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(gpus)).split(","))):
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{0.9 / -(-jobs // len(gpus)):.2f}")


def population(units: Sequence[Unit], launch: Launch) -> Iterator[Sequence[Unit]]:
    """Train networks that differ in numbers in one program, and others alone; then score each."""
    groups: dict[str, list[Unit]] = {}
    for unit in units:
        settings = {name: value for name, value in flatten(unit[0].config.to_dict()).items() if name not in VARIED}
        started = (unit[0].folder / "config.json").exists()  # is at another step than one that is to do
        groups.setdefault(json.dumps([settings, started]), []).append(unit)
    for group in groups.values():
        untrained = [unit[0] for unit in group if not (unit[0].folder / "result.json").exists()]
        try:
            if untrained:
                train_population({p.folder: p.config for p in untrained}, PLAIN._replace(track=launch.track))
        except Stopped:
            raise
        except Exception as error:
            LOG.warning("these networks are trained one by one, as %s", error)
        yield from local(group, launch)


def on_ray(units: Sequence[Unit], launch: Launch) -> Iterator[Sequence[Unit]]:
    """Run every unit as a task of a Ray cluster. One whose worker dies is tried elsewhere, from its checkpoint."""
    options, ray = pairs(launch.ray, "ray"), extra("ray", "--executor=ray")
    warnings.filterwarnings("ignore", message="os.fork")  # Ray starts other programs so
    ray.init(options.pop("address", None), log_to_driver=False)
    resources = {name: float(amount) for name, amount in options.items()}
    remote = ray.remote(_work_quietly).options(max_retries=3, **resources)
    running = {remote.remote(unit, launch): unit for unit in units}
    try:
        while running:
            ended = [(each, running.pop(each)) for each in ray.wait([*running], timeout=0.5)[0]]
            for reference, unit in ended:
                try:
                    ray.get(reference)
                except ray.exceptions.RayError as error:
                    for point in unit:
                        point.fail(f"{type(error).__name__}: {error}")
            yield [unit for _, unit in ended]
    finally:
        ray.shutdown()


def task(unit: Unit, launch: Launch, report: Callable[[], str]) -> None:
    """Run a unit as a task of a Slurm array. Asked to stop, it saves its state, and waits to be requeued or ended."""
    try:
        work(unit, launch)
    except Stopped:
        while True:
            signal.pause()
    report()


def _again(*arguments: Any) -> Any:
    import submitit

    return submitit.helpers.DelayedSubmission(task, *arguments)


task.checkpoint = _again  # type: ignore[attr-defined]  # submitit calls it before the time is over, and requeues the task


def submit(units: Sequence[Unit], launch: Launch, report: Callable[[], str]) -> str:
    """Submit the units as a Slurm array, one task each."""
    options, submitit = pairs(launch.slurm, "slurm"), extra("submitit", "--executor=slurm")
    if not units:
        return report()
    logs, cluster = units[0][0].folder.parents[1] / "slurm", options.pop("cluster", "slurm")
    given = {f"slurm_{name}": value for name, value in options.items()}
    try:
        executor = submitit.AutoExecutor(logs, cluster=cluster)
        executor.update_parameters(name="td", slurm_array_parallelism=launch.jobs, **given)
        submitted: list[Any] = executor.map_array(task, units, [launch] * len(units), [report] * len(units))
    except (RuntimeError, TypeError, FileNotFoundError) as error:
        raise UserError(f"cannot submit: {error}") from None
    return "submitted: " + ", ".join(job.job_id for job in submitted)


EXECUTORS: dict[str, Any] = {"local": local, "population": population, "ray": on_ray, "slurm": submit}
