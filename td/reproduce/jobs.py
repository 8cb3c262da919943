"""The runs of the paper's tables: a config each, what is computed of it, and the plan of a folder."""

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import filelock
from ml_collections import ConfigDict

from td.errors import UserError, check_at_least, check_choice, lookup
from td.evaluate.curve_files import mode_settings
from td.evaluate.options import Options
from td.evaluate.prune_curve import prune_curve
from td.io import log, provenance
from td.io.files import read_json, write_json, write_text
from td.io.run_folder import flatten
from td.reproduce.report import write_report
from td.reproduce.results import published, result_path
from td.reproduce.table import Network, Request, Table, is_file_name, load_table, mode_of
from td.reproduce.table1 import measure_change
from td.sweep.executors import execute
from td.sweep.hyper import Settings
from td.sweep.launch import HERE, Launch
from td.sweep.point import Point, config_file, make_config, run_name
from td.train.config import weight_or_unit
from td.train.experiment import load_trained

SCALES = ("paper", "short", "small", "cpu", "smoke")

RECALIBRATION = {"paper": 20, "short": 20, "small": 8, "cpu": 4, "smoke": 1}  # batches of 500


class Job(NamedTuple):
    """One training run of one table."""

    about: dict[str, Any]  # what its result file says of it
    point: Point


def planned(request: Request) -> list[Job]:
    """List the jobs of a request."""
    if "seed" in request.changes:
        raise UserError("--set=seed would be that of every run: --seeds=3 trains seeds 0, 1 and 2")
    check_choice("scale", request.scale, SCALES)
    check_at_least("seeds", request.seeds, 1)
    tables = {Path(name).stem: load_table(request.configs, name) for name in request.tables}
    if len(tables) < len(request.tables):
        raise UserError("two tables have one name, and so one folder: give them one at a time, or rename one")
    columns = dict.fromkeys(column for table in tables.values() for column in table.columns())
    for column in request.only:
        lookup(columns, column, "column")
    for name in {name for table in tables.values() for name in table.published.values()}:
        published(name)  # a mistake shows before anything is trained
    found = [job for name, table in tables.items() for job in list_jobs(request, name, table)]
    settings = dict.fromkeys(setting for job in found for setting in flatten(job.point.config.to_dict()))
    for setting in request.changes:
        lookup(settings, setting, "setting")
    return found


def list_jobs(request: Request, name: str, table: Table) -> list[Job]:
    """List the runs of a table, the first seed of every column first."""
    networks = [network for network in table.networks if not request.only or network.column in request.only]
    found = [make_job(request, name, table, network, seed) for seed in range(request.seeds) for network in networks]
    for one, other in itertools.combinations((job.about for job in found), 2):
        if one["run"] == other["run"]:
            both = f"{one['column']!r} and {other['column']!r} of {name}"
            raise UserError(f"{both} are one run with --set and the numbers tuned at scale {request.scale}: drop one")
    return found


def make_job(request: Request, name: str, table: Table, network: Network, seed: int) -> Job:
    """Make one run of a table."""
    config = experiment(request, network, seed)
    run, rates = run_name(Path(network.config).name, config), network.rates
    own = {key: value for key, value in tuned(request, network).items() if key not in request.changes}
    about = {"table": name, "column": network.column, "rates": [*rates], "seed": seed, "scale": request.scale}
    about |= {"run": run, "note": request.data_note, "settings": {**network.settings}, "changes": {**request.changes}}
    about |= {"searched": own, "granularity": table.granularity}
    title = {"table": name, "column": network.column, "from %": f"{100 * rates[0]:g}", "seed": seed}
    folder, modes = request.folder / "runs" / run, modes_of(table, config.mask.name)
    about |= {"modes": modes, "reconstruct": request.reconstruct}
    asked = {key: about[key] for key in ("rates", "granularity", "modes", "reconstruct") if about[key]}
    action = partial(score, about, table, config, folder)
    scorings = 2 * len(modes) * len(rates)  # as trained and recalibrated
    return Job(about, Point(title, config, folder, result_path(request.folder, name, run), action, scorings, asked))


def tuned(request: Request, network: Network) -> Settings:
    """Return the settings that were tuned at a scale; they replace a column's own."""
    numbers = config_file(request.configs / f"{network.config}.py").get("TUNED", {}).get(request.scale, {})
    kind = weight_or_unit(network.settings.get("granularity", "weight"))
    return numbers.get((network.settings.get("mask"), kind), {})


def experiment(request: Request, network: Network, seed: int) -> ConfigDict:
    """Make the config of one run: its config file at a scale, the column's settings, then the command's changes."""
    skipped = tuned(request, network)
    settings = {name: value for name, value in network.settings.items() if name not in skipped}
    settings |= {"scale": request.scale, "seed": seed}
    return make_config(request.configs / f"{network.config}.py", settings, where_known=request.changes)


def modes_of(table: Table, method: str) -> list[str]:
    """List the modes that a network is scored in; dense always, for the report's telemetry."""
    return list(dict.fromkeys(["dense", *(mode_of(method, table.granularity, each) for each in table.scorings)]))


def score(about: Mapping[str, Any], table: Table, config: ConfigDict, folder: Path) -> None:
    """Score the trained network in a run folder, and write its result file."""
    trained, result = read_json(folder / "result.json"), result_path(folder.parents[1], about["table"], about["run"])
    watched = [line for line in log.read(folder) if "targets/changed" in line]
    content: dict[str, Any] = {
        **about,
        "training": {key: value for key, value in trained.items() if key != "config"},
        "config": trained["config"],
        "telemetry": [{key: line[key] for key in line if key == "step" or key[:8] == "targets/"} for line in watched],
    }
    if table.measure == "change_of_loss":
        content["change_of_loss"] = measure_change(folder, result)
    else:
        content["curves"] = {}
        for mode in about["modes"]:
            run, state = load_trained(folder, mode_settings(config.mask, mode), finished=True)
            options = scoring(about["scale"], table, mode, about["reconstruct"], bool(state.batch_stats))
            content["curves"][mode] = [row._asdict() for row in prune_curve(run, state, about["rates"], options)]
    write_json(result, content | provenance.describe())


def scoring(scale: str, table: Table, mode: str, reconstruct: bool, batch_norm: bool) -> Options:
    """Options of a table's prune curves."""
    # With dropout active every batch is one draw, and a few draws are not the mean over all of them.
    batches = RECALIBRATION[scale] * (10 if mode == "stochastic" and scale != "smoke" else 1)
    options = Options(table.granularity, mode, recalibrate_batch_norm=batch_norm, recalibration_batches=batches)
    options = options._replace(reconstruct=reconstruct and mode != "stochastic")
    return options._replace(bleu=True, beams=table.beams) if table.beams else options


def write_plan(request: Request, name: str, jobs: Sequence[Job]) -> None:
    """Add jobs to the request of a folder."""
    folder = request.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / ".plan.lock"):  # two commands may write at once
        path = folder / "plan.json"
        plan: dict[str, Any] = read_json(path) if path.exists() else {"scale": request.scale, "jobs": []}
        if plan["scale"] != request.scale:
            raise UserError(f"{folder} is of scale {plan['scale']}: give that --scale, or another folder")
        entries = {entry["run"]: entry for entry in plan["jobs"]}
        for about in (job.about for job in jobs):
            entry = {key: about[key] for key in ("column", "rates", "seed")}
            others = [known for run, known in entries.items() if run != about["run"]]
            cell = entry["column"], entry["seed"]
            if any((o["column"], o["seed"]) == cell and {*o["rates"]} & {*entry["rates"]} for o in others):
                raise UserError(f"{about['column']} is another run in {folder}: choose another folder")
            changes = {"changes": about["changes"]} if about["changes"] else {}
            entries[about["run"]] = {**entry, "run": about["run"], **changes}
        write_json(path, {"scale": request.scale, "jobs": list(entries.values())})


def reproduce(request: Request, launch: Launch = HERE) -> str:
    """Run the unfinished jobs of a request, and write the reports."""
    found = planned(request)
    for given in request.tables:
        name = Path(given).stem
        write_plan(request, name, [job for job in found if job.about["table"] == name])
        if is_file_name(given):  # its reports can be made again from this folder alone
            write_text(request.folder / name / f"{name}.py", Path(given).read_text())
    return execute([job.point for job in found], launch, partial(write_reports, request))


def write_reports(request: Request) -> str:
    """Write the report of every table; returns their files."""
    return "\n".join(str(write_report(request.configs, request.folder, name)) for name in request.tables)
