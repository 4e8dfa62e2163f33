//! From rows of images to planes, from sums of planes to rows, and back for gradients.

use super::conv::Convolution;
use super::kernel::fma;
use super::parts::{Cut, Part};
use super::way::{A, B, Way};

/// A channel of an image, or of a part of one.
#[derive(Clone, Copy)]
pub(super) struct Plane<'a> {
    /// From its first pixel on.
    pub(super) values: &'a [f32],
    /// Values from one row to the next.
    pub(super) pitch: usize,
}

/// The planes of maps of a height and width.
pub(super) fn planes(maps: &[f32], size: [usize; 2]) -> impl Iterator<Item = Plane<'_>> {
    planes_from(maps, size, [0, 0])
}

/// The planes of maps of a height and width, from a row and a column on.
pub(super) fn planes_from(
    maps: &[f32],
    [height, width]: [usize; 2],
    [row, col]: [usize; 2],
) -> impl Iterator<Item = Plane<'_>> {
    maps.chunks_exact(height * width)
        .map(move |values| Plane { values: &values[row * width + col..], pitch: width })
}

/// As many values of a row as `copy` has, from a column on; 0 outside of the image. Copied only where they are not all
/// inside.
#[inline(always)]
fn row<'a>(
    plane: Plane<'a>,
    [height, width]: [usize; 2],
    row: isize,
    col: isize,
    copy: &'a mut [f32],
) -> &'a [f32] {
    let Some(pixels) = usize::try_from(row)
        .ok()
        .filter(|row| *row < height)
        .map(|row| &plane.values[row * plane.pitch..][..width])
    else {
        copy.fill(0.0);
        return copy;
    };
    let end = col + copy.len().cast_signed();
    if col >= 0 && end <= width.cast_signed() {
        return &pixels[col.cast_unsigned()..][..copy.len()];
    }
    let first = col.max(0).min(width.cast_signed());
    let last = end.clamp(first, width.cast_signed());
    copy.fill(0.0);
    let inside = &pixels[first.cast_unsigned()..last.cast_unsigned()];
    copy[(first - col).cast_unsigned()..][..inside.len()].copy_from_slice(inside);
    copy
}

/// Makes the planes of a part of the input.
#[inline(always)]
pub(super) fn pack<const FMA: bool, const PIXELS: usize>(
    conv: &Convolution,
    cut: Cut,
    part: Part,
    images: &[Plane<'_>],
    planes: &mut Vec<f32>,
) {
    let count = conv.way.planes();
    let [_, reach_cols] = conv.way.reach(conv.kernel);
    let slack = reach_cols + PIXELS;
    planes.resize(count * conv.in_channels * cut.stride + slack, 0.0);
    let tail = planes.len() - slack;
    planes[tail..].fill(0.0);
    let image = &images[part.image * conv.in_channels..][..conv.in_channels];
    let col = part.pixel.cast_signed() - conv.padding[1].cast_signed();
    let first = part.group.cast_signed() - conv.padding[0].cast_signed();
    let mut copies = vec![0.0; 6 * cut.pitch];
    // Right of the image are zeros, which no row needs to be copied for.
    let inside = conv.input[1].saturating_sub(col.max(0).cast_unsigned());
    let used = if col < 0 { cut.pitch } else { cut.pitch.min(inside) };
    for (channel, &image) in image.iter().enumerate() {
        let at = channel * cut.stride;
        match conv.way {
            Way::Direct | Way::Doubled => {
                let plane = &mut planes[at..][..cut.stride];
                for (r, out) in plane.chunks_exact_mut(cut.pitch).enumerate() {
                    let pixels = row(image, conv.input, first + r.cast_signed(), col, &mut copies[..used]);
                    out[..used].copy_from_slice(pixels);
                    out[used..].fill(0.0);
                }
            }
            Way::Rows => {
                for group in 0..cut.groups {
                    let top = 4 * (part.group + group).cast_signed() - conv.padding[0].cast_signed();
                    let mut copies = copies.chunks_exact_mut(cut.pitch);
                    let rows: [&[f32]; 6] = std::array::from_fn(|r| {
                        let copy = copies.next().expect("six copies");
                        row(image, conv.input, top + r.cast_signed(), col, &mut copy[..used])
                    });
                    let mut parts = planes.chunks_exact_mut(conv.in_channels * cut.stride);
                    let planes: [&mut [f32]; 6] = std::array::from_fn(|_| {
                        let plane = &mut parts.next().expect("six planes")[at + group * cut.pitch..];
                        let (plane, rest) = plane[..cut.pitch].split_at_mut(used);
                        rest.fill(0.0);
                        plane
                    });
                    to_six::<FMA>(rows, planes);
                }
            }
            Way::Halved => {
                // A pixel of the plane is every other of a row of twice the pitch.
                for r in 0..cut.stride / cut.pitch {
                    for place_row in 0..2 {
                        let place_first = 2 * (first + r.cast_signed()) + place_row as isize;
                        let pixels =
                            row(image, conv.input, place_first, 2 * col, &mut copies[..2 * cut.pitch])
                                .as_chunks::<2>()
                                .0;
                        for place_col in 0..2 {
                            let plane = (2 * place_row + place_col) * conv.in_channels * cut.stride;
                            let out = &mut planes[plane + at + r * cut.pitch..][..cut.pitch];
                            for (out, pixel) in out.iter_mut().zip(pixels) {
                                *out = pixel[place_col];
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Six input rows at the six points: for each point, the polynomial that is 0 at all others.
#[inline(always)]
fn to_six<const FMA: bool>([r0, r1, r2, r3, r4, r5]: [&[f32]; 6], [p0, p1, p2, p3, p4, p5]: [&mut [f32]; 6]) {
    let length = p0.len();
    let (r0, r1, r2) = (&r0[..length], &r1[..length], &r2[..length]);
    let (r3, r4, r5) = (&r3[..length], &r4[..length], &r5[..length]);
    let (p1, p2, p3) = (&mut p1[..length], &mut p2[..length], &mut p3[..length]);
    let (p4, p5) = (&mut p4[..length], &mut p5[..length]);
    for i in 0..length {
        p0[i] = fma::<FMA>(A * A * B * B, r0[i], fma::<FMA>(-(A * A + B * B), r2[i], r4[i]));
        let (even, odd) = (fma::<FMA>(-B * B, r2[i], r4[i]), A * fma::<FMA>(-B * B, r1[i], r3[i]));
        p1[i] = even + odd;
        p2[i] = even - odd;
        let (even, odd) = (fma::<FMA>(-A * A, r2[i], r4[i]), B * fma::<FMA>(-A * A, r1[i], r3[i]));
        p3[i] = even + odd;
        p4[i] = even - odd;
        p5[i] = fma::<FMA>(A * A * B * B, r1[i], fma::<FMA>(-(A * A + B * B), r3[i], r5[i]));
    }
}

/// Makes output rows of the sums of a channel; `last` is what happens to each value.
#[inline(always)]
pub(super) fn unpack<'a, const FMA: bool>(
    way: Way,
    pitch: usize,
    sums: impl Fn(usize) -> &'a [f32],
    out: &mut [&mut [f32]],
    last: impl Fn(f32) -> f32,
) {
    match way {
        Way::Direct => {
            let sums = sums(0);
            for (row, out) in out.iter_mut().enumerate() {
                for (out, &sum) in out.iter_mut().zip(&sums[row * pitch..]) {
                    *out = last(sum);
                }
            }
        }
        Way::Rows => {
            let sums: [&[f32]; 6] = std::array::from_fn(sums);
            for (group, out) in out.chunks_mut(4).enumerate() {
                let width = out[0].len();
                let sums = sums.map(|sums| &sums[group * pitch..][..width]);
                from_six::<FMA>(sums, out, &last);
            }
        }
        Way::Doubled => {
            for (row, out) in out.iter_mut().enumerate() {
                let (left, right) = (sums(2 * (row % 2)), sums(2 * (row % 2) + 1));
                let pixels = left[row / 2 * pitch..].iter().zip(&right[row / 2 * pitch..]);
                for (out, (&left, &right)) in out.as_chunks_mut::<2>().0.iter_mut().zip(pixels) {
                    *out = [last(left), last(right)];
                }
            }
        }
        Way::Halved => {
            let sums: [&[f32]; 4] = std::array::from_fn(sums);
            for (row, out) in out.iter_mut().enumerate() {
                let [a, b, c, d] = sums.map(|sums| &sums[row * pitch..][..out.len()]);
                for (i, out) in out.iter_mut().enumerate() {
                    *out = last(a[i] + b[i] + c[i] + d[i]);
                }
            }
        }
    }
}

/// Four output rows from the values at the six points, row `i` by the powers `p^i`; the last group of an image may have
/// fewer rows.
#[inline(always)]
fn from_six<const FMA: bool>(
    [m0, m1, m2, m3, m4, m5]: [&[f32]; 6],
    out: &mut [&mut [f32]],
    last: impl Fn(f32) -> f32,
) {
    let length = m0.len();
    let (m1, m2, m3, m4, m5) = (&m1[..length], &m2[..length], &m3[..length], &m4[..length], &m5[..length]);
    let rows = |i: usize| {
        let (sum_a, difference_a) = (m1[i] + m2[i], m1[i] - m2[i]);
        let (sum_b, difference_b) = (m3[i] + m4[i], m3[i] - m4[i]);
        [
            m0[i] + sum_a + sum_b,
            fma::<FMA>(A, difference_a, B * difference_b),
            fma::<FMA>(A * A, sum_a, B * B * sum_b),
            fma::<FMA>(A * A * A, difference_a, fma::<FMA>(B * B * B, difference_b, m5[i])),
        ]
    };
    if let [o0, o1, o2, o3] = out {
        let (o0, o1, o2, o3) = (&mut o0[..length], &mut o1[..length], &mut o2[..length], &mut o3[..length]);
        for i in 0..length {
            let values = rows(i);
            o0[i] = last(values[0]);
            o1[i] = last(values[1]);
            o2[i] = last(values[2]);
            o3[i] = last(values[3]);
        }
        return;
    }
    for (row, out) in out.iter_mut().enumerate() {
        for (i, out) in out.iter_mut().enumerate() {
            *out = last(rows(i)[row]);
        }
    }
}

/// The transpose of [`unpack`]: gradients of the sums of a part, `[product, out_channel, pixel]`, 0 where no output is.
#[inline(always)]
pub(super) fn pack_gradient<const FMA: bool, const PIXELS: usize>(
    conv: &Convolution,
    cut: Cut,
    part: Part,
    products: usize,
    gradient: &[f32],
    out: &mut Vec<f32>,
) {
    let length = (cut.groups * cut.pitch).next_multiple_of(PIXELS);
    out.resize(products * conv.out_channels * length, 0.0);
    let [group_rows, group_cols] = conv.way.group();
    let [height, width] = conv.output;
    let cols = part.pixel * group_cols..((part.pixel + cut.pixels) * group_cols).min(width);
    let pixels = cols.len() / group_cols;
    let gradient = &gradient[part.image * conv.out_channels * conv.out_plane()..];
    let zeros = vec![0.0; cols.len()];
    for (channel, gradient) in gradient.chunks_exact(conv.out_plane()).take(conv.out_channels).enumerate() {
        let row = |row: usize| {
            if row < height { &gradient[row * width..][cols.clone()] } else { zeros.as_slice() }
        };
        for plane in out.chunks_exact_mut(conv.out_channels * length) {
            let plane = &mut plane[channel * length..][..length];
            for group in plane.chunks_mut(cut.pitch) {
                let used = pixels.min(group.len());
                group[used..].fill(0.0);
            }
            plane[cut.groups * cut.pitch..].fill(0.0);
        }
        for group in 0..cut.groups {
            let first = (part.group + group) * group_rows;
            let mut planes = out.chunks_exact_mut(conv.out_channels * length);
            let mut plane = || {
                &mut planes.next().expect("a plane a product")[channel * length + group * cut.pitch..]
                    [..pixels]
            };
            match conv.way {
                Way::Direct => plane().copy_from_slice(row(first)),
                Way::Rows => {
                    let rows = std::array::from_fn(|r| row(first + r));
                    let planes = std::array::from_fn(|_| plane());
                    four_to_six::<FMA>(rows, planes);
                }
                Way::Halved => unreachable!("it has weights of another convolution"),
                Way::Doubled => {
                    for place in 0..4 {
                        let pixels = row(first + place / 2).as_chunks::<2>().0;
                        for (out, pixel) in plane().iter_mut().zip(pixels) {
                            *out = pixel[place % 2];
                        }
                    }
                }
            }
        }
    }
}

/// The transpose of [`from_six`].
#[inline(always)]
fn four_to_six<const FMA: bool>([r0, r1, r2, r3]: [&[f32]; 4], [p0, p1, p2, p3, p4, p5]: [&mut [f32]; 6]) {
    let length = p0.len();
    let (r0, r1, r2, r3) = (&r0[..length], &r1[..length], &r2[..length], &r3[..length]);
    let (p1, p2, p3) = (&mut p1[..length], &mut p2[..length], &mut p3[..length]);
    let (p4, p5) = (&mut p4[..length], &mut p5[..length]);
    for i in 0..length {
        p0[i] = r0[i];
        let (even, odd) = (fma::<FMA>(A * A, r2[i], r0[i]), A * fma::<FMA>(A * A, r3[i], r1[i]));
        p1[i] = even + odd;
        p2[i] = even - odd;
        let (even, odd) = (fma::<FMA>(B * B, r2[i], r0[i]), B * fma::<FMA>(B * B, r3[i], r1[i]));
        p3[i] = even + odd;
        p4[i] = even - odd;
        p5[i] = r3[i];
    }
}
