//! The comparison as a drawing: replicas and requests over time.

use super::compare::Row;
use super::outcome::Second;
use super::trace::Trace;
use std::fmt::Write;

const WIDTH: f64 = 900.0;
const PANEL: f64 = 220.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const GAP: f64 = 60.0;
/// Points of a line.
const POINTS: usize = 300;
const COLOURS: [&str; 7] = ["#1f6f8b", "#999999", "#d1495b", "#edae49", "#66a182", "#8d6a9f", "#2e4057"];
/// What is drawn, in the order of the colours: others at their best, or at their default if that is all there is.
const DRAWN: [&str; 6] = ["coterie", "static", "hpa", "keda", "kpa", "apa"];

/// An SVG document.
pub fn svg(trace: &Trace, rows: &[Row], cold_start: f64) -> String {
    let drawn: Vec<&Row> = DRAWN.iter().filter_map(|policy| best_of(rows, policy)).collect();
    let seconds = drawn.iter().map(|row| row.seconds.len()).max().unwrap_or(0).max(1);
    let height = TOP + 2.0 * PANEL + GAP + 40.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    let title = format!("{}, cold start {cold_start} s", trace.name);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "<text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{}</text>", escaped(&title));
    panel(&mut text, TOP, "replicas", seconds, &drawn, |second| second.held as f64);
    panel(&mut text, TOP + PANEL + GAP, "requests in flight", seconds, &drawn, |second| {
        second.requests as f64
    });
    legend(&mut text, &drawn);
    text + "</svg>\n"
}

fn best_of<'a>(rows: &'a [Row], policy: &str) -> Option<&'a Row> {
    let named = |name: &str| rows.iter().find(|row| row.policy == name);
    named(&format!("{policy}-best")).or_else(|| named(policy))
}

/// `seconds` is the length of the longest line: each ends with its policy's last answer.
fn panel(
    text: &mut String,
    top: f64,
    title: &str,
    seconds: usize,
    rows: &[&Row],
    of: impl Fn(&Second) -> f64,
) {
    let stretch = seconds.div_ceil(POINTS).max(1);
    let lines: Vec<Vec<f64>> = rows.iter().map(|row| thinned(&row.seconds, stretch, &of)).collect();
    // Somebody's overshoot must not press all other lines flat: the axis ends where it leaves three quarters of them.
    let mut tops: Vec<f64> = lines.iter().map(|line| line.iter().copied().fold(1.0, f64::max)).collect();
    tops.sort_by(f64::total_cmp);
    let most = tick(tops.get(tops.len() * 3 / 4).copied().unwrap_or(1.0));
    let (right, bottom) = (WIDTH - RIGHT, top + PANEL);
    let x = |at: f64| LEFT + (right - LEFT) * at;
    let y = |value: f64| bottom - PANEL * (value / most).min(1.0);
    let _ = writeln!(text, "<text x=\"{LEFT}\" y=\"{:.0}\" fill=\"#444\">{title}</text>", top - 6.0);
    for share in [0.0, 0.5, 1.0] {
        let at = y(most * share);
        let _ = writeln!(
            text,
            "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#ddd\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            most * share
        );
        let _ = writeln!(
            text,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{:.0} s</text>",
            x(share),
            bottom + 16.0,
            seconds as f64 * share
        );
    }
    // Ours is drawn last, over the others.
    for (line, colour) in lines.iter().zip(COLOURS).rev() {
        let step = |(at, value): (usize, &f64)| {
            format!("{:.1},{:.1}", x((at * stretch) as f64 / seconds as f64), y(*value))
        };
        let points: Vec<String> = line.iter().enumerate().map(step).collect();
        let _ = writeln!(
            text,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>",
            points.join(" ")
        );
    }
}

fn legend(text: &mut String, rows: &[&Row]) {
    for (at, (row, colour)) in rows.iter().zip(COLOURS).enumerate() {
        let (x, y) = (WIDTH - RIGHT + 14.0, TOP + 14.0 + 34.0 * at as f64);
        let target = row.target.map_or(String::new(), |target| format!(" {target}"));
        let _ = writeln!(
            text,
            "<path d=\"M{x} {:.0}h18\" stroke=\"{colour}\" stroke-width=\"3\"/><text x=\"{:.0}\" y=\"{y:.0}\">{}{target}</text>\
             <text x=\"{:.0}\" y=\"{:.0}\" fill=\"#666\" font-size=\"10\">{:.2} %, {:.1} h</text>",
            y - 4.0,
            x + 24.0,
            escaped(&row.policy),
            x + 24.0,
            y + 13.0,
            row.slo_attainment * 100.0,
            row.replica_hours
        );
    }
}

/// A value for each stretch of so many seconds, the highest in it.
fn thinned(seconds: &[Second], stretch: usize, of: impl Fn(&Second) -> f64) -> Vec<f64> {
    seconds.chunks(stretch).map(|chunk| chunk.iter().map(&of).fold(0.0, f64::max)).collect()
}

/// The next number that is 1, 2 or 5 times a power of ten.
fn tick(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|tick| *tick >= value)
        .unwrap_or(value)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        for (value, expected) in
            [(0.0, 1.0), (1.0, 1.0), (3.0, 5.0), (11.0, 20.0), (50.0, 50.0), (51.0, 100.0)]
        {
            assert_eq!(tick(value), expected, "{value}");
        }
    }

    #[test]
    fn a_long_line_keeps_its_peaks() {
        let second = |held| Second { held, requests: 0 };
        let mut seconds = vec![second(1); 10_000];
        seconds[4321] = second(7);
        let line = thinned(&seconds, 34, |second| second.held as f64);
        assert!(line.len() == 295 && line.contains(&7.0), "{}", line.len());
        assert_eq!(escaped("a<b>&"), "a&lt;b&gt;&amp;");
    }
}
