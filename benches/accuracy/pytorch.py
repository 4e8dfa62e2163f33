"""Trains PyTorch's twin of `train DATA --layout seed --filters 16 --positive-share 0` on a folder of chips.

    python pytorch.py DATA OUT SEED EPOCHS [THREADS]

(torch 2.15, numpy 2, rasterio 1.4.) The network is that of unet-burn's golden values: valid convolutions, batch norm after
each, dropout 0.3, 16 filters. An epoch has as many patches as there are training chips, in batches of 2: a random place of a
random chip, 444 -> 260 pixels, one of the eight turns and mirrorings, and for half of them brightness and contrast within
0.2. Focal loss (0.25, 2) and Adam
at 1e-3; weights begin as PyTorch's layers do. After each epoch all validation chips are predicted in one window each, and
history.csv gets the IoU at the best of 1,000 thresholds. A run that was stopped goes on after its last epoch.
"""

import sys
import time
from pathlib import Path

import numpy
import rasterio
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers"))
from network import focal, golden  # noqa: E402

CONFIG = dict(layout="seed", padding="valid", up="upsample", in_channels=3, num_classes=1, levels=4, filters=16, kernel=3,
              dropout=0.3, norm_epsilon=1e-3)
INPUT, OUTPUT, BATCH = 444, 260, 2
MARGIN = (INPUT - OUTPUT) // 2


def read(data, split):
    """Channels in -1 to 1 by percentiles 2 and 98 of the chip, mirrored outside, and truth."""
    chips = []
    for line in (data / "split.csv").read_text().splitlines()[1:]:
        chip, its, *_ = line.split(",")
        if its != split:
            continue
        with rasterio.open(data / f"images/img_{chip}.tif") as image, rasterio.open(data / f"masks/mask_{chip}.tif") as mask:
            dn, truth = image.read().astype("float32"), mask.read(1)
        assert (dn > 0).all() and (truth <= 1).all(), "no chip has nodata or ignored pixels"
        low, high = numpy.percentile(dn, [2, 98], axis=(1, 2))[:, :, None, None]
        channels = ((dn - low) * (2 / (high - low)) - 1).clip(-1, 1)
        # On the right and below some more: the smallest window whose output holds a chip is four pixels larger.
        channels = numpy.pad(channels, ((0, 0), (MARGIN, MARGIN + 4), (MARGIN, MARGIN + 4)), "symmetric")
        chips.append((channels.astype("float32"), truth))
    return chips


def patch(chips, rng):
    channels, truth = chips[rng.integers(len(chips))]
    row, col = (rng.integers(side - OUTPUT + 1) for side in truth.shape)
    x, y = channels[:, row : row + INPUT, col : col + INPUT], truth[row : row + OUTPUT, col : col + OUTPUT]
    turns, mirrored = rng.integers(4), rng.integers(2)
    x, y = numpy.rot90(x, turns, (1, 2)), numpy.rot90(y, turns)
    if mirrored:
        x, y = x[:, :, ::-1], y[:, ::-1]
    if rng.integers(2):
        x = (x * (1 + rng.uniform(-0.2, 0.2)) + rng.uniform(-0.2, 0.2)).clip(-1, 1)
    return x.astype("float32"), y.astype("float32")


def validate(model, chips):
    """Loss, and IoU at the best threshold."""
    model.eval()
    counts, losses = numpy.zeros((2, 1000), "int64"), []
    with torch.inference_mode():
        for channels, truth in chips:
            logits = model(torch.from_numpy(channels)[None])[0, 0, : truth.shape[0], : truth.shape[1]]
            losses.append(focal(logits, torch.from_numpy(truth.astype("float32"))).item())
            bins = (torch.sigmoid(logits).numpy() * 1000).clip(0, 999).astype(int)
            for label in (0, 1):
                counts[label] += numpy.bincount(bins[truth == label], minlength=1000)
    model.train()
    negative, positive = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
    iou = positive / (positive[0] + negative)
    best = int(iou.argmax())
    return numpy.mean(losses), iou[best], best / 1000


def main(data, out, seed, epochs):
    torch.manual_seed(seed)
    training, validation = read(data, "train"), read(data, "val")
    model = golden.UNet(CONFIG).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7)
    out.mkdir(parents=True, exist_ok=True)
    rows, state = ["epoch,training_loss,validation_loss,score,threshold,seconds"], out / "state.pt"
    if state.exists():
        kept = torch.load(state, weights_only=False)
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        torch.set_rng_state(kept["rng"])
        rows = kept["rows"]
    for epoch in range(len(rows), epochs + 1):
        start, losses, rng = time.perf_counter(), [], numpy.random.default_rng([seed, epoch])
        for _ in range(len(training) // BATCH):
            x, y = zip(*(patch(training, rng) for _ in range(BATCH)))
            x = torch.from_numpy(numpy.stack(x)).contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad(set_to_none=True)
            loss = focal(model(x), torch.from_numpy(numpy.stack(y))[:, None])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        seconds = time.perf_counter() - start
        validation_loss, score, threshold = validate(model, validation)
        rows.append(f"{epoch},{numpy.mean(losses):.5f},{validation_loss:.5f},{score:.4f},{threshold:.3f},{seconds:.1f}")
        print(rows[-1], flush=True)
        kept = dict(model=model.state_dict(), optimizer=optimizer.state_dict(), rng=torch.get_rng_state(), rows=rows)
        torch.save(kept, state.with_suffix(".new"))
        state.with_suffix(".new").replace(state)
        (out / "history.csv").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[5]) if len(sys.argv) > 5 else 2)
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
