//! Places on the globe: the cells, distances and shapes behind GEOADD, GEODIST, GEOSEARCH and
//! GEOHASH.
//!
//! A place is stored as a score of 52 bits: longitude and latitude are each halved 26 times, and
//! the choices are interleaved. So a cell of the grid is a range of scores, and a search in an area
//! is a few ranges of a sorted set.
//!
//! ```text
//!   score   x25 y25 x24 y24 ... x0 y0          x: longitude in -180..180    y: latitude in -85.05..85.05
//!   cell    the leading 2 * step bits          step 1: a quarter of the map   step 26: 0.6 m
//!
//!   a search looks into the cell of its center and the eight around it, at the finest step whose
//!   3 x 3 cells hold the whole area, less those that lie outside of its bounding box:
//!                            NW  N  NE
//!                            W   c  E
//!                            SW  S  SE
//! ```
//!
//! Latitudes end where Web Mercator's square map does. GEOHASH's text uses the standard -90..90
//! instead, so GEOHASH encodes the decoded place again in that range. Distances are haversine
//! distances on a sphere of Redis's radius.
//!
//! Formulas keep Redis's order of operations: the last bit of a double shows in GEOPOS, and decides
//! whether a member on a border is found. Longitude 180 itself overflows into bit 53, as in Redis.

use std::f64::consts::PI;

/// The largest longitude in degrees.
const MAX_LONGITUDE: f64 = 180.0;
/// The largest latitude in degrees: atan(sinh(pi)).
const MAX_LATITUDE: f64 = 85.05112878;
/// The radius of the Earth in meters, as in Redis.
const EARTH_RADIUS: f64 = 6_372_797.560856;
/// Half the side of Web Mercator's map, in meters.
const MERCATOR_MAX: f64 = 20_037_726.37;
const MAX_STEP: u32 = 26;
const RADIANS_PER_DEGREE: f64 = PI / 180.0;

/// A place in degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The longitude in degrees, east positive.
    pub longitude: f64,
    /// The latitude in degrees, north positive.
    pub latitude: f64,
}

/// Whether GEOADD accepts the place. NaN is not accepted.
pub fn is_valid(point: Point) -> bool {
    (-MAX_LONGITUDE..=MAX_LONGITUDE).contains(&point.longitude)
        && (-MAX_LATITUDE..=MAX_LATITUDE).contains(&point.latitude)
}

/// The score of a place, which must be valid.
pub fn encode(point: Point) -> u64 {
    Cell::holding(point, MAX_STEP, MAX_LATITUDE).bits
}

/// The center of the finest cell with this score.
pub fn decode(score: u64) -> Point {
    let bounds = Cell {
        bits: score,
        step: MAX_STEP,
    }
    .bounds();
    let center = |low: f64, high: f64, limit: f64| ((low + high) / 2.0).clamp(-limit, limit);
    Point {
        longitude: center(bounds.west, bounds.east, MAX_LONGITUDE),
        latitude: center(bounds.south, bounds.north, MAX_LATITUDE),
    }
}

/// The standard geohash text of a score's place. The grid's 52 bits are three bits short of 55, so
/// the eleventh letter is always `0`.
pub fn geohash_text(score: u64) -> [u8; 11] {
    const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
    let bits = Cell::holding(decode(score), MAX_STEP, 90.0).bits;
    std::array::from_fn(|at| match at {
        10 => ALPHABET[0],
        _ => ALPHABET[(bits >> (52 - 5 * (at + 1)) & 31) as usize],
    })
}

fn radians(degrees: f64) -> f64 {
    degrees * RADIANS_PER_DEGREE
}

fn degrees(radians: f64) -> f64 {
    radians / RADIANS_PER_DEGREE
}

/// The distance in meters along the great circle.
pub fn distance(from: Point, to: Point) -> f64 {
    let v = ((radians(to.longitude) - radians(from.longitude)) / 2.0).sin();
    if v == 0.0 {
        return latitude_distance(from.latitude, to.latitude);
    }
    let (from_latitude, to_latitude) = (radians(from.latitude), radians(to.latitude));
    let u = ((to_latitude - from_latitude) / 2.0).sin();
    let a = u * u + from_latitude.cos() * to_latitude.cos() * v * v;
    2.0 * EARTH_RADIUS * a.sqrt().asin()
}

/// The distance in meters along a meridian.
fn latitude_distance(from: f64, to: f64) -> f64 {
    EARTH_RADIUS * (radians(to) - radians(from)).abs()
}

/// A rectangle in degrees. A rectangle that crosses the antimeridian or a pole extends beyond the
/// map's edge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    pub west: f64,
    pub south: f64,
    pub east: f64,
    pub north: f64,
}

/// A cell of the grid: the leading `2 * step` bits of a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    bits: u64,
    step: u32,
}

impl Cell {
    fn holding(point: Point, step: u32, max_latitude: f64) -> Self {
        let cells = (1u64 << step) as f64;
        let position = |value: f64, limit: f64| ((value + limit) / (limit - -limit) * cells) as u32;
        let x = position(point.longitude, MAX_LONGITUDE);
        let y = position(point.latitude, max_latitude);
        Cell::at(x, y, step)
    }

    fn at(x: u32, y: u32, step: u32) -> Self {
        let bits = spread(x) << 1 | spread(y);
        Cell { bits, step }
    }

    fn bounds(self) -> Bounds {
        let cells = (1u64 << self.step) as f64;
        let (x, y) = (squeeze(self.bits >> 1), squeeze(self.bits));
        let edge = |position: f64, limit: f64| -limit + position / cells * (limit - -limit);
        Bounds {
            west: edge(f64::from(x), MAX_LONGITUDE),
            south: edge(f64::from(y), MAX_LATITUDE),
            east: edge(f64::from(x) + 1.0, MAX_LONGITUDE),
            north: edge(f64::from(y) + 1.0, MAX_LATITUDE),
        }
    }

    /// The cell `east` cells further east and `north` cells further north; the map wraps around at
    /// all its edges. A coordinate that does not move is left as it is, even if it overflowed at
    /// the map's edge: Redis then finds nothing in the cell.
    fn neighbor(self, east: i32, north: i32) -> Self {
        let mask = u32::MAX >> (32 - self.step);
        let moved = |position: u32, by: i32| match by {
            0 => position,
            _ => position.wrapping_add_signed(by) & mask,
        };
        let x = moved(squeeze(self.bits >> 1), east);
        let y = moved(squeeze(self.bits), north);
        Cell::at(x, y, self.step)
    }

    /// The range of the scores in this cell: from the first number, up to but not including the
    /// second.
    fn scores(self) -> (u64, u64) {
        let unused = 52 - 2 * self.step;
        (self.bits << unused, self.bits.wrapping_add(1) << unused)
    }
}

/// Moves each bit n to bit 2n.
fn spread(value: u32) -> u64 {
    let mut bits = u64::from(value);
    bits = (bits | bits << 16) & 0x0000_ffff_0000_ffff;
    bits = (bits | bits << 8) & 0x00ff_00ff_00ff_00ff;
    bits = (bits | bits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    bits = (bits | bits << 2) & 0x3333_3333_3333_3333;
    (bits | bits << 1) & 0x5555_5555_5555_5555
}

/// Moves each bit 2n to bit n and drops the odd bits.
fn squeeze(bits: u64) -> u32 {
    let mut bits = bits & 0x5555_5555_5555_5555;
    bits = (bits | bits >> 1) & 0x3333_3333_3333_3333;
    bits = (bits | bits >> 2) & 0x0f0f_0f0f_0f0f_0f0f;
    bits = (bits | bits >> 4) & 0x00ff_00ff_00ff_00ff;
    bits = (bits | bits >> 8) & 0x0000_ffff_0000_ffff;
    (bits | bits >> 16) as u32
}

/// The form of a search area, with lengths in meters.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    Circle {
        radius: f64,
    },
    /// A box, whose sides are parallel to meridians and parallels.
    Rectangle {
        width: f64,
        height: f64,
    },
    /// A polygon of at least three corners; the last corner is joined to the first.
    Polygon {
        corners: Vec<Point>,
    },
}

/// A search area: a shape around a place.
#[derive(Debug, Clone, PartialEq)]
pub struct Area {
    pub center: Point,
    pub shape: Shape,
}

impl Area {
    /// Creates a polygon. The polygon's center, from which distances are measured, is the mean of
    /// its corners as points in space, projected to the surface.
    pub fn polygon(corners: Vec<Point>) -> Self {
        let (mut x, mut y, mut z) = (0.0, 0.0, 0.0);
        for corner in &corners {
            let (longitude, latitude) = (radians(corner.longitude), radians(corner.latitude));
            x += latitude.cos() * longitude.cos();
            y += latitude.cos() * longitude.sin();
            z += latitude.sin();
        }
        let count = corners.len().max(1) as f64;
        let (x, y, z) = (x / count, y / count, z / count);
        let center = Point {
            longitude: degrees(y.atan2(x)),
            latitude: degrees(z.atan2((x * x + y * y).sqrt())),
        };
        let shape = Shape::Polygon { corners };
        Area { center, shape }
    }

    /// The distance of a point from the area's center; `None` if the point lies outside of the
    /// area.
    pub fn distance_inside(&self, point: Point) -> Option<f64> {
        match &self.shape {
            Shape::Circle { radius } => {
                Some(distance(self.center, point)).filter(|meters| meters <= radius)
            }
            Shape::Rectangle { width, height } => {
                // The width is measured along the parallel of the point, not along that of the
                // center.
                let level = Point {
                    longitude: self.center.longitude,
                    ..point
                };
                let inside = latitude_distance(point.latitude, self.center.latitude)
                    <= height / 2.0
                    && distance(point, level) <= width / 2.0;
                inside.then(|| distance(self.center, point))
            }
            Shape::Polygon { corners } => {
                is_in_polygon(corners, point).then(|| distance(self.center, point))
            }
        }
    }

    /// The smallest rectangle in degrees around the area.
    fn bounding_box(&self) -> Bounds {
        let (width, height) = match &self.shape {
            Shape::Circle { radius } => (*radius, *radius),
            Shape::Rectangle { width, height } => (width / 2.0, height / 2.0),
            Shape::Polygon { corners } => return polygon_bounds(corners),
        };
        let Point {
            longitude,
            latitude,
        } = self.center;
        let north_south = degrees(height / EARTH_RADIUS);
        // A degree of longitude is shortest on the side of the area that faces the pole.
        let widest = if latitude < 0.0 {
            latitude - north_south
        } else {
            latitude + north_south
        };
        let east_west = degrees(width / EARTH_RADIUS / radians(widest).cos());
        Bounds {
            west: longitude - east_west,
            south: latitude - north_south,
            east: longitude + east_west,
            north: latitude + north_south,
        }
    }

    /// The radius of a circle around the center that holds the area.
    fn outer_radius(&self) -> f64 {
        match &self.shape {
            Shape::Circle { radius } => *radius,
            Shape::Rectangle { width, height } => {
                ((width / 2.0) * (width / 2.0) + (height / 2.0) * (height / 2.0)).sqrt()
            }
            Shape::Polygon { .. } => {
                let Bounds {
                    west,
                    south,
                    east,
                    north,
                } = self.bounding_box();
                let corners = [(west, north), (east, north), (west, south), (east, south)];
                let meters = corners.map(|(longitude, latitude)| {
                    distance(
                        self.center,
                        Point {
                            longitude,
                            latitude,
                        },
                    )
                });
                meters.into_iter().fold(0.0, f64::max)
            }
        }
    }

    /// The ranges of scores that cover the area, in the order in which a search visits them:
    /// center, N, S, E, W, NE, NW, SE, SW. A range goes from its first score up to but not
    /// including its second.
    pub fn score_ranges(&self) -> Vec<(u64, u64)> {
        const AROUND: [(i32, i32); 8] = [
            (0, 1),
            (0, -1),
            (1, 0),
            (-1, 0),
            (1, 1),
            (-1, 1),
            (1, -1),
            (-1, -1),
        ];
        let bounds = self.bounding_box();
        let cell = self.center_cell(bounds);
        let cell_bounds = cell.bounds();
        // At step 1 the cell and its neighbors are the whole map, so no neighbor may be left out.
        let may_skip = cell.step >= 2;
        let outside = |east: i32, north: i32| {
            may_skip
                && (north < 0 && cell_bounds.south < bounds.south
                    || north > 0 && cell_bounds.north > bounds.north
                    || east < 0 && cell_bounds.west < bounds.west
                    || east > 0 && cell_bounds.east > bounds.east)
        };
        let mut cells = vec![cell];
        for (east, north) in AROUND {
            let neighbor = cell.neighbor(east, north);
            // On a coarse grid, the neighbors of a cell on both sides are the same cell.
            if !outside(east, north) && !cells.contains(&neighbor) {
                cells.push(neighbor);
            }
        }
        cells.into_iter().map(Cell::scores).collect()
    }

    /// The center's cell at the finest step whose neighborhood covers the area.
    fn center_cell(&self, bounds: Bounds) -> Cell {
        let step = steps_for_radius(self.outer_radius(), self.center.latitude);
        let cell = Cell::holding(self.center, step, MAX_LATITUDE);
        let covered = cell.neighbor(0, 1).bounds().north >= bounds.north
            && cell.neighbor(0, -1).bounds().south <= bounds.south
            && cell.neighbor(1, 0).bounds().east >= bounds.east
            && cell.neighbor(-1, 0).bounds().west <= bounds.west;
        match covered || step == 1 {
            true => cell,
            false => Cell::holding(self.center, step - 1, MAX_LATITUDE),
        }
    }
}

/// The finest step of the grid whose cells are about as wide as the radius. The step is coarser
/// near the poles, where cells are narrow.
fn steps_for_radius(mut radius: f64, latitude: f64) -> u32 {
    if radius == 0.0 {
        return MAX_STEP;
    }
    let mut step = 1;
    while radius < MERCATOR_MAX && step < 2 * MAX_STEP as i32 {
        radius *= 2.0;
        step += 1;
    }
    step -= 2;
    step -= i32::from(latitude.abs() > 66.0) + i32::from(latitude.abs() > 80.0);
    step.clamp(1, MAX_STEP as i32) as u32
}

fn polygon_bounds(corners: &[Point]) -> Bounds {
    let nowhere = Bounds {
        west: f64::INFINITY,
        south: f64::INFINITY,
        east: f64::NEG_INFINITY,
        north: f64::NEG_INFINITY,
    };
    corners.iter().fold(nowhere, |bounds, corner| Bounds {
        west: bounds.west.min(corner.longitude),
        south: bounds.south.min(corner.latitude),
        east: bounds.east.max(corner.longitude),
        north: bounds.north.max(corner.latitude),
    })
}

/// Ray casting, on the flat map: a point is inside if a ray to the east crosses the outline an odd
/// number of times.
fn is_in_polygon(corners: &[Point], point: Point) -> bool {
    let Some(last) = corners.last() else {
        return false;
    };
    let (mut inside, mut from) = (false, last);
    for to in corners {
        if (to.latitude > point.latitude) != (from.latitude > point.latitude) {
            let slope = (from.longitude - to.longitude) / (from.latitude - to.latitude);
            let crossing = slope * (point.latitude - to.latitude) + to.longitude;
            inside ^= point.longitude < crossing;
        }
        from = to;
    }
    inside
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn point(longitude: f64, latitude: f64) -> Point {
        Point {
            longitude,
            latitude,
        }
    }

    const PALERMO: Point = Point {
        longitude: 13.361389,
        latitude: 38.115556,
    };
    const CATANIA: Point = Point {
        longitude: 15.087269,
        latitude: 37.502669,
    };

    /// A known place: name, score, geohash, longitude, latitude and distance to Palermo in meters.
    type Known = (
        Point,
        u64,
        &'static str,
        &'static str,
        &'static str,
        &'static str,
    );

    /// Known places, with the replies of a real Redis about them.
    const KNOWN: &[Known] = &[
        (
            point(-180.0, -85.05112878),
            0,
            "00bh0hbj200",
            "-179.99999731779098511",
            "-85.05112751263942528",
            "14784257.5187",
        ),
        (
            point(-180.0, 0.0),
            1125899906842624,
            "80000000000",
            "-179.99999731779098511",
            "0.00000126736058093",
            "15566000.7091",
        ),
        (
            point(-122.27652, 37.80558),
            1367952638388848,
            "9q9p1d2cqw0",
            "-122.27652043104171753",
            "37.80558027547841959",
            "10431628.9748",
        ),
        (
            point(1e-07, -1e-07),
            2627099782632789,
            "kpbpbpbpbp0",
            "0.00000268220901489",
            "-0.00000126736058093",
            "4454733.2909",
        ),
        (
            point(0.0, 0.0),
            3377699720527872,
            "s0000000000",
            "0.00000268220901489",
            "0.00000126736058093",
            "4454733.0204",
        ),
        (
            PALERMO,
            3479099956230698,
            "sqc8b49rny0",
            "13.36138933897018433",
            "38.11555639549629859",
            "0.0000",
        ),
        (
            CATANIA,
            3479447370796909,
            "sqdtr74hyu0",
            "15.08726745843887329",
            "37.50266842333162032",
            "166274.1516",
        ),
        (
            point(0.0, 85.05112878),
            6755399441055744,
            "up05b5048p0",
            "0.00000268220901489",
            "85.05112877999999910",
            "5236476.6178",
        ),
        (
            point(180.0, 0.0),
            10133099161583616,
            "80000000000",
            "180.00000000000000000",
            "0.00000126736058093",
            "15566000.6248",
        ),
        (
            point(180.0, 85.05112878),
            13510798882111488,
            "bp05b5048p0",
            "180.00000000000000000",
            "85.05112877999999910",
            "6307362.7206",
        ),
    ];

    #[test]
    fn places_of_a_real_server() {
        for &(place, score, text, longitude, latitude, meters) in KNOWN {
            assert!(is_valid(place));
            assert_eq!(encode(place), score);
            assert_eq!(geohash_text(score), *text.as_bytes());
            let decoded = decode(score);
            assert_eq!(format!("{:.17}", decoded.longitude), longitude);
            assert_eq!(format!("{:.17}", decoded.latitude), latitude);
            let palermo = decode(encode(PALERMO));
            assert_eq!(format!("{:.4}", distance(decoded, palermo)), meters);
        }
    }

    #[test]
    fn invalid_places() {
        assert!(!is_valid(point(180.1, 0.0)));
        assert!(!is_valid(point(0.0, 85.06)));
        assert!(!is_valid(point(f64::NAN, 0.0)));
    }

    #[test]
    fn shapes() {
        let center = point(15.0, 37.0);
        let circle = |radius| Area {
            center,
            shape: Shape::Circle { radius },
        };
        assert!(circle(200_000.0).distance_inside(PALERMO).is_some());
        assert!(circle(190_000.0).distance_inside(PALERMO).is_none());
        let shape = Shape::Rectangle {
            width: 400_000.0,
            height: 400_000.0,
        };
        let rectangle = Area { center, shape };
        assert!(rectangle.distance_inside(CATANIA).is_some());
        assert!(
            rectangle
                .distance_inside(point(17.24151, 38.788135))
                .is_some()
        );
        assert!(rectangle.distance_inside(point(12.0, 38.788135)).is_none());
    }

    #[test]
    fn polygon_in_sicily() {
        let corners = [
            (13.268550, 38.354626),
            (15.379554, 37.143270),
            (14.7, 36.6),
            (14.193438, 37.334376),
            (12.972021, 38.138380),
            (13.3, 38.2),
        ];
        let area = Area::polygon(corners.map(|(x, y)| point(x, y)).to_vec());
        let ragusa = point(14.733333, 36.933333);
        let siracusa = point(15.287602, 37.070104);
        let agrigento = point(13.588412, 37.311348);
        for (place, inside) in [
            (PALERMO, true),
            (ragusa, true),
            (siracusa, true),
            (CATANIA, false),
            (agrigento, false),
        ] {
            assert_eq!(area.distance_inside(place).is_some(), inside, "{place:?}");
        }
        assert!(area.distance_inside(area.center).unwrap() < 1e-6);
    }

    #[test]
    fn a_search_of_the_whole_globe_visits_each_cell_once() {
        let center = point(0.0, 0.0);
        let shape = Shape::Circle { radius: 3e7 };
        let mut ranges = Area { center, shape }.score_ranges();
        ranges.sort_unstable();
        let quarter = 1 << 50;
        assert_eq!(
            ranges,
            [0, 1, 2, 3].map(|n| (n * quarter, (n + 1) * quarter))
        );
    }

    fn anywhere() -> impl Strategy<Value = Point> {
        let latitudes = -MAX_LATITUDE..MAX_LATITUDE;
        (-180.0..180.0, latitudes).prop_map(|(longitude, latitude)| point(longitude, latitude))
    }

    proptest! {
        #[test]
        fn decoding_ends_in_the_same_cell(place in anywhere()) {
            let score = encode(place);
            prop_assert!(score < 1 << 52);
            prop_assert_eq!(encode(decode(score)), score);
            prop_assert!(distance(decode(score), place) < 0.6);
        }

        #[test]
        fn spread_bits_squeeze_back(value: u32, noise: u32) {
            prop_assert_eq!(squeeze(spread(value) | spread(noise) << 1), value);
        }

        /// All places are away from the poles and the antimeridian, where the map ends.
        #[test]
        fn what_is_inside_is_in_a_visited_range(
            x in -100.0..100.0f64, y in -60.0..60.0f64, dx in -1.0..1.0f64, dy in -1.0..1.0f64, size in 1.0..6.0f64,
        ) {
            let meters = 10f64.powf(size);
            let spread = meters / 100_000.0;
            let place = decode(encode(point(x + dx * spread, y + dy * spread)));
            let center = point(x, y);
            let corner = |east: f64, north: f64| point(x + east * spread, y + north * spread);
            for area in [
                Area { center, shape: Shape::Circle { radius: meters } },
                Area { center, shape: Shape::Rectangle { width: meters, height: meters / 2.0 } },
                Area::polygon(vec![corner(0.5, 0.5), corner(-1.0, 0.2), corner(0.0, 0.0), corner(0.7, -1.0)]),
            ] {
                let score = encode(place);
                let visited = area.score_ranges().iter().any(|(low, high)| (*low..*high).contains(&score));
                prop_assert!(visited || area.distance_inside(place).is_none());
            }
        }

        #[test]
        fn any_numbers_are_safe(bits: [u64; 6], score: u64) {
            let [a, b, c, d, e, f] = bits.map(f64::from_bits);
            let _ = (decode(score), geohash_text(score), distance(point(a, b), point(c, d)));
            for shape in [Shape::Circle { radius: e }, Shape::Rectangle { width: e, height: f }] {
                let area = Area { center: point(a, b), shape };
                let _ = (area.score_ranges(), area.distance_inside(point(c, d)));
            }
            let area = Area::polygon(vec![point(a, b), point(c, d), point(e, f)]);
            let _ = (area.score_ranges(), area.distance_inside(point(c, d)));
        }
    }
}
