"""Values and gradients of single ops, in float32 from float64 arithmetic."""
import json
import torch
import torch.nn.functional as F
from safetensors.torch import save_file


class Cases:
    def __init__(self):
        self.tensors, self.cases = {}, []
        self.random = torch.Generator().manual_seed(20)

    def normal(self, *shape):
        return torch.randn(shape, generator=self.random, dtype=torch.float64)

    def add(self, op, function, inputs, options=None, extra=None):
        """One case: the inputs that need gradients, options for the test's own call, and tensors that need none."""
        name = f"{len(self.cases):03d}-{op}"
        # Inputs are rounded to float32 first, so that both sides start from the same numbers.
        leaves = [x.float().double().requires_grad_() for x in inputs]
        y = function(*leaves)
        dy = self.normal(*y.shape).float().double()
        gradients = torch.autograd.grad(y, leaves, dy)
        for i, (x, g) in enumerate(zip(leaves, gradients)):
            self.tensors[f"{name}/x{i}"] = x.detach().float().contiguous()
            self.tensors[f"{name}/g{i}"] = g.float().contiguous()
        self.tensors[f"{name}/y"] = y.detach().float().contiguous()
        self.tensors[f"{name}/dy"] = dy.float().contiguous()
        for key, value in (extra or {}).items():
            self.tensors[f"{name}/{key}"] = value.clone().contiguous()
        self.cases.append({"name": name, "op": op, "inputs": len(inputs), "options": options or {}})


def write(path):
    c = Cases()
    for n, i, o, k, s, p, d, g, bias in [
        (2, 3, 4, 3, 1, 1, 1, 1, True), (2, 4, 6, 3, 2, 1, 1, 2, False), (1, 4, 4, 3, 1, 1, 1, 4, True), (2, 3, 5, 1, 1, 0, 1, 1, False),
        (1, 2, 3, 3, 1, 2, 2, 1, True), (2, 4, 8, 3, 2, 1, 1, 4, False), (1, 3, 2, 5, 3, 2, 1, 1, True), (2, 8, 8, 1, 2, 0, 1, 1, False),
        (1, 3, 8, 7, 2, 3, 1, 1, False), (2, 8, 8, 3, 1, 0, 1, 1, True),
    ]:
        options = dict(stride=s, padding=p, dilation=d, groups=g)
        inputs = [c.normal(n, i, 8, 7), c.normal(o, i // g, k, k)] + ([c.normal(o)] if bias else [])
        c.add("conv2d", lambda x, w, b=None, o=options: F.conv2d(x, w, b, **o), inputs, options)
    for n, i, o, bias in [(3, 8, 5, True), (1, 7, 1, False), (8, 8, 8, True)]:
        c.add("linear", lambda x, w, b=None: F.linear(x, w, b), [c.normal(n, i), c.normal(o, i)] + ([c.normal(o)] if bias else []))
    c.add("matmul", torch.matmul, [c.normal(5, 7), c.normal(7, 3)])
    for shape in [(4, 3, 5, 4), (8, 6), (2, 5, 1, 1)]:
        def train(x, gamma, beta):
            return F.batch_norm(x, None, None, gamma, beta, True, 0.1, 1e-5)
        c.add("batch_norm_train", train, [c.normal(*shape) * 2 + 1, c.normal(shape[1]), c.normal(shape[1])], dict(eps=1e-5))
        mean, var = c.normal(shape[1]).float(), c.normal(shape[1]).abs().float() + 0.1
        def infer(x, gamma, beta, mean=mean.double(), var=var.double()):
            return F.batch_norm(x, mean, var, gamma, beta, False, 0.1, 1e-5)
        c.add("batch_norm_infer", infer, [c.normal(*shape), c.normal(shape[1]), c.normal(shape[1])], dict(eps=1e-5), dict(mean=mean, var=var))
    for k, s, p in [(2, 2, 0), (3, 2, 1), (3, 1, 1)]:
        options = dict(kernel=k, stride=s, padding=p)
        c.add("max_pool2d", lambda x, k=k, s=s, p=p: F.max_pool2d(x, k, s, p), [c.normal(2, 3, 7, 8)], options)
        c.add("avg_pool2d", lambda x, k=k, s=s, p=p: F.avg_pool2d(x, k, s, p), [c.normal(2, 3, 7, 8)], options)
    c.add("global_avg_pool2d", lambda x: x.mean((2, 3)), [c.normal(2, 5, 4, 3)])
    for op, function in [
        ("relu", F.relu), ("relu6", F.relu6), ("tanh", torch.tanh), ("sigmoid", torch.sigmoid), ("exp", torch.exp), ("square", torch.square),
        ("neg", torch.neg),
    ]:
        c.add(op, function, [c.normal(3, 8) * 3])
    c.add("leaky_relu", lambda x: F.leaky_relu(x, 0.1), [c.normal(3, 8)], dict(slope=0.1))
    c.add("prelu", lambda x, a: F.prelu(x, a), [c.normal(2, 4, 3, 3), c.normal(4)])
    c.add("log", torch.log, [c.normal(3, 8).abs() + 0.1])
    c.add("sqrt", torch.sqrt, [c.normal(3, 8).abs() + 0.1])
    for op, function in [("add", torch.add), ("sub", torch.sub), ("mul", torch.mul)]:
        c.add(op, function, [c.normal(2, 3, 4), c.normal(3, 1)])
    c.add("div", torch.div, [c.normal(2, 3, 4), c.normal(4).abs() + 0.5])
    c.add("log_softmax", lambda x: F.log_softmax(x, 1), [c.normal(4, 7) * 3])
    labels = torch.tensor([1, 0, 6, 3, 3])
    for smoothing in (0.0, 0.1):
        options = dict(smoothing=smoothing)
        c.add("cross_entropy", lambda x, s=smoothing: F.cross_entropy(x, labels, label_smoothing=s), [c.normal(5, 7) * 2], options, dict(labels=labels))
        soft = F.softmax(c.normal(5, 7), 1).float()
        c.add("cross_entropy_soft", lambda x, t=soft.double(), s=smoothing: F.cross_entropy(x, t, label_smoothing=s), [c.normal(5, 7) * 2], options, dict(targets=soft))
    save_file(c.tensors, path, metadata={"cases": json.dumps(c.cases)})
