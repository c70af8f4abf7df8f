//! A look at a file before it is decoded.
//!
//! An empty message takes two bytes in a file and a few hundred in memory. Real models are far from that:
//! their messages have names in them. So the messages are counted first, skipping all that is in them.

use crate::error::ErrorKind;
use prost::encoding::{WireType, decode_key, decode_varint};

/// So many messages are fine in any file.
const FEW: usize = 1 << 20;
/// More are when they have so many bytes on average.
const USUAL_BYTES: usize = 64;

/// The messages that are large in memory.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Function,
    Node,
    Attribute,
    Tensor,
    ValueInfo,
    Type,
    TensorType,
    Shape,
    Dimension,
}

impl Message {
    /// What is in this field.
    fn field(self, tag: u32) -> Option<Message> {
        use Message::*;
        Some(match (self, tag) {
            (Model, 7) => Graph,
            (Model, 25) => Function,
            (Attribute, 6) => Graph,
            (Graph, 1) | (Function, 7) => Node,
            (Graph, 5) | (Attribute, 5) => Tensor,
            (Graph, 11..=13) => ValueInfo,
            (Function, 11) | (Node, 5) => Attribute,
            (ValueInfo, 2) => Type,
            (Type, 1) => TensorType,
            (TensorType, 2) => Shape,
            (Shape, 1) => Dimension,
            _ => return None,
        })
    }
}

/// An error when the file of a model is crowded with small messages. Files that cannot be decoded are left to
/// the decoder.
pub(super) fn check(data: &[u8]) -> Result<(), ErrorKind> {
    let mut count = 0;
    let mut stack = vec![(Message::Model, data)];
    while let Some((message, mut rest)) = stack.pop() {
        while !rest.is_empty() {
            let Ok((tag, wire)) = decode_key(&mut rest) else { return Ok(()) };
            let size = match wire {
                WireType::Varint => decode_varint(&mut rest).ok().map(|_| 0),
                WireType::ThirtyTwoBit => Some(4),
                WireType::SixtyFourBit => Some(8),
                WireType::LengthDelimited => decode_varint(&mut rest).ok(),
                WireType::StartGroup | WireType::EndGroup => Some(0),
            };
            let size = size.and_then(|size| usize::try_from(size).ok());
            let Some((inside, after)) = size.and_then(|size| rest.split_at_checked(size)) else {
                return Ok(());
            };
            rest = after;
            if wire != WireType::LengthDelimited {
                continue;
            }
            if let Some(child) = message.field(tag) {
                count += 1;
                if count > FEW && count > data.len() / USUAL_BYTES {
                    return Err(ErrorKind::limit(format!(
                        "the file has more than {} nodes, tensors and attributes in {} bytes",
                        count - 1,
                        data.len()
                    )));
                }
                stack.push((child, inside));
            }
        }
    }
    Ok(())
}
