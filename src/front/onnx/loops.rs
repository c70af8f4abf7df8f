//! `Loop`: the nodes of its body become the graph's own, once for each turn. How many there are at most has to follow
//! from constants of the model. Where it is known only at run time whether a turn is the last one, all are computed, and
//! what those behind the last one carry on is left out.

use super::branches::required;
use super::functions::{Inliner, domain, label};
use super::fused::OPSET;
use super::proto::{AttributeProto, FunctionProto, GraphProto, NodeProto};
use super::tensor;
use crate::error::ErrorKind;
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// The most turns that are written out.
pub(super) const MOST: i64 = 4096;

/// The attribute that names an axis.
pub(super) fn along(axis: i64) -> AttributeProto {
    AttributeProto {
        name: "axis".to_owned(),
        i: Some(axis),
        r#type: 2,
        ..AttributeProto::default()
    }
}

/// Whether a node is a loop.
pub(super) fn is_loop(node: &NodeProto) -> bool {
    node.op_type == "Loop" && domain(&node.domain).is_empty()
}

impl<'a> Inliner<'a> {
    /// Adds the nodes of all turns, and those that stack what the turns give.
    pub(super) fn turns(
        &mut self,
        node: NodeProto,
        function: Option<&'a FunctionProto>,
    ) -> Result<(), ErrorKind> {
        let body = required(&node, "body")?;
        let carried = node.input.len().saturating_sub(2);
        let stacked = body.output.len().checked_sub(1 + carried);
        let Some(stacked) = stacked.filter(|_| body.input.len() == 2 + carried) else {
            let (inputs, outputs) = (body.input.len(), body.output.len());
            return Err(ErrorKind::wrong(format!(
                "\"body\" has {inputs} inputs and {outputs} outputs for {carried} values that are carried on"
            )));
        };
        if node.output.len() > carried + stacked {
            return Err(ErrorKind::wrong(format!("\"body\" gives {} results", carried + stacked)));
        }
        let at_run_time = |what: &str| {
            ErrorKind::unsupported(format!("{what} is known only at run time"))
                .help("loops are written out: both must follow from constants of the model and shapes of its inputs")
        };
        let input = |i: usize| node.input.get(i).filter(|name| !name.is_empty()).cloned();
        let most = match input(0) {
            Some(name) => {
                self.known.single(&name).ok_or_else(|| at_run_time("the number of turns"))?
            }
            None => i64::MAX,
        };
        let mut condition = input(1);
        let mut values: Vec<String> = node.input[2.min(node.input.len())..].to_vec();
        let mut rows: Vec<Vec<String>> = vec![vec![]; stacked];
        let mut turn = 0;
        // Whether all turns so far went on, where that is known only at run time.
        let mut goes_on: Option<String> = None;
        while turn < most {
            match condition.as_ref().map(|name| self.known.single(name)) {
                None | Some(Some(1..)) => {}
                Some(Some(_)) => break,
                Some(None)
                    if most > MOST || node.output.iter().skip(carried).any(|o| !o.is_empty()) =>
                {
                    return Err(at_run_time("whether it goes on"));
                }
                Some(None) => goes_on = Some(self.both(&node, goes_on, condition.as_deref())?),
            }
            if turn == MOST {
                return Err(ErrorKind::limit(format!("a loop has more than {MOST} turns")));
            }
            let (results, given) = self.turn(&node, turn, &body, condition, &values, function)?;
            condition = Some(given);
            let new = results[..carried].to_vec();
            values = match &goes_on {
                Some(goes_on) => self.either(&node, goes_on, new, values)?,
                None => new,
            };
            rows.iter_mut().zip(&results[carried..]).for_each(|(row, name)| row.push(name.clone()));
            turn += 1;
        }
        self.carried(&node, values)?;
        for (row, output) in rows.into_iter().zip(node.output.iter().skip(carried)) {
            if output.is_empty() {
                continue;
            }
            if row.is_empty() {
                return Err(ErrorKind::unsupported("no turns, and a result of what they give"));
            }
            self.stack(&node, row, output, 0)?;
        }
        Ok(())
    }

    /// Adds the nodes by which a loop goes on where it did, and its condition holds.
    fn both(
        &mut self,
        node: &NodeProto,
        goes_on: Option<String>,
        condition: Option<&str>,
    ) -> Result<String, ErrorKind> {
        let prefix = label(&node.name, &node.output).to_owned();
        let scalar = self.constant(node, Tensor::from_i64s([0], &[]))?;
        let own = self.fresh(&prefix, "condition")?;
        let inputs = condition.into_iter().map(str::to_owned).chain([scalar]).collect();
        self.add(node, "Reshape", inputs, vec![own.clone()], vec![])?;
        let Some(goes_on) = goes_on else { return Ok(own) };
        let both = self.fresh(&prefix, "goes_on")?;
        self.add(node, "And", vec![goes_on, own], vec![both.clone()], vec![])?;
        Ok(both)
    }

    /// Adds the node by which a turn carries new values on where the condition holds, else the old ones.
    fn either(
        &mut self,
        node: &NodeProto,
        condition: &str,
        new: Vec<String>,
        old: Vec<String>,
    ) -> Result<Vec<String>, ErrorKind> {
        if new.iter().chain(&old).any(|name| self.lists.contains_key(name)) {
            return Err(ErrorKind::unsupported(
                "a sequence that is carried on, and whether the loop goes on is known only at run time",
            ));
        }
        if new.is_empty() {
            return Ok(new);
        }
        let prefix = label(&node.name, &node.output).to_owned();
        let names =
            new.iter().map(|_| self.fresh(&prefix, "kept")).collect::<Result<Vec<_>, _>>()?;
        let inputs = [condition.to_owned()].into_iter().chain(new).chain(old).collect();
        self.add(node, "If", inputs, names.clone(), vec![])?;
        Ok(names)
    }

    /// One turn: the names of its results, and of whether it goes on.
    fn turn(
        &mut self,
        node: &NodeProto,
        turn: i64,
        body: &GraphProto,
        condition: Option<String>,
        values: &[String],
        function: Option<&'a FunctionProto>,
    ) -> Result<(Vec<String>, String), ErrorKind> {
        let number = self.constant(node, Tensor::from_i64s([], &[turn]))?;
        let condition = match condition {
            Some(name) => name,
            None => self.constant(node, Tensor::from_ints(Type::scalar(DType::Bool), [1]))?,
        };
        let given = [number, condition].into_iter().chain(values.iter().cloned());
        let bound = body.input.iter().map(|input| input.name.clone()).zip(given).collect();
        let mut results = self.branch(node, &turn.to_string(), body.clone(), bound, function)?;
        let next = results.remove(0);
        Ok((results, next))
    }

    /// Adds the nodes by which what the last turn carries on is the node's first results.
    pub(super) fn carried(
        &mut self,
        node: &NodeProto,
        values: Vec<String>,
    ) -> Result<(), ErrorKind> {
        for (value, output) in values.into_iter().zip(&node.output) {
            if output.is_empty() {
                continue;
            }
            match self.lists.get(&value).cloned() {
                Some(list) => _ = self.lists.insert(output.clone(), list),
                None => self.add(node, "Identity", vec![value], vec![output.clone()], vec![])?,
            }
        }
        Ok(())
    }

    /// Adds the nodes that stack what the turns gave along a new axis.
    pub(super) fn stack(
        &mut self,
        node: &NodeProto,
        rows: Vec<String>,
        output: &str,
        axis: i64,
    ) -> Result<(), ErrorKind> {
        let prefix = label(&node.name, &node.output).to_owned();
        let axes = self.constant(node, Tensor::from_i64s([1], &[axis]))?;
        let mut parts = vec![];
        for row in rows {
            let part = self.fresh(&prefix, "row")?;
            self.add(node, "Unsqueeze", vec![row, axes.clone()], vec![part.clone()], vec![])?;
            parts.push(part);
        }
        self.add(node, "Concat", parts, vec![output.to_owned()], vec![along(axis)])
    }

    pub(super) fn constant(
        &mut self,
        node: &NodeProto,
        tensor: Tensor,
    ) -> Result<String, ErrorKind> {
        let name = self.fresh(label(&node.name, &node.output), "constant")?;
        let value = AttributeProto {
            name: "value".to_owned(),
            t: Some(Box::new(tensor::write("", &tensor))),
            r#type: 4,
            ..AttributeProto::default()
        };
        self.add(node, "Constant", vec![], vec![name.clone()], vec![value])?;
        Ok(name)
    }

    /// Adds a node of ours.
    pub(super) fn add(
        &mut self,
        of: &NodeProto,
        op: &str,
        input: Vec<String>,
        output: Vec<String>,
        attribute: Vec<AttributeProto>,
    ) -> Result<(), ErrorKind> {
        let part = NodeProto {
            name: of.name.clone(),
            op_type: op.to_owned(),
            input,
            output,
            attribute,
            ..NodeProto::default()
        };
        self.written(part, OPSET)
    }
}
