//! Sizes in a U-Net of valid convolutions (Ronneberger et al. 2015, figure 1).

use crate::{Error, Result};

/// The geometry of a U-Net of valid convolutions: which input sizes it takes, what it returns, and which part of
/// that depends on where the window lies.
///
/// The network has `levels` poolings by 2 (4 in the paper) and as many up-steps by 2. Each of its blocks, one at
/// every level on the way down, one at the bottom, one at every level on the way up, has two valid
/// (unpadded) convolutions with the same odd `kernel`. Skip connections are cropped at the centre.
///
/// # Sizes
///
/// Two valid convolutions take away `2 (kernel − 1)` rows. At level `i`, a row is `2^i` rows of the input. Down
/// and up, levels 0 to `levels − 1` occur twice and the bottom once:
///
/// `loss = 2 (kernel − 1) (2 (2^levels − 1) + 2^levels) = 2 (kernel − 1) (3 · 2^levels − 2)`
///
/// An input is valid when every pooling gets an even size and the output has at least one row:
/// `input ≡ −2 (kernel − 1) (mod 2^levels)` and `input > loss`. For 4 levels:
///
/// | kernel | valid inputs | output | smallest |
/// |---|---|---|---|
/// | 3 | ≡ 12 (mod 16) | input − 184 | 188 |
/// | 5 | ≡ 8 (mod 16) | input − 368 | 376 |
/// | 7 | ≡ 4 (mod 16) | input − 552 | 564 |
///
/// ```
/// use s2_patches::Geometry;
///
/// let unet = Geometry::try_new(4, 3)?;
/// assert_eq!(unet.output_size(572)?, 388);
/// assert_eq!(unet.margin(), 92);
/// assert!(Geometry::try_new(4, 5)?.output_size(572).is_err());
/// # Ok::<(), s2_patches::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geometry {
    levels: usize,
    kernel: usize,
    padded_up_convolution: bool,
}

impl Geometry {
    /// A network with `levels` poolings and convolutions of `kernel` × `kernel`.
    ///
    /// # Errors
    ///
    /// [`Error::Kernel`] unless `kernel` is odd and at most 255 (with an even one the output is not centred in
    /// the input), [`Error::Levels`] for more than 16 levels.
    pub const fn try_new(levels: usize, kernel: usize) -> Result<Self> {
        if kernel % 2 == 0 || kernel > 255 {
            return Err(Error::Kernel { kernel });
        }
        if levels > 16 {
            return Err(Error::Levels { levels });
        }
        Ok(Self { levels, kernel, padded_up_convolution: false })
    }

    /// The same network whose up-steps are an upsampling by 2 and a 2 × 2 convolution that keeps the size by one
    /// row of zeros below and one column of zeros on the right ("same" padding in Keras). Sizes are the same;
    /// [`Self::spoiled`] is not.
    #[must_use]
    pub const fn with_padded_up_convolution(self) -> Self {
        Self { padded_up_convolution: true, ..self }
    }

    /// Poolings by 2.
    pub const fn levels(&self) -> usize {
        self.levels
    }

    /// Rows and columns of a convolution kernel.
    pub const fn kernel(&self) -> usize {
        self.kernel
    }

    /// `2^levels`: two windows see the same grid of poolings when their distance is a multiple of this.
    pub const fn step(&self) -> usize {
        1 << self.levels
    }

    /// `(input − output) / 2`: the context that the network needs on each side.
    pub const fn margin(&self) -> usize {
        (self.kernel - 1) * (3 * self.step() - 2)
    }

    /// Rows (and columns) of the output for an input of `input` rows.
    ///
    /// # Errors
    ///
    /// [`Error::InputSize`] with the nearest valid sizes.
    pub fn output_size(&self, input: usize) -> Result<usize> {
        let below = self.valid_input_at_most(input);
        if below == Some(input) {
            return Ok(input - 2 * self.margin());
        }
        let Self { levels, kernel, .. } = *self;
        Err(Error::InputSize { input, levels, kernel, below, above: self.valid_input_at_least(input) })
    }

    /// The smallest input that the network takes.
    pub const fn smallest_input(&self) -> usize {
        // Valid outputs are ≡ 2 (kernel − 1) (mod step), from 1 on.
        let smallest_output = (2 * (self.kernel - 1) + self.step() - 1) % self.step() + 1;
        2 * self.margin() + smallest_output
    }

    /// The smallest valid input of `input` rows or more.
    pub const fn valid_input_at_least(&self, input: usize) -> usize {
        let smallest = self.smallest_input();
        let steps = input.saturating_sub(smallest).div_ceil(self.step());
        smallest.saturating_add(steps.saturating_mul(self.step()))
    }

    /// The largest valid input of `input` rows or fewer; `None` below [`Self::smallest_input`].
    pub const fn valid_input_at_most(&self, input: usize) -> Option<usize> {
        match input.checked_sub(self.smallest_input()) {
            Some(more) => Some(input - more % self.step()),
            None => None,
        }
    }

    /// Rows at the bottom (and columns at the right) of an output that depend on where the window lies: 0, or
    /// `2^levels − 1` [with a padded up-convolution](Self::with_padded_up_convolution).
    ///
    /// Valid convolutions see nothing but the scene, and the same scene wherever the window lies. The zeros
    /// below a padded 2 × 2 convolution are seen too: say the last `c` rows that a level takes from below
    /// depend on such zeros. Upsampling makes `2c` of them. The 2 × 2 convolution reads each row and the next,
    /// which adds one: `2c + 1`. A valid convolution spoils as many of the last rows as it gets, since its
    /// output also ends earlier; skip connections are not spoiled. From `c = 0` at the bottom block the levels give
    /// 1, 3, 7, 15: after `levels` up-steps `2^levels − 1`. In the output of 388 rows of the network of
    /// Couttenier et al. 2022, that is the last 15.
    ///
    /// Windows that leave these rows to the next window together give exactly what the whole scene gives at
    /// once; [`WindowPlan`](crate::WindowPlan) does so.
    pub const fn spoiled(&self) -> usize {
        if self.padded_up_convolution { self.step() - 1 } else { 0 }
    }
}
