"""Doing the jobs of one or several tables, here or on a cluster; whatever is done already is left alone."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from td.errors import UserError, lookup
from td.io.files import replacing
from td.io.interrupt import Stopped, listening
from td.io.progress import progress
from td.io.run_folder import Busy, flatten
from td.reproduce.jobs import Job, list_jobs, part_of
from td.reproduce.report import write_report
from td.reproduce.request import Request
from td.reproduce.results import failure_path, progress_of, write_plan
from td.reproduce.run_job import result_path, run_job
from td.reproduce.table import Table, load_table

LOG = logging.getLogger(__name__)


def planned(request: Request) -> list[tuple[Table, Job]]:
    """The jobs of a request, all of its tables, before it is split into parts."""
    tables = {name: load_table(request.configs, name) for name in request.tables}
    columns = {column for table in tables.values() for column in table.columns()}
    for column in request.only:
        lookup(dict.fromkeys(columns), column, "column")
    found = []
    for name, table in tables.items():
        listed = list_jobs(request.configs, name, table, request.scale, request.seeds, request.only, request.changes)
        found += [(table, job) for job in listed]
    if "seed" in request.changes:
        raise UserError("--set=seed would be that of every run: --seeds=3 trains seeds 0, 1 and 2")
    settings = {setting for _, job in found for setting in flatten(job.config.to_dict())}
    for setting in request.changes:
        lookup(dict.fromkeys(settings), setting, "setting")
    return found


def reproduce(request: Request) -> str:
    """Do what is asked for, one run after the other, and write the reports."""
    found = planned(request)
    mine = _part(found, request)
    for name in request.tables:
        write_plan(request.folder, name, request.scale, [job for _, job in found if job.table == name])
    try:
        counts = _do_all(mine, request)
    except BaseException:
        with suppress(UserError, OSError):  # the first error is the one to tell
            _write_reports(request)
        raise
    written = _write_reports(request)
    counted = ", ".join(f"{count} {what}" for what, count in counts.items())
    text = "\n".join([f"runs: {counted}", *map(str, written)])
    if counts["failed"]:
        LOG.info("%s", text)
        raise UserError(
            f"{counts['failed']} runs failed, as their .failed.txt files say: try again with --retry_failed"
        )
    return text


def _do_all(mine: Sequence[tuple[Table, Job]], request: Request) -> Counter[str]:
    counts: Counter[str] = Counter()
    with listening() as stops:
        for table, job in progress(mine, unit="run"):
            counts[_do(table, job, request)] += 1
            if stops(0):
                raise Stopped(f"after {job.run}")
    return counts


def _write_reports(request: Request) -> list[Path]:
    return [write_report(request.configs, request.folder, name) for name in request.tables]


def _part(found: Sequence[tuple[Table, Job]], request: Request) -> list[tuple[Table, Job]]:
    # A run that two tables share is one job for both, so that no two parts want its folder.
    runs = list(dict.fromkeys(job.run for _, job in found))
    mine = set(part_of(runs, request.part))
    return [(table, job) for table, job in found if job.run in mine]


def _do(table: Table, job: Job, request: Request) -> str:
    before = progress_of(request.folder, job.table, job.run)
    if before == "damaged":
        LOG.warning("%s is damaged: it is made anew", result_path(request.folder, job))
    if before == "finished" or (before == "failed" and not request.retry_failed):
        return before
    LOG.info("%s: %s, seed %d", job.table, job.network.column, job.seed)
    failure = failure_path(request.folder, job.table, job.run)
    try:
        run_job(job, table, request.folder, request.scale, request.data_note)
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


def submit(request: Request, parts: int, logs: Path, cluster: str, options: Mapping[str, str]) -> str:
    """Hand a request to a Slurm array, one task a part; `options` are of submitit's executor."""
    try:
        import submitit
    except ImportError:
        raise UserError("--launcher=slurm needs submitit: pip install -e '.[slurm]'") from None
    planned(request)
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
        executor.update_parameters(name="td", **options)
        requests = [request._replace(part=f"{number}/{parts}") for number in range(1, parts + 1)]
        submitted = executor.map_array(reproduce, requests)
    except (RuntimeError, TypeError, FileNotFoundError) as error:
        raise UserError(f"cannot submit: {error}") from None
    return "submitted: " + ", ".join(job.job_id for job in submitted)
