//! The arena over time as a picture that needs nothing but itself.

use super::axis::{bytes, marks};
use super::{Buffer, Region, Report, type_text};
use crate::types::printable;
use std::fmt::Write;

/// Of the picture, in its own units.
const WIDTH: f64 = 1200.0;
/// Room for the axis of addresses.
const LEFT: f64 = 84.0;
const RIGHT: f64 = 28.0;
/// Room for title and legend.
const TOP: f64 = 92.0;
const ARENA: f64 = 440.0;
const BETWEEN: f64 = 44.0;
const CURVE: f64 = 120.0;
const BOTTOM: f64 = 48.0;
/// Width of a letter of the labels, about.
const LETTER: f64 = 6.1;

/// Kinds of buffers, and what they are called.
const KINDS: [(&str, &str); 6] = [
    ("input", "inputs"),
    ("parameter", "parameters"),
    ("output", "outputs"),
    ("state", "states"),
    ("temporary", "temporaries"),
    ("constant", "weights"),
];

const STYLE: &str = "
svg { color-scheme: light dark; font: 12px system-ui, sans-serif; background: #fff }
text { fill: #1f2430 } .small { font-size: 11px; fill: #5b6372 } .title { font-size: 18px; font-weight: 600 }
.axis { stroke: #c9ced8 } .grid { stroke: #e8ebf0 } rect { stroke-width: .7 }
.input { fill: #8cc4f2; stroke: #2f7dbd } .parameter { fill: #c4b1f0; stroke: #7a5cc9 } .output { fill: #93d7a5; stroke: #2e8b4a }
.state { fill: #f2aebf; stroke: #b8476a } .temporary { fill: #f6cf86; stroke: #b98018 } .constant { fill: #cfd4dd; stroke: #77808f }
.part { fill: #000; fill-opacity: .07; stroke: #000; stroke-opacity: .25 }
.label { font-size: 10.5px; fill: #16181d; pointer-events: none }
.live { fill: #5a78d1; fill-opacity: .25; stroke: #3557b7; stroke-width: 1.2 }
.bound { stroke: #c2313c; stroke-dasharray: 6 4; stroke-width: 1.3 } .size { stroke: #333a47; stroke-width: 1.3 }
.peak { stroke: #c2313c; stroke-width: 1.3; fill: #c2313c; fill-opacity: .1 } text.peak { stroke: none; fill: #c2313c; fill-opacity: 1; font-weight: 600 }
@media (prefers-color-scheme: dark) {
svg { background: #14171d } text { fill: #e7eaf0 } .small { fill: #a2abba } .axis { stroke: #4a5263 } .grid { stroke: #262b36 }
.label { fill: #0d0f13 } .size { stroke: #d9dee8 } .live { fill: #7f9cf0; stroke: #9db4f7 }
.bound, .peak { stroke: #ff7b82 } .peak { fill: #ff7b82 } text.peak { fill: #ff9299 }
}
";

impl Report {
    /// Each region over time as SVG, one below the other: addresses above, the live bytes below them.
    pub fn svg(&self) -> String {
        let each = TOP + ARENA + BETWEEN + CURVE + BOTTOM;
        let height = each * self.regions.len() as f64;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>\n",
            escaped(&format!("Arena of {}", self.model)),
        );
        for (index, region) in self.regions.iter().enumerate() {
            // Writing to a string does not fail.
            let _ = writeln!(svg, "<g transform=\"translate(0 {})\">", each * index as f64);
            Picture { report: self, index, region }.draw(&mut svg);
            svg.push_str("</g>\n");
        }
        svg.push_str("</svg>\n");
        svg
    }
}

struct Picture<'a> {
    report: &'a Report,
    index: usize,
    region: &'a Region,
}

impl Picture<'_> {
    fn x(&self, time: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * time / self.region.live.len().max(1) as f64
    }

    /// Where an address is.
    fn y(&self, address: u64) -> f64 {
        TOP + ARENA * (1.0 - address as f64 / self.region.size.max(1) as f64)
    }

    /// Where the curve is for so many bytes.
    fn level(&self, live: u64) -> f64 {
        TOP + ARENA + BETWEEN + CURVE * (1.0 - live as f64 / self.region.size.max(1) as f64)
    }

    // Writing to a string does not fail.
    fn draw(&self, svg: &mut String) {
        let report = self.report;
        let title = format!("{}: the {} over time", printable(&report.model), self.region.name);
        let _ = writeln!(svg, "<text class=\"title\" x=\"20\" y=\"32\">{}</text>", escaped(&title));
        let facts = format!(
            "arena {} ({}), without sharing {}, weights {}, {} steps",
            bytes(report.arena_size),
            report.verdict(),
            bytes(report.unshared),
            bytes(report.weights_size),
            report.steps.len()
        );
        let _ = writeln!(svg, "<text class=\"small\" x=\"20\" y=\"52\">{}</text>", escaped(&facts));
        self.legend(svg);
        self.axes(svg);
        for buffer in report.buffers.iter().filter(|b| b.region == Some(self.index)) {
            self.buffer(svg, buffer);
        }
        self.curve(svg);
        self.peak(svg);
    }

    fn legend(&self, svg: &mut String) {
        let mut x = 20.0;
        let here = Some(self.index);
        let there =
            |kind: &str| self.report.buffers.iter().any(|b| b.kind == kind && b.region == here);
        for (kind, name) in KINDS.iter().filter(|(kind, _)| there(kind)) {
            let _ = writeln!(
                svg,
                "<rect class=\"{kind}\" x=\"{x}\" y=\"64\" width=\"12\" height=\"12\"/><text class=\"small\" x=\"{}\" y=\"74\">{name}</text>",
                x + 17.0
            );
            x += 32.0 + LETTER * name.len() as f64;
        }
        for (class, name) in [("size", "size of the memory"), ("bound", "bound")] {
            let _ = writeln!(
                svg,
                "<path class=\"{class}\" d=\"M{x} 70h18\"/><text class=\"small\" x=\"{}\" y=\"74\">{name}</text>",
                x + 23.0
            );
            x += 40.0 + LETTER * name.len() as f64;
        }
    }

    fn axes(&self, svg: &mut String) {
        let (left, right) = (LEFT, WIDTH - RIGHT);
        for (most, wanted, is_curve) in [(self.region.size, 8, false), (self.region.size, 3, true)]
        {
            for mark in marks(most, wanted) {
                let y = if is_curve { self.level(mark) } else { self.y(mark) };
                let _ = writeln!(
                    svg,
                    "<path class=\"grid\" d=\"M{left} {y:.1}H{right}\"/><text class=\"small\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                    left - 8.0,
                    y + 4.0,
                    bytes(mark)
                );
            }
        }
        let steps = self.report.steps.len() as u64;
        let bottom = TOP + ARENA + BETWEEN + CURVE;
        for mark in marks(steps.saturating_sub(1), 12).into_iter().filter(|_| steps > 0) {
            let x = self.x(mark as f64 + 1.5);
            let _ = writeln!(
                svg,
                "<path class=\"axis\" d=\"M{x:.1} {bottom:.1}v5\"/><text class=\"small\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">s{mark}</text>",
                bottom + 18.0
            );
        }
        let _ = writeln!(
            svg,
            "<text class=\"small\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">steps</text><text class=\"small\" x=\"16\" y=\"{:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 16 {0:.1})\">address</text>",
            self.x(self.region.live.len() as f64 / 2.0),
            bottom + 36.0,
            TOP + ARENA / 2.0
        );
    }

    fn buffer(&self, svg: &mut String, buffer: &Buffer) {
        let end = self.report.end();
        let (first, last) = (buffer.first.unwrap_or(0), buffer.last.unwrap_or(end));
        let Some(offset) = buffer.offset.filter(|_| buffer.bytes > 0) else { return };
        let (x, right) = (self.x(f64::from(first)), self.x(f64::from(last) + 1.0));
        let (y, bottom) = (self.y(offset + buffer.bytes), self.y(offset));
        let (width, height) = (right - x, bottom - y);
        let about = format!(
            "{} ({}), {}, {} at {offset}, {}",
            printable(&buffer.name),
            buffer.kind,
            type_text(buffer.dtype, &buffer.shape),
            bytes(buffer.bytes),
            self.report.life(buffer)
        );
        let _ = writeln!(
            svg,
            "<rect class=\"{}\" x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\"><title>{}</title></rect>",
            buffer.kind,
            escaped(&about)
        );
        // What is one tensor in the whole box needs no lines.
        for content in buffer.contents.iter().filter(|_| buffer.contents.len() > 1) {
            let (low, high) = content.shown;
            let (x, right) =
                (self.x(f64::from(content.first)), self.x(f64::from(content.last) + 1.0));
            let (y, bottom) = (self.y(offset + high), self.y(offset + low));
            if right - x > 3.0 && bottom - y > 3.0 {
                let _ = writeln!(
                    svg,
                    "<rect class=\"part\" x=\"{x:.2}\" y=\"{y:.2}\" width=\"{:.2}\" height=\"{:.2}\"/>",
                    right - x,
                    bottom - y
                );
            }
        }
        let room = ((width - 8.0) / LETTER) as usize;
        if height >= 14.0 && room >= 4 {
            let _ = writeln!(
                svg,
                "<text class=\"label\" x=\"{:.2}\" y=\"{:.2}\">{}</text>",
                x + 4.0,
                y + height / 2.0 + 4.0,
                escaped(&shortened(&printable(&buffer.name), room))
            );
        }
    }

    fn curve(&self, svg: &mut String) {
        let base = self.level(0);
        let mut path = format!("M{:.2} {base:.2}", self.x(0.0));
        for (time, &live) in self.region.live.iter().enumerate() {
            let _ = write!(path, "V{:.2}H{:.2}", self.level(live), self.x(time as f64 + 1.0));
        }
        let _ = writeln!(svg, "<path class=\"live\" d=\"{path}V{base:.2}Z\"/>");
        for (class, value) in [("size", self.region.size), ("bound", self.region.bound)] {
            for y in [self.y(value), self.level(value)] {
                let _ = writeln!(
                    svg,
                    "<path class=\"{class}\" d=\"M{LEFT} {y:.2}H{}\"/>",
                    WIDTH - RIGHT
                );
            }
        }
        let _ = writeln!(
            svg,
            "<text class=\"small\" x=\"{LEFT}\" y=\"{:.1}\">live bytes</text>",
            base - CURVE - 8.0
        );
    }

    fn peak(&self, svg: &mut String) {
        let peak = &self.region.peak;
        let (x, right) = (self.x(f64::from(peak.time)), self.x(f64::from(peak.time) + 1.0));
        let middle = (x + right) / 2.0;
        let bottom = self.level(0);
        let _ = writeln!(
            svg,
            "<rect class=\"peak\" x=\"{x:.2}\" y=\"{TOP}\" width=\"{:.2}\" height=\"{:.2}\" stroke-dasharray=\"2 2\"/>",
            right - x,
            bottom - TOP
        );
        let text = format!("peak {} at {}", bytes(peak.bytes), self.report.time(peak.time));
        let half = LETTER * text.len() as f64 / 2.0;
        let middle = middle.clamp(LEFT + half, WIDTH - RIGHT - half);
        let _ = writeln!(
            svg,
            "<text class=\"peak\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
            bottom - CURVE - 18.0
        );
    }
}

/// At most so many letters; of a path, the end says more than the start.
fn shortened(name: &str, room: usize) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= room {
        return name.to_owned();
    }
    let end: String = letters[letters.len() - (room - 1)..].iter().collect();
    format!("\u{2026}{end}")
}

/// Text that may stand in an element or an attribute.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // XML has no others.
            c if c < ' ' && !matches!(c, '\t' | '\n' | '\r')
                || matches!(c, '\u{fffe}' | '\u{ffff}') =>
            {
                out.push('\u{fffd}');
            }
            c => out.push(c),
        }
    }
    out
}
