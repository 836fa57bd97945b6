"""Numbers as people read them."""

from __future__ import annotations


def human_bytes(count: float, spread: float = 0.0) -> str:
    """1234567 -> '1.23 MB' (powers of 1000); with a standard deviation of 56789, '1.23 MB ± 0.057'."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            text = f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
            about = f"{spread:.0f}" if spread >= 99.5 else f"{spread:.2g}"
            return f"{text} ± {about}" if spread > 0 else text
        count, spread = count / 1000, spread / 1000
    raise AssertionError("unreachable")
