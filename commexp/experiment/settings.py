"""The methods that a plan compares where its user names none, and what a setting is called."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

METHOD = ("algo", "compress", "topology")  # groups whose choice and fields say what a method is

#: from what changes training least to what changes it most; the first two are the baselines of every plan
SETTINGS = (
    "algo=sgd compress=none",
    "algo=sgd compress=fp16",
    "algo=sgd compress=qsgd compress.levels=7",
    "algo=sgd compress=powersgd compress.rank=4",
    "algo=sgd compress=topk compress.k=0.1",
    "algo=sgd compress=regtopk compress.k=0.1",
    "algo=sgd compress=sign",
    "algo=sgd compress=topk compress.k=0.01",
    "algo=sgd compress=regtopk compress.k=0.01",
    "algo=sgd compress=topk compress.k=0.001",
    "algo=sgd compress=regtopk compress.k=0.001",
    "algo=demo compress=dct_chunked compress.k=32 compress.transform.kind=dct compress.error_feedback=false",
    "algo=localsgd compress=none algo.tau=4",
    "algo=dppf compress=none algo.tau=4",
    "algo=localsgd compress=none algo.tau=16",
    "algo=dppf compress=none algo.tau=16",
    "algo=diloco compress=none algo.tau=30",
    "algo=diloco compress=none algo.tau=100",
    "algo=diloco compress=kbit compress.bits=4 algo.tau=100",
    "algo=streaming_diloco compress=none algo.tau=100 algo.fragments=8 algo.delay=5",
    "algo=streaming_diloco compress=fp4 compress.format=e3m0 algo.tau=100 algo.fragments=8 algo.delay=5",
    "algo=muloco compress=kbit compress.bits=2 algo.tau=30",
    "algo=sparseloco compress=sparseloco algo.tau=30",
    "algo=diloco compress=none algo.tau=500",
)
BASELINES = SETTINGS[:2]
HIDDEN = ("compress.transform.kind", "compress.error_feedback")  # what changes neither bytes nor time


class SettingName(NamedTuple):
    """``method``: algorithm and codec. ``values``: what else was said of them."""

    method: str
    values: str


def is_method(word: str) -> bool:
    """Whether an override says what the method is."""
    return key_of(word).partition(".")[0] in METHOD


def key_of(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def name_of(words: Sequence[str], varied: Collection[str] = ()) -> SettingName:
    """Of the overrides ``words``; ``varied``: keys of other overrides in which settings differ."""
    chosen = {key_of(word): word.partition("=")[2] for word in words}
    algo, codec = chosen.get("algo", "sgd"), chosen.get("compress", "none")
    parts = [algo] * (algo != "sgd") + [codec] * (codec not in ("none", algo) and algo != "demo")
    values = [
        f"{key.removeprefix('algo.').removeprefix('compress.')}={value}"
        for key, value in chosen.items()
        if ("." in key and is_method(key) and key not in HIDDEN) or key in varied
    ]
    return SettingName(" ".join(parts) or "dense", " ".join(values))
