//! Geo commands: a sorted set whose scores are cells of a grid on the globe (`util::geo`), and
//! searches in it.
//!
//! ```text
//!   GEOADD       longitude, latitude -> score, then ZADD
//!   GEOSEARCH    area -> up to nine ranges of scores -> walk each, keep what lies within -> sort -> COUNT -> reply or store
//! ```
//!
//! GEORADIUS and its variants are the same search under older names, with the area at fixed
//! positions of argv.
//!
//! Found places are kept as [`Hit`]s, with their names in one buffer: a search allocates twice, not
//! once for each place. With COUNT, only the requested number is sorted; with ANY, the search ends
//! when it has found that number.
//!
//! Limit: the number of corners of a polygon is bounded only by the number of arguments; each place
//! near the polygon is compared with every corner.

use std::cmp::Ordering;
use std::ops::{ControlFlow, Range};

use crate::client::reply::ReplyBuf;
use crate::command::ctx::{CmdResult, Ctx};
use crate::command::keys;
use crate::command::*;
use crate::commands::zset::{AddOptions, add_members, read_zset, reply_for_members, store_zset};
use crate::error::{Error, excerpt};
use crate::types::zset::{Accumulator, Aggregate, ScoreRange, Zset, ZsetLimits};
use crate::util::geo::{self, Area, Point, Shape};
use crate::util::number::{parse_f64, write_fixed};

/// The commands of this group as rows of the command table: name, function, arity, flags, keys.
pub const TABLE: &[Command] = &[
    cmd("geoadd", geoadd, -5, WRITE | DENYOOM, GEO).keys(&[key_at(1, RW | UPDATE)]),
    cmd("geodist", geodist, -4, READONLY, GEO).keys(&[key_at(1, RO | ACCESS)]),
    cmd("geohash", geohash, -2, READONLY, GEO).keys(&[key_at(1, RO | ACCESS)]),
    cmd("geopos", geopos, -2, READONLY, GEO).keys(&[key_at(1, RO | ACCESS)]),
    cmd("georadius", georadius, -6, WRITE | DENYOOM, GEO)
        .keys(&[
            key_at(1, RO | ACCESS),
            key_after("STORE", 6, OW | UPDATE | VARIABLE_FLAGS),
            key_after("STOREDIST", 6, OW | UPDATE | VARIABLE_FLAGS),
        ])
        .get_keys(keys::georadius),
    cmd("georadius_ro", georadius_ro, -6, READONLY, GEO).keys(&[key_at(1, RO | ACCESS)]),
    cmd(
        "georadiusbymember",
        georadiusbymember,
        -5,
        WRITE | DENYOOM,
        GEO,
    )
    .keys(&[
        key_at(1, RO | ACCESS),
        key_after("STORE", 5, OW | UPDATE | VARIABLE_FLAGS),
        key_after("STOREDIST", 5, OW | UPDATE | VARIABLE_FLAGS),
    ])
    .get_keys(keys::georadiusbymember),
    cmd(
        "georadiusbymember_ro",
        georadiusbymember_ro,
        -5,
        READONLY,
        GEO,
    )
    .keys(&[key_at(1, RO | ACCESS)]),
    cmd("geosearch", geosearch, -7, READONLY, GEO).keys(&[key_at(1, RO | ACCESS)]),
    cmd("geosearchstore", geosearchstore, -8, WRITE | DENYOOM, GEO)
        .keys(&[key_at(1, OW | UPDATE), key_at(2, RO | ACCESS)]),
];

/// Parses a longitude and a latitude, the arguments `at` and `at + 1`.
fn point(ctx: &Ctx, at: usize) -> Result<Point, Error> {
    let point = Point {
        longitude: ctx.float(at)?,
        latitude: ctx.float(at + 1)?,
    };
    if geo::is_valid(point) {
        return Ok(point);
    }
    let Point {
        longitude,
        latitude,
    } = point;
    let text = format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}");
    Err(Error::new(text))
}

/// Parses a unit of length (m, km, ft or mi), and returns its length in meters.
fn unit(ctx: &Ctx, at: usize) -> Result<f64, Error> {
    match () {
        _ if ctx.is(at, "m") => Ok(1.0),
        _ if ctx.is(at, "km") => Ok(1000.0),
        _ if ctx.is(at, "ft") => Ok(0.3048),
        _ if ctx.is(at, "mi") => Ok(1609.34),
        _ => Err(Error::of(
            "ERR unsupported unit provided. please use M, KM, FT, MI",
        )),
    }
}

/// The cell of the grid for a score of the sorted set. A score that GEOADD did not create becomes
/// an integer as in C on a 64-bit x86.
fn cell_of(score: f64) -> u64 {
    const END: f64 = (1u128 << 64) as f64;
    match score {
        ..0.0 => score as i64 as u64,
        0.0..END => score as u64,
        _ => 0,
    }
}

fn place_of(score: f64) -> Point {
    geo::decode(cell_of(score))
}

/// Replies with a distance with four decimals, as a string in both protocols.
fn reply_distance(reply: &mut ReplyBuf, distance: f64) {
    let mut text = Vec::with_capacity(24);
    write_fixed(&mut text, distance, 4);
    reply.bulk(&text);
}

/// Replies with longitude and latitude with up to 17 decimals.
fn reply_place(
    reply: &mut ReplyBuf,
    Point {
        longitude,
        latitude,
    }: Point,
) {
    reply.array(2);
    for degrees in [longitude, latitude] {
        let text = format!("{degrees:.17}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        reply.double_text(if text == "-0" { b"0" } else { text.as_bytes() });
    }
}

/// GEOADD key [NX | XX] [CH] longitude latitude member [longitude latitude member ...]
fn geoadd(ctx: &mut Ctx) -> CmdResult {
    let mut options = AddOptions::default();
    let mut first = 2;
    while first < ctx.argv.len() {
        match () {
            _ if ctx.is(first, "nx") => options.flags.nx = true,
            _ if ctx.is(first, "xx") => options.flags.xx = true,
            _ if ctx.is(first, "ch") => options.count_changed = true,
            _ => break,
        }
        first += 1;
    }
    let (places, rest) = ctx.argv[first..].as_chunks::<3>();
    if places.is_empty() || !rest.is_empty() || (options.flags.nx && options.flags.xx) {
        return Err(Error::SYNTAX);
    }
    let member = |i: usize| Ok((geo::encode(point(ctx, first + 3 * i)?) as f64, places[i][2]));
    let members: Vec<_> = (0..places.len())
        .map(member)
        .collect::<Result<_, Error>>()?;
    add_members(ctx, options, &members)?;
    if ctx.server.propagation.wanted() {
        propagate_as_zadd(ctx, first, &members);
    }
    Ok(())
}

/// Propagates GEOADD as ZADD, so that a replica need not compute the scores, possibly with another
/// result.
fn propagate_as_zadd(ctx: &mut Ctx, first: usize, members: &[(f64, &[u8])]) {
    let scores: Vec<String> = members
        .iter()
        .map(|(score, _)| (*score as u64).to_string())
        .collect();
    let mut argv = vec![&b"zadd"[..]];
    argv.extend_from_slice(&ctx.argv[1..first]);
    for (score, (_, member)) in scores.iter().zip(members) {
        argv.extend([score.as_bytes(), member]);
    }
    ctx.rewrite(&argv);
}

/// GEODIST key member1 member2 [M | KM | FT | MI]
fn geodist(ctx: &mut Ctx) -> CmdResult {
    let unit = match ctx.argv.len() {
        4 => 1.0,
        5 => unit(ctx, 4)?,
        _ => return Err(Error::SYNTAX),
    };
    let zset = read_zset(ctx.server, ctx.client, ctx.argv[1])?;
    let zset = zset.as_deref();
    let place = |at: usize| zset.and_then(|zset| zset.score(ctx.argv[at])).map(place_of);
    match (place(2), place(3)) {
        (Some(from), Some(to)) => {
            reply_distance(&mut ctx.client.reply, geo::distance(from, to) / unit);
        }
        _ => ctx.client.reply.null(),
    }
    Ok(())
}

/// GEOHASH key [member [member ...]]
fn geohash(ctx: &mut Ctx) -> CmdResult {
    reply_for_members(ctx, |reply, score| match score {
        Some(score) => reply.bulk(&geo::geohash_text(cell_of(score))),
        None => reply.null(),
    })
}

/// GEOPOS key [member [member ...]]
fn geopos(ctx: &mut Ctx) -> CmdResult {
    reply_for_members(ctx, |reply, score| match score {
        Some(score) => reply_place(reply, place_of(score)),
        None => reply.null_array(),
    })
}

/// The command of a search, which determines the positions of its arguments and its options.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// GEORADIUS, which may store, and its `_RO` form.
    RadiusOfPoint {
        may_store: bool,
    },
    /// GEORADIUSBYMEMBER
    RadiusOfMember {
        may_store: bool,
    },
    Search,
    SearchStore,
}

impl Form {
    fn is_search(self) -> bool {
        matches!(self, Form::Search | Form::SearchStore)
    }

    fn may_store(self) -> bool {
        let (Form::RadiusOfPoint { may_store } | Form::RadiusOfMember { may_store }) = self else {
            return false;
        };
        may_store
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Sort {
    None,
    Asc,
    Desc,
}

/// The option that gave the center of a search: FROMMEMBER or FROMLONLAT.
#[derive(Clone, Copy, PartialEq)]
enum Center {
    Member,
    Point,
}

/// The parsed arguments of GEOSEARCH, GEORADIUS and their variants.
struct Search<'a> {
    from: Option<Center>,
    /// The coordinates of the center; `None` also if the sorted set does not exist.
    center: Option<Point>,
    shape: Option<Shape>,
    /// The length in meters of the unit in which distances are replied.
    unit: f64,
    sort: Sort,
    /// The maximum number of replied places, from COUNT; 0 for no limit.
    count: usize,
    any: bool,
    with_dist: bool,
    with_hash: bool,
    with_coord: bool,
    store: Option<&'a [u8]>,
    store_dist: bool,
}

impl<'a> Search<'a> {
    /// Parses the arguments of a search. The key of the sorted set is `argv[key_at]`; `exists` says
    /// whether the key exists.
    fn parse(
        ctx: &mut Ctx<'a>,
        key_at: usize,
        form: Form,
        exists: bool,
    ) -> Result<Search<'a>, Error> {
        let mut search = Search {
            from: None,
            center: None,
            shape: None,
            unit: 1.0,
            sort: Sort::None,
            count: 0,
            any: false,
            with_dist: false,
            with_hash: false,
            with_coord: false,
            store: None,
            store_dist: false,
        };
        let mut at = search.take_fixed(ctx, form, exists)?;
        while at < ctx.argv.len() {
            let mut taken = search.take_option(ctx, at, form)?;
            if taken == 0 && form.is_search() {
                taken =
                    search.take_center(ctx, at, key_at, exists)? + search.take_shape(ctx, at)?;
            }
            if taken == 0 {
                return Err(Error::SYNTAX);
            }
            at += taken;
        }
        search.check(ctx, form)?;
        // With COUNT, but without ASC, DESC and ANY, the nearest places are returned.
        if search.count > 0 && search.sort == Sort::None && !search.any {
            search.sort = Sort::Asc;
        }
        Ok(search)
    }

    /// Parses the arguments of a search before its options: destination, center and radius. Returns
    /// the index of the first option.
    fn take_fixed(&mut self, ctx: &mut Ctx<'a>, form: Form, exists: bool) -> Result<usize, Error> {
        match form {
            Form::Search => Ok(2),
            Form::SearchStore => {
                self.store = Some(ctx.argv[1]);
                Ok(3)
            }
            Form::RadiusOfPoint { .. } => {
                self.center = Some(point(ctx, 2)?);
                self.take_radius(ctx, 4)?;
                Ok(6)
            }
            Form::RadiusOfMember { .. } => {
                // If the sorted set does not exist, not even the radius is parsed.
                if exists {
                    self.center = Some(place_of_member(ctx, 1, ctx.argv[2])?);
                    self.take_radius(ctx, 3)?;
                }
                Ok(5)
            }
        }
    }

    fn take_radius(&mut self, ctx: &Ctx, at: usize) -> CmdResult {
        let radius = length(ctx, at, "ERR need numeric radius")?;
        if radius < 0.0 {
            return Err(Error::of("ERR radius cannot be negative"));
        }
        self.unit = unit(ctx, at + 1)?;
        self.shape = Some(Shape::Circle {
            radius: radius * self.unit,
        });
        Ok(())
    }

    fn take_box(&mut self, ctx: &Ctx, at: usize) -> CmdResult {
        let width = length(ctx, at, "ERR need numeric width")?;
        let height = length(ctx, at + 1, "ERR need numeric height")?;
        if height < 0.0 || width < 0.0 {
            return Err(Error::of("ERR height or width cannot be negative"));
        }
        self.unit = unit(ctx, at + 2)?;
        let (width, height) = (width * self.unit, height * self.unit);
        self.shape = Some(Shape::Rectangle { width, height });
        Ok(())
    }

    /// Parses BYPOLYGON's number of corners, the argument `at`, and the corners. Returns the number
    /// of parsed arguments.
    fn take_polygon(&mut self, ctx: &Ctx, at: usize) -> Result<usize, Error> {
        let corners = ctx.int(at)?;
        let most = ((ctx.argv.len() - at - 1) / 2) as i64;
        if !(3..=most).contains(&corners) {
            return Err(Error::of(
                "ERR GEOSEARCH BYPOLYGON must have at least 3 vertices",
            ));
        }
        let corners = (0..corners as usize).map(|i| point(ctx, at + 1 + 2 * i));
        let corners: Vec<_> = corners.collect::<Result<_, _>>()?;
        let taken = 1 + 2 * corners.len();
        let area = Area::polygon(corners);
        (self.center, self.shape) = (Some(area.center), Some(area.shape));
        Ok(taken)
    }

    /// Parses an option that all commands of searches have. Returns the option's number of
    /// arguments, 0 if the word is no such option.
    fn take_option(&mut self, ctx: &Ctx<'a>, at: usize, form: Form) -> Result<usize, Error> {
        let has_value = at + 1 < ctx.argv.len();
        match ctx.argv[at].to_ascii_lowercase().as_slice() {
            b"withdist" => self.with_dist = true,
            b"withhash" => self.with_hash = true,
            b"withcoord" => self.with_coord = true,
            b"any" => self.any = true,
            b"asc" => self.sort = Sort::Asc,
            b"desc" => self.sort = Sort::Desc,
            b"storedist" if form == Form::SearchStore => self.store_dist = true,
            b"count" if has_value => {
                let count = ctx.int(at + 1)?;
                if count <= 0 {
                    return Err(Error::of("ERR COUNT must be > 0"));
                }
                self.count = count as usize;
                return Ok(2);
            }
            option @ (b"store" | b"storedist") if has_value && form.may_store() => {
                self.store = Some(ctx.argv[at + 1]);
                self.store_dist = option == b"storedist";
                return Ok(2);
            }
            _ => return Ok(0),
        }
        Ok(1)
    }

    /// Parses FROMMEMBER or FROMLONLAT: only one of them, and neither with a polygon.
    fn take_center(
        &mut self,
        ctx: &mut Ctx<'a>,
        at: usize,
        key_at: usize,
        exists: bool,
    ) -> Result<usize, Error> {
        let left = ctx.argv.len() - at - 1;
        if matches!(self.shape, Some(Shape::Polygon { .. })) {
            return Ok(0);
        }
        if ctx.is(at, "frommember") && left >= 1 && self.from != Some(Center::Point) {
            if exists {
                self.center = Some(place_of_member(ctx, key_at, ctx.argv[at + 1])?);
            }
            self.from = Some(Center::Member);
            return Ok(2);
        }
        if ctx.is(at, "fromlonlat") && left >= 2 && self.from != Some(Center::Member) {
            self.center = Some(point(ctx, at + 1)?);
            self.from = Some(Center::Point);
            return Ok(3);
        }
        Ok(0)
    }

    /// Parses BYRADIUS, BYBOX or BYPOLYGON: only one of them.
    fn take_shape(&mut self, ctx: &Ctx, at: usize) -> Result<usize, Error> {
        let left = ctx.argv.len() - at - 1;
        let given = self.shape.as_ref();
        let circle_or_none = matches!(given, None | Some(Shape::Circle { .. }));
        let box_or_none = matches!(given, None | Some(Shape::Rectangle { .. }));
        if ctx.is(at, "byradius") && left >= 2 && circle_or_none {
            self.take_radius(ctx, at + 1)?;
            return Ok(3);
        }
        if ctx.is(at, "bybox") && left >= 3 && box_or_none {
            self.take_box(ctx, at + 1)?;
            return Ok(4);
        }
        if ctx.is(at, "bypolygon") && left >= 1 && given.is_none() && self.from.is_none() {
            return Ok(1 + self.take_polygon(ctx, at + 1)?);
        }
        Ok(0)
    }

    /// Refuses a search with contradictory or missing options.
    fn check(&self, ctx: &Ctx, form: Form) -> CmdResult {
        if self.store.is_some() && (self.with_dist || self.with_hash || self.with_coord) {
            return Err(Error::of(if form == Form::SearchStore {
                "ERR GEOSEARCHSTORE is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            } else {
                "ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            }));
        }
        let name = || excerpt(ctx.argv[0], 128);
        let is_polygon = matches!(self.shape, Some(Shape::Polygon { .. }));
        if form.is_search() && self.from.is_none() && !is_polygon {
            let text = "ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for";
            return Err(Error::new(format!("{text} {}", name())));
        }
        if form.is_search() && self.shape.is_none() {
            let text = "ERR exactly one of BYRADIUS and BYBOX can be specified for";
            return Err(Error::new(format!("{text} {}", name())));
        }
        if self.any && self.count == 0 {
            return Err(Error::of("ERR the ANY argument requires COUNT argument"));
        }
        Ok(())
    }
}

fn length(ctx: &Ctx, at: usize, text: &'static str) -> Result<f64, Error> {
    parse_f64(ctx.argv[at]).ok_or(Error::of(text))
}

/// The coordinates of a member of the sorted set with the key `argv[key_at]`.
fn place_of_member(ctx: &mut Ctx, key_at: usize, member: &[u8]) -> Result<Point, Error> {
    let entry = ctx.server.lookup_no_touch(ctx.client, ctx.argv[key_at]);
    let score = entry.and_then(|entry| Zset::of(entry).ok()?.score(member));
    score
        .map(place_of)
        .ok_or(Error::of("ERR could not decode requested zset member"))
}

/// A place that was found; [`Hits::names`] has its name.
struct Hit {
    name: Range<usize>,
    score: f64,
    place: Point,
    /// The distance from the center of the search, in meters.
    distance: f64,
}

#[derive(Default)]
struct Hits {
    names: Vec<u8>,
    hits: Vec<Hit>,
}

impl Hits {
    /// All members of the sorted set in the area; if `enough` is above 0, at most `enough` members.
    fn find(zset: &Zset, area: &Area, enough: usize) -> Hits {
        let mut found = Hits::default();
        for (from, to) in area.score_ranges() {
            let ranks = zset.score_ranks(&ScoreRange {
                min: from as f64,
                max: to as f64,
                min_exclusive: false,
                max_exclusive: true,
            });
            let walk = zset.try_walk(ranks, false, |name, score| {
                found.consider(area, name, score);
                let is_enough = enough > 0 && found.hits.len() >= enough;
                if is_enough {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            if walk.is_break() {
                break;
            }
        }
        found
    }

    fn consider(&mut self, area: &Area, name: &[u8], score: f64) {
        let place = place_of(score);
        let Some(distance) = area.distance_inside(place) else {
            return;
        };
        let start = self.names.len();
        self.names.extend_from_slice(name);
        self.hits.push(Hit {
            name: start..self.names.len(),
            score,
            place,
            distance,
        });
    }

    /// Sorts the found places by distance, and keeps the first `count`; a `count` of 0 keeps all.
    /// Places at the same distance keep their order.
    fn arrange(&mut self, sort: Sort, count: usize) {
        let keep = if count == 0 {
            self.hits.len()
        } else {
            count.min(self.hits.len())
        };
        let order = |a: &Hit, b: &Hit| {
            let by_distance = match sort {
                Sort::None => Ordering::Equal,
                Sort::Asc => a.distance.total_cmp(&b.distance),
                Sort::Desc => b.distance.total_cmp(&a.distance),
            };
            by_distance.then(a.name.start.cmp(&b.name.start))
        };
        if sort != Sort::None {
            if 0 < keep && keep < self.hits.len() {
                self.hits.select_nth_unstable_by(keep - 1, order);
            }
            self.hits[..keep].sort_by(order);
        }
        self.hits.truncate(keep);
    }

    fn reply(&self, reply: &mut ReplyBuf, search: &Search) {
        let Search {
            with_dist,
            with_hash,
            with_coord,
            unit,
            ..
        } = *search;
        let options = with_dist as usize + with_hash as usize + with_coord as usize;
        reply.array(self.hits.len());
        for hit in &self.hits {
            if options > 0 {
                reply.array(options + 1);
            }
            reply.bulk(&self.names[hit.name.clone()]);
            if with_dist {
                reply_distance(reply, hit.distance / unit);
            }
            if with_hash {
                reply.integer(hit.score as i64);
            }
            if with_coord {
                reply_place(reply, hit.place);
            }
        }
    }

    /// The found places as a sorted set, with their own scores or, for STOREDIST, with the
    /// distances as scores.
    fn into_zset(self, search: &Search, limits: &ZsetLimits) -> Zset {
        let mut result = Accumulator::new(limits.seed, Aggregate::Max);
        for hit in &self.hits {
            let score = if search.store_dist {
                hit.distance / search.unit
            } else {
                hit.score
            };
            result.accumulate(&self.names[hit.name.clone()], score);
        }
        result.finish(limits)
    }
}

/// Searches the sorted set with the key `argv[key_at]`, and replies or stores.
fn search_generic(ctx: &mut Ctx, key_at: usize, form: Form) -> CmdResult {
    let key = ctx.argv[key_at];
    let exists = read_zset(ctx.server, ctx.client, key)?.is_some();
    let mut search = Search::parse(ctx, key_at, form, exists)?;
    let area = search
        .center
        .zip(search.shape.take())
        .map(|(center, shape)| Area { center, shape });
    let mut hits = Hits::default();
    if let Some(entry) = ctx.server.lookup_no_touch(ctx.client, key)
        && let Some(area) = area
    {
        let enough = if search.any { search.count } else { 0 };
        hits = Hits::find(&*Zset::of(entry)?, &area, enough);
        hits.arrange(search.sort, search.count);
    }
    match search.store {
        None => hits.reply(&mut ctx.client.reply, &search),
        Some(destination) => store(ctx, destination, hits, &search, form),
    }
    Ok(())
}

/// Stores the found places. Each place counts as a change of the data set, whereas ZUNIONSTORE
/// counts as one change.
fn store(ctx: &mut Ctx, destination: &[u8], hits: Hits, search: &Search, form: Form) {
    let limits = ZsetLimits::of(ctx.server);
    let is_search = form == Form::SearchStore;
    let event = if is_search {
        "geosearchstore"
    } else {
        "georadiusstore"
    };
    let len = store_zset(ctx, destination, hits.into_zset(search, &limits), event);
    ctx.dirty(len.saturating_sub(1) as u64);
    ctx.client.reply.integer(len as i64);
}

/// GEOSEARCH key FROMMEMBER member | FROMLONLAT longitude latitude BYRADIUS radius unit | BYBOX
/// width height unit
/// | BYPOLYGON corners longitude latitude ... [ASC | DESC] [COUNT count [ANY]] [WITHCOORD] [WITHDIST] [WITHHASH]
fn geosearch(ctx: &mut Ctx) -> CmdResult {
    search_generic(ctx, 1, Form::Search)
}

/// GEOSEARCHSTORE destination source ... as GEOSEARCH ... [STOREDIST]
fn geosearchstore(ctx: &mut Ctx) -> CmdResult {
    search_generic(ctx, 2, Form::SearchStore)
}

/// GEORADIUS key longitude latitude radius unit [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count
/// [ANY]] [ASC | DESC] [STORE key | STOREDIST key]
fn georadius(ctx: &mut Ctx) -> CmdResult {
    search_generic(ctx, 1, Form::RadiusOfPoint { may_store: true })
}

/// GEORADIUS_RO: GEORADIUS without STORE and STOREDIST, for replicas
fn georadius_ro(ctx: &mut Ctx) -> CmdResult {
    search_generic(ctx, 1, Form::RadiusOfPoint { may_store: false })
}

/// GEORADIUSBYMEMBER key member radius unit ... as GEORADIUS
fn georadiusbymember(ctx: &mut Ctx) -> CmdResult {
    search_generic(ctx, 1, Form::RadiusOfMember { may_store: true })
}

/// GEORADIUSBYMEMBER_RO: GEORADIUSBYMEMBER without STORE and STOREDIST, for replicas
fn georadiusbymember_ro(ctx: &mut Ctx) -> CmdResult {
    search_generic(ctx, 1, Form::RadiusOfMember { may_store: false })
}
