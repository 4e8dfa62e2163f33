#!/usr/bin/env bash
# The network on a graphics card, on a machine that has one but nothing else: it builds and fetches nothing there.
#
#     benches/gpu/run.sh pack FOLDER                         # here: builds, and puts everything into FOLDER (300 MB)
#     FOLDER/benches/gpu/run.sh measure OUT.json [OPTION…]   # there; the options are those of measure.py
#
# There it needs Python with numpy; without PyTorch and safetensors (and rasterio for the scene) cells of the table stay empty,
# out loud.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)

case ${1:-} in
    pack)
        mkdir -p "${2:?a folder}/bin"
        folder=$(cd "$2" && pwd)
        cd "$here"
        cargo build --release --workspace --bins --example speed
        target=${CARGO_TARGET_DIR:-$here/target}/release
        strip -o "$folder/bin/predict" "$target/predict"
        strip -o "$folder/bin/speed" "$target/examples/speed"
        # The tests that look for a card; where their program is, cargo says.
        strip -o "$folder/bin/test-adapter" "$(cargo test --release --workspace --test adapter --no-run --message-format=json |
            sed -n 's/.*"name":"adapter".*"executable":"\([^"]*\)".*/\1/p')"
        for file in benches/gpu/{run.sh,measure.py} benches/peers/{network.py,bands.py,process.py} crates/unet-burn/tests/data/make_golden.py; do
            mkdir -p "$folder/$(dirname "$file")"
            cp "$file" "$folder/$file"
        done
        ;;
    measure)
        shift
        exec "${PYTHON:-python3}" "$here/benches/gpu/measure.py" "$here" "$@"
        ;;
    *)
        sed -n '2,8p' "$0"
        exit 2
        ;;
esac
