//! A report as text.

use super::axis::{bytes, percent};
use super::{Buffer, Report, type_text};
use crate::types::printable;
use std::fmt::Write;

/// So many of the buffers at the peak are listed; the rest is summed up.
const HOLDERS: usize = 12;

impl Report {
    /// The sizes, the arena's slots by offset, and the peak with what holds it.
    pub fn text(&self) -> String {
        let mut text = self.head();
        self.slots(&mut text);
        for region in &self.regions {
            self.peak(&mut text, region);
        }
        text
    }

    /// The sizes, and the arena's slots by offset.
    pub fn table(&self) -> String {
        let mut text = self.head();
        self.slots(&mut text);
        text
    }

    /// Whether the arena is at its bound, in words.
    pub fn verdict(&self) -> String {
        if self.optimal {
            "optimal".to_owned()
        } else {
            let above = self.arena_size - self.bound;
            format!("bound {}, {} above it", bytes(self.bound), percent(above, self.bound))
        }
    }

    fn head(&self) -> String {
        let saved = self.unshared.saturating_sub(self.arena_size);
        format!(
            "{}: {} steps over {} buffers\narena    {} bytes ({})\nunshared {} bytes, {} saved by sharing\nweights  {} bytes\n",
            printable(&self.model),
            self.steps.len(),
            self.buffers.len(),
            self.arena_size,
            self.verdict(),
            self.unshared,
            percent(saved, self.unshared),
            self.weights_size,
        )
    }

    fn slots(&self, text: &mut String) {
        let mut placed: Vec<&Buffer> = self.buffers.iter().filter(|b| b.region.is_some()).collect();
        placed.sort_by_key(|b| (b.region, b.offset, b.first));
        let rows = placed.into_iter().map(|b| {
            [
                self.place(b),
                b.bytes.to_string(),
                self.life(b),
                b.kind.to_owned(),
                type_text(b.dtype, &b.shape),
                printable(&b.name),
            ]
        });
        let head = ["offset", "bytes", "alive", "kind", "type", "tensor"].map(str::to_owned);
        text.push('\n');
        columns(text, std::iter::once(head).chain(rows).collect(), 2);
    }

    /// Where a buffer is; in which memory, unless it is the first.
    fn place(&self, buffer: &Buffer) -> String {
        let offset = buffer.offset.unwrap_or(0);
        match buffer.region.and_then(|r| self.regions.get(r).filter(|_| r > 0)) {
            Some(region) => format!("{}+{offset}", region.name),
            None => offset.to_string(),
        }
    }

    fn peak(&self, text: &mut String, region: &super::Region) {
        let peak = &region.peak;
        let step = peak.step.map(|s| &self.steps[s]);
        let at = step.map_or_else(|| self.time(peak.time), |s| s.id.clone());
        // Writing to a string does not fail.
        let _ = write!(text, "\npeak of the {}: {} bytes at {at}", region.name, peak.bytes);
        if let Some(step) = step {
            let nodes: Vec<String> = step.nodes.iter().map(|n| printable(n)).collect();
            let _ = write!(text, ", {} for {}", step.operator, nodes.join(" + "));
        }
        text.push('\n');
        let row = |bytes: u64, kind: &str, name: String| {
            [bytes.to_string(), percent(bytes, peak.bytes), kind.to_owned(), name]
        };
        let mut rows: Vec<[String; 4]> = vec![];
        for holder in peak.holders.iter().take(HOLDERS) {
            let buffer = &self.buffers[holder.buffer];
            let ty = type_text(buffer.dtype, &buffer.shape);
            let waits = if holder.used { "" } else { ", waits" };
            let name = format!("{}  {ty}, {}{waits}", printable(&buffer.name), self.life(buffer));
            rows.push(row(holder.bytes, buffer.kind, name));
        }
        let rest = &peak.holders[rows.len()..];
        if !rest.is_empty() {
            let sum = rest.iter().map(|h| h.bytes).sum();
            rows.push(row(sum, "", format!("{} more", rest.len())));
        }
        rows.push(row(region.reserved, "", "reserved".to_owned()));
        columns(text, rows, 2);
        if !peak.advice.is_empty() {
            text.push_str("\nwhat would lower it\n");
            for advice in &peak.advice {
                let _ = writeln!(text, "- {}", printable(advice));
            }
        }
    }

    /// When a buffer is alive.
    pub(super) fn life(&self, buffer: &Buffer) -> String {
        match (buffer.first, buffer.last) {
            (Some(0), Some(last)) if last == self.end() => "always".to_owned(),
            (Some(first), Some(last)) if first == last => self.time(first),
            (Some(first), Some(last)) => format!("{}..{}", self.time(first), self.time(last)),
            _ => "always".to_owned(),
        }
    }

    /// The step that runs at a time.
    pub(super) fn time(&self, time: u32) -> String {
        match time.checked_sub(1).and_then(|s| self.steps.get(s as usize)) {
            Some(step) => step.id.clone(),
            None if time == 0 => "start".to_owned(),
            None => "end".to_owned(),
        }
    }
}

/// Rows with aligned columns, the first so many to the right, the last as it is.
fn columns<const N: usize>(text: &mut String, rows: Vec<[String; N]>, right: usize) {
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row).take(N - 1) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        for (i, (width, cell)) in widths.into_iter().zip(row).enumerate() {
            let gap = if i > 0 { "  " } else { "" };
            let _ = match i < right {
                true => write!(text, "{gap}{cell:>width$}"),
                false => write!(text, "{gap}{cell:<width$}"),
            };
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
}
