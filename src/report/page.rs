//! The page: a report with the program that shows it, in one file.
//!
//! The parts lie beside this file as what they are, HTML, CSS and JavaScript, and are put together
//! when a page is written. It loads nothing (its own policy forbids it), so it can be kept, sent and
//! opened from anywhere.

use super::Report;
use super::svg::escaped;
use crate::types::printable;

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
/// In this order.
const PROGRAM: [&str; 5] = [
    include_str!("page/data.js"),
    include_str!("page/chart.js"),
    include_str!("page/details.js"),
    include_str!("page/tables.js"),
    include_str!("page/main.js"),
];

impl Report {
    /// The page, in UTF-8.
    pub fn html(&self) -> String {
        let program = format!("\"use strict\";\n(() => {{\n{}}})();\n", PROGRAM.join("\n"));
        let title = escaped(&printable(&self.model));
        let mut page = String::new();
        // What is put in is not looked through again: a name may be that of a hole.
        let mut rest = PAGE;
        while let Some((before, after)) = rest.split_once("{{") {
            let (hole, behind) = after.split_once("}}").unwrap_or((after, ""));
            page.push_str(before);
            page.push_str(match hole {
                "title" => &title,
                "style" => STYLE,
                "program" => &program,
                _ => "",
            });
            if hole == "data" {
                page.push_str(&self.embedded());
            }
            rest = behind;
        }
        page.push_str(rest);
        page
    }

    /// As JSON that may stand in a script element: nothing in it ends one or begins a comment.
    fn embedded(&self) -> String {
        self.json().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
    }
}
