//! Which windows a network predicts a scene in.

use crate::{Error, Geometry, Result, Window};

/// One window of a [`WindowPlan`]: what to give to the network, and which part of its output to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PatchWindow {
    /// First row of the input, in the scene; negative where it is mirrored beyond the top.
    pub input_row: isize,
    /// First column of the input, in the scene; negative where it is mirrored beyond the left side.
    pub input_col: isize,
    /// Rows and columns of the input.
    pub input_size: usize,
    /// Rows and columns of the output of the network.
    pub output_size: usize,
    /// Rows of the output above the part to keep, and columns left of it: 0 but in a plan
    /// [for all views](WindowPlan::for_all_views).
    pub skipped: usize,
    /// The part of the output to keep, in the scene. It may end before the output does.
    pub output: Window,
}

/// Windows that together predict each pixel of a scene exactly once.
///
/// Windows start at multiples of [`Geometry::step`], so that each pooling meets the same pixels in every window,
/// and keep no row that [depends on the place of the window](Geometry::spoiled). The map is then the one
/// that the network would give for the whole scene at once, whatever the window size: it has no seams.
///
/// The stride is the largest multiple of `step` within the usable part of an output: for 572 → 388 it is 384, with
/// a padded up-convolution 368. Only the last window of a row or column of windows may keep more, where that
/// spares another one.
///
/// ```
/// use s2_patches::{Geometry, WindowPlan};
///
/// let unet = Geometry::try_new(4, 3)?;
/// let plan = WindowPlan::try_new(10_980, 10_980, unet, 572)?;
/// assert_eq!(plan.stride(), 384);
/// assert_eq!(plan.len(), 29 * 29);
///
/// let first = plan.iter().next().unwrap();
/// assert_eq!((first.input_row, first.output.row, first.output.height), (-92, 0, 384));
/// # Ok::<(), s2_patches::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowPlan {
    height: usize,
    width: usize,
    margin: usize,
    input_size: usize,
    output_size: usize,
    /// Rows of an output before those that may be kept.
    skipped: usize,
    /// Rows of an output that may be kept.
    usable: usize,
    stride: usize,
}

impl WindowPlan {
    /// A seamless plan for a scene of `height` rows and `width` columns, in windows of `input_size` rows and columns.
    ///
    /// # Errors
    ///
    /// [`Error::InputSize`] when the network does not take that size, [`Error::Step`] when its output is too
    /// small for a whole step.
    pub fn try_new(height: usize, width: usize, geometry: Geometry, input_size: usize) -> Result<Self> {
        Self::seamless(height, width, geometry, input_size, 0)
    }

    /// A plan for a network that sees each window in all eight [`Dihedral`](crate::Dihedral) views.
    ///
    /// The [spoiled](Geometry::spoiled) rows at the bottom of an output lie at its top or at a side once the view is
    /// turned back, so each window leaves them out on all four sides; at the top and on the left a whole step, so that
    /// the view that is not turned pools the same pixels as in [`Self::try_new`]. The turned views pool the same pixels
    /// in every window, too, because valid input sizes lie a multiple of the step apart. So the map has no seams in any
    /// view, whatever the window size.
    ///
    /// ```
    /// use s2_patches::{Geometry, WindowPlan};
    ///
    /// let unet = Geometry::try_new(4, 3)?.with_padded_up_convolution();
    /// let plan = WindowPlan::for_all_views(10_980, 10_980, unet, 572)?;
    /// assert_eq!(plan.stride(), 352); // 388 − 16 − 15 = 357 rows may be kept
    ///
    /// let first = plan.iter().next().unwrap();
    /// assert_eq!((first.input_row, first.skipped, first.output.row), (-108, 16, 0));
    /// # Ok::<(), s2_patches::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Self::try_new`].
    pub fn for_all_views(height: usize, width: usize, geometry: Geometry, input_size: usize) -> Result<Self> {
        let skipped = geometry.spoiled().next_multiple_of(geometry.step());
        Self::seamless(height, width, geometry, input_size, skipped)
    }

    fn seamless(
        height: usize,
        width: usize,
        geometry: Geometry,
        input_size: usize,
        skipped: usize,
    ) -> Result<Self> {
        let step = geometry.step();
        let lost = skipped + geometry.spoiled();
        let contiguous = Self::contiguous(height, width, geometry, input_size)?;
        let usable = contiguous.output_size.saturating_sub(lost);
        let stride = usable - usable % step;
        if stride == 0 {
            let smallest = geometry.valid_input_at_least(2 * geometry.margin() + lost + step);
            return Err(Error::Step { input: input_size, usable, step, smallest });
        }
        Ok(Self { skipped, usable, stride, ..contiguous })
    }

    /// Of the plans that `plan` (by [`Self::try_new`] or [`Self::for_all_views`]) gives for windows of up to `largest`
    /// rows and columns, the one that gives the network the fewest pixels; of equals the one with the smallest windows.
    ///
    /// Large windows spend less on margins, but where they reach far beyond the scene smaller ones cost less. `None`
    /// when no size up to `largest` has a plan.
    ///
    /// ```
    /// use s2_patches::{Geometry, WindowPlan};
    ///
    /// let unet = Geometry::try_new(4, 3)?;
    /// let plan = |size| WindowPlan::try_new(5490, 5490, unet, size).ok();
    /// let best = WindowPlan::cheapest(plan, unet, 1100).unwrap();
    /// assert_eq!((best.input_size(), best.len()), (972, 49));
    /// assert!(best.input_pixels() < plan(1100).unwrap().input_pixels());
    /// # Ok::<(), s2_patches::Error>(())
    /// ```
    pub fn cheapest(
        plan: impl Fn(usize) -> Option<Self>,
        geometry: Geometry,
        largest: usize,
    ) -> Option<Self> {
        let sizes = (geometry.smallest_input()..=largest).step_by(geometry.step());
        sizes.filter_map(plan).min_by_key(Self::input_pixels)
    }

    /// A plan whose stride is the whole output (388), as the program released with Couttenier et al. 2022 has it.
    ///
    /// **Not seamless**: 388 is no multiple of 16, so neighbouring windows pool different pixels, and rows that
    /// depend on padding are kept. For comparison with that program only.
    ///
    /// # Errors
    ///
    /// [`Error::InputSize`] when the network does not take that size.
    pub fn contiguous(height: usize, width: usize, geometry: Geometry, input_size: usize) -> Result<Self> {
        let output_size = geometry.output_size(input_size)?;
        Ok(Self {
            height,
            width,
            margin: geometry.margin(),
            input_size,
            output_size,
            skipped: 0,
            usable: output_size,
            stride: output_size,
        })
    }

    /// Rows and columns from one window to the next.
    pub const fn stride(&self) -> usize {
        self.stride
    }

    /// Rows and columns of each input.
    pub const fn input_size(&self) -> usize {
        self.input_size
    }

    /// Pixels of all inputs together: what the network computes on.
    pub const fn input_pixels(&self) -> u64 {
        self.len() as u64 * (self.input_size as u64).pow(2)
    }

    /// How many windows lie side by side.
    pub const fn per_row(&self) -> usize {
        self.count(self.width)
    }

    /// How many windows there are.
    pub const fn len(&self) -> usize {
        self.count(self.height) * self.count(self.width)
    }

    /// Whether there are none: the scene has no pixel.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The window of this index: row by row from the top left.
    pub fn get(&self, index: usize) -> Option<PatchWindow> {
        (index < self.len()).then(|| self.window(index))
    }

    /// The windows, row by row from the top left.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = PatchWindow> + use<> {
        let plan = *self;
        (0..plan.len()).map(move |index| plan.window(index))
    }

    /// The window of an index below the length.
    const fn window(&self, index: usize) -> PatchWindow {
        let per_row = self.per_row();
        let (row, height) = self.kept(index / per_row, self.height);
        let (col, width) = self.kept(index % per_row, self.width);
        PatchWindow {
            input_row: row as isize - (self.margin + self.skipped) as isize,
            input_col: col as isize - (self.margin + self.skipped) as isize,
            input_size: self.input_size,
            output_size: self.output_size,
            skipped: self.skipped,
            output: Window { row, col, height, width },
        }
    }

    /// Windows along an axis of `len` pixels.
    const fn count(&self, len: usize) -> usize {
        if len == 0 { 0 } else { len.saturating_sub(self.usable).div_ceil(self.stride) + 1 }
    }

    /// First pixel and number of pixels that window `index` keeps along an axis of `len` pixels.
    const fn kept(&self, index: usize, len: usize) -> (usize, usize) {
        let start = index * self.stride;
        (start, if index + 1 == self.count(len) { len - start } else { self.stride })
    }
}
