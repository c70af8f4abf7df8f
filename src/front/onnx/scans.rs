//! `Scan`: the nodes of its body become the graph's own, once for each slice of what it goes through.

use super::branches::required;
use super::functions::{Inliner, domain, label};
use super::loops::{MOST, along};
use super::proto::{FunctionProto, NodeProto};
use crate::error::ErrorKind;
use crate::tensor::Tensor;

/// Whether a node is a scan.
pub(super) fn is_scan(node: &NodeProto) -> bool {
    node.op_type == "Scan" && domain(&node.domain).is_empty()
}

impl<'a> Inliner<'a> {
    /// Adds the nodes that take the scanned operands apart, those of all turns, and those that stack what they give.
    ///
    /// How many turns there are may follow from a shape that the file only declares: the operands are taken into so
    /// many parts, and where that is not what they have, checking the parts' types says so.
    pub(super) fn scan(
        &mut self,
        node: &NodeProto,
        function: Option<&'a FunctionProto>,
    ) -> Result<(), ErrorKind> {
        let attribute = |name: &str| node.attribute.iter().find(|a| a.name == name);
        let body = required(node, "body")?;
        let scanned = attribute("num_scan_inputs").and_then(|a| usize::try_from(a.i?).ok());
        let scanned = scanned.filter(|&n| n > 0 && n <= node.input.len()).ok_or_else(|| {
            ErrorKind::wrong(
                "attribute \"num_scan_inputs\" is missing, or not a number of operands",
            )
        })?;
        let carried = node.input.len() - scanned;
        if body.input.len() + 1 == node.input.len() {
            let kind = ErrorKind::unsupported("a scan of opset 8");
            return Err(
                kind.help("convert the model to opset 9 or later with onnx.version_converter")
            );
        }
        if body.input.len() != node.input.len() || body.output.len() < carried {
            return Err(ErrorKind::wrong(format!(
                "\"body\" has {} inputs and {} outputs for {carried} states and {scanned} scanned operands",
                body.input.len(),
                body.output.len()
            )));
        }
        let stacked = body.output.len() - carried;
        if node.output.len() > carried + stacked {
            return Err(ErrorKind::wrong(format!("\"body\" gives {} results", carried + stacked)));
        }
        let ints = |name: &str, count: usize| match attribute(name).map(|a| &a.ints[..]) {
            None => Ok(vec![0; count]),
            Some(ints) if ints.len() == count => Ok(ints.to_vec()),
            Some(ints) => {
                let len = ints.len();
                Err(ErrorKind::wrong(format!(
                    "attribute \"{name}\" has {len} integers for {count}"
                )))
            }
        };
        let axes = ints("scan_input_axes", scanned)?;
        let backwards = ints("scan_input_directions", scanned)?;
        let operands = &node.input[carried..];
        let mut extents = operands.iter().zip(&axes);
        let turns = extents.find_map(|(name, &axis)| self.known.extent(name, axis));
        let turns = turns.ok_or_else(|| {
            ErrorKind::unsupported("the length of what is scanned is known only at run time").help(
                "scans are written out: the file must give the extents of a scanned operand (onnx.shape_inference)",
            )
        })?;
        if turns > MOST {
            return Err(ErrorKind::limit(format!(
                "a scan has {turns} turns, and {MOST} are the most"
            )));
        }
        if turns < 1 {
            return Err(ErrorKind::unsupported("a scan of nothing"));
        }
        let mut slices = vec![];
        for ((operand, &axis), &backwards) in operands.iter().zip(&axes).zip(&backwards) {
            let mut parts = self.slices(node, operand, axis, turns)?;
            if backwards == 1 {
                parts.reverse();
            }
            slices.push(parts.into_iter());
        }
        let mut values = node.input[..carried].to_vec();
        let mut rows: Vec<Vec<String>> = vec![vec![]; stacked];
        for turn in 0..turns {
            let given = values.iter().cloned().chain(slices.iter_mut().filter_map(Iterator::next));
            let bound = body.input.iter().map(|input| input.name.clone()).zip(given).collect();
            let results = self.branch(node, &turn.to_string(), body.clone(), bound, function)?;
            values = results[..carried].to_vec();
            rows.iter_mut().zip(&results[carried..]).for_each(|(row, name)| row.push(name.clone()));
        }
        self.carried(node, values)?;
        let axes = ints("scan_output_axes", stacked)?;
        let backwards = ints("scan_output_directions", stacked)?;
        for (i, mut row) in rows.into_iter().enumerate() {
            let Some(output) = node.output.get(carried + i).filter(|o| !o.is_empty()) else {
                continue;
            };
            if backwards[i] == 1 {
                row.reverse();
            }
            self.stack(node, row, output, axes[i])?;
        }
        Ok(())
    }

    /// Adds the nodes that take an operand apart along an axis; gives the names of the parts, without that axis.
    pub(super) fn slices(
        &mut self,
        node: &NodeProto,
        operand: &str,
        axis: i64,
        count: i64,
    ) -> Result<Vec<String>, ErrorKind> {
        let prefix = label(&node.name, &node.output).to_owned();
        let ones =
            self.constant(node, Tensor::from_i64s([count as usize], &vec![1; count as usize]))?;
        let axes = self.constant(node, Tensor::from_i64s([1], &[axis]))?;
        let parts =
            (0..count).map(|_| self.fresh(&prefix, "part")).collect::<Result<Vec<_>, _>>()?;
        self.add(node, "Split", vec![operand.to_owned(), ones], parts.clone(), vec![along(axis)])?;
        let mut slices = vec![];
        for part in parts {
            let slice = self.fresh(&prefix, "slice")?;
            self.add(node, "Squeeze", vec![part, axes.clone()], vec![slice.clone()], vec![])?;
            slices.push(slice);
        }
        Ok(slices)
    }
}
