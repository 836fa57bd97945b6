"""How good is the rule of speed.workers=auto? Gradients of W workers in one process, by model, W and batch.

The time of each way relative to the fastest, measured side by side (medians), and the way that the rule takes.
The last column is the largest difference of an entry from the loop's, over the largest entry, in float32.
"""

from __future__ import annotations

from collections.abc import Callable

from bench_core import alternately, make

from commexp.problems.gradients import CannotFoldError
from commexp.problems.module_problem import ModuleProblem
from commexp.report.tables import markdown
from commexp.seeding import generator

MODELS = {
    "MLP, 67 k": ("model=mlp", "model.hidden=[256,128]"),
    "CNN, group norm, 61 k": ("model=cnn",),
    "CNN, batch norm, 61 k": ("model=cnn", "model.norm=batch"),
    "small ResNet, group norm, 20 k": ("model=resnet_small",),
    "ResNet-20, batch norm, 270 k": ("model=resnet20",),
    "ResNet-20, group norm, 270 k": ("model=resnet20", "model.norm=group"),
    "ResNet-18, group norm, 11 M": ("model=resnet18", "model.norm=group"),
    "ViT, 2 layers, 25 k": ("model=vit", "model.image_size=8", "model.patch=2", "model.layers=2", "model.hidden=32"),
}
SIZES = ((4, 4), (4, 64), (8, 16), (20, 16))  # workers, samples of each


def main() -> None:
    rows = []
    for name, model in MODELS.items():
        more = ("model.mlp=64",) if "vit" in model[0] else ()
        for workers, batch in SIZES:
            problem = make(f"workers={workers}", f"batch_size={batch}", *model, *more).problem
            assert isinstance(problem, ModuleProblem)
            x = problem.init(generator(0)).repeat(workers, 1)
            given, found = problem.batch(0), problem.gradients
            calls: dict[str, Callable[[], object]] = {}
            for way in ("fold", "vmap", "loop"):
                call = lambda f=found, w=way, x=x, b=given: f.by(w, x, b)  # noqa: E731
                try:
                    call()
                    calls[way] = call
                except (CannotFoldError, RuntimeError):
                    continue
            times = dict(zip(calls, alternately(list(calls.values()), 15), strict=True))
            least = min(times.values())
            ratios = [f"{times[way] / least:.2f}" if way in times else "-" for way in ("fold", "vmap", "loop")]
            exact = found.by("loop", x, given)[1]
            apart = max(float((found.by(way, x, given)[1] - exact).abs().max() / exact.abs().max()) for way in calls)
            taken = found.choose(workers, problem.feed.example())
            rows.append([name, str(workers), str(batch), *ratios, taken, f"{1e3 * least:.1f}", f"{apart:.0e}"])
    print("Gradients of W workers: time relative to the fastest way; '-': the model does not support it\n")
    print(
        markdown(["model, digits", "W", "batch", "fold", "vmap", "loop", "rule", "fastest, ms", "difference"], rows),
        "\n",
    )


if __name__ == "__main__":
    main()
