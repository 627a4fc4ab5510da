"""Figures of the report: drawn, then put into the page."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Colour-blind safe (Okabe & Ito 2008), in the order of the baselines' names.
COLOURS = ("#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
SURROGATE = "#0072B2"


def embed(figure: Figure, caption: str) -> str:
    """Return a figure as HTML, the picture in it; closes it."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    data = base64.b64encode(buffer.getvalue()).decode()
    text = html.escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )
