"""A network on scikit-learn's digits, 1 % of each gradient sent: torchrun --nproc-per-node 2 scripts/ddp_example.py
With a folder as argument it resumes from the state saved there, if any, and saves its state at the end."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from commexp.compressors import TopK
from commexp.integrations.ddp import hook

os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
dist.init_process_group("gloo")
rank, ranks = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
x, y = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
order = torch.randperm(len(x))
x, y = x[order].float() / 16, y[order]
train = torch.arange(rank, 1500, ranks)

model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
compress = hook(TopK(k=0.01))
model_file, hook_file = (Path(*sys.argv[1:2]) / f"{name}.safetensors" for name in ("model", f"hook-{rank}"))
if hook_file.exists():
    model.load_state_dict(load_file(model_file))
    compress.load_state_dict(load_file(hook_file))  # each rank has residuals of its own
ddp = DistributedDataParallel(model)
ddp.register_comm_hook(model, compress)
optimizer = torch.optim.SGD(model.parameters(), lr=0.4)
for _ in range(16):
    for batch in train[torch.randperm(len(train))].split(32):
        optimizer.zero_grad()
        nn.functional.cross_entropy(ddp(x[batch]), y[batch]).backward()
        optimizer.step()

if len(sys.argv) > 1:
    save_file(compress.state_dict(), hook_file)
if rank == 0:
    if len(sys.argv) > 1:
        save_file(model.state_dict(), model_file)
    print(f"accuracy {(model(x[1500:]).argmax(1) == y[1500:]).float().mean():.4f}")
dist.destroy_process_group()
