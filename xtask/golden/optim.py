"""Parameters after each step of every optimizer, from fixed gradients."""
import json
import torch
from safetensors.torch import save_file

STEPS = 6
CASES = {
    "sgd": (torch.optim.SGD, dict(lr=0.1)),
    "sgd-momentum": (torch.optim.SGD, dict(lr=0.1, momentum=0.9, weight_decay=5e-4)),
    "sgd-nesterov": (torch.optim.SGD, dict(lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)),
    "sgd-dampening": (torch.optim.SGD, dict(lr=0.05, momentum=0.8, dampening=0.3)),
    "adam": (torch.optim.Adam, dict(lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)),
    "adam-decay": (torch.optim.Adam, dict(lr=0.01, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1)),
    "adamw": (torch.optim.AdamW, dict(lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)),
    "adadelta": (torch.optim.Adadelta, dict(lr=1.0, rho=0.9, eps=1e-6, weight_decay=0.0)),
    "adadelta-decay": (torch.optim.Adadelta, dict(lr=0.5, rho=0.95, eps=1e-5, weight_decay=0.01)),
}


def write(path):
    random = torch.Generator().manual_seed(21)
    start = torch.randn(5, 7, generator=random)
    gradients = torch.randn(STEPS, 5, 7, generator=random)
    tensors = {"start": start, "gradients": gradients}
    for name, (kind, options) in CASES.items():
        p = torch.nn.Parameter(start.double())
        optimizer, after = kind([p], **options), []
        for g in gradients:
            p.grad = g.double()
            optimizer.step()
            after.append(p.detach().clone())
        tensors[name] = torch.stack(after).float()
    options = {name: {k: v for k, v in options.items()} for name, (_, options) in CASES.items()}
    save_file(tensors, path, metadata={"cases": json.dumps(options)})
