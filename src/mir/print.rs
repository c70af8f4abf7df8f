//! The text form: one line per node, with the names of the model's nodes behind it.

use super::*;
use std::fmt::{self, Display, Formatter};

impl Display for Graph {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "graph {}", self.name)?;
        for (value, node) in &self.nodes {
            write!(f, "{value} = {}", node.op)?;
            for (i, operand) in node.operands.iter().enumerate() {
                write!(f, "{}{operand}", if i > 0 { ", " } else { " " })?;
            }
            write!(f, " : {}", node.ty)?;
            for (i, &origin) in node.origins.iter().enumerate() {
                let name = crate::types::printable(&self.origins[origin]);
                write!(f, "{}{name}", if i > 0 { " + " } else { "  ; " })?;
            }
            writeln!(f)?;
        }
        for output in &self.outputs {
            writeln!(
                f,
                "return {} as \"{}\"",
                output.value,
                crate::types::printable(&output.name)
            )?;
        }
        Ok(())
    }
}

impl Display for Op {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Op::Input { name, role } => {
                let role = if *role == Role::Input { "input" } else { "parameter" };
                write!(f, "{role} \"{}\"", crate::types::printable(name))
            }
            Op::Constant(tensor) => match tensor.splat() {
                Some(_) => write!(f, "constant all {}", tensor.f64_at(0)),
                None => write!(f, "constant"),
            },
            Op::Map(expr) => write!(f, "map {{{expr}}}"),
            Op::Reduce { op, axes } => write!(f, "reduce {op:?} over {axes:?}"),
            Op::ArgReduce { largest, axis, last } => {
                let (what, which) =
                    (if *largest { "max" } else { "min" }, if *last { " last" } else { "" });
                write!(f, "arg{what} over {axis}{which}")
            }
            Op::Rows(rows) => write!(f, "rows {rows}"),
            Op::Contract(c) => {
                write!(f, "contract{}{}", c.weights, if c.rides { " riding" } else { "" })?;
                epilogue(f, c.epilogue.as_ref())
            }
            Op::Attention(attention) => {
                write!(f, "attention")?;
                epilogue(f, attention.epilogue.as_ref())?;
                write!(f, " rows {}", attention.rows)?;
                for Span { queries, keys } in &attention.spans {
                    write!(f, " ..{queries} of {keys:?}")?;
                }
                Ok(())
            }
            Op::Conv(c) => {
                let Conv { taps, strides, dilations, groups, weights, .. } = c;
                write!(
                    f,
                    "conv {taps:?} by {strides:?} dilated {dilations:?} groups {groups}{weights}"
                )?;
                epilogue(f, c.epilogue.as_ref())
            }
            Op::Winograd(Winograd { axes, side }) => {
                write!(f, "winograd")?;
                for Filter { tile, taps, stride } in axes {
                    write!(f, " F({tile}, {taps}) by {stride}")?;
                }
                match side {
                    Side::Input { before, tiles } => {
                        write!(f, " of input before {before:?} tiles {tiles:?}")
                    }
                    Side::Output { epilogue: expr } => {
                        write!(f, " of output")?;
                        epilogue(f, expr.as_ref())
                    }
                    Side::Both { before, parts, block, shares, width, epilogue: expr } => {
                        write!(
                            f,
                            " before {before:?} parts {parts} blocks {block:?} in {shares} panels of {width}"
                        )?;
                        epilogue(f, expr.as_ref())
                    }
                }
            }
            Op::Pool(Pool { op, window, strides, dilations }) => {
                write!(f, "pool {op:?} {window:?} by {strides:?} dilated {dilations:?}")
            }
            Op::Gather { axis } => write!(f, "gather along {axis}"),
            Op::Scatter { op: None } => write!(f, "scatter"),
            Op::Scatter { op: Some(op) } => write!(f, "scatter {op:?}"),
            Op::Sort { largest, count } => {
                write!(f, "sort {} {count}", if *largest { "largest" } else { "smallest" })
            }
            Op::Scan(Scan { op, axis, reverse, exclusive }) => {
                let from = if *reverse { " from the end" } else { "" };
                let without = if *exclusive { " without itself" } else { "" };
                write!(f, "scan {op:?} along {axis}{from}{without}")
            }
            Op::Pad { low, high, interior, value } => {
                write!(f, "pad {low:?} {high:?} interior {interior:?} with {}", value.f64())
            }
            Op::Concat { axis } => write!(f, "concat along {axis}"),
            Op::Reshape => write!(f, "reshape"),
            Op::Permute(perm) => write!(f, "permute {perm:?}"),
            Op::Slice { starts, steps } => write!(f, "slice from {starts:?} by {steps:?}"),
            Op::Broadcast => write!(f, "broadcast"),
        }
    }
}

fn epilogue(f: &mut Formatter<'_>, expr: Option<&Expr>) -> fmt::Result {
    match expr {
        Some(expr) => write!(f, " then {{{expr}}}"),
        None => Ok(()),
    }
}

impl Display for Weights {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Weights::Plain => Ok(()),
            Weights::Panels { width, columns } => write!(f, " panels of {width} for {columns}"),
            Weights::Nibbles { width, columns, blocks: nibbles::Blocks { block, zeros } } => {
                let zeros = if *zeros { " with zero points" } else { "" };
                write!(f, " blocks of {block}{zeros} in panels of {width} for {columns}")
            }
            Weights::Quads { width, columns, run } => {
                write!(f, " fours of {run} in panels of {width} for {columns}")
            }
        }
    }
}

impl Display for Rows {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "of {}", self.width)?;
        for stage in &self.stages {
            match stage.reduce {
                Some(op) => write!(f, " {op:?}{{{}}}", stage.expr)?,
                None => write!(f, " {{{}}}", stage.expr)?,
            }
        }
        Ok(())
    }
}

/// As nested calls; a node that is used twice is printed twice.
impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut texts: Vec<String> = vec![];
        for node in &self.nodes {
            let t = |r: u32| &texts[r as usize];
            let text = match *node {
                Scalar::Operand(n) => format!("${n}"),
                Scalar::Literal(l) => format!("{}", l.f64()),
                Scalar::Unary(op, a) => format!("{op:?}({})", t(a)),
                Scalar::Cast(to, a) => format!("{to}({})", t(a)),
                Scalar::Binary(op, a, b) => format!("{op:?}({}, {})", t(a), t(b)),
                Scalar::Compare(op, a, b) => format!("{op:?}({}, {})", t(a), t(b)),
                Scalar::Select(c, a, b) => format!("Select({}, {}, {})", t(c), t(a), t(b)),
            };
            // Chains that use values twice would grow without bound.
            let long = text.len() > 400;
            texts.push(if long { format!("..{}", texts.len()) } else { text });
        }
        f.write_str(texts.last().map_or("", |t| t))
    }
}
