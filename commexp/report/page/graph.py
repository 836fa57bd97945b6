"""A topology as the page draws it with plotly: workers as dots, the wider a link the greater its weight."""

from __future__ import annotations

from typing import Any

import numpy as np

from commexp.report.graphs import Graph
from commexp.report.topology import LABELLED, in_inches, lay_out, links, read_weights, say_one_weight, short

INCH = 72.0
STUB = 0.3 * INCH  # the length by which a link sticks out that comes back on the other side of the picture


def drawing(graph: Graph) -> dict[str, Any]:
    """What graphs.js draws, and the text under it. Lengths are in CSS pixels, y upwards; graphs.js scales all of them
    to the width that the page has."""
    W = read_weights(graph.run)
    assert W is not None
    topology, ends = links(W)
    directed = topology.is_directed()
    weights = W[ends[:, 1], ends[:, 0]]
    places, around = lay_out(topology, ends)
    places, dot = in_inches(places, ends[~around], 0.85 if directed else 0.58, 0.0)
    places, dot = places * INCH, max(dot, 9.0)
    pad = dot / 2 + 4 + (STUB if around.any() else 0.0)
    own = 1 - W.sum(axis=1)
    one_weight = bool(np.ptp(weights) < 1e-9)
    widths = np.full(len(ends), 1.3) if one_weight else 0.6 + 2.2 * np.abs(weights) / np.abs(weights).max()
    caption = [graph.name, f"{len(ends)} links", *([say_one_weight(weights[0], own)] if one_weight else [])]
    return {
        "name": graph.name,
        "caption": "; ".join(caption),
        "methods": graph.methods,
        "size": (places.max(axis=0) + 2 * pad).tolist(),
        "pad": pad,
        "dot": dot,
        "directed": directed,
        "labelled": not directed and not one_weight and len(ends) <= LABELLED,
        "workers": [
            {"x": x, "y": y, "text": f"worker {n}: {short(own[n])} of itself"}
            for n, (x, y) in enumerate(places.round(1).tolist())
        ],
        "links": [
            {
                "ends": [n, m],
                **_line(places[n], places[m], leaves, directed, dot),
                "width": round(width, 1),
                "dashed": weight < 0,
                "weight": short(weight),
                "text": f"{n} {'to' if directed else 'and'} {m}: {short(weight)}",
            }
            for (n, m), leaves, weight, width in zip(ends.tolist(), around, weights.tolist(), widths, strict=True)
        ],
    }


def _line(start: np.ndarray, end: np.ndarray, leaves: bool, directed: bool, dot: float) -> dict[str, Any]:
    """``x`` and ``y`` of a link from dot to dot: of one line, or of two stubs with null between them."""
    along = (end - start) / np.linalg.norm(end - start)
    radius = along * dot / 2
    stops = [start + radius, end - radius]
    if leaves:
        stub = radius + along * STUB
        stops = [start - radius, start - stub, np.full(2, np.nan), end + radius, end + stub]
    elif directed:
        aside = np.array([along[1], -along[0]]) * min(3.0, dot / 6)  # the link back runs beside this one
        stops = [stop + aside for stop in stops]
    x, y = ([None if np.isnan(v) else round(v, 1) for v in column] for column in np.transpose(stops).tolist())
    return {"x": x, "y": y}
