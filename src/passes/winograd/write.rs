//! The steps of a plan in the place of the convolution.

use super::plan::Plan;
use super::{Case, Form, Planes};
use crate::mir::winograd::{Side, Winograd};
use crate::mir::{Contract, Literal, Op, Value, Weights};
use crate::passes::rewrite::Rewriter;
use crate::types::{DType, Type};

impl Case<'_> {
    /// The steps in the place of node `old`.
    pub(super) fn write(
        &self,
        r: &mut Rewriter<'_>,
        old: Value,
        plan: Plan,
        weights: (Value, usize),
    ) -> Value {
        let inputs: Vec<Value> = self.inputs.iter().map(|&v| r.get(v)).collect();
        let extra: Vec<Value> = r.operands(old).split_off(2);
        let planes = match &self.form {
            Form::Image => return self.write_images(r, plan, inputs, weights, extra),
            Form::Line | Form::Columns => {
                let image = |r: &mut Rewriter<'_>, value: Value| self.image(r, value);
                let inputs = inputs.into_iter().map(|v| image(r, v)).collect();
                let extra = extra.into_iter().map(|v| image(r, v)).collect();
                let result = self.write_images(r, plan, inputs, weights, extra);
                return r.reshape(result, &self.node.ty.dims);
            }
            Form::Planes(planes) => planes,
        };
        let inputs: Vec<Value> = inputs.into_iter().map(|v| planes.bordered(r, v)).collect();
        let all = &self.node.ty;
        let mut results = vec![];
        for image in 0..all.dims[0] {
            let parts = planes.parts(r, &inputs, image);
            let extra = extra.iter().map(|&v| of_image(r, v, image, all.rank())).collect();
            let result = self.write_images(r, plan, parts, weights, extra);
            results.push(r.reshape(result, &[&[1], &all.dims[1..]].concat()));
        }
        match results[..] {
            [only] => only,
            _ => r.push(Op::Concat { axis: 0 }, results, all.clone(), self.node.origins.clone()),
        }
    }

    /// A value that is read along all axes of the convolution, as images; what is broadcast along them stays.
    fn image(&self, r: &mut Rewriter<'_>, value: Value) -> Value {
        let dims = r.new.ty(value).dims.clone();
        let dims = match (&self.form, &dims[..]) {
            (Form::Line, [n, columns, c]) => vec![*n, 1, *columns, *c],
            (Form::Columns, [outer @ .., one, two, c]) => [outer, &[one * two, *c]].concat(),
            _ => return value,
        };
        r.reshape(value, &dims)
    }

    /// The steps for [`Case::images`]: with these parts of the input, weights in panels of so many columns, and
    /// operands of the epilogue.
    fn write_images(
        &self,
        r: &mut Rewriter<'_>,
        plan: Plan,
        inputs: Vec<Value>,
        (weights, width): (Value, usize),
        extra: Vec<Value>,
    ) -> Value {
        let (axes, tiles) = (plan.axes, self.tiles(plan.axes));
        let (points, m) = (plan.points(), axes[0].tile);
        let origins = &self.node.origins;
        let result = self.node.ty.with_dims(self.dims());
        if let Some(side) = self.both(plan, width) {
            let op = Op::Winograd(Winograd { axes, side });
            let operands = [inputs, vec![weights], extra].concat();
            return r.push(op, operands, result, origins.clone());
        }
        let f32 = |dims: &[usize]| Type::new(DType::F32, dims.to_vec());
        let mut bands = vec![];
        for first in (0..tiles[0]).step_by(plan.block[0]) {
            let rows = plan.block[0].min(tiles[0] - first);
            let (start, end) = (first * m, ((first + rows) * m).min(self.results[0]));
            let above = start * axes[0].stride;
            let from = above.saturating_sub(self.before[0]);
            let to = (end - 1) * axes[0].stride + axes[0].taps;
            let to = to.saturating_sub(self.before[0]).min(self.extents[0]);
            let count = self.images * rows * tiles[1];
            let before = [self.before[0].saturating_sub(above), self.before[1]];
            let side = Side::Input { before, tiles: [rows, tiles[1]] };
            let op = Op::Winograd(Winograd { axes, side });
            let mut transformed = vec![];
            for &input in &inputs {
                let channels = r.new.ty(input).dims[3];
                let x = r.narrow(input, 1, from, to - from);
                let ty = f32(&[points, count, channels]);
                transformed.push(r.push(op.clone(), vec![x], ty, origins.clone()));
            }
            let x = match transformed[..] {
                [only] => only,
                _ => {
                    let ty = f32(&[points, count, self.channels]);
                    r.push(Op::Concat { axis: 2 }, transformed, ty, origins.clone())
                }
            };
            let layout = Weights::Panels { width, columns: self.outputs };
            let op = Op::Contract(Contract::of(layout));
            let products =
                r.push(op, vec![x, weights], f32(&[points, count, self.outputs]), origins.clone());
            let mut operands = vec![products];
            for &value in &extra {
                // Axes are counted from the last one.
                let dims = r.new.ty(value).dims.clone();
                let axis = (dims.len() + 1).checked_sub(4).filter(|&axis| dims[axis] != 1);
                operands.push(match axis {
                    Some(axis) => r.narrow(value, axis, start, end - start),
                    None => value,
                });
            }
            let side = Side::Output { epilogue: self.conv.epilogue.clone() };
            let op = Op::Winograd(Winograd { axes, side });
            let ty = f32(&[self.images, end - start, self.results[1], self.outputs]);
            bands.push(r.push(op, operands, ty, origins.clone()));
        }
        match bands[..] {
            [only] => only,
            _ => r.push(Op::Concat { axis: 1 }, bands, result, origins.clone()),
        }
    }
}

impl Planes {
    /// An input within the zeros of this axis.
    fn bordered(&self, r: &mut Rewriter<'_>, input: Value) -> Value {
        let ty = r.new.ty(input);
        let rank = ty.rank();
        let axis = |extent: usize| {
            let mut border = vec![0; rank];
            border[1] = extent;
            border
        };
        let [low, high] = self.border.map(axis);
        if self.border == [0, 0] {
            return input;
        }
        let mut dims = ty.dims.clone();
        dims[1] += self.border[0] + self.border[1];
        let (ty, interior) = (ty.with_dims(dims), vec![0; rank]);
        let origins = r.new.nodes[input].origins.clone();
        let value = Literal::from_f64(ty.dtype, 0.0);
        r.push(Op::Pad { low, high, interior, value }, vec![input], ty, origins)
    }

    /// What lies under the taps of this axis in one image, `[results, H, W, C]` each: for each tap, all
    /// of the inputs.
    fn parts(&self, r: &mut Rewriter<'_>, inputs: &[Value], image: usize) -> Vec<Value> {
        let mut parts = vec![];
        for tap in 0..self.taps {
            for &input in inputs {
                let node = &r.new.nodes[input];
                let (mut dims, origins) = (node.ty.dims.clone(), node.origins.clone());
                let (mut starts, mut steps) = (vec![0; dims.len()], vec![1; dims.len()]);
                (starts[0], starts[1]) = (image, tap * self.dilation);
                steps[1] = self.stride as i64;
                (dims[0], dims[1]) = (1, self.results);
                let ty = node.ty.with_dims(dims.clone());
                let slice = r.push(Op::Slice { starts, steps }, vec![input], ty, origins);
                parts.push(r.reshape(slice, &dims[1..]));
            }
        }
        parts
    }
}

/// An operand of an epilogue whose result has so many axes, for one image without the axis of images.
fn of_image(r: &mut Rewriter<'_>, operand: Value, image: usize, rank: usize) -> Value {
    let dims = r.new.ty(operand).dims.clone();
    if dims.len() < rank {
        return operand;
    }
    let one = if dims[0] == 1 { operand } else { r.narrow(operand, 0, image, 1) };
    r.reshape(one, &dims[1..])
}
