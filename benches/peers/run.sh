#!/usr/bin/env bash
# Whole pieces of work beside the Python peers, ours and theirs in turn.
#
#     benches/peers/run.sh [ROW…]      # no row: all of them; --list shows them
#
# Makes its own Python environment and test files below the target folder (once, some minutes and 1 GB; 6 GB with PyTorch, for the rows of the network), and prints a
# JSON line for each row: medians in seconds, and ratio = peer / ours.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-$PWD/target}
work=$target/peers
mkdir -p "$work"
python=$work/python/bin/python
if ! "$python" -c 'import numpy, rasterio, glymur' 2>/dev/null; then
    rm -rf "$work/python"
    python3 -m venv "$work/python"
    "$python" -m pip install --quiet --disable-pip-version-check rasterio==1.4.4 numpy==2.4.3 glymur==0.14.8 packaging >&2
fi
# The network's peer is large, so it comes only with its rows.
case " $* " in
    "  " | *" network-"*)
        "$python" -c 'import torch, safetensors' 2>/dev/null ||
            "$python" -m pip install --quiet --disable-pip-version-check torch==2.15.0 safetensors==0.8.0 >&2
        # The features of the whole workspace, so that burn is built once.
        cargo build --release --quiet --workspace --bins --example speed >&2
        ;;
esac
cargo build --release --quiet -p s2-jp2 -p s2-io -p benches --example decode --example cog --example stack >&2
cargo build --release --quiet -p s2-io --features net --example fetch >&2
exec "$python" benches/peers/rows.py "$work" "$target/release/examples" "$@"
