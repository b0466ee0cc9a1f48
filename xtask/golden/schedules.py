"""Learning rates of PyTorch's schedules, without warm-up."""
import json
import torch
import torch.optim.lr_scheduler as S

LR, STEPS = 0.1, 40
CASES = {
    "step": lambda o: S.StepLR(o, 7, 0.5),
    "multi_step": lambda o: S.MultiStepLR(o, [5, 12, 30], 0.1),
    "cosine": lambda o: S.CosineAnnealingLR(o, STEPS, 0.001),
    "cosine_restarts": lambda o: S.CosineAnnealingWarmRestarts(o, 8, 2, 0.001),
    "poly": lambda o: S.PolynomialLR(o, STEPS, 0.9),
    "one_cycle": lambda o: S.OneCycleLR(o, LR, STEPS, pct_start=0.3, div_factor=25.0, final_div_factor=1e4, cycle_momentum=False),
    "one_cycle_linear": lambda o: S.OneCycleLR(o, LR, STEPS, pct_start=0.25, anneal_strategy="linear", div_factor=10.0, final_div_factor=100.0, cycle_momentum=False),
}


def write(path):
    rates = {}
    for name, make in CASES.items():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], LR)
        schedule, rates[name] = make(optimizer), []
        for _ in range(STEPS):
            rates[name].append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
    path.write_text(json.dumps({"lr": LR, "steps": STEPS, "rates": rates}, indent=1) + "\n")
