//! The curves: a small picture for each query, a line for each engine.

use std::fmt::Write;
use std::time::Duration;

use super::Point;
use crate::engine::Engine;

const ACROSS: usize = 5;
const WIDTH: f64 = 205.0;
/// The width of all.
const TOTAL: f64 = WIDTH * 5.0;
const HEIGHT: f64 = 150.0;
/// Room inside of a picture: left, right, top and bottom of the curves.
const LEFT: f64 = 34.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 20.0;
/// Room for the title and the engines' colours.
const HEAD: f64 = 50.0;
/// What the times lie between, as powers of ten of milliseconds.
const LEAST: i32 = -2;
const MOST: i32 = 3;
/// What an indexed query may take, in the same measure.
const LIMIT: f64 = 2.0;

/// p99 of each query against the size of the tables, both logarithmic.
pub(crate) fn svg(points: &[Point]) -> String {
    let mut queries: Vec<&str> = Vec::new();
    for point in points {
        if !queries.contains(&point.query) {
            queries.push(point.query);
        }
    }
    let places = places(queries.len());
    let rows = places.last().map_or(1.0, |(_, y)| y + 1.0);
    let (width, height) = (TOTAL, HEAD + rows * HEIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"9\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"14\">p99 (thin: p50) in milliseconds against the growth of the \
         tables (dashed: 100 ms)</text>\n"
    );
    for (engine, x) in Engine::ALL.into_iter().zip([10.0, 90.0, 180.0]) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"38\" font-size=\"12\" font-weight=\"bold\" fill=\"{}\">{engine}</text>",
            colour(engine)
        );
    }
    for (query, (x, y)) in queries.iter().zip(places) {
        let _ = writeln!(svg, "<g transform=\"translate({} {})\">", x * WIDTH, HEAD + y * HEIGHT);
        let points: Vec<&Point> = points.iter().filter(|point| point.query == *query).collect();
        panel(&mut svg, query, &points);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

/// Column and row of each picture.
fn places(count: usize) -> Vec<(f64, f64)> {
    let numbers = || std::iter::successors(Some(0.0), |number| Some(number + 1.0));
    numbers().flat_map(|row| numbers().take(ACROSS).map(move |column| (column, row))).take(count).collect()
}

fn panel(svg: &mut String, query: &str, points: &[&Point]) {
    let _ = writeln!(svg, "<text x=\"10\" y=\"16\" font-size=\"10\">{query}</text>");
    for power in LEAST..=MOST {
        let y = height(f64::from(power));
        let label = if power < 0 {
            format!("{:.1$}", 10_f64.powi(power), usize::try_from(-power).unwrap_or(0))
        } else {
            format!("{:.0}", 10_f64.powi(power))
        };
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#666\">{label}</text>",
            WIDTH - RIGHT,
            LEFT - 4.0,
            y + 3.0,
        );
    }
    let limit = height(LIMIT);
    let _ = writeln!(
        svg,
        "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{limit:.1}\" y2=\"{limit:.1}\" stroke=\"#c00\" stroke-dasharray=\"4 3\"/>",
        WIDTH - RIGHT,
    );
    let largest = points.iter().map(|point| point.scale).max().unwrap_or(1);
    let across = |scale: u32| {
        let share = if largest > 1 { f64::from(scale).ln() / f64::from(largest).ln() } else { 0.0 };
        LEFT + share * (WIDTH - LEFT - RIGHT)
    };
    let mut scales: Vec<u32> = points.iter().map(|point| point.scale).collect();
    scales.sort_unstable();
    scales.dedup();
    for scale in scales {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#666\">{scale}×</text>",
            across(scale),
            HEIGHT - 6.0,
        );
    }
    for engine in Engine::ALL {
        let of = || points.iter().filter(|point| point.engine == engine);
        curve(svg, engine, "1", "0.55", of().map(|point| (across(point.scale), point.p50)));
        curve(svg, engine, "2", "1", of().map(|point| (across(point.scale), point.p99)));
        for point in of() {
            let (x, y, colour) = (across(point.scale), level(point.p99), colour(engine));
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.2\" fill=\"{colour}\"/>");
        }
    }
}

fn curve(
    svg: &mut String,
    engine: Engine,
    width: &str,
    opacity: &str,
    places: impl Iterator<Item = (f64, Duration)>,
) {
    let places: Vec<_> = places.map(|(x, time)| format!("{x:.1},{:.1}", level(time))).collect();
    let (line, colour) = (places.join(" "), colour(engine));
    let _ = writeln!(
        svg,
        "<polyline points=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" \
         stroke-opacity=\"{opacity}\"/>"
    );
}

/// Where a time lies.
fn level(time: Duration) -> f64 {
    height((time.as_secs_f64() * 1000.0).log10())
}

/// Where a power of ten of milliseconds lies.
fn height(power: f64) -> f64 {
    let (least, most) = (f64::from(LEAST), f64::from(MOST));
    let share = (power.clamp(least, most) - least) / (most - least);
    HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
}

const fn colour(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => "#0072b2",
        Engine::Mariadb => "#d55e00",
        Engine::Postgres => "#009e73",
    }
}
