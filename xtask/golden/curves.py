"""Losses of 20 training steps of ResNet-20 and the MLP, from weights and data that a formula gives.

Both sides hash (crc32 of a name, index) to a number in [-1, 1) by the few integer operations of `values`, so no weights need storing.
"""
import json
import zlib
import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS, BATCH = 20, 32


def values(name, shape):
    salt = zlib.crc32(name.encode())
    x = (torch.arange(torch.Size(shape).numel(), dtype=torch.int64) * 2654435761 + salt) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 739982445) & 0xFFFFFFFF
    x = ((x ^ (x >> 12)) * 695872825) & 0xFFFFFFFF
    return ((x >> 16).double() / 32768 - 1).reshape(shape)


class Block(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.shortcut = nn.Sequential()
        if stride != 1 or i != o:
            self.shortcut = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.shortcut(x))


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, width = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), 16
        for stage, (o, s) in enumerate([(16, 1), (32, 2), (64, 2)], 1):
            blocks = []
            for j in range(3):
                blocks.append(Block(width, o, s if j == 0 else 1))
                width = o
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.fc(x.mean((2, 3)))


class Mlp(nn.Module):
    """784-500-300-10; a hidden layer is linear, ReLU, batch norm."""

    def __init__(self):
        super().__init__()
        self.fc1, self.bn1, self.fc2, self.bn2, self.fc3 = nn.Linear(784, 500), nn.BatchNorm1d(500), nn.Linear(500, 300), nn.BatchNorm1d(300), nn.Linear(300, 10)

    def forward(self, x):
        x = self.bn1(F.relu(self.fc1(x.flatten(1))))
        return self.fc3(self.bn2(F.relu(self.fc2(x))))


def is_norm_scale(name):
    return float(name.endswith("weight") and (".bn" in "." + name or "shortcut.1" in name))


def curve(model, shape, lr):
    model = model.double()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() > 1:
                fan_in = p[0].numel()
                p.copy_((values(name, p.shape) / fan_in**0.5).float())
            else:
                # Norm scales around 1, norm shifts and biases around 0.
                p.copy_((values(name, p.shape) * 0.1 + is_norm_scale(name)).float())
    optimizer = torch.optim.SGD(model.parameters(), lr, 0.9, weight_decay=5e-4, nesterov=True)
    losses, labels = [], torch.arange(BATCH) * 7 % 10
    for step in range(STEPS):
        x = values(f"batch{step % 4}", (BATCH, *shape)).float().double()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        logits = model(values("evaluation", (2, *shape)).float().double())
    return {"losses": losses, "logits": logits.flatten().tolist(), "lr": lr}


def write(path):
    result = {"steps": STEPS, "batch": BATCH, "resnet20": curve(ResNet20(), (3, 32, 32), 0.0005), "mlp": curve(Mlp(), (1, 28, 28), 0.01)}
    path.write_text(json.dumps(result, indent=1) + "\n")
