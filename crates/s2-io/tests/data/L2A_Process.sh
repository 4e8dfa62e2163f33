#!/bin/sh
# A fake of Sen2Cor's L2A_Process that talks as version 2.8.0 does (L2A_Process.py) and fails as users have seen it fail.
# The files `mode` and `version` beside it say how.
here=$(dirname "$0")
mode=$(cat "$here/mode")

if [ "$1" = --help ]; then
    case $mode in
    mute) echo "usage: something else"; exit 0 ;;
    broken) echo "ImportError: No module named glymur" >&2; exit 1 ;;
    esac
    # As Python's argparse breaks lines.
    printf 'usage: L2A_Process.py [-h] [--mode MODE] [--resolution {10,20,60}]\n                      input_dir\n\n'
    printf 'Sentinel-2 Level 2A Processor (Sen2Cor). Version: %s.\n\n' "$(cat "$here/version")"
    printf 'positional arguments:\n  input_dir             Directory of Level-1C input\n'
    exit 0
fi

echo "$@" >"$here/arguments"
resolution='10 20' output= baseline=99.99
while [ $# -gt 0 ]; do
    case $1 in
    --resolution) resolution=$2; shift 2 ;;
    --output_dir) output=$2; shift 2 ;;
    --processing_baseline) baseline=$2; shift 2 ;;
    --GIP_L2A) shift 2 ;;
    *) input=$1; shift ;;
    esac
done
# Before version 2.8.
output=${output:-$(dirname "$input")}

progress() { echo "Progress[%]: $1 : PID-$$, L2A_$2, elapsed time[s]: 0.100, total: 0:00:01"; }
end() { echo "Progress[%]: 100.00 : $1"; echo; exit "$2"; }
failed='Application terminated with at least one error.'

# An L2A product of tile $1, made at time $2, or now.
product() {
    IFS=_ read -r satellite level sensing l1c_baseline orbit tile rest <<NAME
$(basename "$input")
NAME
    number=$(echo "$baseline" | tr -d .)
    name=${satellite}_MSIL2A_${sensing}_N${number}_${orbit}_T$1_${2:-$(date -u +%Y%m%dT%H%M%S)}.SAFE
    granule=GRANULE/L2A_T$1_A024342_20200219T112111
    safe=$output/$name
    mkdir -p "$safe/$granule/IMG_DATA"
    images=
    for r in $resolution; do
        mkdir -p "$safe/$granule/IMG_DATA/R${r}m"
        case $r in
        10) layers='B02 B03 B04 B08 TCI' ;;
        20) layers='B02 B03 B04 B05 B06 B07 B8A B11 B12 SCL TCI' ;;
        60) layers='B01 B02 B03 B04 B05 B06 B07 B8A B09 B11 B12 SCL TCI' ;;
        esac
        for layer in $layers; do
            image=$granule/IMG_DATA/R${r}m/T$1_${sensing}_${layer}_${r}m
            images="$images<IMAGE_FILE>$image</IMAGE_FILE>"
            [ "$mode" = empty_folder ] || echo "not JPEG 2000" >"$safe/$image.jp2"
        done
    done
    offsets=
    case $baseline in
    99.99) for id in 0 1 2 3 4 5 6 7 8 9 10 11 12; do
        offsets="$offsets<BOA_ADD_OFFSET band_id=\"$id\">-1000</BOA_ADD_OFFSET>"
    done ;;
    esac
    cat >"$safe/MTD_MSIL2A.xml" <<XML
<n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-2A.xsd">
<PRODUCT_START_TIME>2020-02-19T11:21:11.024Z</PRODUCT_START_TIME><PRODUCT_URI>$name</PRODUCT_URI>
<PROCESSING_LEVEL>Level-2A</PROCESSING_LEVEL><PROCESSING_BASELINE>$baseline</PROCESSING_BASELINE>
<Granule>$images<IMAGE_FILE>$granule/AUX_DATA/T$1_DEM_20m</IMAGE_FILE></Granule>
<BOA_QUANTIFICATION_VALUE>10000</BOA_QUANTIFICATION_VALUE>$offsets
</n1:Level-2A_User_Product>
XML
    cat >"$safe/$granule/MTD_TL.xml" <<XML
<n1:Level-2A_Tile_ID xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/S2_PDI_Level-2A_Tile_Metadata.xsd">
<TILE_ID>S2A_OPER_MSI_L2A_TL_FAKE_20200219T140000_A024342_T$1_N$baseline</TILE_ID>
<HORIZONTAL_CS_CODE>EPSG:32629</HORIZONTAL_CS_CODE>
</n1:Level-2A_Tile_ID>
XML
}

echo "Sentinel-2 Level 2A Processor (Sen2Cor). Version: $(cat "$here/version" | tr '\n' ' ') started ..."
for folder in AUX_DATA HTML rep_info DATASTRIP/*/QI_DATA GRANULE/*/AUX_DATA; do
    # The star of a folder that is not there stays.
    for found in "$input"/$folder; do
        [ -d "$found" ] || { echo "Error in creating L2A User Product: no $found"; end "$failed" 1; }
    done
done
cat "$input"/GRANULE/*/IMG_DATA/*.jp2 >/dev/null || end "$failed" 1
[ "$PYTHONUNBUFFERED" = 1 ] || end "$failed" 1
progress 0.42 ProcessTile
progress 14.20 AtmCorr

case $mode in
success) product 29RKH; end 'Application terminated successfully.' 0 ;;
slow_clock) product 29RKH 20240101T000000; end 'Application terminated successfully.' 0 ;;
rude)
    # Writes into its input.
    echo changed >>"$input/MTD_MSIL1C.xml"
    rm "$input"/GRANULE/*/IMG_DATA/*.jp2
    product 29RKH
    # As a copy that keeps links would.
    ln -s "$input/DATASTRIP/DS_1/MTD_DS.xml" "$safe/MTD_DS.xml"
    end 'Application terminated successfully.' 0
    ;;
exit_1) echo 'Traceback: IOError: no LUT' >&2; end "$failed" 1 ;;
exit_0_with_error) product 29RKH; end "$failed" 0 ;;
killed) kill -9 $$ ;;
empty_folder) product 29RKH; end 'Application terminated successfully.' 0 ;;
empty_image) product 29RKH; : >"$safe/$granule/IMG_DATA/R20m/T29RKH_${sensing}_SCL_20m.jp2"
    end 'Application terminated successfully.' 0 ;;
missing_image) product 29RKH; rm "$safe/$granule/IMG_DATA/R10m/T29RKH_${sensing}_TCI_10m.jp2"
    end 'Application terminated successfully.' 0 ;;
no_metadata) product 29RKH; rm "$safe/MTD_MSIL2A.xml"; end 'Application terminated successfully.' 0 ;;
other_tile) product 30RUN; end 'Application terminated successfully.' 0 ;;
two) product 29RKH 20240101T000000; product 29RKH 20240101T000001; end 'Application terminated successfully.' 0 ;;
none) end 'Application terminated successfully.' 0 ;;
already) end 'Product already processed.' 0 ;;
hang | stubborn | daemon)
    [ "$mode" = stubborn ] && trap '' TERM
    (while :; do echo alive >"$here/beat"; sleep 0.1; done) &
    product 29RKH
    [ "$mode" = daemon ] && end 'Application terminated successfully.' 0
    while :; do sleep 0.1; done
    ;;
memory)
    dd if=/dev/zero of=/dev/null bs=1073741824 count=1 || { echo 'MemoryError' >&2; end "$failed" 1; }
    product 29RKH
    end 'Application terminated successfully.' 0
    ;;
garbage)
    printf 'Progress[%%]: nan : x\nProgress[%%]: 1e999 : x\nProgress[%%]\n\377\376\033[31m\000\n\n\n\r\r'
    head -c 3000000 /dev/zero | tr '\0' x
    printf '\nProgress[%%]: 555 : more than all\n'
    product 29RKH
    # Without a line end.
    printf 'Progress[%%]: 100.00 : Application terminated successfully.'
    exit 0
    ;;
esac
