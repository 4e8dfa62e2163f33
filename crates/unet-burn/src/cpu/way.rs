//! Ways to write a convolution as products of planes.
//!
//! Each way turns input rows into planes, weights into weights of products, and products into output rows. All three
//! steps are linear, so that the gradient of the weights is the same way walked backwards.

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// One product with a tap for each weight of the kernel.
    Direct,
    /// Kernels of three rows: six products with rows of three taps make four output rows, half of the multiplications.
    ///
    /// F(4, 3) of Winograd's minimal filtering (Lavin and Gray 2016, arXiv:1509.09308, §4.3), along the rows only: so no
    /// value moves inside a vector, and rounding errors stay near those of the direct way.
    Rows,
    /// A 2×2 convolution, padded at the bottom and on the right, of an image doubled by nearest neighbour, computed on
    /// the image before doubling: four products, one for each place in a 2×2 square, with 9 taps in all instead of 16.
    Doubled,
    /// What [`Way::Doubled`] sends back to its input.
    Halved,
}

/// One product.
pub(crate) struct Product {
    /// The plane of each channel that it takes.
    pub(crate) plane: usize,
    /// Rows and columns of its taps.
    pub(crate) taps: Vec<[usize; 2]>,
    /// By tap: the weights of the kernel that its weight is a sum of, as index and factor.
    pub(crate) sources: Vec<Vec<(usize, f32)>>,
}

/// The points at which [`Way::Rows`] evaluates polynomials, beside 0 and infinity: ±A and ±B.
///
/// The usual ±1 and ±2 double the rounding errors; these are exact in binary and come within 1.4 times the errors of the
/// direct way (root mean square, 192 products in a sum).
pub(crate) const A: f32 = 0.75;
pub(crate) const B: f32 = 1.5;

/// From three rows of weights to the weights of six products, by point 0, A, −A, B, −B, infinity: `[1, p, p²]`
/// divided by the product of the distances of `p` to the other points.
const WEIGHTS: [[f32; 3]; 6] = [
    [64.0 / 81.0, 0.0, 0.0],
    [-128.0 / 243.0, -32.0 / 81.0, -8.0 / 27.0],
    [-128.0 / 243.0, 32.0 / 81.0, -8.0 / 27.0],
    [32.0 / 243.0, 16.0 / 81.0, 8.0 / 27.0],
    [32.0 / 243.0, -16.0 / 81.0, 8.0 / 27.0],
    [0.0, 0.0, 1.0],
];

impl Way {
    /// The way for a kernel of some rows and columns.
    pub(crate) fn of_kernel([rows, _]: [usize; 2]) -> Self {
        if rows == 3 { Self::Rows } else { Self::Direct }
    }

    /// Planes that are made of each input channel.
    pub(crate) fn planes(self) -> usize {
        match self {
            Self::Direct | Self::Doubled => 1,
            Self::Rows => 6,
            Self::Halved => 4,
        }
    }

    /// Output rows of a group, which is a row of the planes; and the output columns of a pixel of it.
    pub(crate) fn group(self) -> [usize; 2] {
        match self {
            Self::Direct | Self::Halved => [1, 1],
            Self::Rows => [4, 1],
            Self::Doubled => [2, 2],
        }
    }

    /// Rows and columns of a plane beyond those of the groups: how far taps reach.
    pub(crate) fn reach(self, [rows, cols]: [usize; 2]) -> [usize; 2] {
        match self {
            Self::Direct => [rows - 1, cols - 1],
            Self::Rows => [0, cols - 1],
            Self::Doubled | Self::Halved => [1, 1],
        }
    }

    /// The products for a kernel.
    pub(crate) fn products(self, [rows, cols]: [usize; 2]) -> Vec<Product> {
        match self {
            Self::Direct => {
                let taps: Vec<_> = (0..rows).flat_map(|row| (0..cols).map(move |col| [row, col])).collect();
                let sources = (0..taps.len()).map(|index| vec![(index, 1.0)]).collect();
                vec![Product { plane: 0, taps, sources }]
            }
            Self::Rows => WEIGHTS
                .iter()
                .enumerate()
                .map(|(plane, factors)| Product {
                    plane,
                    taps: (0..cols).map(|col| [0, col]).collect(),
                    sources: (0..cols)
                        .map(|col| {
                            let terms = factors.iter().enumerate().filter(|(_, factor)| **factor != 0.0);
                            terms.map(|(row, factor)| (row * cols + col, *factor)).collect()
                        })
                        .collect(),
                })
                .collect(),
            Self::Doubled | Self::Halved => (0..4)
                .map(|place| {
                    // Which rows (columns) of the kernel meet a pixel, and which the next one.
                    let meets = |second: bool| if second { vec![vec![0], vec![1]] } else { vec![vec![0, 1]] };
                    let (rows, cols) = (meets(place / 2 == 1), meets(place % 2 == 1));
                    let mut product = Product { plane: 0, taps: Vec::new(), sources: Vec::new() };
                    for (row, kernel_rows) in rows.iter().enumerate() {
                        for (col, kernel_cols) in cols.iter().enumerate() {
                            let pairs =
                                kernel_rows.iter().flat_map(|r| kernel_cols.iter().map(move |c| 2 * r + c));
                            product.sources.push(pairs.map(|index| (index, 1.0)).collect());
                            product.taps.push(if self == Self::Doubled {
                                [row, col]
                            } else {
                                [1 - row, 1 - col]
                            });
                        }
                    }
                    if self == Self::Halved {
                        product.plane = place;
                    }
                    product
                })
                .collect(),
        }
    }
}
