//! MIR's view nodes, concatenations and borders as accesses.

use super::Access;
use super::access::Axes;
use crate::mir::{Graph, Node, Op, Value};

/// The result of a view node as an access to its operand's storage; `None` when there is no such
/// access, or the node is no view.
pub fn view(node: &Node, operand: &Access) -> Option<Access> {
    match &node.op {
        Op::Reshape => operand.reshaped(&node.ty.dims),
        Op::Permute(perm) => Some(operand.permuted(perm)),
        Op::Slice { starts, steps } => Some(operand.sliced(starts, steps, &node.ty.dims)),
        Op::Broadcast => Some(operand.broadcast(&node.ty.dims)),
        _ => None,
    }
}

/// The access to a view node's operand for which the view is `result`; `None` when there is none, or
/// when the view does not show the whole operand exactly once.
pub fn unview(node: &Node, operand: &[usize], result: &Access) -> Option<Access> {
    match &node.op {
        Op::Reshape => result.reshaped(operand),
        Op::Permute(perm) => {
            let mut inverse: Axes<usize> = Axes::from_elem(0, perm.len());
            perm.iter().enumerate().for_each(|(i, &p)| inverse[p] = i);
            Some(result.permuted(&inverse))
        }
        // Repeats nothing: only axes of extent 1 are new.
        Op::Broadcast if node.ty.elements() == operand.iter().product::<usize>() => {
            result.reshaped(operand)
        }
        _ => None,
    }
}

/// Whether a view shows each element of its operand, and once: only then is [`unview`] more than `None`.
pub fn shows_once(graph: &Graph, view: Value) -> bool {
    let node = &graph.nodes[view];
    match &node.op {
        Op::Reshape | Op::Permute(_) => true,
        Op::Broadcast => node.ty.elements() == graph.ty(node.operands[0]).elements(),
        _ => false,
    }
}

/// Whether a view is a slice without steps.
pub fn is_block(node: &Node) -> bool {
    matches!(&node.op, Op::Slice { steps, .. } if steps.iter().all(|&step| step == 1))
}

/// The access to the operand of such a slice for which the slice is `result`, wherever that reaches; `None` when
/// the slice does not say how it lies along an axis.
pub fn unslice(node: &Node, operand: &[usize], result: &Access) -> Option<Access> {
    let Op::Slice { starts, .. } = &node.op else { return None };
    let axes = || operand.iter().zip(&result.dims);
    if !is_block(node) || axes().any(|(&whole, &part)| whole > 1 && part == 1) {
        return None;
    }
    let before = starts.iter().zip(&result.strides).map(|(&start, stride)| start as i64 * stride);
    let offset = result.offset - before.sum::<i64>();
    Some(Access { dims: Axes::from_slice(operand), offset, ..result.clone() })
}

/// Where in the result of a concatenation or border the operand `index` lies; `None` for other nodes.
pub fn window(graph: &Graph, user: Value, index: usize, whole: &Access) -> Option<Access> {
    let node = &graph.nodes[user];
    let dims = &graph.ty(node.operands[index]).dims;
    match &node.op {
        Op::Concat { axis } => {
            let before: usize =
                node.operands[..index].iter().map(|&v| graph.ty(v).dims[*axis]).sum();
            let mut starts: Axes<usize> = Axes::from_elem(0, dims.len());
            starts[*axis] = before;
            Some(whole.sliced(&starts, &Axes::from_elem(1, dims.len()), dims))
        }
        Op::Pad { low, interior, .. } => {
            let steps: Axes<i64> = interior.iter().map(|&n| n as i64 + 1).collect();
            Some(whole.sliced(low, &steps, dims))
        }
        _ => None,
    }
}

/// Whether a node is a border with elements between neighbours.
pub fn has_interior(node: &Node, graph: &Graph) -> bool {
    let Op::Pad { interior, .. } = &node.op else { return false };
    interior.iter().zip(&graph.ty(node.operands[0]).dims).any(|(&n, &d)| n > 0 && d > 1)
}

/// The parts of a border that are not the operand, as accesses that do not overlap: what a producer
/// that writes straight into its window leaves over. With elements between neighbours it is all.
pub fn borders(graph: &Graph, node: &Node, whole: &Access) -> Vec<Access> {
    let Op::Pad { low, .. } = &node.op else { return vec![] };
    if has_interior(node, graph) {
        return vec![whole.clone()];
    }
    let operand = &graph.ty(node.operands[0]).dims;
    let mut boxes = vec![];
    // Boxes before and behind along each axis: inside on the axes before, whole on those after.
    let (mut starts, mut dims) = (vec![0; operand.len()], whole.dims.clone());
    let steps = vec![1; operand.len()];
    for axis in 0..operand.len() {
        let (inside, end) = (low[axis] + operand[axis], whole.dims[axis]);
        for (start, end) in [(0, low[axis]), (inside, end)] {
            if start < end {
                (starts[axis], dims[axis]) = (start, end - start);
                boxes.push(whole.sliced(&starts, &steps, &dims));
            }
        }
        (starts[axis], dims[axis]) = (low[axis], operand[axis]);
    }
    boxes.retain(|b| !b.is_empty());
    boxes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lir::Buffer;
    use crate::mir::{Builder, Role};
    use crate::types::{DType, Type};
    use cranelift_entity::EntityRef;

    #[test]
    fn borders_cover_the_rest_once() {
        let mut mir = Builder::new("test");
        let x = mir.input("x", Role::Input, Type::new(DType::F32, [2, 3, 2]));
        let y = mir.pad(x, &[0, 1, 2], &[1, 0, 1], 0.0);
        let graph = mir.finish(vec![]);
        let whole = Access::dense(Buffer::new(0), graph.ty(y));
        let mut parts = borders(&graph, &graph.nodes[y], &whole);
        parts.push(window(&graph, y, 0, &whole).expect("a window"));
        let mut counts = vec![0; graph.ty(y).elements()];
        for part in parts {
            part.for_each(|at| counts[at as usize] += 1);
        }
        assert!(counts.iter().all(|&n| n == 1), "{counts:?}");
    }

    #[test]
    fn views_are_undone() {
        let mut mir = Builder::new("test");
        let x = mir.input("x", Role::Input, Type::new(DType::F32, [2, 3, 4]));
        let p = mir.permute(x, &[1, 2, 0]);
        let r = mir.reshape(p, [12, 2]);
        let graph = mir.finish(vec![]);
        let result = Access::dense(Buffer::new(0), graph.ty(r));
        let p_access = unview(&graph.nodes[r], &graph.ty(p).dims, &result).expect("reshape");
        let x_access = unview(&graph.nodes[p], &graph.ty(x).dims, &p_access).expect("permute");
        assert_eq!(x_access.strides[..], [1, 8, 2]);
        let again = view(&graph.nodes[p], &x_access).and_then(|a| view(&graph.nodes[r], &a));
        assert_eq!(again, Some(result));
    }
}
