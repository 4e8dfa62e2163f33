//! The whole network over an image that comes row by row.
//!
//! Maps of a large image do not fit into a cache, and often not into the memory. Here each layer computes rows as soon as
//! it has what they need, and keeps of its input only what later rows need, too: what one layer hands to the next stays in
//! the cache, and no pixel is computed twice. Every value is computed as layer after layer would, to the bit.

use rayon::prelude::*;

use super::conv::Convolution;
use super::kernel::Instructions;
use super::layers::{margin, pool_rows};
use super::memory::Buffer;
use super::planes::{Plane, planes_from};

/// Bytes of the rows that a layer computes at once: they are to fit into the last cache with room to spare.
const STRIP_BYTES: usize = 4 << 20;
/// Layers compute multiples of so many rows: [`Way::Rows`](super::way::Way::Rows) makes four at once, pooling takes two.
const STEP: usize = 4;
/// Pixels of a row that are worth the work of a thread.
const PIECE: usize = 96;
/// Rows of the image that a layer waits for at most to have work for all threads, but for the deepest ones: what is computed
/// ahead has to be kept.
const MOST_AHEAD: usize = 64;

/// A convolution, ready for images of any size.
#[derive(Debug)]
pub(crate) struct Filter {
    /// `[out_channel, in_channel, row, column]` of the kernel.
    shape: [usize; 4],
    /// Whether it is a 2×2 convolution of the image doubled.
    doubles: bool,
    weights: Vec<Buffer>,
    bias: Vec<f32>,
    relu: bool,
}

impl Filter {
    /// A convolution without padding, then ReLU if wanted.
    pub(crate) fn new(shape: [usize; 4], weights: &[f32], bias: Vec<f32>, relu: bool) -> Self {
        let [_, in_channels, rows, cols] = shape;
        let sizes = Convolution::new([1, in_channels, rows, cols], shape, [0; 4]);
        Self { shape, doubles: false, weights: sizes.weights(Instructions::best(), weights), bias, relu }
    }

    /// An up-convolution: nearest neighbour ×2, then 2×2, padded at the bottom and on the right, then ReLU.
    pub(crate) fn doubling(shape: [usize; 4], weights: &[f32], bias: Vec<f32>) -> Self {
        let sizes = Convolution::doubled([1, shape[1], 1, 1], shape);
        Self { shape, doubles: true, weights: sizes.weights(Instructions::best(), weights), bias, relu: true }
    }

    /// Computes a strip of a map from the rows that are there of the maps that it takes, each from a row and column on: a
    /// multiple of `step` rows. Tells whether there was any.
    fn apply(&self, sources: &mut [(&mut Rows, [usize; 2])], target: &mut Rows, step: usize) -> bool {
        let [_, in_channels, kernel, _] = self.shape;
        let there = sources.iter().map(|(rows, [top, _])| rows.end.saturating_sub(*top)).min().unwrap_or(0);
        let (first, width) = (target.end, target.width);
        let possible = match self.doubles {
            true if there == sources[0].0.height => target.height,
            // A row is doubled to two, and the one after it is a neighbour of the second.
            true => 2 * there.saturating_sub(1),
            false => (there + 1).saturating_sub(kernel),
        };
        // Multiples of `step` until the last row.
        let end = if possible >= target.height { target.height } else { possible / step * step };
        let end = end.min(first + target.strip(step));
        if end <= first {
            return false;
        }
        let (from, sizes) = if self.doubles {
            let image = [1, in_channels, there - first / 2, width / 2];
            let output = [end - first, width];
            (first / 2, Convolution { output, ..Convolution::doubled(image, self.shape) })
        } else {
            let image = [1, in_channels, end - first + kernel - 1, width + kernel - 1];
            (first, Convolution::new(image, self.shape, [0; 4]))
        };
        let planes = sources.iter().flat_map(|(rows, [top, left])| rows.planes(from + top, *left));
        let images: Vec<Plane<'_>> = planes.collect();
        let written = target.extend(end).flat_map(|rows| rows.chunks_exact_mut(width));
        sizes.apply(Instructions::best(), &images, &self.weights, Some(&self.bias), self.relu, written);
        for (rows, [top, _]) in sources {
            rows.needed = if self.doubles { end / 2 } else { end + *top };
        }
        true
    }
}

/// A step of the network: what it does on the way down, and on the way up with what comes from below.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) down: [Filter; 2],
    /// Up-convolution, and the convolutions behind it; none at the bottom.
    pub(crate) up: Option<(Filter, [Filter; 2])>,
}

/// A U-Net of convolutions without padding, all norms folded in.
#[derive(Debug)]
pub(crate) struct Network {
    /// From the top to the bottom.
    pub(crate) steps: Vec<Step>,
    pub(crate) head: Filter,
}

/// Some rows of the maps of an image, `[channel, row, column]`.
#[derive(Debug)]
struct Rows {
    values: Buffer,
    channels: usize,
    /// Of the whole maps.
    height: usize,
    width: usize,
    /// Rows that there is room for, and that are expected to be needed at once.
    room: usize,
    expected: usize,
    /// The first row that is kept, and the one behind the last.
    start: usize,
    end: usize,
    /// Rows before this one are not needed any more.
    needed: usize,
}

impl Rows {
    fn new(channels: usize, [height, width]: [usize; 2]) -> Self {
        Self {
            values: Buffer::any(0),
            channels,
            height,
            width,
            room: 0,
            expected: 0,
            start: 0,
            end: 0,
            needed: 0,
        }
    }

    /// Rows that are computed at once.
    fn strip(&self, step: usize) -> usize {
        (STRIP_BYTES / (4 * self.channels * self.width) / step * step).max(step)
    }

    /// The channels, from a row and a column on.
    fn planes(&self, row: usize, col: usize) -> impl Iterator<Item = Plane<'_>> {
        planes_from(&self.values, [self.room, self.width], [row - self.start, col])
    }

    /// The rows up to `end`, to be written, channel by channel. What is not needed goes when there is no room left.
    fn extend(&mut self, end: usize) -> impl Iterator<Item = &mut [f32]> {
        if end - self.start > self.room {
            let first = self.needed.min(self.end);
            let kept = (first - self.start) * self.width..(self.end - self.start) * self.width;
            let old = self.room * self.width;
            if end - first > self.room {
                // Half of it again, so that few rows are moved to make room.
                self.room = (3 * (end - first).max(self.expected)).div_ceil(2).min(self.height);
                let mut values = Buffer::any(self.channels * self.room * self.width);
                let planes = values.par_chunks_exact_mut(self.room * self.width).enumerate();
                planes.for_each(|(channel, plane)| {
                    let kept = channel * old + kept.start..channel * old + kept.end;
                    plane[..kept.len()].copy_from_slice(&self.values[kept]);
                });
                self.values = values;
            } else {
                let planes = self.values.par_chunks_exact_mut(old);
                planes.for_each(|plane| plane.copy_within(kept.clone(), 0));
            }
            self.start = first;
        }
        let new = (self.end - self.start) * self.width..(end - self.start) * self.width;
        self.end = end;
        self.values.chunks_exact_mut(self.room * self.width).map(move |plane| &mut plane[new.clone()])
    }
}

/// The maps of a step.
#[derive(Debug)]
struct Maps {
    input: Rows,
    between: Rows,
    /// Rows that the layers compute at once.
    step: usize,
    up: Option<MapsUp>,
}

/// Those on the way up.
#[derive(Debug)]
struct MapsUp {
    skip: Rows,
    below: Rows,
    doubled: Rows,
    between: Rows,
}

/// A network on its way over an image.
#[derive(Debug)]
pub(crate) struct Stream {
    maps: Vec<Maps>,
    top: Rows,
    logits: Rows,
}

impl Stream {
    /// For an image of a height and width that the network takes.
    pub(crate) fn new(network: &Network, [height, width]: [usize; 2]) -> Self {
        let threads = rayon::current_num_threads();
        let less = |[height, width]: [usize; 2], filter: &Filter| {
            [height + 1 - filter.shape[2], width + 1 - filter.shape[3]]
        };
        let mut size = [height, width];
        let mut maps: Vec<Maps> = Vec::new();
        for (level, step) in network.steps.iter().enumerate() {
            let [first, second] = &step.down;
            let between = less(size, first);
            let output = less(between, second);
            maps.push(Maps {
                input: Rows::new(first.shape[1], size),
                between: Rows::new(first.shape[0], between),
                step: (STEP * (threads * PIECE).div_ceil(between[1]))
                    .min((MOST_AHEAD >> level).max(2 * STEP)),
                up: None,
            });
            size = if step.up.is_some() { output.map(|size| size / 2) } else { output };
        }
        // Upwards, with the sizes of what comes from below.
        for (index, step) in network.steps.iter().enumerate().rev() {
            let Some((up, [first, second])) = &step.up else { continue };
            let skip = less([maps[index].between.height, maps[index].between.width], &step.down[1]);
            let doubled = size.map(|size| 2 * size);
            let between = less(doubled, first);
            maps[index].up = Some(MapsUp {
                skip: Rows::new(step.down[1].shape[0], skip),
                below: Rows::new(up.shape[1], size),
                doubled: Rows::new(up.shape[0], doubled),
                between: Rows::new(first.shape[0], between),
            });
            size = less(between, second);
        }
        let [classes, channels, ..] = network.head.shape;
        let top = Rows::new(channels, size);
        for index in 0..maps.len() {
            let out =
                index.checked_sub(1).and_then(|above| Some(&maps[above].up.as_ref()?.below)).unwrap_or(&top);
            let [_, rows] = needed(&network.steps[index..], &maps[index..], out, 1);
            if let Some(up) = &mut maps[index].up {
                let [middle, _] = margin([up.skip.height, 0], [up.doubled.height, 0]);
                up.skip.expected = rows.saturating_sub(middle);
            }
        }
        Self { maps, top, logits: Rows::new(classes, size) }
    }

    /// Takes the next rows of the image, `[channel, row, column]`, and gives those of the logits that are computed by
    /// then, `[class, row, column]`.
    pub(crate) fn push(&mut self, network: &Network, image: &[f32]) -> Vec<f32> {
        // In the pool, so that from layer to layer no thread has to be woken.
        rayon::scope(|_| self.push_here(network, image))
    }

    fn push_here(&mut self, network: &Network, image: &[f32]) -> Vec<f32> {
        let Self { maps, top, logits } = self;
        let Rows { channels, width, .. } = maps[0].input;
        let area = image.len() / channels;
        let strip = maps[0].between.strip(STEP);
        let first = logits.end;
        logits.needed = first;
        for start in (0..area / width).step_by(strip) {
            let rows = start * width..area.min((start + strip) * width);
            let end = maps[0].input.end + rows.len() / width;
            let written: Vec<&mut [f32]> = maps[0].input.extend(end).collect();
            let planes = image.par_chunks_exact(area).zip(written);
            planes.for_each(|(plane, written)| written.copy_from_slice(&plane[rows.clone()]));
            while advance(&network.steps, maps, top) {
                while network.head.apply(&mut [(&mut *top, [0, 0])], logits, 1) {}
            }
        }
        let new = (logits.end - first) * logits.width;
        if new == 0 {
            return Vec::new();
        }
        logits.planes(first, 0).map(|plane| &plane.values[..new]).collect::<Vec<_>>().concat()
    }

    /// Of the logits.
    pub(crate) fn width(&self) -> usize {
        self.logits.width
    }

    /// Memory that it needs, about.
    pub(crate) fn bytes(&self) -> u64 {
        let rows =
            |rows: &Rows, count: usize| 4 * (rows.channels * rows.width * count.min(rows.height)) as u64;
        let of_step = |maps: &Maps| {
            // A strip, what the next layer takes of it again, and room for more.
            let few = |map: &Rows| rows(map, 5 * (map.strip(maps.step) + maps.step) / 4);
            let up = |up: &MapsUp| {
                rows(&up.skip, 3 * up.skip.expected / 2)
                    + few(&up.below)
                    + few(&up.doubled)
                    + few(&up.between)
            };
            few(&maps.input) + few(&maps.between) + maps.up.as_ref().map_or(0, up)
        };
        self.maps.iter().map(of_step).sum::<u64>() + rows(&self.top, self.top.strip(STEP))
    }

    /// A network that begins at a multiple of so many rows of the image computes the same values as one above it, to the bit:
    /// all layers begin a group of rows there.
    pub(crate) fn restart_step(network: &Network) -> usize {
        STEP << (network.steps.len() - 1)
    }

    /// Rows of the image with which so many rows of logits are computed.
    pub(crate) fn input_rows(&self, network: &Network, rows: usize) -> usize {
        let [rows, _] = needed(&network.steps, &self.maps, &self.top, rows);
        rows
    }
}

/// Rows of the input of a step, and of its skip connection, with which so many rows of what comes up from it are computed.
fn needed(steps: &[Step], maps: &[Maps], out: &Rows, rows: usize) -> [usize; 2] {
    let ([Step { down: [first, second], up }, deeper @ ..], [maps, maps_below @ ..]) = (steps, maps) else {
        return [0, 0];
    };
    // What a convolution takes for rows of a map of a height.
    let before = |filter: &Filter, rows: usize, height: usize| {
        rows.next_multiple_of(maps.step).min(height) + filter.shape[2] - 1
    };
    let (skip_rows, between_rows) = match (up, &maps.up) {
        (Some((_, [up_first, up_second])), Some(MapsUp { skip, below, doubled, between })) => {
            let doubled_rows = before(up_first, before(up_second, rows, out.height), between.height);
            let [middle, _] = margin([skip.height, skip.width], [doubled.height, doubled.width]);
            let below_rows = (doubled_rows.next_multiple_of(maps.step) / 2 + 1).min(below.height);
            let [pooled_rows, _] = needed(deeper, maps_below, below, below_rows);
            let skip_rows = (2 * pooled_rows).max(middle + doubled_rows);
            (skip_rows, before(second, skip_rows, skip.height))
        }
        _ => (0, before(second, rows, out.height)),
    };
    [before(first, between_rows, maps.between.height), skip_rows]
}

/// Computes a strip of what comes up from a step, and before it all on the way down that its input allows. Tells whether
/// there was any.
fn advance(steps: &[Step], maps: &mut [Maps], out: &mut Rows) -> bool {
    let ([Step { down: [first, second], up }, deeper @ ..], [maps, maps_below @ ..]) = (steps, maps) else {
        return false;
    };
    let Maps { input, between, step, up: maps_up } = maps;
    let (Some((up, [up_first, up_second])), Some(maps_up)) = (up, maps_up) else {
        while first.apply(&mut [(input, [0, 0])], between, *step) {}
        return second.apply(&mut [(between, [0, 0])], out, *step);
    };
    let MapsUp { skip, below, doubled, between: up_between } = maps_up;
    while first.apply(&mut [(input, [0, 0])], between, *step) {
        while second.apply(&mut [(between, [0, 0])], skip, *step) {
            pool(skip, &mut maps_below[0].input);
        }
    }
    let middle = margin([skip.height, skip.width], [doubled.height, doubled.width]);
    loop {
        let doubles = up.apply(&mut [(below, [0, 0])], doubled, *step);
        let joins = up_first.apply(&mut [(doubled, [0, 0]), (skip, middle)], up_between, *step);
        skip.needed = (middle[0] + up_between.end).min(2 * maps_below[0].input.end);
        if up_second.apply(&mut [(up_between, [0, 0])], out, *step) {
            return true;
        }
        if !doubles && !joins && !advance(deeper, maps_below, below) {
            return false;
        }
    }
}

/// The largest of each 2×2 of the rows that came.
fn pool(rows: &Rows, pooled: &mut Rows) {
    let (first, end) = (pooled.end, rows.end / 2);
    if end <= first {
        return;
    }
    let length = 2 * (end - first) * rows.width;
    let planes: Vec<Plane<'_>> = rows.planes(2 * first, 0).collect();
    let written: Vec<&mut [f32]> = pooled.extend(end).collect();
    planes.into_par_iter().zip(written).for_each(|(plane, pooled)| {
        pool_rows(&plane.values[..length], rows.width, pooled);
    });
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tensor};

    use crate::{Layout, UNet, UNetConfig};

    use super::*;

    /// A network with norms that do something, folded.
    fn network(config: &UNetConfig) -> UNet {
        let device = Device::flex();
        device.seed(7);
        config.init(&device).expect("a network").fold_norms()
    }

    /// Pushes an image in pieces, each with so many rows; counts the logits after each piece.
    fn pushed(network: &Network, image: &[f32], [height, width]: [usize; 2], pieces: &[usize]) -> Vec<f32> {
        let mut stream = Stream::new(network, [height, width]);
        let channels = image.len() / (height * width);
        let (mut first, mut rows_out, mut logits) = (0, 0, Vec::new());
        let expected = |stream: &Stream, rows: usize| stream.input_rows(network, rows);
        for count in pieces.iter().copied().cycle() {
            let count = count.min(height - first);
            let rows: Vec<f32> = image
                .chunks_exact(height * width)
                .flat_map(|plane| &plane[first * width..(first + count) * width])
                .copied()
                .collect();
            assert_eq!(rows.len(), channels * count * width);
            let new = stream.push(network, &rows);
            first += count;
            rows_out += new.len() / stream.width();
            logits.extend(new);
            assert!(rows_out == 0 || expected(&stream, rows_out) <= first, "row {rows_out} came early");
            let last = stream.logits.height;
            assert!(rows_out == last || expected(&stream, rows_out + 1) > first, "row {rows_out} is late");
            if first == height {
                assert_eq!(rows_out, last, "all rows");
                let all = stream.maps.iter().flat_map(|maps| {
                    let up = maps.up.iter().flat_map(|up| [&up.skip, &up.below, &up.doubled, &up.between]);
                    [&maps.input, &maps.between].into_iter().chain(up)
                });
                let held: usize = all.chain([&stream.top]).map(|rows| 4 * rows.values.len()).sum();
                let share = held as f64 / stream.bytes() as f64;
                assert!((0.3..=1.1).contains(&share), "{share} of the memory that was estimated");
                return logits;
            }
        }
        unreachable!("pieces go on")
    }

    #[test]
    fn rows_equal_layer_after_layer_to_the_bit() {
        let device = Device::flex();
        let base = UNetConfig { in_channels: 3, filters: 4, ..UNetConfig::default() };
        for (config, [height, width], pieces) in [
            (UNetConfig { levels: 2, ..base.clone() }, [436, 100], vec![1, 7, 40, 3]),
            (UNetConfig { levels: 3, layout: Layout::Seed, ..base.clone() }, [156, 332], vec![64]),
            (UNetConfig { levels: 1, kernel: 5, ..base.clone() }, [60, 38], vec![5]),
            (UNetConfig { levels: 2, kernel: 7, ..base.clone() }, [136, 152], vec![136]),
            (UNetConfig { levels: 4, ..base }, [364, 188], vec![100, 1]),
        ] {
            let model = network(&config);
            let by_rows = model.by_rows().expect("a layout for it");
            let x = Tensor::<4>::random([1, 3, height, width], Distribution::Uniform(-1.0, 1.0), &device);
            let expected = model.forward(x.clone()).expect("a valid size").into_data();
            let image = x.into_data().try_to_vec::<f32>().expect("f32");
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
                let logits = pool.install(|| pushed(&by_rows, &image, [height, width], &pieces));
                assert!(logits == expected.as_slice::<f32>().expect("f32"), "{config:?}, {threads} threads");
            }
        }
    }

    #[test]
    fn a_network_that_begins_further_down_goes_on_to_the_bit() {
        let device = Device::flex();
        let config = UNetConfig { in_channels: 2, filters: 2, levels: 4, ..UNetConfig::default() };
        let by_rows = network(&config).by_rows().expect("a layout for it");
        let step = Stream::restart_step(&by_rows);
        let (height, width) = (444, 204);
        let x = Tensor::<4>::random([1, 2, height, width], Distribution::Uniform(-1.0, 1.0), &device);
        let whole: Vec<f32> = x.clone().into_data().try_to_vec().expect("f32");
        let below: Vec<f32> = x.narrow(2, step, height - step).into_data().try_to_vec().expect("f32");
        let whole = pushed(&by_rows, &whole, [height, width], &[50]);
        let below = pushed(&by_rows, &below, [height - step, width], &[70]);
        assert!(whole[step * (width - 184)..] == below, "from row {step} on");
    }

    #[test]
    fn what_is_computed_ahead_does_not_grow_with_threads() {
        let config = UNetConfig { in_channels: 22, filters: 16, ..UNetConfig::default() };
        let by_rows = network(&config).by_rows().expect("a layout for it");
        let ahead = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            pool.install(|| Stream::new(&by_rows, [5692, 2044]).input_rows(&by_rows, 1))
        };
        let rows = [1, 2, 16, 64].map(ahead);
        assert!(rows.is_sorted() && rows[0] < 400 && rows[3] < 1300, "{rows:?} rows of the image");
    }

    #[test]
    fn networks_that_do_not_go_by_rows_say_so() {
        let base = UNetConfig { in_channels: 2, levels: 1, filters: 2, ..UNetConfig::default() };
        for layout in [Layout::Vanilla, Layout::Residual] {
            let config = UNetConfig { layout, up: crate::UpConvolution::Transposed, ..base.clone() };
            assert!(network(&config).by_rows().is_none(), "{layout:?}");
        }
        let device = Device::flex();
        assert!(base.init(&device).expect("a network").by_rows().is_none(), "norms are not folded");
    }

    #[test]
    fn rows_take_turns_in_their_room() {
        let mut rows = Rows::new(2, [1000, 3]);
        // Up to 13 rows are needed at once, and in the end all of what is left is written.
        let steps = (1..160).map(|step| (6 * step, 6 * step - (step % 8).min(5))).chain([(1000, 960)]);
        for (end, needed) in steps {
            let first = rows.end;
            for (channel, plane) in rows.extend(end).enumerate() {
                assert_eq!(plane.len(), (end - first) * 3);
                for (index, value) in plane.iter_mut().enumerate() {
                    *value = (channel * 10_000 + first * 3 + index) as f32;
                }
            }
            assert!(rows.start <= needed, "row {needed} is needed");
            for row in needed..end {
                for (channel, plane) in rows.planes(row, 1).enumerate() {
                    assert_eq!(plane.values[0], (channel * 10_000 + row * 3 + 1) as f32, "row {row}");
                }
            }
            assert!(end == 1000 || rows.room <= 18, "room for {} rows", rows.room);
            rows.needed = needed;
        }
    }
}
