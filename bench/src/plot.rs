//! Plots of a report: hand-written SVG, panels below each other, in colours for light and dark backgrounds
//! (`prefers-color-scheme`). Axes have units, a target is a dashed line.

use std::fmt::Write as _;

use anyhow::{Result, ensure};

use crate::report::number;

const WIDTH: f64 = 860.0;
/// Space for the labels of the y axis, or the names of bars.
const LEFT: f64 = 70.0;
const LEFT_OF_BARS: f64 = 250.0;
const RIGHT: f64 = 30.0;
const LINES_HEIGHT: f64 = 240.0;
const BAR_HEIGHT: f64 = 22.0;
/// Colour-blind safe colours by series (after Okabe and Ito; the blue is lighter, for dark backgrounds).
const COLOURS: [&str; 6] = ["#2f86c9", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

const STYLE: &str = "<style>
svg{background:#fff;font:13px system-ui,-apple-system,'Segoe UI',sans-serif}
text{fill:#1f2328}.small{font-size:11.5px}.soft{fill:#656d76}.title{font-size:15px;font-weight:600}
.grid{stroke:#d8dee4;stroke-width:1}.axis{stroke:#656d76;stroke-width:1}.target{stroke:#cf222e;stroke-width:1.5;stroke-dasharray:6 4}
.wanted{fill:#cf222e}.line{fill:none;stroke-width:2;stroke-linejoin:round}
@media (prefers-color-scheme:dark){svg{background:#0d1117}text{fill:#e6edf3}.soft{fill:#9198a1}.grid{stroke:#30363d}.axis{stroke:#9198a1}
.target{stroke:#ff7b72}.wanted{fill:#ff7b72}}
</style>
";

/// The x axis of a panel of lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Across {
    Numbers,
    /// Nines of a quantile: 1 is p90, 2 is p99.
    Nines,
}

#[derive(Clone, Debug)]
enum Drawing {
    Bars { unit: String, bars: Vec<(String, f64)> },
    Lines { x: String, y: String, across: Across, logarithmic: bool, series: Vec<(String, Vec<(f64, f64)>)> },
}

/// One plot of a report.
#[derive(Clone, Debug)]
pub struct Panel {
    title: String,
    drawing: Drawing,
    target: Option<f64>,
}

impl Panel {
    /// Horizontal bars, from 0.
    pub fn bars(title: impl Into<String>, unit: impl Into<String>) -> Self {
        Self { title: title.into(), drawing: Drawing::Bars { unit: unit.into(), bars: Vec::new() }, target: None }
    }

    /// Lines over a number.
    pub fn lines(title: impl Into<String>, x: impl Into<String>, y: impl Into<String>) -> Self {
        Self::of_lines(title.into(), x.into(), y.into(), Across::Numbers, false)
    }

    /// Latencies in milliseconds over the nines of their quantile, from [`crate::report::curve`].
    pub fn percentiles(title: impl Into<String>) -> Self {
        Self::of_lines(title.into(), "percentile".to_owned(), "ms".to_owned(), Across::Nines, true)
    }

    fn of_lines(title: String, x: String, y: String, across: Across, logarithmic: bool) -> Self {
        Self { title, drawing: Drawing::Lines { x, y, across, logarithmic, series: Vec::new() }, target: None }
    }

    /// Adds a bar.
    #[must_use]
    pub fn with_bar(mut self, name: impl Into<String>, value: f64) -> Self {
        if let Drawing::Bars { bars, .. } = &mut self.drawing {
            bars.push((name.into(), value));
        }
        self
    }

    /// Adds a line.
    #[must_use]
    pub fn with_series(mut self, name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        if let Drawing::Lines { series, .. } = &mut self.drawing {
            series.push((name.into(), points));
        }
        self
    }

    /// Adds a target line.
    #[must_use]
    pub fn with_target(mut self, target: f64) -> Self {
        self.target = Some(target);
        self
    }
}

/// Draws the panels as one SVG.
///
/// # Errors
/// When a panel is empty, or a value is not finite.
pub fn draw(panels: &[Panel], caption: &str) -> Result<String> {
    let mut canvas = Canvas::default();
    let mut top = 16.0;
    for panel in panels {
        top = draw_panel(&mut canvas, panel, top)?;
    }
    canvas.text("small soft", "start", (16.0, top + 8.0), caption);
    let (height, body) = (top + 22.0, canvas.0);
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         {STYLE}{body}</svg>\n"
    ))
}

/// The elements of the picture.
#[derive(Default)]
struct Canvas(String);

impl Canvas {
    fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let _ = writeln!(self.0, r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#);
    }

    fn text(&mut self, class: &str, anchor: &str, (x, y): (f64, f64), text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let _ = writeln!(self.0, r#"<text class="{class}" text-anchor="{anchor}" x="{x:.1}" y="{y:.1}">{text}</text>"#);
    }

    fn rectangle(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), colour: &str) {
        let _ = writeln!(self.0, r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{colour}"/>"#);
    }
}

fn draw_panel(canvas: &mut Canvas, panel: &Panel, top: f64) -> Result<f64> {
    canvas.text("title", "start", (16.0, top + 12.0), &panel.title);
    let top = top + 40.0;
    match &panel.drawing {
        Drawing::Bars { unit, bars } => {
            ensure!(bars.iter().all(|(_, value)| value.is_finite()) && !bars.is_empty(), "{:?} has no bars to draw", panel.title);
            Ok(draw_bars(canvas, unit, bars, panel.target, top))
        }
        Drawing::Lines { series, x, y, across, logarithmic } => {
            let points = || series.iter().flat_map(|(_, points)| points);
            ensure!(points().all(|(x, y)| x.is_finite() && y.is_finite()), "{:?} has a point that is no number", panel.title);
            ensure!(points().next().is_some(), "{:?} has no points to draw", panel.title);
            Ok(draw_lines(canvas, Frame::around(points().copied(), panel.target, *logarithmic, top), (x, y), *across, series))
        }
    }
}

fn draw_bars(canvas: &mut Canvas, unit: &str, bars: &[(String, f64)], target: Option<f64>, top: f64) -> f64 {
    let most = bars.iter().map(|(_, value)| *value).chain(target).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let bottom = top + BAR_HEIGHT * bars.len() as f64 + 4.0;
    let span = WIDTH - LEFT_OF_BARS - RIGHT - 60.0;
    let x = |value: f64| LEFT_OF_BARS + span * (value / most);
    for tick in ticks(0.0, most, 5) {
        canvas.line("grid", (x(tick), top), (x(tick), bottom));
        canvas.text("small soft", "middle", (x(tick), bottom + 14.0), &tick_text(tick));
    }
    for (n, (name, value)) in bars.iter().enumerate() {
        let y = top + BAR_HEIGHT * n as f64 + 3.0;
        canvas.text("", "end", (LEFT_OF_BARS - 10.0, y + 13.0), name);
        let width = (x(*value) - LEFT_OF_BARS).max(1.0);
        canvas.rectangle((LEFT_OF_BARS, y), (width, BAR_HEIGHT - 6.0), COLOURS[n % COLOURS.len()]);
        canvas.text("small", "start", (x(*value) + 6.0, y + 12.5), &number(*value));
    }
    if let Some(target) = target {
        canvas.line("target", (x(target), top - 4.0), (x(target), bottom));
        canvas.text("small wanted", "middle", (x(target), top - 7.0), &format!("target {}", number(target)));
    }
    canvas.text("small soft", "end", (WIDTH - RIGHT, bottom + 30.0), unit);
    bottom + 54.0
}

/// The area of a panel of lines, in data and in pixels.
struct Frame {
    x: (f64, f64),
    y: (f64, f64),
    logarithmic: bool,
    target: Option<f64>,
    top: f64,
}

impl Frame {
    fn around(points: impl Iterator<Item = (f64, f64)> + Clone, target: Option<f64>, logarithmic: bool, top: f64) -> Self {
        let bounds = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
        };
        let x = bounds(&mut points.clone().map(|(x, _)| x));
        let (low, high) = bounds(&mut points.map(|(_, y)| y).chain(target));
        let y = if logarithmic {
            let low = 10f64.powf(low.max(1e-3).log10().floor());
            (low, 10f64.powf(high.max(1e-3).log10().ceil()).max(low * 10.0))
        } else {
            (low.min(0.0), (high * 1.08).max(low + f64::MIN_POSITIVE))
        };
        Self { x: if x.0 == x.1 { (x.0, x.0 + 1.0) } else { x }, y, logarithmic, target, top }
    }

    fn across(&self, x: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * ((x - self.x.0) / (self.x.1 - self.x.0))
    }

    fn up(&self, y: f64) -> f64 {
        let part = if self.logarithmic {
            (y.max(self.y.0) / self.y.0).log10() / (self.y.1 / self.y.0).log10()
        } else {
            (y - self.y.0) / (self.y.1 - self.y.0)
        };
        self.bottom() - LINES_HEIGHT * part
    }

    fn bottom(&self) -> f64 {
        self.top + LINES_HEIGHT
    }
}

fn draw_lines(
    canvas: &mut Canvas,
    frame: Frame,
    (x, y): (&str, &str),
    across: Across,
    series: &[(String, Vec<(f64, f64)>)],
) -> f64 {
    let (right, bottom) = (WIDTH - RIGHT, frame.bottom());
    for tick in if frame.logarithmic { decades(frame.y) } else { ticks(frame.y.0, frame.y.1, 5) } {
        let at = frame.up(tick);
        canvas.line("grid", (LEFT, at), (right, at));
        canvas.text("small soft", "end", (LEFT - 8.0, at + 4.0), &tick_text(tick));
    }
    let columns = match across {
        Across::Numbers => ticks(frame.x.0, frame.x.1, 8).into_iter().map(|tick| (tick, tick_text(tick))).collect(),
        Across::Nines => nines(frame.x.1),
    };
    for (tick, text) in columns {
        let at = frame.across(tick);
        canvas.line("grid", (at, frame.top), (at, bottom));
        canvas.text("small soft", "middle", (at, bottom + 15.0), &text);
    }
    canvas.line("axis", (LEFT, bottom), (right, bottom));
    canvas.text("small soft", "start", (LEFT, frame.top - 8.0), y);
    canvas.text("small soft", "end", (right, bottom + 30.0), x);
    let mut legend = LEFT;
    for (n, (name, points)) in series.iter().enumerate() {
        let colour = COLOURS[n % COLOURS.len()];
        let places: Vec<(f64, f64)> = points.iter().map(|&(x, y)| (frame.across(x), frame.up(y))).collect();
        let path = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ");
        let _ = writeln!(canvas.0, r#"<polyline class="line" stroke="{colour}" points="{path}"/>"#);
        for (x, y) in places.iter().filter(|_| places.len() <= 12) {
            let _ = writeln!(canvas.0, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{colour}"/>"#);
        }
        canvas.rectangle((legend, bottom + 28.0), (14.0, 4.0), colour);
        canvas.text("small", "start", (legend + 20.0, bottom + 34.0), name);
        legend += 44.0 + 7.0 * name.chars().count() as f64;
    }
    if let Some(target) = frame.target {
        let at = frame.up(target);
        canvas.line("target", (LEFT, at), (right, at));
        canvas.text("small wanted", "end", (right, at - 5.0), &format!("target {}", number(target)));
    }
    bottom + 62.0
}

/// About `count` round numbers from `low` to `high`: steps are 1, 2 or 5 times a power of ten.
fn ticks(low: f64, high: f64, count: u32) -> Vec<f64> {
    let rough = ((high - low) / f64::from(count)).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| *step >= rough).unwrap_or(power * 10.0);
    let first = (low / step).ceil() as i64;
    (first..).map(|n| n as f64 * step).take_while(|tick| *tick <= high + step * 1e-9).collect()
}

fn decades((low, high): (f64, f64)) -> Vec<f64> {
    let exponents = low.log10().round() as i32..=high.log10().round() as i32;
    exponents.map(|exponent| 10f64.powi(exponent)).collect()
}

/// The percentiles up to this many nines.
fn nines(most: f64) -> Vec<(f64, String)> {
    let named = [(0.0, "min"), (0.301, "p50"), (1.0, "p90"), (2.0, "p99"), (3.0, "p99.9"), (4.0, "p99.99"), (5.0, "p99.999")];
    named.into_iter().filter(|(nines, _)| *nines <= most).map(|(nines, name)| (nines, name.to_owned())).collect()
}

/// The label of a tick, with enough digits to tell small ones apart.
fn tick_text(value: f64) -> String {
    // Six decimals at most, to hide rounding noise.
    if value.abs() < 100.0 { format!("{}", (value * 1e6).round() / 1e6) } else { number(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(ticks(0.0, 10.0, 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(0.0, 45_500.0, 5), [0.0, 10_000.0, 20_000.0, 30_000.0, 40_000.0]);
        assert_eq!(decades((0.1, 100.0)), [0.1, 1.0, 10.0, 100.0]);
        assert_eq!([0.1, 1.5, 0.30000000000000004].map(tick_text), ["0.1", "1.5", "0.3"]);
    }

    /// Every point and label is inside the plot, and invalid data is an error, not a broken file.
    #[test]
    fn panels_lie_on_the_picture() {
        let bars = Panel::bars("CPU of <bulk>", "CPU s").with_bar("ours", 1.4).with_bar("scipy", 2.5).with_target(2.5);
        let lines = Panel::lines("cost & size", "events, M", "µs").with_series("growing", vec![(1.0, 20.0), (10.0, 31.0)]);
        let svg =
            draw(&[bars, lines, Panel::percentiles("latency").with_series("all", vec![(0.0, 0.2), (3.0, 9.0)])], "here").unwrap();
        assert!(svg.contains("CPU of &lt;bulk&gt;") && svg.contains("cost &amp; size") && svg.contains("target 2.50"));
        let height: f64 = svg.split("height=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
        for (attribute, most) in [(" x=\"", WIDTH), (" y=\"", height), (" cx=\"", WIDTH), (" cy=\"", height)] {
            for value in svg.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap().parse::<f64>().unwrap()) {
                assert!((0.0..=most).contains(&value), "{attribute}{value} lies outside of 0..{most}");
            }
        }
        assert!(draw(&[Panel::bars("empty", "s")], "").is_err());
        assert!(draw(&[Panel::lines("nan", "x", "y").with_series("a", vec![(0.0, f64::NAN)])], "").is_err());
    }
}
