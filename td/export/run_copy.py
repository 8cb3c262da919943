"""A copy of a run folder with its network alone, in half precision: small enough to be kept or sent."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from td.errors import UserError
from td.io import network_file, provenance
from td.io.files import write_json
from td.io.run_folder import portable, record
from td.train.experiment import load_trained
from td.train.score import make_evaluation


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `out`, which must be new or empty, if nothing goes wrong."""
    out = out.resolve()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder: choose another --out, or delete it first")
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        folder = Path(temporary) / out.name
        folder.mkdir()
        yield folder
        os.replace(folder, out)


def copy_run(workdir: Path, out: Path, command: str = "") -> str:
    """Write a run folder that `td-prune-curve`, `td-finetune` and `td-export` read; returns what to print."""
    with new_folder(out) as folder:
        run, state = load_trained(workdir)
        record(folder, portable(run.config), run.dataset.identity)
        network_file.write_network(folder, state._replace(opt_state=(), ema=()))
        both = (run, state), load_trained(folder)
        own, copied = (make_evaluation(each)(trained)[0].accuracy for each, trained in both)
        about = {"run": workdir.resolve().name, "accuracy_of_run": own, "accuracy": copied, "step": int(state.step)}
        write_json(folder / "network.json", {**about, "command": command, **provenance.describe()})
    return f"accuracy: {100 * own:.2f} % of the run, {100 * copied:.2f} % of its copy in float16, {out}"
