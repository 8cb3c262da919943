"""The command td-report."""

from pathlib import Path

from td.errors import UserError
from td.io import cli
from td.io.files import as_path


@cli.command
def main(names: list[str], out: str = "", x: str = "rate", tables: str = "", html: str = "") -> None:
    """Compare prune curves in one table and one picture, or on a page, or write the reports of td-reproduce again.

    Arguments are run folders, curve files (prune_curve-*.json) or, with --tables, names of tables; with --html also
    folders that contain results: of td-sweep, of td-reproduce, any.

    Examples:
      td-report --out=comparison.png runs/none runs/targeted
      td-report --out=latency.png --x=latency runs/none runs/targeted/prune_curve-unit-dense.json
      td-report --html=page.html runs/sweep
      td-report --tables=runs/paper table2_weight

    Flags:
      out: Picture of prune curves; .png, .pdf and .md are written.
      x: Horizontal axis: rate, latency (of one example), latency128, flops, parameters or bytes.
      html: One page with a chart and a table of every point, that needs no network.
      tables: Folder of td-reproduce, whose reports are written again: the named tables, else all.
    """
    if html and names:
        try:
            from td.evaluate.page import write_page
        except ImportError:
            raise UserError("--html needs Vega-Altair: pip install -e '.[html]'") from None
        print(write_page([Path(name) for name in names], Path(html)))
        return
    from td.evaluate.curve_files import compare
    from td.reproduce.report import write_report

    if tables:
        folder = Path(tables)
        found = names or sorted(path.parent.name for path in folder.glob("*/plan.json"))
        if not found:
            raise UserError(f"no tables in {folder}: run td-reproduce --workdir={folder} first")
        for name in found:
            print(write_report(cli.CONFIGS, folder, name))
        return
    if not out or not names:
        raise UserError("nothing to do: give --out=PICTURE.png and run folders or curves, --html=PAGE, or --tables=DIR")
    print(compare([as_path(name) for name in names], as_path(out), x))
