//! The ground: which covers lie where, and the reflectance of their mixture in each pixel.
#![expect(clippy::cast_possible_truncation, reason = "lattice positions of scenes lie far inside i32")]

use anyhow::Result;
use ndarray::Array2;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::mines::Mines;
use super::noise::{Noise, coverage, lerp, map_pixels, smoothstep};
use super::spectra::{
    BROWN_POND, BROWN_SOIL, BURNT, CROP, DENSE_FOREST, DRY_GRASS, GRAVEL, GREEN_GRASS, GREEN_POND, LATERITE,
    MILKY_POND, MUDDY_RIVER, PALE_SOIL, RED_EARTH, RIVER, ROOFS, SAND, STUBBLE, Spectrum, WOODLAND, blend,
    cover, scale,
};
use super::stroke::{Point, Stroke, distance_to_strokes};
use super::terrain::Terrain;

/// Everything below the sky.
#[derive(Debug)]
pub(super) struct Landscape {
    pub(super) terrain: Terrain,
    pub(super) mines: Mines,
    villages: Vec<Village>,
    road_distance: Array2<f32>,
    track_distance: Array2<f32>,
    noise: Textures,
}

#[derive(Clone, Copy, Debug)]
struct Village {
    centre: Point,
    radius: f32,
}

/// One noise field for each thing that varies by itself.
#[derive(Clone, Copy, Debug)]
struct Textures {
    forest: Noise,
    trees: Noise,
    grass: Noise,
    farming: Noise,
    parcels: Noise,
    soil: Noise,
    burns: Noise,
    plates: Noise,
    houses: Noise,
    water: Noise,
    edge: Noise,
    pits: Noise,
    ponds: Noise,
    plants: Noise,
    grain: Noise,
}

impl Landscape {
    /// The landscape of a seed.
    pub(super) fn new(size: usize, seed: u64, rng: &mut ChaCha8Rng) -> Result<Self> {
        let terrain = Terrain::new(size, seed, rng);
        let mines = Mines::new(size, &terrain, rng)?;
        let villages = villages(size, &terrain, &mines, rng);
        let wander = Noise::new(seed, "roads");
        let mut roads: Vec<Stroke> =
            villages.windows(2).map(|pair| road(pair[0].centre, pair[1].centre, 0.45, wander)).collect();
        if let (Some(first), Some(last)) = (villages.first(), villages.last()) {
            roads.push(road([0.0, first.centre[1]], first.centre, 0.45, wander));
            roads.push(road(last.centre, [size as f32, last.centre[1]], 0.45, wander));
        }
        let nearest = |point: Point| {
            let away =
                |village: &&Village| (village.centre[0] - point[0]).hypot(village.centre[1] - point[1]);
            villages.iter().min_by(|a, b| away(a).total_cmp(&away(b)))
        };
        let tracks: Vec<Stroke> = mines
            .mines
            .iter()
            .step_by(2)
            .filter_map(|mine| Some(road(nearest(mine.outline[0])?.centre, mine.outline[0], 0.2, wander)))
            .collect();
        let field = |purpose| Noise::new(seed, purpose);
        Ok(Self {
            road_distance: distance_to_strokes(size, &roads, 3.0),
            track_distance: distance_to_strokes(size, &tracks, 3.0),
            terrain,
            mines,
            villages,
            noise: Textures {
                forest: field("forest"),
                trees: field("trees"),
                grass: field("grass"),
                farming: field("farming"),
                parcels: field("parcels"),
                soil: field("soil"),
                burns: field("burns"),
                plates: field("plates"),
                houses: field("houses"),
                water: field("water"),
                edge: field("edge"),
                pits: field("pits"),
                ponds: field("ponds"),
                plants: field("plants"),
                grain: field("grain"),
            },
        })
    }

    /// Reflectance of every pixel, lit by the sun, without sky and sensor.
    pub(super) fn reflectance(&self) -> Array2<Spectrum> {
        let size = self.terrain.elevation.nrows();
        map_pixels(size, |row, col| {
            let mut ground = self.vegetation(row, col);
            self.cover_fields(&mut ground, row, col);
            self.cover_settlement(&mut ground, row, col);
            self.cover_mine(&mut ground, row, col);
            let (column, line) = (col as i32, row as i32);
            scale(
                &mut ground,
                self.terrain.illumination[[row, col]] * (1.0 + 0.025 * self.noise.grain.normal(column, line)),
            );
            self.cover_water(&mut ground, row, col);
            ground
        })
    }

    /// Grass, trees, burns and bare plates of laterite.
    fn vegetation(&self, row: usize, col: usize) -> Spectrum {
        let (terrain, noise, at) = (&self.terrain, &self.noise, [row, col]);
        let (x, y) = (col as f32, row as f32);
        let river = terrain.river_distance[at];
        let creek = terrain.creek_distance[at];
        let moist =
            smoothstep(45.0, 3.0, river).max(smoothstep(26.0, 2.0, creek)).max(0.8 * terrain.drainage[at]);
        let dry = smoothstep(-0.6, 0.15, noise.grass.fractal(x, y, 170.0, 6) - 0.6 * moist);
        let mut ground = blend(&GREEN_GRASS, &DRY_GRASS, dry);
        cover(
            &mut ground,
            &BROWN_SOIL,
            smoothstep(-0.15, 0.6, noise.soil.fractal(x, y, 60.0, 6)) * 0.75 * dry,
        );
        scale(&mut ground, 1.0 + 0.3 * noise.grass.fractal(x + 900.0, y, 26.0, 5));

        let burnt = smoothstep(0.30, 0.36, noise.burns.fractal(x, y, 130.0, 5)) * dry;
        cover(&mut ground, &BURNT, 0.85 * burnt);
        let plate = smoothstep(0.34, 0.42, noise.plates.fractal(x, y, 62.0, 4))
            * smoothstep(25.0, 60.0, terrain.elevation[at]);
        let crust = smoothstep(-0.3, 0.4, noise.soil.fractal(x, y + 300.0, 90.0, 4));
        let mut crust = blend(&blend(&LATERITE, &BROWN_SOIL, 0.2), &PALE_SOIL, crust);
        scale(&mut crust, 1.0 + 0.2 * noise.soil.fractal(x + 600.0, y, 7.0, 3));
        cover(&mut ground, &crust, 0.9 * plate);

        // Galleries along water, closed stands on some hills, scattered trees everywhere else.
        let gaps = noise.forest.fractal(x, y, 22.0, 3);
        let gallery =
            smoothstep(16.0, 6.0, river).max(smoothstep(9.0, 4.0, creek)) * smoothstep(-0.45, 0.0, gaps);
        let gallery = gallery.max(terrain.drainage[at] * smoothstep(-0.5, 0.1, gaps));
        let stand = smoothstep(0.10, 0.18, noise.forest.fractal(x + 3000.0, y, 250.0, 8));
        let scattered = smoothstep(-0.4, 0.6, noise.trees.fractal(x, y, 75.0, 5)) * 0.75;
        let crowns =
            0.5 + 0.9 * noise.trees.at(x / 2.3, y / 2.3) + 0.7 * noise.trees.at(x / 5.3 + 90.0, y / 5.3);
        let open = (scattered * (1.0 - 0.8 * plate) * crowns.clamp(0.0, 1.3)).clamp(0.0, 1.0);
        let closed = gallery.max(0.92 * stand) * (0.86 + 0.14 * crowns.clamp(0.0, 1.0));
        cover(&mut ground, &WOODLAND, open);
        let mut forest = blend(
            &WOODLAND,
            &DENSE_FOREST,
            smoothstep(-0.35, 0.35, noise.forest.fractal(x, y + 700.0, 90.0, 3)).max(0.6 * moist),
        );
        scale(
            &mut forest,
            1.0 + 0.18 * noise.trees.at(x / 2.1 + 40.0, y / 2.1)
                + 0.2 * noise.trees.fractal(x, y + 60.0, 11.0, 2),
        );
        cover(&mut ground, &forest, closed.clamp(0.0, 1.0));
        ground
    }

    /// A mosaic of small parcels where people farm: stubble, bare soil, crops, fallow.
    fn cover_fields(&self, ground: &mut Spectrum, row: usize, col: usize) {
        let (terrain, noise) = (&self.terrain, &self.noise);
        let (x, y) = (col as f32 + 0.5, row as f32 + 0.5);
        let near = self.villages.iter().map(|village| {
            smoothstep(9.0, 2.2, (village.centre[0] - x).hypot(village.centre[1] - y) / village.radius)
        });
        let near = near.fold(0.0, f32::max);
        let slope = (terrain.illumination[[row, col]] - 1.0).abs();
        let farmed = noise.farming.fractal(x, y, 240.0, 4) + 0.75 * near - 1.2 * slope;
        if farmed < 0.05 || terrain.river_distance[[row, col]] < 4.0 {
            return;
        }
        // The nearest and second nearest of jittered lattice points give a parcel and its hedge.
        let (u, v) =
            (x + 2.5 * noise.edge.fractal(x, y, 16.0, 2), y + 2.5 * noise.edge.fractal(x, y + 70.0, 16.0, 2));
        let cell = 8.0;
        let (column, line) = ((u / cell).floor() as i32, (v / cell).floor() as i32);
        let (mut nearest, mut second, mut parcel) = (f32::INFINITY, f32::INFINITY, [0, 0]);
        for lattice_y in line - 1..=line + 1 {
            for lattice_x in column - 1..=column + 1 {
                let seed_x =
                    (lattice_x as f32 + 0.1 + 0.8 * noise.parcels.uniform(lattice_x, lattice_y)) * cell;
                let seed_y =
                    (lattice_y as f32 + 0.1 + 0.8 * noise.parcels.uniform(lattice_x + 7919, lattice_y))
                        * cell;
                // Between a circle and a square: corners are blunt and sides straight.
                let (dx, dy) = ((seed_x - u).abs(), (seed_y - v).abs());
                let away = 0.75 * dx.hypot(dy) + 0.3 * dx.max(dy);
                if away < nearest {
                    (second, nearest, parcel) = (nearest, away, [lattice_x, lattice_y]);
                } else {
                    second = second.min(away);
                }
            }
        }
        let draw = |salt: i32| noise.parcels.uniform(parcel[0] + salt, parcel[1] - salt);
        // Parcels are farmed or not as wholes.
        if farmed < 0.05 + 0.5 * draw(101) {
            return;
        }
        let tone = draw(211);
        let mut field = match (draw(307) * 100.0) as i32 {
            0..28 => blend(&STUBBLE, &DRY_GRASS, 0.6 * tone),
            28..44 => blend(&BROWN_SOIL, &STUBBLE, 0.5 * tone),
            44..58 => blend(&PALE_SOIL, &BROWN_SOIL, 0.7 * tone),
            58..67 => blend(&LATERITE, &BROWN_SOIL, 0.6 * tone),
            67..78 => blend(&CROP, &GREEN_GRASS, tone),
            _ => blend(&DRY_GRASS, &WOODLAND, 0.2 + 0.6 * tone),
        };
        scale(&mut field, 0.86 + 0.28 * draw(401) + 0.07 * noise.soil.at(x / 3.0, y / 3.0));
        // Single trees are left standing in the fields.
        cover(&mut field, &WOODLAND, 0.8 * smoothstep(0.45, 0.75, noise.trees.at(x / 3.1, y / 3.1 + 400.0)));
        cover(ground, &field, 0.95);
        cover(ground, &WOODLAND, 0.6 * smoothstep(1.0, 0.2, second - nearest) * draw(503));
    }

    /// Houses, trodden ground and roads.
    fn cover_settlement(&self, ground: &mut Spectrum, row: usize, col: usize) {
        let noise = &self.noise;
        let (x, y) = (col as f32 + 0.5, row as f32 + 0.5);
        for village in &self.villages {
            let away = (village.centre[0] - x).hypot(village.centre[1] - y) / village.radius;
            if away < 1.6 {
                let built = smoothstep(1.05, 0.75, away + 0.45 * noise.houses.fractal(x, y, 16.0, 3));
                let mut trodden =
                    blend(&LATERITE, &PALE_SOIL, smoothstep(-0.4, 0.4, noise.soil.fractal(x, y, 8.0, 2)));
                cover(&mut trodden, &ROOFS, smoothstep(0.1, 0.5, noise.houses.at(x / 2.3, y / 2.3)) * 0.75);
                cover(
                    &mut trodden,
                    &WOODLAND,
                    smoothstep(0.25, 0.6, noise.trees.at(x / 3.3, y / 3.3 + 800.0)) * 0.8,
                );
                cover(ground, &trodden, 0.9 * built);
            }
        }
        cover(ground, &blend(&LATERITE, &BROWN_SOIL, 0.4), 0.75 * coverage(self.track_distance[[row, col]]));
        cover(ground, &LATERITE, 0.95 * coverage(self.road_distance[[row, col]]));
    }

    /// Pits, spoil, ponds and regrowth inside a mine, and trodden ground at its fringe.
    fn cover_mine(&self, ground: &mut Spectrum, row: usize, col: usize) {
        let noise = &self.noise;
        let (x, y) = (col as f32, row as f32);
        // Real edges are ragged; the outline is what somebody would draw.
        let distance = self.mines.distance[[row, col]] + 2.2 * noise.edge.fractal(x, y, 8.0, 3);
        if distance > 4.0 {
            return;
        }
        let mine = &self.mines.mines[usize::from(self.mines.nearest[[row, col]])];
        cover(ground, &DRY_GRASS, 0.45 * smoothstep(4.0, 0.5, distance));
        let pale = (mine.paleness + 0.6 * noise.pits.fractal(x, y, 13.0, 3)).clamp(0.0, 1.0);
        let mut earth = blend(&RED_EARTH, &GRAVEL, pale);
        cover(&mut earth, &BROWN_SOIL, 0.6 * smoothstep(0.1, 0.5, noise.soil.fractal(x, y, 9.0, 2)));
        // Spoil heaps and pits a few metres deep.
        scale(&mut earth, 1.0 + 0.3 * noise.pits.fractal(x + 300.0, y, 3.6, 2));
        let plants =
            noise.plants.fractal(x, y, 8.0, 3) + mine.regrowth - 0.25 + 0.2 * smoothstep(-4.0, 0.0, distance);
        cover(&mut earth, &blend(&DRY_GRASS, &WOODLAND, 0.6), 0.9 * smoothstep(0.12, 0.45, plants));
        cover(ground, &earth, 0.97 * coverage(distance));
        let pond = noise.ponds.fractal(x, y, 11.0, 3) - 0.2 * smoothstep(-3.0, -0.5, distance);
        let pond = smoothstep(0.16, 0.24, pond) * coverage(distance + 1.0);
        let hue = (mine.activity + 0.5 * noise.ponds.fractal(x + 200.0, y, 24.0, 2)).clamp(0.0, 1.0);
        let water = if hue < 0.5 {
            blend(&GREEN_POND, &BROWN_POND, 2.0 * hue)
        } else {
            blend(&BROWN_POND, &MILKY_POND, 2.0 * hue - 1.0)
        };
        cover(ground, &water, 0.97 * pond);
    }

    /// River, bars and creeks; flat, so not lit by the slope.
    fn cover_water(&self, ground: &mut Spectrum, row: usize, col: usize) {
        let (terrain, noise, at) = (&self.terrain, &self.noise, [row, col]);
        let (x, y) = (col as f32, row as f32);
        // Washing ore makes the river muddier downstream, which is eastwards.
        let mud =
            lerp(0.25, 0.75, x / terrain.elevation.ncols() as f32) + 0.5 * noise.water.fractal(x, y, 90.0, 3);
        let mut water = blend(&RIVER, &MUDDY_RIVER, mud.clamp(0.0, 1.0));
        scale(&mut water, 1.0 + 0.06 * noise.water.fractal(x, y, 14.0, 2));
        let bank = noise.edge.fractal(x + 400.0, y, 9.0, 3);
        // Creeks are narrow and mostly under trees.
        cover(ground, &water, 0.55 * coverage(terrain.creek_distance[at]));
        cover(ground, &water, coverage(terrain.river_distance[at] + bank));
        let mut bar = blend(&SAND, &PALE_SOIL, smoothstep(-0.4, 0.5, noise.soil.fractal(x, y, 12.0, 2)));
        scale(&mut bar, 1.0 + 0.1 * noise.soil.at(x / 3.0, y / 3.0));
        cover(&mut bar, &GREEN_GRASS, 0.6 * smoothstep(0.2, 0.5, noise.plants.fractal(x, y, 14.0, 2)));
        cover(ground, &bar, 0.95 * coverage(terrain.sand_distance[at] + 1.6 * bank));
    }
}

/// Villages from west to east, off the river, the nodata corner and the mines.
fn villages(size: usize, terrain: &Terrain, mines: &Mines, rng: &mut ChaCha8Rng) -> Vec<Village> {
    let extent = size as f32;
    let count = (size / 190).clamp(2, 9);
    let mut villages = Vec::new();
    for number in 0..count {
        for _ in 0..80 {
            let radius = rng.random_range(7.0..17.0) * (extent / 1536.0).clamp(0.35, 1.0);
            let centre = [
                extent * (number as f32 + rng.random_range(0.1..0.9)) / count as f32,
                extent * rng.random_range(0.08..0.92),
            ];
            let clear = (0..24).all(|step| {
                let angle = std::f32::consts::TAU * step as f32 / 24.0;
                let index = |centre: f32, offset: f32| {
                    (centre + 1.3 * radius * offset).clamp(0.0, extent - 1.0).round() as i64
                };
                let row = usize::try_from(index(centre[1], angle.sin())).unwrap_or(0);
                let col = usize::try_from(index(centre[0], angle.cos())).unwrap_or(0);
                terrain.river_distance[[row, col]] > 8.0 && mines.distance[[row, col]] > 2.0
            });
            if clear {
                villages.push(Village { centre, radius });
                break;
            }
        }
    }
    villages
}

/// A road between two places that wanders a little.
fn road(from: Point, to: Point, radius: f32, wander: Noise) -> Stroke {
    let length = (to[0] - from[0]).hypot(to[1] - from[1]).max(1.0);
    let (dx, dy) = ((to[0] - from[0]) / length, (to[1] - from[1]) / length);
    let mut stroke = Stroke::default();
    let mut way = 0.0;
    while way < length {
        let (x, y) = (from[0] + dx * way, from[1] + dy * way);
        let ends = (way.min(length - way) / 60.0).clamp(0.0, 1.0);
        let offset =
            ends * (40.0 * wander.fractal(x, y, 210.0, 2) + 7.0 * wander.at(x / 35.0, y / 35.0 + 50.0));
        stroke.push([x - dy * offset, y + dx * offset], radius);
        way += 5.0;
    }
    stroke.push(to, radius);
    stroke
}
