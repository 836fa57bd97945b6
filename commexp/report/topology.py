"""Who is linked to whom and with which weight, from topology.csv."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib
import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.ticker import MaxNLocator

from commexp.report.style import compact, figure, save
from commexp.run_folder import Run

WORKERS = 200
LABELLED = 24  # links with their weights written on them
CLEAR = 24  # workers up to which no link passes behind another worker
LARGEST = 7.0  # inches
GREY = "0.55"
NODE = "#4e5a68"  # no method's colour: a graph may be that of several
CUBE = {  # where a binary digit leads: in perspective; in the plane that shows four dimensions without an overlap
    8: np.array([[1.0, 0.0], [0.0, -1.0], [0.42, 0.38], [0.0, 0.0]]),
    16: np.array([[math.cos(i * math.pi / 4), math.sin(i * math.pi / 4)] for i in range(4)]),
}
SEQUENCE = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0.82, 0.0, 256)))


def draw_topology(run: Run, path: Path) -> list[Path]:
    """topology.csv, columns ``worker``, ``neighbour``, ``weight``: ``worker`` takes so much of what ``neighbour``
    sends; of a graph that changes, the mean over its period. What a worker takes of itself is what is missing to 1.

    The wider a link, the greater its weight, which is written on it where there are at most 24; else above the picture
    if all are the same, or in colours. Weights that differ by direction become arrows, and negative ones dashes. Draws
    nothing for more than 200 workers, or one alone.
    """
    W = read_weights(run)
    if W is None:
        return []
    graph, ends = links(W)
    directed = graph.is_directed()
    weights = W[ends[:, 1], ends[:, 0]]
    numbered = not directed and len(ends) <= LABELLED
    places, around = lay_out(graph, ends)
    places, dot = in_inches(places, ends[~around], 0.85 if directed else 0.58, 0.92 if numbered else 0.0)
    one_weight = bool(np.ptp(weights) < 1e-9)
    coloured = not numbered and not one_weight
    scale = ScalarMappable(Normalize(weights.min(), weights.max()), SEQUENCE)
    colours = [*scale.to_rgba(weights)] if coloured else [GREY] * len(ends)
    thin, wide = (0.8, 2.6) if numbered else (0.4, 1.8 if coloured and len(ends) <= 200 else 1.2)
    widths = thin + (wide - thin) * np.abs(weights) / np.abs(weights).max()
    pad = dot / 144 + 0.04 + (0.3 if around.any() else 0.0)
    width, height = places.max(axis=0) + 2 * pad
    titled = one_weight and not numbered
    with figure(1, 1, max(width, 2.6) + 0.9 * coloured, height + 0.1 + 0.2 * titled) as (made, (axis,)):
        axis.set(xlim=(-pad, width - pad), ylim=(-pad, height - pad), aspect="equal")
        axis.axis("off")
        _draw_links(axis, places, ends, around, directed, dot, colours, widths, weights)
        axis.scatter(places[:, 0], places[:, 1], s=dot**2, color=NODE, edgecolors="white", linewidths=0.8, zorder=3)
        own = 1 - W.sum(axis=1)
        _write_workers(axis, places, own, dot)
        if numbered:
            _write_weights(axis, places, ends, around, weights, dot / 72)
        elif coloured:
            bar = made.colorbar(scale, ax=axis, label="weight", pad=0.02, shrink=0.7)
            bar.ax.yaxis.set_major_locator(MaxNLocator(5))
        elif titled:
            axis.set_title(say_one_weight(weights[0], own))
        return save(made, path)


def read_weights(run: Run) -> np.ndarray | None:
    """[N, N] of topology.csv, without what workers take of themselves; None for more than 200 of them, or where
    nobody has a neighbour. Raises OSError or ValueError for a file that cannot be read."""
    table = run.table("topology")
    if not len(table.columns):
        return None
    numbers = table[["worker", "neighbour", "weight"]].to_numpy(float)
    if not (np.abs(numbers) < 1e12).all() or (numbers[:, :2] < 0).any() or (numbers[:, :2] % 1).any():
        raise ValueError("a line is no two workers and a weight")
    size = int(table[["worker", "neighbour"]].to_numpy().max(initial=0)) + 1
    if not 1 < size <= WORKERS:
        return None
    W = np.zeros((size, size))
    W[numbers[:, 0].astype(int), numbers[:, 1].astype(int)] = numbers[:, 2]
    np.fill_diagonal(W, 0)
    return W if W.any() else None


def links(W: np.ndarray) -> tuple[nx.Graph, np.ndarray]:
    """The graph, directed if weights differ by direction, and the ends [L, 2] of its links, from sender to taker."""
    directed = not np.allclose(W, W.T, atol=1e-9)
    graph = nx.from_numpy_array(W.T, create_using=nx.DiGraph if directed else nx.Graph)
    return graph, np.array(graph.edges(), dtype=int).reshape(-1, 2)


def lay_out(graph: nx.Graph, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[N, 2], and which links leave the picture on one side and come back on the other: rows and columns if every link
    is a step in them, a circle if everyone is linked to the next number, or to the one in the middle, a cube; else so
    that distances on paper are like those in the graph, or a circle if that keeps few workers clearer of links."""
    size = len(graph)
    inside = np.zeros(len(ends), dtype=bool)
    n = np.arange(size)
    for rows in range(math.isqrt(size), 1, -1):
        if size % rows == 0:
            y, x = np.divmod(n, size // rows)
            dx, dy = np.abs(x[ends[:, 0]] - x[ends[:, 1]]), np.abs(y[ends[:, 0]] - y[ends[:, 1]])
            far_x, far_y = (dx > 1) & (dx == size // rows - 1), (dy > 1) & (dy == rows - 1)
            if np.all(((dx == 1) | far_x) & (dy == 0) | ((dy == 1) | far_y) & (dx == 0)):
                return np.stack([x, -y], axis=1).astype(float), far_x | far_y
    beside = graph.to_undirected()
    if all(beside.has_edge(i, i + 1) for i in range(size - 1)):
        return _circle(size), inside
    degrees = np.array([beside.degree(i) for i in n])
    if degrees.max() == size - 1 >= 4 * np.median(degrees):
        return np.insert(_circle(size - 1), int(degrees.argmax()), 0.0, axis=0), inside
    digits = ends[:, 0] ^ ends[:, 1]
    if size in (8, 16) and not (digits & (digits - 1)).any():
        return (n[:, None] >> np.arange(4) & 1) @ CUBE[size], inside
    place_of = nx.kamada_kawai_layout(beside, weight=None)
    places = np.array([place_of[i] for i in range(size)])
    if size <= CLEAR and _clearance(_circle(size), ends) / 2 > _clearance(places, ends) / np.ptp(places, axis=0).max():
        return _circle(size), inside
    return places, inside


def _clearance(places: np.ndarray, ends: np.ndarray) -> float:
    """How near a link comes to a worker that is not at its end."""
    start, along = places[ends[:, 0]], places[ends[:, 1]] - places[ends[:, 0]]
    to = places[None] - start[:, None]
    t = np.clip((to * along[:, None]).sum(2) / (along**2).sum(1)[:, None], 0, 1)
    distance = np.linalg.norm(to - t[..., None] * along[:, None], axis=2)
    distance[np.arange(len(ends))[:, None], ends] = np.inf
    return float(distance.min(initial=np.inf))


def _circle(size: int) -> np.ndarray:
    """Clockwise, from the top."""
    turn = 2 * np.pi * np.arange(size) / size
    return np.stack([np.sin(turn), np.cos(turn)], axis=1)


def in_inches(places: np.ndarray, ends: np.ndarray, apart: float, length: float) -> tuple[np.ndarray, float]:
    """Scaled so that the nearest workers are ``apart`` and the shortest link has ``length``, at most to 7 inches; and
    the workers' diameter in points."""
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    span = float(np.ptp(places, axis=0).max())
    least = 0.02 * span
    nearest = max(least, float(distances[np.triu_indices(len(places), 1)].min()))
    clear = max(least, _clearance(places, ends)) if len(places) <= CLEAR else math.inf
    shortest = max(least, float(distances[ends[:, 0], ends[:, 1]].min()))
    scale = min(LARGEST / span, max(apart / nearest, 0.2 / clear, length / shortest))
    dot = min(0.72 * nearest, 1.7 * clear) * scale * 72
    return (places - places.min(axis=0)) * scale, min(30.0, max(4.5, dot))


def _draw_links(
    axis: Axes,
    places: np.ndarray,
    ends: np.ndarray,
    around: np.ndarray,
    directed: bool,
    dot: float,
    colours: list[object],
    widths: np.ndarray,
    weights: np.ndarray,
) -> None:
    for (n, m), leaves, colour, width, weight in zip(ends, around, colours, widths, weights, strict=True):
        dashes = "--" if weight < 0 else "-"
        if directed:
            arrow = {"arrowstyle": "-|>,head_length=0.35,head_width=0.16", "connectionstyle": "arc3,rad=0.12"}
            trimmed = {"shrinkA": dot / 2, "shrinkB": dot / 2, "mutation_scale": 14}
            look = {"color": colour, "linewidth": width, "linestyle": dashes}
            axis.annotate("", places[m], places[n], arrowprops={**arrow, **trimmed, **look}, zorder=1)
            continue
        strokes = [places[[n, m]]]
        if leaves:
            out = (places[n] - places[m]) / np.linalg.norm(places[n] - places[m])
            reach = dot / 144 + 0.3
            strokes = [np.stack([places[n], places[n] + reach * out]), np.stack([places[m], places[m] - reach * out])]
        for stroke in strokes:
            axis.plot(*stroke.T, color=colour, linewidth=width, linestyle=dashes, zorder=1, solid_capstyle="butt")


def _write_workers(axis: Axes, places: np.ndarray, own: np.ndarray, dot: float) -> None:
    """Numbers, and what each takes of itself, as far as the dots have room."""
    digits = len(str(len(places) - 1))
    for n, place in enumerate(places):
        text: dict[str, Any] = {
            "ha": "center",
            "va": "center",
            "color": "white",
            "zorder": 4,
            "textcoords": "offset points",
        }
        if dot >= 23:
            size = dot / 30
            axis.annotate(str(n), place, (0, 4 * size), fontsize=9 * size, weight="bold", **text)
            axis.annotate(short(own[n]), place, (0, -6 * size), fontsize=6.5 * size, **text)
        elif dot >= 5 * digits + 3:
            axis.annotate(str(n), place, (0, 0), fontsize=min(8.0, 1.2 * (dot - 2) / digits), **text)


def _write_weights(
    axis: Axes, places: np.ndarray, ends: np.ndarray, around: np.ndarray, weights: np.ndarray, dot: float
) -> None:
    """Halfway along each link, or as near to it as is clear of the workers and of the numbers before."""
    taken: list[np.ndarray] = []
    for (n, m), leaves, weight in zip(ends, around, weights, strict=True):
        if leaves:
            continue
        text = short(weight)
        box = np.array([0.03 + 0.032 * len(text), 0.07])  # half its width and height, inches

        def free(spot: np.ndarray, box: np.ndarray = box) -> float:
            beyond = np.maximum(np.abs(places - spot) - box, 0)
            gaps = [float(np.linalg.norm(beyond, axis=1).min()) - dot / 2]
            gaps += [float(np.max(np.abs(other - spot) - 2 * box)) for other in taken]
            return min(0.01, *gaps)

        spots = [places[n] + t * (places[m] - places[n]) for t in (0.5, 0.44, 0.56, 0.38, 0.62, 0.32, 0.68, 0.74, 0.8)]
        spot = max(spots, key=free)
        taken.append(spot)
        white = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
        axis.text(float(spot[0]), float(spot[1]), text, ha="center", va="center", fontsize=7, bbox=white, zorder=2)


def say_one_weight(weight: float, own: np.ndarray) -> str:
    if np.ptp(own) > 1e-9:
        return f"the weight of every link is {short(weight)}"
    if abs(own[0] - weight) < 1e-9:
        return f"every weight is {short(weight)}"
    return f"every link {short(weight)}, oneself {short(own[0])}"


def short(weight: float) -> str:
    return compact(float(f"{weight:.3g}")) if abs(weight) > 1e-9 else "0"
