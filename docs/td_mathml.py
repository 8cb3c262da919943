"""A Sphinx extension that writes formulas as MathML, which browsers show by themselves: no script, no network."""

from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml


def formula(tex: str, block: bool) -> str:
    """A formula as MathML; a TeX command that docutils does not know is an error.

    Example:
      >>> "<mi>γ</mi>" in formula(r"\\gamma", block=False)
      True
    """
    return tex2mathml(tex, as_block=block).strip()


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer; `html_math_renderer` chooses it."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True}


def _inline(visitor: Any, node: Any) -> None:
    visitor.body.append(formula(node.astext(), block=False))
    raise nodes.SkipNode


def _block(visitor: Any, node: Any) -> None:
    visitor.body.append(f'<div class="math">{formula(node.astext(), block=True)}</div>')
    raise nodes.SkipNode
