//! `geo`: places on the globe, in degrees.

use super::super::fault::{Fault, Stop};
use super::super::heap::Val;
use super::super::machine::Machine;
use super::super::native::Def;

pub(in super::super) const HELPERS: &[Def] = &[
    Def::new(
        "geo.geohash(lat, lon, length=8)",
        "The geohash of a place: near places share a beginning.",
        ("geo.geohash(52.52, 13.405, 5)", "\"u33dc\""),
        geohash,
    )
    .passes_none(),
    Def::new(
        "geo.haversine(lat1, lon1, lat2, lon2)",
        "The distance of two places in kilometres, along a great circle.",
        ("math.round(geo.haversine(52.52, 13.405, 48.8566, 2.3522))", "877"),
        haversine,
    )
    .passes_none(),
];

/// Mean radius of the earth.
const RADIUS_KM: f64 = 6371.0088;

fn degrees(m: &Machine<'_>, value: Val, name: &str, most: f64) -> Result<f64, Stop> {
    let number = m.number(value, name)?;
    if (-most..=most).contains(&number) {
        Ok(number)
    } else {
        Err(Fault::failed(format!("{name} must be from -{most} to {most} degrees, not {number}")))
    }
}

fn haversine(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    if a.iter().take(4).any(|value| matches!(value, Val::None)) {
        return Ok(Val::None);
    }
    let lat1 = degrees(m, a[0], "lat1", 90.0)?.to_radians();
    let lon1 = degrees(m, a[1], "lon1", 180.0)?.to_radians();
    let lat2 = degrees(m, a[2], "lat2", 90.0)?.to_radians();
    let lon2 = degrees(m, a[3], "lon2", 180.0)?.to_radians();
    let h =
        ((lat2 - lat1) / 2.0).sin().powi(2) + lat1.cos() * lat2.cos() * ((lon2 - lon1) / 2.0).sin().powi(2);
    m.finite(2.0 * RADIUS_KM * h.sqrt().min(1.0).asin())
}

fn geohash(m: &mut Machine<'_>, a: &[Val]) -> Result<Val, Stop> {
    const DIGITS: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
    if matches!(a[1], Val::None) {
        return Ok(Val::None);
    }
    let (lat, lon) = (degrees(m, a[0], "lat", 90.0)?, degrees(m, a[1], "lon", 180.0)?);
    let length = m.int_or(a[2], "length", 8)?;
    if !(1..=12).contains(&length) {
        return Err(Fault::failed("length must be from 1 to 12"));
    }
    let mut ranges = [(-180.0, 180.0), (-90.0, 90.0)];
    let mut hash = String::new();
    let mut bits = 0..;
    for _ in 0..length {
        let mut digit = 0usize;
        for bit in bits.by_ref().take(5) {
            let axis = bit % 2;
            let value = if axis == 0 { lon } else { lat };
            let (low, high): (f64, f64) = ranges[axis];
            let middle = (low + high) / 2.0;
            digit = digit * 2 + usize::from(value >= middle);
            ranges[axis] = if value >= middle { (middle, high) } else { (low, middle) };
        }
        hash.push(char::from(DIGITS[digit]));
    }
    m.heap.new_str(hash)
}
