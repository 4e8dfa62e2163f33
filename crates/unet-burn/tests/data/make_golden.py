"""Golden values of networks, losses and weights, by PyTorch.

    python make_golden.py           (torch 2.15, numpy 2, safetensors 0.8; CPU; writes beside this file)
    python make_golden.py FOLDER [SIZE]   (reads `model.json` and `model.safetensors` of a bundle as PyTorch's own, and prints
                                           the logits of two images of that size)

networks.json           each layout with each padding and each way up: its number of parameters and its logits in
                        float64. Weights are made by `fill`, which the test repeats bit by bit, so that no file holds them
training.json           each layout in training, without dropout: logits by the statistics of the batch, and of the
                        gradient of each weight its norm and its product with the noise of its name
seed.safetensors, .pt   weights of a small network as PyTorch saves them, `num_batches_tracked` included
losses.json             losses and gradients in float64
"""
import json
import pathlib
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

HERE = pathlib.Path(__file__).parent


# Networks. The configuration is the JSON of `UNetConfig`.


class DoubleConv(nn.Module):
    def __init__(self, c, c_in, c_out):
        super().__init__()
        pad = c["kernel"] // 2 if c["padding"] == "same" else 0
        norms = c["layout"] in ("seed", "residual")
        self.residual = c["layout"] == "residual"
        self.first = nn.Conv2d(c_in, c_out, c["kernel"], padding=pad)
        self.first_norm = nn.BatchNorm2d(c_out, eps=c["norm_epsilon"]) if norms else nn.Identity()
        self.second = nn.Conv2d(c_out, c_out, c["kernel"], padding=pad)
        self.second_norm = nn.BatchNorm2d(c_out, eps=c["norm_epsilon"]) if norms else nn.Identity()
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if self.residual and c_in != c_out else nn.Identity()

    def forward(self, x):
        y = F.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        return F.relu(y + crop(self.shortcut(x), y) if self.residual else y)


class Encoder(nn.Module):
    def __init__(self, c, level, c_in):
        super().__init__()
        out = c["filters"] << level
        first, last = level == 0, level + 1 == c["levels"]
        drops = {"asm_map": not first, "vanilla": last}.get(c["layout"], True)
        normalises = c["layout"] == "asm_map" and (first or not last)
        self.convs = DoubleConv(c, c_in, out)
        self.dropout = nn.Dropout(c["dropout"]) if drops else nn.Identity()
        self.norm = nn.BatchNorm2d(out, eps=c["norm_epsilon"]) if normalises else nn.Identity()

    def forward(self, x):
        skip = self.convs(x)
        return skip, self.norm(self.dropout(F.max_pool2d(skip, 2)))


class Decoder(nn.Module):
    def __init__(self, c, level):
        super().__init__()
        out = c["filters"] << level
        self.upsample = c["up"] == "upsample"
        self.up = nn.Conv2d(2 * out, out, 2) if self.upsample else nn.ConvTranspose2d(2 * out, out, 2, stride=2)
        inner = c["layout"] == "asm_map" and level > 0
        self.norm = nn.BatchNorm2d(2 * out, eps=c["norm_epsilon"]) if inner else nn.Identity()
        self.convs = DoubleConv(c, 2 * out, out)
        drops = inner or c["layout"] in ("seed", "residual")
        self.dropout = nn.Dropout(c["dropout"]) if drops else nn.Identity()

    def forward(self, x, skip):
        if self.upsample:
            x = F.pad(F.interpolate(x, scale_factor=2, mode="nearest"), (0, 1, 0, 1))
        x = F.relu(self.up(x))
        return self.dropout(self.convs(self.norm(torch.cat([x, crop(skip, x)], 1))))


class UNet(nn.Module):
    def __init__(self, c):
        super().__init__()
        f = c["filters"]
        self.encoder = nn.ModuleList(
            Encoder(c, i, c["in_channels"] if i == 0 else f << (i - 1)) for i in range(c["levels"])
        )
        self.bottleneck = DoubleConv(c, f << (c["levels"] - 1), f << c["levels"])
        self.dropout = nn.Identity() if c["layout"] == "asm_map" else nn.Dropout(c["dropout"])
        self.decoder = nn.ModuleList(Decoder(c, i) for i in reversed(range(c["levels"])))
        self.head = nn.Conv2d(f, c["num_classes"], 1)

    def forward(self, x):
        skips = []
        for step in self.encoder:
            skip, x = step(x)
            skips.append(skip)
        x = self.dropout(self.bottleneck(x))
        for step in self.decoder:
            x = step(x, skips.pop())
        return self.head(x)


def crop(x, to):
    row, col = ((x.shape[i] - to.shape[i]) // 2 for i in (2, 3))
    return x[:, :, row : row + to.shape[2], col : col + to.shape[3]]


def uniform(name, count):
    """In [-1, 1), exact in float32: a hash of the name (FNV-1a) and the index."""
    seed = 2166136261
    for byte in name.encode():
        seed = (seed ^ byte) * 16777619 % 2**32
    x = (seed + np.arange(count, dtype=np.uint64) * 2654435761) % 2**32
    x = (x ^ x >> 16) * 73244475 % 2**32
    x = (x ^ x >> 16) * 73244475 % 2**32
    return ((x ^ x >> 16) >> 21).astype(np.float64) / 1024 - 1


def fill(model):
    for name, value in model.state_dict().items():
        u = uniform(name, value.numel())
        if value.ndim == 4:
            u *= np.sqrt(6 / np.prod(value.shape[1:]))  # uniform by He et al. 2015
        elif name.endswith("running_var") or "norm.weight" in name:
            u = 1 + u / 2
        elif value.ndim == 1:
            u *= 0.25
        else:
            continue  # num_batches_tracked
        value.copy_(torch.from_numpy(u.astype(np.float32)).reshape(value.shape))


def parameters(model):
    """As burn counts them: running statistics included."""
    return sum(v.numel() for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked"))


def config(layout, padding, up, **numbers):
    base = dict(in_channels=3, num_classes=1, levels=2, filters=4, kernel=3, dropout=0.3, norm_epsilon=1e-3)
    return dict(layout=layout, padding=padding, up=up) | base | numbers


def rounded(values):
    return [float(f"{value:.9g}") for value in values.flatten().tolist()]


def logits(c, height, width):
    model = UNet(c)
    fill(model)
    shape = (2, c["in_channels"], height, width)
    image = torch.from_numpy(uniform("image", int(np.prod(shape)))).reshape(shape)
    with torch.no_grad():
        return model, model.double().eval()(image)


def networks():
    cases = []
    for height, width, c in [
        (100, 100, config("asm_map", "valid", "upsample", levels=3, filters=3)),
        (88, 92, config("seed", "valid", "upsample", kernel=5)),
        (52, 48, config("vanilla", "valid", "transposed", num_classes=2)),
        (48, 52, config("residual", "valid", "upsample")),
        (8, 16, config("asm_map", "same", "transposed")),
        (12, 8, config("seed", "same", "transposed", in_channels=1)),
        (16, 8, config("vanilla", "same", "upsample", kernel=1)),
        (8, 12, config("residual", "same", "upsample", in_channels=4)),
        (52, 48, config("residual", "valid", "transposed")),
        (52, 48, config("asm_map", "valid", "transposed")),
        (48, 52, config("seed", "valid", "transposed")),
        (52, 48, config("vanilla", "valid", "upsample")),
        (8, 12, config("asm_map", "same", "upsample")),
        (12, 8, config("seed", "same", "upsample")),
        (8, 12, config("vanilla", "same", "transposed")),
        (12, 8, config("residual", "same", "transposed")),
    ]:
        model, output = logits(c, height, width)
        cases.append(
            dict(
                config=c,
                parameters=parameters(model),
                input=[2, c["in_channels"], height, width],
                output=list(output.shape),
                logits=rounded(output),
            )
        )
        print(c["layout"], c["padding"], c["up"], tuple(output.shape), parameters(model), output.std().item())
    (HERE / "networks.json").write_text(lines(cases))
    for name, c in [
        ("asm_map", config("asm_map", "valid", "upsample", in_channels=24, levels=4, filters=64)),
        ("seed", config("seed", "valid", "upsample", in_channels=22, levels=4, filters=64)),
        ("vanilla", config("vanilla", "valid", "upsample", in_channels=1, levels=4, filters=64, num_classes=2)),
        ("residual", config("residual", "valid", "upsample", in_channels=22, levels=4, filters=64)),
    ]:
        print("parameters of the constructor", name, parameters(UNet(c)))


def pass_and_gradients(c, shape, dtype):
    model = UNet(c)
    fill(model)
    model.to(dtype).train()
    x = model(torch.from_numpy(uniform("image", int(np.prod(shape)))).reshape(shape).to(dtype))
    truth = torch.from_numpy((uniform("truth", x.numel()) > 0.25).astype(float)).reshape(x.shape).to(dtype)
    loss = loss_of_images(dict(focal=dict(alpha=0.25, gamma=2.0)), x[:, 0], truth[:, 0], torch.ones_like(x[:, 0])).mean()
    loss.backward()
    return x.detach(), loss.item(), {name: value.grad.double() for name, value in model.named_parameters()}


def training():
    cases = []
    for layout, others in (
        ("asm_map", [("valid", "transposed", 3, ((52, 56), (56, 52)))]),
        ("seed", [("valid", "upsample", 5, ((88, 92), (92, 88), (92, 92)))]),
        ("vanilla", [("same", "upsample", 7, ((16, 12), (12, 16)))]),
        ("residual", [("same", "upsample", 3, ((16, 12), (12, 16)))]),
    ):
        for padding, up, kernel, sizes in [
            ("valid", "upsample", 3, ((52, 56), (56, 52))),
            ("same", "transposed", 3, ((16, 12), (12, 16))),
            *others,
        ]:
            c = config(layout, padding, up, kernel=kernel, dropout=0.0)
            for height, width in sizes:
                shape = (2, c["in_channels"], height, width)
                x, loss, gradients = pass_and_gradients(c, shape, torch.float64)
                # Not one where a value is so near to 0 that rounding decides what ReLU makes of it.
                single = pass_and_gradients(c, shape, torch.float32)[2]
                largest = max(g.norm() for g in gradients.values())
                if all((single[name] - g).norm() < 1e-5 * g.norm() + 1e-6 * largest for name, g in gradients.items()):
                    break
            else:
                raise ValueError(f"no size for {c}")
            numbers = {
                name: rounded(torch.stack([g.norm(), (g.flatten() * torch.from_numpy(uniform(name, g.numel()))).sum()]))
                for name, g in gradients.items()
            }
            cases.append(dict(config=c, input=list(shape), loss=loss, logits=rounded(x), gradients=numbers))
    (HERE / "training.json").write_text(lines(cases))
    print("training", len(cases))


def weights():
    c = config("seed", "same", "transposed", in_channels=1, levels=1, filters=2)
    model, _ = logits(c, 8, 8)
    state = model.float().state_dict()
    save_file(state, HERE / "seed.safetensors")
    torch.save(state, HERE / "seed.pt")


# Losses. The configuration is the JSON of `Loss`.


def loss_of_images(config, x, truth, valid):
    (kind, c), = config.items()
    if kind == "sum":
        return sum(weight * loss_of_images(loss, x, truth, valid) for weight, loss in c)
    # The probability that misses the truth is the sigmoid of the other side. Neither it nor the logarithm of the
    # other may come from 1 - sigmoid(logit), which loses all digits beyond a logit of 40, as PyTorch's own
    # cross-entropy does for the class 0.
    z = torch.where(truth == 1, x, -x)
    hit, miss, ce = torch.sigmoid(z), torch.sigmoid(-z), -F.logsigmoid(z)
    count = valid.sum((1, 2)).clamp(min=1)
    if kind == "focal":
        alpha = torch.where(truth == 1, c["alpha"], 1 - c["alpha"])
        return (alpha * miss ** c["gamma"] * ce * valid).sum((1, 2)) / count
    if kind == "cross_entropy":
        weight = torch.tensor(c["positive_weight"], dtype=torch.float64)
        own = F.binary_cross_entropy_with_logits(x, truth, pos_weight=weight, weight=valid, reduction="none")
        ours = torch.where(truth == 1, weight, 1.0) * ce * valid
        assert torch.allclose(own, ours, rtol=1e-12, atol=1e-12)
        return ours.sum((1, 2)) / count
    assert kind == "tversky"
    p = torch.sigmoid(x) * valid
    tp, fp = (p * truth).sum((1, 2)), (p * (1 - truth)).sum((1, 2))
    fn = (miss * truth * valid).sum((1, 2))
    wrong = c["fp_weight"] * fp + c["fn_weight"] * fn
    union = tp + wrong + c["smooth"]
    union = torch.where(valid.sum((1, 2)) == 0, 1.0, union)
    index = (tp + c["smooth"]) / union
    ratio = wrong / union
    seen = valid.sum((1, 2)) > 0
    assert torch.allclose(ratio[seen], 1 - index[seen], rtol=1e-12, atol=1e-12)
    base = torch.where(seen, ratio, 1.0)  # the power of an image without pixels has no gradient
    return torch.where(seen, base ** c["exponent"], 0.0)


def losses():
    generator = torch.Generator().manual_seed(1)
    shape = (7, 3, 4)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * 3
    truth = (torch.rand(shape, generator=generator) < 0.3).double()
    valid = torch.ones(shape, dtype=torch.float64)
    big = torch.tensor([100.0, 60.0, 25.0, 12.5], dtype=torch.float64)
    x[1] = torch.stack([big, -big, big])  # right and wrong
    x[2] = (2 * truth[2] - 1) * 100  # all right
    x[3] = (1 - 2 * truth[3]) * 100  # all wrong
    truth[4] = 0  # no positive pixel
    valid[4, 1:, 1] = 0
    valid[0, 0, :2] = valid[1, 2, 1] = valid[6, 2] = 0
    truth[6], x[6] = 1, x[6].round()  # all positive
    valid[5] = 0  # nothing to learn from
    truth = truth * valid
    x = x.float().double()  # exact there
    focal = lambda alpha, gamma: dict(focal=dict(alpha=alpha, gamma=gamma))
    cross_entropy = lambda weight: dict(cross_entropy=dict(positive_weight=weight))
    tversky = lambda fp, fn, exponent, smooth: dict(
        tversky=dict(fp_weight=fp, fn_weight=fn, exponent=exponent, smooth=smooth)
    )
    dice = tversky(0.5, 0.5, 1.0, 0.5)
    cases = []
    for config in [
        focal(0.25, 2.0), focal(0.5, 0.0), focal(0.75, 1.0), focal(0.25, 0.5), focal(0.25, 5.0),
        cross_entropy(1.0), cross_entropy(20.0),
        tversky(0.3, 0.7, 1.0, 0.0), tversky(0.3, 0.7, 0.75, 1.0), dice, tversky(1.0, 1.0, 4 / 3, 0.0),
        dict(sum=[[1.0, cross_entropy(1.0)], [0.5, dice]]),
    ]:
        logit = x.clone().requires_grad_()
        loss = loss_of_images(config, logit, truth, valid)
        loss.sum().backward()
        assert torch.isfinite(loss).all() and torch.isfinite(logit.grad).all()
        cases.append(dict(loss=config, losses=rounded(loss.detach()), gradients=rounded(logit.grad)))
    # The Dice coefficient as it is mostly written.
    p = torch.sigmoid(x) * valid
    usual = 1 - (2 * (p * truth).sum((1, 2)) + 1) / (p.sum((1, 2)) + truth.sum((1, 2)) + 1)
    assert torch.allclose(usual, loss_of_images(dice, x, truth, valid), rtol=1e-12, atol=1e-12)
    inputs = dict(shape=list(shape), logits=x.flatten().tolist(), truth=truth.flatten().tolist(), valid=valid.flatten().tolist())
    (HERE / "losses.json").write_text(
        '{"inputs": ' + json.dumps(inputs) + ',\n"cases": ' + lines(cases).rstrip() + "}\n"
    )
    print("losses", len(cases))


def lines(cases):
    return "[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n"


def read(folder, size=None):
    """PyTorch takes the weights of a bundle as they are; only its counters of batches are missing."""
    c = json.loads((folder / "model.json").read_text())["unet"]
    model = UNet(c)
    outcome = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    assert not outcome.unexpected_keys, outcome.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in outcome.missing_keys), outcome.missing_keys
    print(c["layout"], parameters(model), "parameters are in place", file=sys.stderr)
    if size:
        shape = [2, c["in_channels"], int(size), int(size)]
        image = torch.from_numpy(uniform("image", int(np.prod(shape)))).reshape(shape)
        with torch.no_grad():
            print(json.dumps(rounded(model.double().eval()(image))))


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        read(pathlib.Path(sys.argv[1]), *sys.argv[2:])
    else:
        networks()
        training()
        weights()
        losses()
