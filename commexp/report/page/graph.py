"""A topology as an inline picture: workers as dots, the wider a link the greater its weight."""

from __future__ import annotations

from html import escape

import numpy as np

from commexp.report.graphs import Graph
from commexp.report.topology import LABELLED, in_inches, lay_out, links, read_weights, say_one_weight, short

INCH = 72.0
STUB = 0.3  # inches that a link sticks out which comes back on the other side


def graph_figure(graph: Graph) -> str:
    W = read_weights(graph.run)
    assert W is not None
    drawn, ends = links(W)
    directed = drawn.is_directed()
    weights = W[ends[:, 1], ends[:, 0]]
    places, around = lay_out(drawn, ends)
    places, dot = in_inches(places, ends[~around], 0.85 if directed else 0.58, 0.0)
    size, dot = len(places), max(dot, 9.0)
    places = (places * [1, -1] - (places * [1, -1]).min(axis=0)) * INCH
    pad = dot / 2 + 4 + (STUB * INCH if around.any() else 0.0)
    across, down = places.max(axis=0) + 2 * pad
    one_weight = bool(np.ptp(weights) < 1e-9)
    widths = np.full(len(ends), 1.3) if one_weight else 0.6 + 2.2 * np.abs(weights) / np.abs(weights).max()
    lines = [
        _link(places, n, m, leaves, weight, width, directed, dot)
        for (n, m), leaves, weight, width in zip(ends, around, weights, widths, strict=True)
    ]
    own = 1 - W.sum(axis=1)
    dots = [_worker(n, x, y, dot, own[n]) for n, (x, y) in enumerate(places)]
    if not directed and not one_weight and len(ends) <= LABELLED:
        dots += [
            _weight(places[n], places[m], w) for (n, m), out, w in zip(ends, around, weights, strict=True) if not out
        ]
    told = [graph.name, f"{len(ends)} links", *([say_one_weight(weights[0], own)] if one_weight else [])]
    arrow = (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
        'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 1 8 4 0 7z"/></marker></defs>'
    )
    return (
        f'<figure class="graph"><svg viewBox="{-pad:.1f} {-pad:.1f} {across:.1f} {down:.1f}" role="img" '
        f'style="max-width:{max(across, 160) * 1.2:.0f}px" aria-label="{escape(told[0])}, {size} dots">'
        f"{arrow if directed else ''}{''.join(lines)}{''.join(dots)}</svg>"
        f"<figcaption><b>{escape('; '.join(told))}</b><br>{escape(', '.join(graph.methods))}</figcaption></figure>"
    )


def _link(
    places: np.ndarray, n: int, m: int, leaves: bool, weight: float, width: float, directed: bool, dot: float
) -> str:
    """From n, who sends, to m."""
    along = (places[m] - places[n]) / np.linalg.norm(places[m] - places[n])
    strokes = [(places[n], places[m])]
    if leaves:
        out = along * (dot / 2 + STUB * INCH)
        strokes = [(places[n], places[n] - out), (places[m], places[m] + out)]
    elif directed:
        aside = np.array([-along[1], along[0]]) * min(3.0, dot / 6)  # there and back side by side
        strokes = [(places[n] + aside + along * dot / 2, places[m] + aside - along * dot / 2)]
    look = f'stroke-width="{width:.2f}"' + (' stroke-dasharray="4 3"' if weight < 0 else "")
    look += ' marker-end="url(#arrow)"' if directed else ""
    told = f"{n} to {m}: {short(weight)}" if directed else f"{n} and {m}: {short(weight)}"
    path = "".join(f"M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}" for a, b in strokes)
    return f'<path class="link" data-ends="{n} {m}" d="{path}" {look}><title>{told}</title></path>'


def _worker(n: int, x: float, y: float, dot: float, own: float) -> str:
    size = min(11.0, 0.5 * dot)
    number = f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:.1f}">{n}</text>' if size > 6 else ""
    told = f"<title>worker {n}: {short(own)} of itself</title>"
    return (
        f'<g class="worker" data-worker="{n}"><circle cx="{x:.1f}" cy="{y:.1f}" r="{dot / 2:.1f}"/>{number}{told}</g>'
    )


def _weight(a: np.ndarray, b: np.ndarray, weight: float) -> str:
    x, y = (a + b) / 2
    return f'<text class="weight" x="{x:.1f}" y="{y:.1f}">{short(weight)}</text>'
