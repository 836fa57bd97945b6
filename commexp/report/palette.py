"""Pictures of few colours, in a third of the bytes."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

FREQUENT, MOST = 128, 256  # colours that stay as they are, and of a palette
FAR = 24.0  # distance of two colours in RGB, beyond which one does not stand for the other


def with_palette(png: bytes) -> bytes:
    """The PNG with a palette. Its most frequent colours stay as they are; the others, of the edges of letters and
    lines, become the nearest of these and of those that are farthest from all before. A picture in which a colour would
    change by more than FAR, such as a map of heights, stays as it is."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    pixels = np.asarray(picture, dtype=np.int32) @ np.array([2**16, 2**8, 1], dtype=np.int32)
    colours, place, counts = np.unique(pixels, return_inverse=True, return_counts=True)
    values = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1)
    chosen: list[int] = []
    distances = np.full(len(values), np.inf)
    nearest = np.zeros(len(values), dtype=np.uint8)
    frequent = iter(np.argsort(-counts, kind="stable")[:FREQUENT])
    while len(chosen) < MOST and distances.any():
        chosen.append(int(next(frequent, distances.argmax())))
        here = np.linalg.norm(values - values[chosen[-1]], axis=1)
        nearest[here < distances] = len(chosen) - 1
        distances = np.minimum(distances, here)
    if distances.max() > FAR:
        return png
    indexed = Image.fromarray(nearest[place.reshape(pixels.shape)])
    indexed.putpalette(values[chosen].astype(np.uint8).tobytes())
    small = io.BytesIO()
    indexed.save(small, "png", optimize=True, dpi=picture.info.get("dpi"))
    return small.getvalue()
