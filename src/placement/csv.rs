//! Problems and placements as CSV, with the columns of MiniMalloc.
//!
//! The first line names the columns, in any order: `id`, `lower`, `upper` and `size`, and if need be
//! `alignment` and `offset`. Times are whole numbers, `upper` is the first at which the item is no longer
//! alive (`end` in its place is the last at which it is; `start` or `begin` may stand for `lower`, `buffer` or
//! `buffer_id` for `id`). An `offset` that is not empty is fixed. A placement has the same lines and its
//! offsets in the last column.

use super::{Item, Problem};
use crate::error::{ErrorKind, Errors, nearest};
use std::fmt::Write;

/// Sizes, alignments and offsets, and the sums of all, are at most this.
const MOST_BYTES: u64 = 1 << 60;

/// Times are nearer to 0 than this.
const MOST_TIME: i64 = 1 << 60;

/// So many errors are reported at most.
const MOST_ERRORS: usize = 10;

/// A problem with the names of its items.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Table {
    /// One for each item.
    pub ids: Vec<String>,
    /// What is to be placed.
    pub problem: Problem,
}

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Column {
    Id,
    Lower,
    Upper,
    /// The last moment of a lifetime.
    End,
    Size,
    Alignment,
    Offset,
    /// Times in a lifetime at which no bytes are needed. Must be empty.
    Gaps,
}

/// All names of columns.
const COLUMNS: [(&str, Column); 12] = [
    ("id", Column::Id),
    ("lower", Column::Lower),
    ("upper", Column::Upper),
    ("size", Column::Size),
    ("alignment", Column::Alignment),
    ("offset", Column::Offset),
    ("gaps", Column::Gaps),
    ("buffer", Column::Id),
    ("buffer_id", Column::Id),
    ("start", Column::Lower),
    ("begin", Column::Lower),
    ("end", Column::End),
];

/// Reads a problem.
///
/// # Errors
///
/// All lines that are wrong (the first ten of them), with line and column in the file.
pub fn read(text: &str) -> Result<Table, Errors> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let Some((at, head)) = lines.next() else {
        let kind = ErrorKind::wrong("there is nothing in the file");
        return Err(kind.help("its first line should be: id,lower,upper,size").into());
    };
    let columns = columns(at, head)?;
    let (mut table, mut errors, mut sum) = (Table::default(), vec![], 0u64);
    for (at, line) in lines {
        match row(&columns, at, line) {
            Ok((id, item)) => {
                let Item { size, alignment, fixed, .. } = item;
                let all = [size, alignment, fixed.unwrap_or(0)];
                sum = all.iter().fold(sum, |sum, n| sum.saturating_add(*n));
                if sum > MOST_BYTES {
                    errors.push(wrong("the sum of all sizes is too large", at, 0));
                    break;
                }
                table.ids.push(id);
                table.problem.items.push(item);
            }
            Err(error) => errors.push(error),
        }
        if errors.len() == MOST_ERRORS {
            break;
        }
    }
    if errors.is_empty() {
        Ok(table)
    } else {
        Err(Errors(errors.into_iter().map(Into::into).collect()))
    }
}

/// Writes a problem, with the offsets of a placement if there is one, else with those that are fixed.
pub fn write(table: &Table, offsets: Option<&[u64]>) -> String {
    let items = &table.problem.items;
    let aligned = items.iter().any(|item| item.alignment != 1);
    let placed = offsets.is_some() || items.iter().any(|item| item.fixed.is_some());
    let mut text = "id,lower,upper,size".to_owned();
    text.push_str(if aligned { ",alignment" } else { "" });
    text.push_str(if placed { ",offset\n" } else { "\n" });
    for (i, (id, item)) in table.ids.iter().zip(items).enumerate() {
        // Writing to a string does not fail.
        let _ = write!(text, "{id},{},{},{}", item.lower, item.upper, item.size);
        if aligned {
            let _ = write!(text, ",{}", item.alignment);
        }
        if placed {
            let offset = offsets.map_or(item.fixed, |offsets| Some(offsets[i]));
            let _ = write!(text, ",{}", offset.map_or_else(String::new, |o| o.to_string()));
        }
        text.push('\n');
    }
    text
}

/// What is wrong, and where: the line and the column of letters, both from 0.
fn wrong(message: impl Into<String>, line: usize, column: usize) -> ErrorKind {
    ErrorKind::wrong(format!("{} at line {} column {}", message.into(), line + 1, column + 1))
}

/// The cells of a line, with the columns of letters at which they start.
fn cells(line: &str) -> Vec<(usize, &str)> {
    let mut column = 0;
    let cell = |text: &'_ str| {
        let start = column + text.chars().take_while(|c| c.is_whitespace()).count();
        column += text.chars().count() + 1;
        start
    };
    line.split(',').map(cell).zip(line.split(',').map(str::trim)).collect()
}

fn columns(at: usize, head: &str) -> Result<Vec<Column>, ErrorKind> {
    let mut columns: Vec<Column> = vec![];
    let head = head.trim_start_matches('\u{feff}');
    for (start, name) in cells(head) {
        let names = || COLUMNS.iter().map(|(name, _)| *name);
        let Some(&(_, column)) = COLUMNS.iter().find(|(n, _)| *n == name) else {
            let kind = wrong(format!("there is no column \"{name}\""), at, start);
            return Err(match nearest(name, names()) {
                Some(near) => kind.help(format!("did you mean {near}?")),
                None => kind.help("the columns are id, lower, upper, size, alignment and offset"),
            });
        };
        let ends = [Column::Upper, Column::End];
        if columns.iter().any(|c| *c == column || ends.contains(c) && ends.contains(&column)) {
            return Err(wrong(format!("the column \"{name}\" is there already"), at, start));
        }
        columns.push(column);
    }
    let needed = [("id", Column::Id), ("lower", Column::Lower), ("size", Column::Size)];
    let missing = needed.iter().find(|(_, column)| !columns.contains(column)).map(|(n, _)| *n);
    let no_end = !columns.contains(&Column::Upper) && !columns.contains(&Column::End);
    match missing.or(no_end.then_some("upper")) {
        Some(name) => Err(wrong(format!("the column \"{name}\" is missing"), at, 0)
            .help("the first line names the columns: id,lower,upper,size")),
        None => Ok(columns),
    }
}

fn row(columns: &[Column], at: usize, line: &str) -> Result<(String, Item), ErrorKind> {
    let cells = cells(line);
    if cells.len() != columns.len() {
        let (found, wanted) = (cells.len(), columns.len());
        let start = cells.get(wanted).map_or(line.chars().count(), |(start, _)| *start);
        return Err(wrong(format!("{found} cells under {wanted} columns"), at, start));
    }
    let mut id = String::new();
    let mut item = Item::new(0, 0, 0);
    for (column, (start, text)) in columns.iter().zip(cells) {
        let time = || {
            let time = text.parse().ok().filter(|t: &i64| t.abs() < MOST_TIME);
            time.ok_or_else(|| wrong(format!("\"{text}\" is no whole number"), at, start))
        };
        let bytes = || {
            let bytes = text.parse().ok().filter(|b: &u64| *b <= MOST_BYTES);
            bytes.ok_or_else(|| wrong(format!("\"{text}\" is no number of bytes"), at, start))
        };
        match column {
            Column::Id => id = text.to_owned(),
            Column::Lower => item.lower = time()?,
            Column::Upper => item.upper = time()?,
            Column::End => item.upper = time()? + 1,
            Column::Size => item.size = bytes()?,
            Column::Alignment => {
                item.alignment = bytes()?;
                if item.alignment == 0 {
                    return Err(wrong("an alignment is at least 1", at, start));
                }
            }
            Column::Offset => item.fixed = if text.is_empty() { None } else { Some(bytes()?) },
            Column::Gaps if text.is_empty() => {}
            Column::Gaps => {
                let message = format!("gaps in lifetimes are not supported, at line {}", at + 1);
                return Err(ErrorKind::unsupported(message));
            }
        }
    }
    if item.lower > item.upper {
        let (lower, upper) = (item.lower, item.upper);
        return Err(wrong(format!("a lifetime from {lower} to {upper}"), at, 0));
    }
    Ok((id, item))
}

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;

    fn message(text: &str) -> String {
        read(text).unwrap_err().0.iter().map(|e| e.kind.to_string()).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn columns_may_be_named_and_ordered_in_many_ways() {
        let usual = read("id,lower,upper,size\nb1,0,3,4\nb2,-2,9,7\n").unwrap();
        assert_eq!(usual.ids, ["b1", "b2"]);
        assert_eq!(usual.problem.items, [Item::new(4, 0, 3), Item::new(7, -2, 9)]);
        for text in [
            "size,id,lower,upper\r\n4,b1,0,3\r\n\r\n7,b2,-2,9\r\n",
            "buffer, start, end, size\nb1, 0, 2, 4\nb2, -2, 8, 7",
            "\u{feff}buffer_id,begin,upper,size,alignment,offset,gaps\nb1,0,3,4,1,,\nb2,-2,9,7,1,,\n",
        ] {
            assert_eq!(read(text).unwrap(), usual, "{text}");
        }
    }

    #[test]
    fn tables_come_back() {
        let mut state = 3;
        let mut below = |n: u64| noise(&mut state) % n;
        for _ in 0..50 {
            let mut table = Table::default();
            for i in 0..below(9) {
                let lower = below(90) as i64 - 50;
                let mut item = Item::new(below(1 << 31), lower, lower + below(9) as i64);
                item.alignment = 1 << below(3);
                item.fixed = (below(3) == 0).then(|| below(100));
                table.ids.push(format!("b{i}"));
                table.problem.items.push(item);
            }
            assert_eq!(read(&write(&table, None)).unwrap(), table);
            let offsets: Vec<u64> = table.ids.iter().map(|_| below(100)).collect();
            let solved = read(&write(&table, Some(&offsets))).unwrap();
            let fixed: Vec<_> = solved.problem.items.iter().filter_map(|i| i.fixed).collect();
            assert_eq!((solved.ids, fixed), (table.ids, offsets));
        }
    }

    #[test]
    fn errors_say_where() {
        assert_eq!(message(" \n"), "there is nothing in the file");
        let head = |text: &str| message(&format!("{text}\n"));
        assert_eq!(head("id,lower,size"), "the column \"upper\" is missing at line 1 column 1");
        assert_eq!(head("id,lower,uper"), "there is no column \"uper\" at line 1 column 10");
        assert_eq!(head("id,upper,end"), "the column \"end\" is there already at line 1 column 10");
        let row = |text: &str| message(&format!("id,lower,upper,size,alignment\n{text}\n"));
        assert_eq!(row("a,1,2,3"), "4 cells under 5 columns at line 2 column 8");
        assert_eq!(row("a,1,2,3,1,1"), "6 cells under 5 columns at line 2 column 11");
        assert_eq!(row("a,1, x,3,1"), "\"x\" is no whole number at line 2 column 6");
        assert_eq!(row("a,1,2,-3,1"), "\"-3\" is no number of bytes at line 2 column 7");
        assert_eq!(row("a,1,2,3,0"), "an alignment is at least 1 at line 2 column 9");
        assert_eq!(row("a,3,2,3,1"), "a lifetime from 3 to 2 at line 2 column 1");
        assert_eq!(
            row("a,1,2,3,1\nb,,2,3,1\n\nc,1,2,1e9,1"),
            "\"\" is no whole number at line 3 column 3; \"1e9\" is no number of bytes at line 5 column 7"
        );
        let large = format!("a,0,1,{},1\n", 1u64 << 59).repeat(3);
        assert_eq!(row(&large), "the sum of all sizes is too large at line 3 column 1");
        let gaps = message("id,lower,upper,size,gaps\na,0,9,1,2-3\n");
        assert_eq!(gaps, "gaps in lifetimes are not supported, at line 2");
    }
}
