"""Golden values of the network and the loss, by PyTorch.

    python make_golden.py        (torch 2.15, safetensors 0.8; CPU; writes beside this file)

unet.safetensors    weights of a small network of the released layout, random batch norm statistics included
unet_output.safetensors  its logits in float64 for the input of `image()`, and batch statistics' output
focal.json          focal losses and gradients in float64
"""
import json
import math
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

HERE = pathlib.Path(__file__).parent
CHANNELS, LEVELS, FILTERS, KERNEL, SIZE = 3, 3, 3, 3, 100


class DoubleConv(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.first = nn.Conv2d(c_in, c_out, KERNEL)
        self.second = nn.Conv2d(c_out, c_out, KERNEL)

    def forward(self, x):
        return F.relu(self.second(F.relu(self.first(x))))


class Encoder(nn.Module):
    def __init__(self, level, c_in):
        super().__init__()
        c = FILTERS << level
        self.convs = DoubleConv(c_in, c)
        self.norm = nn.BatchNorm2d(c, eps=1e-3) if level == 0 or level + 1 < LEVELS else None

    def forward(self, x):
        skip = self.convs(x)
        x = F.max_pool2d(skip, 2)
        return skip, x if self.norm is None else self.norm(x)


class Decoder(nn.Module):
    def __init__(self, level):
        super().__init__()
        c = FILTERS << level
        self.up = nn.Conv2d(2 * c, c, 2)
        self.norm = nn.BatchNorm2d(2 * c, eps=1e-3) if level > 0 else None
        self.convs = DoubleConv(2 * c, c)

    def forward(self, x, skip):
        x = x.repeat_interleave(2, -1).repeat_interleave(2, -2)
        x = F.relu(self.up(F.pad(x, (0, 1, 0, 1))))
        crop = (skip.shape[-1] - x.shape[-1]) // 2
        skip = skip[..., crop : crop + x.shape[-2], crop : crop + x.shape[-1]]
        x = torch.cat([x, skip], 1)
        return self.convs(x if self.norm is None else self.norm(x))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleList(
            Encoder(i, CHANNELS if i == 0 else FILTERS << (i - 1)) for i in range(LEVELS)
        )
        self.bottleneck = DoubleConv(FILTERS << (LEVELS - 1), FILTERS << LEVELS)
        self.decoder = nn.ModuleList(Decoder(i) for i in reversed(range(LEVELS)))
        self.head = nn.Conv2d(FILTERS, 1, 1)

    def forward(self, x):
        skips = []
        for step in self.encoder:
            skip, x = step(x)
            skips.append(skip)
        x = self.bottleneck(x)
        for step in self.decoder:
            x = step(x, skips.pop())
        return self.head(x)


def image():
    """The test makes the same numbers: exact in float32."""
    index = torch.arange(CHANNELS * SIZE * SIZE, dtype=torch.int64)
    return ((index * 7919 % 2048).double() / 1024 - 1).reshape(1, CHANNELS, SIZE, SIZE)


def network():
    torch.manual_seed(1)
    model = UNet()
    for name, value in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        if "norm" in name:
            value.copy_(torch.rand_like(value) + 0.5 if "var" in name or "weight" in name else torch.randn_like(value) * 0.2)
        elif name.endswith("weight"):
            nn.init.kaiming_normal_(value)
        else:
            value.copy_(torch.randn_like(value) * 0.1)
    weights = {k: v.clone() for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file(weights, HERE / "unet.safetensors")
    model = model.double().eval()
    with torch.no_grad():
        logits = model(image())
    save_file({"logits": logits.contiguous()}, HERE / "unet_output.safetensors")
    print("network", tuple(logits.shape), sum(p.numel() for p in model.parameters()))


def focal(logit, truth, alpha, gamma):
    # 1 - p_t is the sigmoid of the other side. Neither it nor log p_t may come from 1 - sigmoid(logit), which loses
    # all digits beyond a logit of 40, as PyTorch's own cross-entropy does for the class 0.
    z = torch.where(truth == 1, logit, -logit)
    other, ce = torch.sigmoid(-z), -F.logsigmoid(z)
    alpha_t = torch.where(truth == 1, alpha, 1 - alpha)
    return alpha_t * other**gamma * ce


def losses():
    cases = []
    for alpha, gamma in [(0.25, 2.0), (0.5, 0.0), (0.75, 1.0), (0.25, 5.0)]:
        for logit in [-60.0, -12.5, -3.0, -0.25, 0.0, 0.25, 3.0, 12.5, 60.0]:
            for truth in [0.0, 1.0]:
                x = torch.tensor(logit, dtype=torch.float64, requires_grad=True)
                loss = focal(x, torch.tensor(truth, dtype=torch.float64), alpha, gamma)
                loss.backward()
                assert math.isfinite(x.grad.item())
                cases.append(
                    dict(alpha=alpha, gamma=gamma, logit=logit, truth=truth, loss=loss.item(), gradient=x.grad.item())
                )
    (HERE / "focal.json").write_text(json.dumps(cases, indent=0) + "\n")
    print("focal", len(cases))


network()
losses()
