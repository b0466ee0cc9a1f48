"""Small checkpoints as torch.save writes them, nested and with what stands beside weights in practice, in both formats."""
from collections import OrderedDict
import torch


def values(*shape):
    """(7 i^2 mod 31 - 15) / 8 for the row-major index i: exact in every floating-point type."""
    count = 1
    for size in shape:
        count *= size
    i = torch.arange(count)
    return ((7 * i * i % 31 - 15) / 8).reshape(shape)


def checkpoint():
    net = OrderedDict()
    net["module.conv.weight"] = values(2, 1, 3, 3)
    net["module.conv.bias"] = values(2) * 2.0**-20
    net["module.bn.weight"] = values(2).half()
    net["module.bn.bias"] = values(2).bfloat16()
    net["module.bn.running_mean"] = values(2).double()
    net["module.bn.running_var"] = values(3, 2).t()[0][:2]
    net["module.bn.num_batches_tracked"] = torch.tensor(39200)
    net["module.fc.weight"] = values(2, 3).t()
    buffer = {"momentum_buffer": values(4)}
    return {"net": net, "acc": 93.25, "epoch": 7, "note": "best", "best": True, "optimizer": {"state": {0: buffer}}}


def write(folder):
    torch.save(checkpoint(), folder / "zip.pth")
    torch.save(checkpoint(), folder / "legacy.pth", _use_new_zipfile_serialization=False)
