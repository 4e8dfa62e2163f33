"""The network beside PyTorch: the same weights and the same input in both, one after the other.

    python network.py forward FOLDER THREADS [MODE]   one pass of the model of a bundle over `input.raw`, to `peer.raw`
    python network.py step FOLDER THREADS [MODE]      a training step: forward, focal loss, backward, Adam
    python network.py scene FOLDER THREADS [MODE]     a prepared scene in windows of 572, as the released code predicts
    python network.py make-scene FOLDER SIDE     makes that scene
    python network.py difference FOLDER 0        of both maps of it

The first three print seconds. The model is that of the golden values of unet-burn, run in the layout of memory that PyTorch
computes fastest in (channels last). MODE is cpu (if not given), tf32 (an NVIDIA card, single precision with products in TF32)
or amp (there, half precision where PyTorch's autocast takes it).
"""

import importlib.util
import json
import statistics
import sys
import time
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

here = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("golden", here / "crates/unet-burn/tests/data/make_golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)


MODE = "cpu"


def device():
    return "cpu" if MODE == "cpu" else "cuda"


def precision():
    return torch.autocast("cuda", torch.float16, enabled=MODE == "amp")


def load(folder):
    config = json.loads((folder / "model.json").read_text())["unet"]
    model = golden.UNet(config)
    missing, unexpected = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing), (missing, unexpected)
    return config, model.to(device(), memory_format=torch.channels_last)


def images(folder, config):
    shape = json.loads((folder / "input.json").read_text())
    values = torch.from_numpy(numpy.fromfile(folder / "input.raw", "<f4").reshape(shape))
    return values.to(device()).contiguous(memory_format=torch.channels_last)


def timed(rounds, work):
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:]), result


def forward(folder, rounds=7):
    config, model = load(folder)
    x = images(folder, config)
    model.eval()
    with torch.inference_mode(), precision():
        seconds, probabilities = timed(rounds, lambda: torch.sigmoid(model(x).float()).cpu())
    probabilities.contiguous().numpy().astype("<f4").tofile(folder / "peer.raw")
    return seconds


def focal(logits, truth, alpha=0.25, gamma=2.0):
    z = logits * (2 * truth - 1)
    weight = alpha * truth + (1 - alpha) * (1 - truth)
    return -(weight * torch.sigmoid(-z) ** gamma * F.logsigmoid(z)).mean()


def step(folder, rounds=3):
    config, model = load(folder)
    x = images(folder, config)
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7)
    scaler = torch.amp.GradScaler("cuda", enabled=MODE == "amp")

    def work():
        optimizer.zero_grad(set_to_none=True)
        with precision():
            logits = model(x)
        logits = logits.float()
        # Every eighth row is positive.
        truth = torch.zeros_like(logits)
        truth[:, :, ::8] = 1
        loss = focal(logits, truth)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if MODE != "cpu":
            torch.cuda.synchronize()
        return loss.item()

    seconds, loss = timed(rounds, work)
    assert numpy.isfinite(loss), loss
    return seconds


# Our windows begin at -92, and pooling meets the same squares at places that are 16 apart.
START = 4
BANDS = ["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"]


def make_scene(folder, side):
    """A scene as `prepare` writes it, and the recipe of its channels in the model of the folder."""
    import rasterio
    from bands import band

    (folder / "scene").mkdir(exist_ok=True)
    made, first = band(side), []
    profile = dict(driver="GTiff", height=side, width=side, count=11, dtype="uint16", crs="EPSG:32629", nodata=0,
                   transform=rasterio.transform.from_origin(300000, 800040, 10, 10), tiled=True, blockxsize=512,
                   blockysize=512, compress="deflate", predictor=2)
    with rasterio.open(folder / "scene/stack.tif", "w", **profile) as out:
        for index in range(10):
            dn = numpy.roll(made, 100 * index, axis=1) + 100 * index
            out.write(dn, index + 1)
            low, high = numpy.percentile(dn, [2, 98])
            first.append({"band": BANDS[index], "low": low / 1e4, "high": high / 1e4, "count": int(dn.size), "offset": 0,
                          "quantification": 10000})
        out.write(numpy.select([made < 500, made < 900], [6, 4], 5).astype("uint16"), 11)
        out.descriptions = [*BANDS, "SCL"]
        out.scales, out.offsets = [1e-4] * 10 + [1], [0] * 11
        out.update_tags(PRODUCT="made")
    definition = {"low_percent": 2.0, "high_percent": 98.0, "method": "linear", "excluded_classes": [0, 1, 8, 9],
                  "nodata": 0}
    statistics = {"version": 1, "product": "made", "baseline": "05.09", "made_by": "network.py", "definition": definition, "bands": first}
    (folder / "scene/statistics.json").write_text(json.dumps(statistics))
    model = json.loads((folder / "model.json").read_text())
    model["threshold"] = 0.5
    model["recipe"]["channels"] = BANDS + [f"SCL={number}" for number in range(12)]
    model["recipe"]["normalization"] = (
        "percentiles 2 and 98 (Linear, DN 0 left out, SCL 0 1 8 9 left out) to -1 and 1, clipped")
    (folder / "model.json").write_text(json.dumps(model))


def scene(folder, window=572):
    """Windows side by side, each read, normalised, predicted and put into the map; what is left over at the edges is
    not predicted."""
    import rasterio
    from rasterio.windows import Window

    config, model = load(folder)
    model.eval()
    bands = json.loads((folder / "scene/statistics.json").read_text())["bands"]
    start = time.perf_counter()
    with rasterio.open(folder / "scene/stack.tif") as stack, torch.inference_mode(), precision():
        probabilities = numpy.full((stack.height, stack.width), -1, "float32")
        output = window - 184
        for row in range(START, stack.height - window + 1, output):
            for col in range(START, stack.width - window + 1, output):
                dn = stack.read(window=Window(col, row, window, window))
                x = numpy.empty((config["in_channels"], window, window), "float32")
                for band, plane, out in zip(bands, dn, x):
                    low, high = band["low"] * 1e4, band["high"] * 1e4
                    numpy.clip((plane.astype("float32") - low) * (2 / (high - low)) - 1, -1, 1, out=out)
                x[len(bands):] = dn[-1] == numpy.arange(12, dtype="uint16")[:, None, None]
                x = torch.from_numpy(x)[None].to(device()).contiguous(memory_format=torch.channels_last)
                predicted = torch.sigmoid(model(x).float())[0, 0].cpu().numpy()
                probabilities[row + 92 : row + 92 + output, col + 92 : col + 92 + output] = predicted
        profile = dict(driver="COG", height=stack.height, width=stack.width, count=1, dtype="float32", nodata=-1,
                       crs=stack.crs, transform=stack.transform, compress="deflate", predictor=3)
        with rasterio.open(folder / "peer.tif", "w", **profile) as out:
            out.write(probabilities, 1)
    return time.perf_counter() - start


def difference(folder):
    """The largest difference of both maps, as part of the largest probability, where they can agree: in windows that pool
    the same squares as ours, which are every fourth (4 x 388 is a multiple of 16), without the last 15 rows and columns,
    where the padding of the up-convolutions shows."""
    import rasterio

    with rasterio.open(folder / "peer.tif") as theirs, rasterio.open(folder / "maps/probability.tif") as ours:
        theirs, ours = theirs.read(1), ours.read(1)
    assert not numpy.isnan(ours).any()
    off = abs(theirs - ours)
    off[theirs < 0] = 0
    off = off[START + 92 :, START + 92 :]
    keep = numpy.arange(off.shape[0]) % (4 * 388) < 373
    return off[keep][:, keep].max() / theirs.max()


if __name__ == "__main__":
    what, folder, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    MODE = sys.argv[4] if len(sys.argv) > 4 else MODE
    assert MODE in ("cpu", "tf32", "amp"), MODE
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    if what == "make-scene":
        make_scene(folder, number)
    elif what == "difference":
        print(difference(folder))
    else:
        torch.set_num_threads(number)
        print({"forward": forward, "step": step, "scene": scene}[what](folder))
