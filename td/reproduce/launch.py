"""Doing the jobs of one or several tables, here or on a cluster; whatever is done already is left alone."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from td.errors import UserError, lookup
from td.files import replacing
from td.progress import progress
from td.reproduce.plan import Job, jobs, part
from td.reproduce.report import write_report
from td.reproduce.results import failure_path, state, write_plan
from td.reproduce.run import run_job
from td.reproduce.table import Table, load_table
from td.stop import Stopped
from td.workdir import Busy, flatten

LOG = logging.getLogger(__name__)


class Request(NamedTuple):
    """What is asked for on a command line.

    Attributes:
      configs: the folder of config files.
      tables: names of tables.
      folder: where everything goes.
      scale: one of `td.reproduce.plan.SCALES`.
      seeds: runs of each network.
      only: columns to restrict to.
      shard: "i/n", or empty for all.
      changes: settings to change, as text.
      note: on the data, for the reports.
      retry: whether to try failed runs again.
    """

    configs: Path
    tables: tuple[str, ...]
    folder: Path
    scale: str = "paper"
    seeds: int = 1
    only: tuple[str, ...] = ()
    shard: str = ""
    changes: Mapping[str, str] = {}
    note: str = ""
    retry: bool = False


def planned(request: Request) -> list[tuple[Table, Job]]:
    """The jobs of a request, all of its tables, before it is split into shards.

    Args:
      request: what is asked for.

    Returns:
      Each job with its table.

    Raises:
      UserError: an unknown table, column, scale or setting.
    """
    tables = {name: load_table(request.configs, name) for name in request.tables}
    columns = {column for table in tables.values() for column in table.columns()}
    for column in request.only:
        lookup(dict.fromkeys(columns), column, "column")
    found = []
    for name, table in tables.items():
        listed = jobs(request.configs, name, table, request.scale, request.seeds, request.only, request.changes)
        found += [(table, job) for job in listed]
    settings = {setting for _, job in found for setting in flatten(job.config.to_dict())}
    for setting in request.changes:
        lookup(dict.fromkeys(settings), setting, "setting")
    return found


def reproduce(request: Request) -> str:
    """Do what is asked for, one run after the other, and write the reports.

    Args:
      request: what is asked for.

    Returns:
      What became of it, for the screen.

    Raises:
      UserError: a bad request, or at least one run failed.
      Stopped: SIGTERM arrived; what was begun is saved.
    """
    found = planned(request)
    mine = _shard(found, request)
    for name in request.tables:
        write_plan(request.folder, name, request.scale, [job for _, job in found if job.table == name])
    try:
        counts = Counter(_do(table, job, request) for table, job in progress(mine, unit="run"))
    finally:
        written = [write_report(request.configs, request.folder, name) for name in request.tables]
    told = ", ".join(f"{count} {what}" for what, count in counts.items())
    text = "\n".join([f"runs: {told}", *map(str, written)])
    if counts["failed"]:
        LOG.info("%s", text)
        raise UserError(
            f"{counts['failed']} runs failed, as their .failed.txt files say: try again with --retry_failed"
        )
    return text


def _shard(found: Sequence[tuple[Table, Job]], request: Request) -> list[tuple[Table, Job]]:
    # A run that two tables share is one job for both, so that no two shards want its folder.
    runs = list(dict.fromkeys(job.run for _, job in found))
    mine = set(part(runs, request.shard))
    return [(table, job) for table, job in found if job.run in mine]


def _do(table: Table, job: Job, request: Request) -> str:
    before = state(request.folder, job.table, job.run)
    if before == "finished" or (before == "failed" and not request.retry):
        return before
    LOG.info("%s: %s, seed %d", job.table, job.network.column, job.seed)
    failure = failure_path(request.folder, job.table, job.run)
    try:
        run_job(job, table, request.folder, request.scale, request.note)
    except (Stopped, KeyboardInterrupt):
        raise
    except Busy:
        return "done elsewhere"
    except Exception as error:  # whatever goes wrong in one run, the others go on
        with replacing(failure) as temporary:
            temporary.write_text(f"{type(error).__name__}: {error}\n")
        LOG.error("%s failed: %s", job.run, " ".join(str(error).split()))
        return "failed"
    failure.unlink(missing_ok=True)
    return "done"


def submit(request: Request, shards: int, logs: Path, cluster: str, options: Mapping[str, str]) -> str:
    """Hand a request to a Slurm array, one task a shard.

    Args:
      request: what is asked for.
      shards: tasks of the array.
      logs: where their output goes.
      cluster: "slurm", or "local" to try it without one.
      options: of `submitit`'s executor, as `slurm_partition`.

    Returns:
      The numbers of the tasks, for the screen.

    Raises:
      UserError: submitit is not installed, or there is no Slurm.
    """
    try:
        import submitit
    except ImportError:
        raise UserError("--launcher=slurm needs submitit: pip install -e '.[slurm]'") from None
    planned(request)
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
        executor.update_parameters(name="td", **options)
        parts = [request._replace(shard=f"{number}/{shards}") for number in range(1, shards + 1)]
        submitted = executor.map_array(reproduce, parts)
    except (RuntimeError, TypeError, FileNotFoundError) as error:
        raise UserError(f"cannot submit: {error}") from None
    return "submitted: " + ", ".join(job.job_id for job in submitted)
