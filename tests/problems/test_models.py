"""The image models: published sizes, shapes, gradients, start, refusals; the pretrained one with weights made here."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from registry import options, plan, target
from torch import nn

from commexp.problems import models
from commexp.problems.base import GradientOptions, ProblemContext
from commexp.problems.data import Data
from commexp.problems.gradients import Batch, ModuleGradients
from commexp.problems.models import (
    CNN,
    MLP,
    ImageModel,
    Pretrained,
    PyramidNet,
    ResNet,
    ResNetCifar,
    ResNetSmall,
    ViT,
    WideResNet,
)
from commexp.problems.models.layers import PaddedShortcut, norm_layer
from commexp.problems.models.pretrained import HEADS, features, prepared
from commexp.problems.tasks import Classification

SMALL: dict[str, tuple[ImageModel, tuple[int, int, int]]] = {
    "cnn": (CNN(width=8), (1, 28, 28)),
    "cnn batch": (CNN(width=8, norm="batch"), (1, 8, 8)),
    "mlp": (MLP([12, 7]), (1, 8, 8)),
    "mlp tanh": (MLP([12, 7], "tanh"), (1, 8, 8)),
    "softmax": (MLP([]), (3, 5, 4)),
    "pyramidnet": (PyramidNet(20, alpha=7, norm="group"), (3, 32, 32)),
    "pyramidnet bottleneck": (PyramidNet(20, alpha=11, bottleneck=True), (3, 31, 29)),
    "resnet18": (ResNet(18, norm="group"), (1, 28, 28)),
    "resnet50 imagenet": (ResNet(50, stem="imagenet"), (4, 96, 96)),
    "resnet20": (ResNetCifar(20), (3, 32, 32)),
    "resnet20 group": (ResNetCifar(20, norm="group"), (2, 27, 27)),
    "resnet_small": (ResNetSmall(8, stages=3), (1, 8, 8)),
    "vit": (ViT(28, 7, layers=2, heads=2, hidden=16, mlp=24), (1, 28, 28)),
    "vit colour": (ViT(32, 8, layers=1, heads=2, hidden=16, mlp=24), (3, 32, 32)),
    "wrn": (WideResNet(16, 2), (3, 32, 32)),
    "wrn group": (WideResNet(10, 1, norm="group"), (1, 28, 28)),
}

PUBLISHED: dict[str, tuple[ImageModel, tuple[int, int, int], int, float, float]] = {
    "ResNet-18, CIFAR-10": (ResNet(18), (3, 32, 32), 10, 11_173_962, 0),
    "ResNet-18": (ResNet(18, stem="imagenet"), (3, 224, 224), 1000, 11_689_512, 0),
    "ResNet-34": (ResNet(34, stem="imagenet"), (3, 224, 224), 1000, 21_797_672, 0),
    "ResNet-50": (ResNet(50, stem="imagenet"), (3, 224, 224), 1000, 25_557_032, 0),
    "ResNet-101": (ResNet(101, stem="imagenet"), (3, 224, 224), 1000, 44_549_160, 0),
    "ResNet-152": (ResNet(152, stem="imagenet"), (3, 224, 224), 1000, 60_192_808, 0),
    "ResNet-20": (ResNetCifar(20), (3, 32, 32), 10, 0.27e6, 0.005e6),
    "ResNet-32": (ResNetCifar(32), (3, 32, 32), 10, 0.46e6, 0.005e6),
    "ResNet-44": (ResNetCifar(44), (3, 32, 32), 10, 0.66e6, 0.005e6),
    "ResNet-56": (ResNetCifar(56), (3, 32, 32), 10, 0.85e6, 0.005e6),
    "ResNet-110": (ResNetCifar(110), (3, 32, 32), 10, 1.7e6, 0.05e6),
    "WRN-28-10": (WideResNet(28, 10), (3, 32, 32), 10, 36.5e6, 0.05e6),
    "WRN-16-8": (WideResNet(16, 8), (3, 32, 32), 10, 11.0e6, 0.05e6),
    "WRN-40-4": (WideResNet(40, 4), (3, 32, 32), 10, 8.9e6, 0.05e6),
    # the authors' table counts up to 1.5 % fewer than their description gives
    "PyramidNet-110(84)": (PyramidNet(110, 84), (3, 32, 32), 10, 3.8e6, 0.06e6),
    "PyramidNet-110(270)": (PyramidNet(110, 270), (3, 32, 32), 10, 28.3e6, 0.2e6),
    "PyramidNet-164(270)": (PyramidNet(164, 270, bottleneck=True), (3, 32, 32), 10, 27.0e6, 0.25e6),
    "PyramidNet-272(200)": (PyramidNet(272, 200, bottleneck=True), (3, 32, 32), 10, 26.0e6, 0.05e6),
    "ViT-B/16": (ViT(224, 16, 12, 12, 768, 3072), (3, 224, 224), 1000, 86_567_656, 0),
}


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def made(model: ImageModel, shape: tuple[int, int, int], classes: int = 10, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model.module(shape, classes)


@pytest.mark.parametrize("name", PUBLISHED)
def test_as_many_parameters_as_published(name: str) -> None:
    model, shape, classes, expected, tolerance = PUBLISHED[name]
    with torch.device("meta"):
        count = size(model.module(shape, classes))
    assert abs(count - expected) <= tolerance


@pytest.mark.parametrize("name", SMALL)
def test_logits_and_gradients(name: str) -> None:
    model, shape = SMALL[name]
    module, g = made(model, shape).double().train(), torch.Generator().manual_seed(1)
    images, targets = torch.randn(2, *shape, generator=g, dtype=torch.float64), torch.tensor([1, 2])
    before = torch.get_rng_state()
    logits = module(images)
    assert logits.shape == (2, 10)
    F.cross_entropy(logits, targets).backward()  # type: ignore[no-untyped-call]
    assert torch.equal(torch.get_rng_state(), before), "a step draws from the global generator"
    assert all(p.grad is not None for p in module.parameters())
    gradient = nn.utils.parameters_to_vector([p.grad for p in module.parameters() if p.grad is not None])
    start = nn.utils.parameters_to_vector(module.parameters()).detach()
    step, losses = 1e-6 * gradient / gradient.norm(), []
    with torch.no_grad():
        for x in (start + step, start - step):
            nn.utils.vector_to_parameters(x, module.parameters())
            losses.append(float(F.cross_entropy(module(images), targets)))
    slope = (losses[0] - losses[1]) / 2e-6
    assert slope == pytest.approx(float(gradient.norm()), rel=1e-3), "it is the direction in which the loss grows"
    assert module.eval()(images[:1]).shape == (1, 10)


@pytest.mark.parametrize("name", SMALL)
def test_equal_seeds_give_equal_models(name: str) -> None:
    model, shape = SMALL[name]
    first, again, other = (nn.utils.parameters_to_vector(made(model, shape, 3, s).parameters()) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", SMALL)
def test_running_statistics_with_batch_norm_alone(name: str) -> None:
    model, shape = SMALL[name]
    assert bool(list(made(model, shape).buffers())) == (getattr(model, "norm", None) == "batch")


@pytest.mark.parametrize("name", ["cnn", "mlp", "pyramidnet", "resnet20 group", "resnet_small", "vit", "wrn group"])
def test_workers_at_once_give_each_workers_own_gradient(name: str) -> None:
    model, shape = SMALL[name]
    g = torch.Generator().manual_seed(2)
    inputs, targets = torch.randn(2, 2, *shape, generator=g, dtype=torch.float64), torch.tensor([[1, 2], [3, 4]])
    module = made(model, shape).double()
    start = nn.utils.parameters_to_vector(module.parameters()).detach()
    x = start + 0.02 * torch.randn(2, len(start), generator=g, dtype=torch.float64)
    batch = Batch((inputs, targets))
    found = [ModuleGradients(copy.deepcopy(module), Classification()).by(way, x, batch) for way in ("vmap", "loop")]
    torch.testing.assert_close(*found, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("option", [o for o in options("model") if issubclass(target("model", o), ImageModel)])
def test_every_registered_image_model_takes_its_images(option: str) -> None:
    node = plan(f"model={option}").resolved["model"]
    cls = getattr(models, node.pop("_target_").rpartition(".")[2])
    side = node.get("image_size", 32)
    with torch.device("meta"):
        assert cls(**node).module((3, side, side), 10).eval()(torch.empty(2, 3, side, side)).shape == (2, 10)


@pytest.mark.parametrize("side", [4, 7])
def test_shortcut_of_option_a_subsamples_and_pads(side: int) -> None:
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    expected = torch.zeros(2, 5, (side + 1) // 2, (side + 1) // 2, dtype=torch.float64)
    expected[:, :3] = x[:, :, ::2, ::2]
    assert torch.equal(PaddedShortcut(3, 5, stride=2, window=1)(x), expected)
    assert size(PaddedShortcut(3, 5, 2, 1)) == 0


def test_shortcut_of_the_pyramid_averages_and_pads() -> None:
    x = torch.arange(9.0).view(1, 1, 3, 3)
    y = PaddedShortcut(1, 2, stride=2, window=2)(x)
    assert torch.equal(y, torch.tensor([[[[2.0, 3.5], [6.5, 8.0]], [[0.0, 0.0], [0.0, 0.0]]]]))
    assert torch.equal(PaddedShortcut(1, 1, stride=1, window=2)(x), x)


def test_pyramid_widens_by_equal_steps_to_16_plus_alpha() -> None:
    blocks = [b for b in made(PyramidNet(20, alpha=7), (3, 32, 32)).children() if hasattr(b, "outputs")]
    assert [b.outputs for b in blocks] == [16, 17, 18, 19, 19, 20, 21, 22, 23]


def test_group_norm_takes_the_most_groups_that_divide() -> None:
    norm = norm_layer("group", 8)
    assert [norm(channels).num_groups for channels in (64, 12, 17, 4)] == [8, 6, 1, 4]


def test_convolutions_start_with_the_variance_of_he() -> None:
    module = made(WideResNet(10, 4), (3, 32, 32))
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            assert float(layer.weight.detach().var()) == pytest.approx(
                2 / (layer.kernel_size[0] ** 2 * layer.out_channels), rel=0.25
            )


REFUSED: dict[str, tuple[type, dict[str, Any]]] = {
    "depth=19": (ResNet, {"depth": 19}),
    "stem=mnist": (ResNet, {"stem": "mnist"}),
    "norm=layer": (ResNet, {"norm": "layer"}),
    "groups=0": (ResNet, {"norm": "group", "groups": 0}),
    "depth=21": (ResNetCifar, {"depth": 21}),
    "norm=": (ResNetCifar, {"norm": ""}),
    "depth=17": (WideResNet, {"depth": 17}),
    "depth=4": (WideResNet, {"depth": 4}),
    "width=0": (WideResNet, {"width": 0}),
    "depth=112": (PyramidNet, {"depth": 112}),
    "depth=32": (PyramidNet, {"depth": 32, "bottleneck": True}),
    "alpha=-1": (PyramidNet, {"alpha": -1}),
    "patch=5": (ViT, {"patch": 5}),
    "heads=5": (ViT, {"heads": 5}),
    "hidden=0": (ViT, {"hidden": 0}),
    "layers=5": (CNN, {"layers": 5}),
    "width=-1": (CNN, {"width": -1}),
    "hidden=[4, 0]": (MLP, {"hidden": [4, 0]}),
    "activation=gelu": (MLP, {"activation": "gelu"}),
    "arch=vgg16": (Pretrained, {"arch": "vgg16"}),
}


@pytest.mark.parametrize("start", REFUSED)
def test_wrong_fields_are_refused_by_name(start: str) -> None:
    cls, fields = REFUSED[start]
    with pytest.raises(ValueError, match=r"; ") as refusal:
        cls(**fields)
    assert str(refusal.value).startswith(f"{start}: ")


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (ViT(), (1, 28, 28), "model.image_size=32: the images are 28 x 28; give model.image_size=28"),
        (ViT(), (1, 28, 32), "model=ViT: the images are 28 x 32, not square; "),
        (CNN(layers=4), (1, 8, 8), "model.layers=4: too many pools for images of 8 x 8; give 3 or less"),
    ],
)
def test_images_that_do_not_fit_are_refused(model: ImageModel, shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match="; ") as refusal:
        made(model, shape)
    assert str(refusal.value).startswith(message)


@pytest.mark.parametrize("way", ["fold", "vmap", "loop"])
def test_the_gradient_of_an_mlp_on_vectors_is_as_derived_by_hand(way: str) -> None:
    g = torch.Generator().manual_seed(2)
    x, y = torch.randn(8, 5, generator=g, dtype=torch.float64), torch.arange(8) % 3
    parts = [torch.arange(4), torch.arange(4, 8)]
    context = ProblemContext(
        parts, [0, 1], 4, 0, torch.device("cpu"), torch.float64, speed=GradientOptions(workers=way)
    )
    problem = MLP([6], "tanh").problem(Data(x, y, x, y, classes=3), context)
    assert problem.dim == 5 * 6 + 6 + 6 * 3 + 3
    start = problem.init(torch.Generator().manual_seed(5))
    models = start + 0.1 * torch.randn(2, problem.dim, generator=g, dtype=torch.float64)
    batch = problem.batch(0)
    assert isinstance(batch, Batch)
    inputs, targets = batch.tree
    losses, grads = problem.loss_and_grad(models, batch)
    for n in range(2):
        v, a = models[n].numpy(), inputs[n].numpy()
        w1, c1, w2, c2 = v[:30].reshape(6, 5), v[30:36], v[36:54].reshape(3, 6), v[54:]
        h = np.tanh(a @ w1.T + c1)
        e = np.exp(h @ w2.T + c2)
        p, wanted = e / e.sum(1, keepdims=True), np.eye(3)[targets[n].numpy()]
        slope = (p - wanted) / 4
        back = slope @ w2 * (1 - h**2)
        pieces = [back.T @ a, back.sum(0), slope.T @ h, slope.sum(0)]
        np.testing.assert_allclose(grads[n].numpy(), np.concatenate([piece.ravel() for piece in pieces]), atol=1e-12)
        assert float(losses[n]) == pytest.approx(-np.log(p[wanted == 1]).mean(), abs=1e-12)


def test_an_mlp_needs_labels() -> None:
    data, context = grey()
    data.classes = None
    with pytest.raises(ValueError, match=r"^model=MLP: needs labelled samples; give "):
        MLP().problem(data, context)


# pretrained -----------------------------------------------------------------------------------------------------------

BARE = "squeezenet1_0"  # the smallest file


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of made weights, named as torchvision names the published ones."""
    paths = {}
    for arch in (BARE, "shufflenet_v2_x1_0"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            state = torchvision.models.get_model(arch, weights=None).state_dict()
        path = tmp_path_factory.mktemp(arch) / "weights"
        # the older published files know no count of batches either
        torch.save({name: value for name, value in state.items() if "num_batches" not in name}, path)
        digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        paths[arch] = path.rename(path.with_name(f"{arch}-{digits}.pth"))
    return paths


@pytest.fixture
def published(stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """While a test runs, torchvision takes the made weights for the published ones."""
    for arch, path in stores.items():
        weights = torchvision.models.get_model_weights(arch).IMAGENET1K_V1
        monkeypatch.setattr(weights.value, "url", path.as_uri())
    return stores


def grey(classes: int = 3) -> tuple[Data, ProblemContext]:
    g = torch.Generator().manual_seed(3)
    x, y = torch.randn(9, 1, 8, 8, generator=g), torch.arange(9) % classes
    context = ProblemContext(
        shards=[torch.arange(4), torch.arange(4, 6)],
        worker_ids=[0, 1],
        batch_size=2,
        seed=0,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    return Data(x[:6], y[:6], x[6:], y[6:], classes), context


@pytest.mark.parametrize("arch", [BARE, "shufflenet_v2_x1_0"])
def test_pretrained_trains_a_head_on_fixed_features(arch: str, published: dict[str, Path]) -> None:
    data, context = grey()
    model = Pretrained(arch, weights_dir=str(published[arch].parent))
    problem = model.problem(data, context)
    backbone = model.backbone()
    assert not backbone.training
    assert not any(p.requires_grad for p in backbone.parameters())
    state = {name: value.clone() for name, value in backbone.state_dict().items()}
    h = features(backbone, [(data.train_x[:4], data.train_y[:4]), (data.train_x[4:], data.train_y[4:])])
    assert all(torch.equal(value, state[name]) for name, value in backbone.state_dict().items())

    whole = torchvision.models.get_model(arch, weights=None).eval()
    whole.load_state_dict(torch.load(published[arch], weights_only=True))
    large = F.interpolate(data.train_x.repeat(1, 3, 1, 1), (224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        if arch == BARE:
            torch.testing.assert_close(h, whole.features(large).mean((2, 3)), rtol=1e-4, atol=1e-5)
        else:
            torch.testing.assert_close(whole.fc(h), whole(large), rtol=1e-4, atol=1e-5)

    d = h.shape[1]
    assert problem.dim == (d + 1) * 3
    x = problem.init(torch.Generator().manual_seed(5))
    a, c = x[: 3 * d].view(3, d), x[3 * d :]
    losses = F.cross_entropy(h @ a.T + c, data.train_y, reduction="none")
    expected = (losses[:4].mean() + losses[4:].mean()) / 2  # F: the workers weigh alike, whatever they have
    assert problem.evaluate(x)["train_loss"] == pytest.approx(float(expected), rel=1e-4)
    batch = problem.batch(0)
    loss, grad = problem.loss_and_grad(torch.stack([x, x]), batch)
    assert isinstance(batch, Batch)
    for inputs, targets, one, g in zip(*batch.tree, loss, grad, strict=True):
        wrong = (inputs @ a.T + c).softmax(1) - F.one_hot(targets, 3)
        expected = torch.cat([(wrong.T @ inputs).flatten(), wrong.sum(0)]) / len(targets)
        torch.testing.assert_close(one, F.cross_entropy(inputs @ a.T + c, targets), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(g, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", HEADS)
def test_features_of_every_architecture(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes alone: no values are computed."""
    with torch.device("meta"):
        state = torchvision.models.get_model(arch, weights=None).state_dict()
    weights = torchvision.models.get_model_weights(arch).IMAGENET1K_V1
    monkeypatch.setattr(type(weights), "get_state_dict", lambda *args, **kwargs: state)
    monkeypatch.setattr("pathlib.Path.is_file", lambda path: False)
    backbone = Pretrained(arch, download=True).backbone()
    widths = {"resnet18": 512, "mobilenet_v2": 1280, "efficientnet_b0": 1280, "shufflenet_v2_x1_0": 1024, BARE: 512}
    images = prepared(torch.empty(2, 1, 8, 8, device="meta"))
    assert images.shape == (2, 3, 224, 224)
    assert backbone(images).shape == (2, widths.get(arch, 2048))


def test_only_small_images_are_resized() -> None:
    images = torch.randn(1, 3, 64, 80)
    assert prepared(images) is images
    assert prepared(torch.randn(1, 3, 63, 80)).shape == (1, 3, 224, 224)


def test_missing_weights_are_refused_and_fetched_if_asked(published: dict[str, Path], tmp_path: Path) -> None:
    data, context = grey()
    name = published[BARE].name
    with pytest.raises(FileNotFoundError) as refusal:
        Pretrained(BARE, weights_dir=str(tmp_path)).problem(data, context)
    assert str(refusal.value) == (
        f"model.arch={BARE}: {name} is not in {tmp_path}; give model.download=true or put it there"
    )
    Pretrained(BARE, weights_dir=str(tmp_path), download=True).backbone()
    assert (tmp_path / name).read_bytes() == published[BARE].read_bytes()


def test_weights_that_cannot_be_fetched_say_why(
    published: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = torchvision.models.get_model_weights(BARE).IMAGENET1K_V1
    monkeypatch.setattr(weights.value, "url", (tmp_path / "none-00000000.pth").as_uri())
    with pytest.raises(FileNotFoundError, match=r"^model.download=true: file:.* cannot be fetched .*; put it there"):
        Pretrained(BARE, weights_dir=str(tmp_path), download=True).backbone()


def test_damaged_weights_are_refused(published: dict[str, Path], tmp_path: Path) -> None:
    content = bytearray(published[BARE].read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / published[BARE].name).write_bytes(content)
    with pytest.raises(ValueError, match=r"^model.weights_dir=.* is damaged \(.*\); ") as refusal:
        Pretrained(BARE, weights_dir=str(tmp_path)).backbone()
    assert "\n" not in str(refusal.value)


def test_where_weights_lie_does_not_name_the_run() -> None:
    name = plan("model=pretrained").name
    assert plan("model=pretrained", "model.weights_dir=elsewhere", "model.download=true").name == name
    assert plan("model=pretrained", "model.arch=resnet50").name != name


@pytest.mark.parametrize("what", ["classes", "images", "channels", "test"])
def test_data_that_pretrained_cannot_serve_are_refused(what: str) -> None:
    data, context = grey()
    if what == "classes":
        data.classes = None
    elif what == "images":
        data.train_x = data.train_x.flatten(1)
    elif what == "channels":
        data.train_x = data.train_x.expand(-1, 2, -1, -1)
    else:
        data.test_x = None
    with pytest.raises(ValueError, match=r"^model=Pretrained: .*images.*; give "):
        Pretrained().problem(data, context)
