"""What quick.py changes in Hydra and OmegaConf changes no config."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import quick
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from commexp.config.schema import CONF
from commexp.environment import hydra_of_our_own
from commexp.launch.sweep import register_resolvers

CASES = [
    (),
    ("algo=regtopk", "compress.k=0.01", "seed=3"),
    ("algo=localsgd", "compress=qsgd", "compress.levels=3", "+experiment=regtopk_toy"),
    ("+experiment=dppf_fashion_mnist", "algo.tau=3", "+algo.more=1", "outputs=${oc.env:HOME}/o"),
    ("algo=dsgt", "topology=ladder", "topology.failure=0.3", "straggler=bernoulli"),
    ("dataset=linreg", "model=linear_regression", "hydra/launcher=joblib", "hydra.sweep.dir=${outputs}/here"),
]
MISTAKES = [("algo=regtopkk",), ("~launch.device",), ("algo.lr=${",)]


def whole(words: tuple[str, ...], folder: Path) -> Any:
    """With Hydra's own node, and with every node's flags and types."""
    with hydra_of_our_own():
        register_resolvers()
        with initialize_config_dir(str(folder), version_base="1.3"):
            try:
                config = compose("config", overrides=list(words), return_hydra_config=True)
            except Exception as error:
                return f"{type(error).__name__}: {error}"
            finally:
                GlobalHydra.instance().clear()
    return OmegaConf.to_container(config), list(nodes(config))


def nodes(node: Any) -> Any:
    yield {k: v for k, v in vars(node._metadata).items() if k != "resolver_cache"}, type(node)
    if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
        for key in node:
            yield from nodes(node._get_node(key))


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Hydra and OmegaConf as they come."""

    def make() -> None:
        for owner, name, made in quick.CHANGED:
            if made is None:
                monkeypatch.delattr(owner, name)
            else:
                monkeypatch.setattr(owner, name, made)

    return make


def test_configs_are_the_same(plain: Any) -> None:
    cases = [*CASES, *MISTAKES]
    quick._read.clear()
    quick._merged.clear()
    found = [whole(words, CONF.resolve()) for words in [*cases, *CASES, *CASES]]  # later from what is kept
    assert any(kept is not None for kept in quick._merged.values())
    plain()
    expected = [whole(words, CONF.resolve()) for words in cases]
    assert found == [*expected, *expected[: len(CASES)], *expected[: len(CASES)]]
    assert [words for words, one in zip(cases, expected, strict=True) if isinstance(one, str)] == MISTAKES


@pytest.mark.parametrize("words", [*CASES, *MISTAKES, ("hydra.mode=MULTIRUN",)])
def test_only_who_says_so_starts_a_sweep(words: tuple[str, ...]) -> None:
    with hydra_of_our_own():
        register_resolvers()
        with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
            hydra: Any = GlobalHydra.instance().hydra
            assert hydra.get_mode("config", [*words]) == quick.GET_MODE(hydra, "config", [*words])


def test_nothing_is_shared() -> None:
    """What one does to a config, another does not see."""
    first = whole((), CONF.resolve())
    with hydra_of_our_own():
        register_resolvers()
        with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
            config = compose("config", overrides=[])
    OmegaConf.set_struct(config, False)
    config.algo.lr = 17.0
    config.compress.more = {"k": 3}
    config.dataset._set_flag("readonly", True)
    assert whole((), CONF.resolve()) == first


def test_a_folder_that_may_change_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: 1\n")
    assert whole((), tmp_path)[0]["a"] == 1
    (tmp_path / "config.yaml").write_text("a: 2\n")
    assert whole((), tmp_path)[0]["a"] == 2


def test_metadata_are_copied_as_deepcopy_does(plain: Any) -> None:
    node = OmegaConf.create({"a": {"b": "${c}"}, "c": [1, None]}, flags={"struct": True})
    kept = node._metadata.resolver_cache["oc.env"]
    kept["x"] = [1]
    ours = copy.deepcopy(node)
    assert ours._metadata.flags is not node._metadata.flags
    copied = ours._metadata.resolver_cache["oc.env"]
    assert copied == kept
    assert copied["x"] is not kept["x"]
    plain()
    assert list(nodes(ours)) == list(nodes(copy.deepcopy(node)))
