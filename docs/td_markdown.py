"""A Sphinx extension for our Markdown: docstrings, and links to files outside of docs."""

import re
from itertools import groupby
from typing import Any


def convert(lines: list[str]) -> list[str]:
    """Write a docstring's code and tables as reStructuredText; all else stays.

    Example:
      >>> print("\\n".join(convert(["| a | b |", "|---|---|", "| 1 | 2 |"])).strip())
      .. list-table::
         :header-rows: 1
      <BLANKLINE>
         * - a
           - b
         * - 1
           - 2
      >>> convert(["As `td.prune_mask` with `scope='unit'`."])
      ["As :py:obj:`td.prune_mask` with ``scope='unit'``."]
    """
    lines = re.sub(r"(?<!`)`([^`]+)`(?!`)(?=(\w?))", _code, "\n".join(lines)).split("\n")
    out: list[str] = []
    for is_table, group in groupby(lines, lambda line: line.lstrip().startswith("|")):
        block = list(group)
        out += _list_table(block) if is_table else block
    return out


def _code(match: re.Match[str]) -> str:
    """A name of ours is a link, which Sphinx reports where it leads nowhere."""
    text, goes_on = match[1], "\\ " if match[2] else ""
    return f":py:obj:`{text}`{goes_on}" if re.fullmatch(r"td(\.\w+)+", text) else f"``{text}``{goes_on}"


def _list_table(lines: list[str]) -> list[str]:
    indent = " " * (len(lines[0]) - len(lines[0].lstrip()))
    rows: list[list[str]] = []
    for line in (line.strip() for line in lines):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            continue
        if rows and not cells[0]:  # a row goes on
            rows[-1] = [f"{above} {cell}".strip() for above, cell in zip(rows[-1], cells, strict=True)]
        else:
            rows.append(cells)
    table = [".. list-table::", "   :header-rows: 1", ""]
    for cells in rows:
        table += [f"   {'* -' if column == 0 else '  -'} {cell}" for column, cell in enumerate(cells)]
    return ["", *(indent + line if line else "" for line in table), ""]


def outside(text: str) -> str:
    """Let links to Markdown outside of docs, which is no page of the site, be downloads like those to other files.

    Example:
      >>> outside("[one](../results/a.md), [two](b.md), [three](../examples/c.py)")
      '[one](path:../results/a.md), [two](b.md), [three](../examples/c.py)'
    """
    return re.sub(r"\]\((\.\./(?:results|examples)/[^)]+\.md)\)", r"](path:\1)", text)


def setup(app: Any) -> dict[str, bool]:
    """Convert every docstring before napoleon reads it, and every page before it is parsed."""
    app.connect("autodoc-process-docstring", _convert_docstring, priority=100)
    app.connect("source-read", _convert_page)
    return {"parallel_read_safe": True}


def _convert_docstring(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    del app, what, name, thing, options
    lines[:] = convert(lines)


def _convert_page(app: Any, page: str, source: list[str]) -> None:
    del app, page
    source[0] = outside(source[0])
