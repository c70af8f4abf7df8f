//! What an object promises, as JSON.

use super::contract::{ABI_VERSION, Contract, Tensor};
use super::object::Object;
use super::target::Target;
use serde_json::{Value, json};

/// An object's contract, and what it was made for and of.
pub fn object(object: &Object, target: &Target) -> Value {
    let mut manifest = contract(&object.contract);
    manifest["target"] = json!(target.triple().to_string());
    manifest["cpu"] = json!(target.cpu);
    manifest["features"] = json!(target.features);
    manifest["lesser_features"] = target.lesser.iter().map(|v| json!(v.features)).collect();
    manifest["steps"] = json!(object.steps);
    manifest["kernels"] = json!(object.kernels);
    manifest["code_bytes"] = json!(object.code_bytes);
    manifest
}

/// The contract as JSON.
pub fn contract(contract: &Contract) -> Value {
    let tensors = |list: &[Tensor]| list.iter().map(tensor).collect::<Vec<_>>();
    json!({
        "name": contract.name,
        "prefix": contract.prefix,
        "abi": ABI_VERSION,
        "arena_size": contract.arena_size,
        "arena_align": contract.arena_align,
        "weights_mode": contract.weights_mode.to_string(),
        "weights_size": contract.weights_size,
        "weights_offset": contract.weights_offset,
        "guard": contract.guard,
        "region_size": contract.region_size,
        "region_keeps": contract.region_keeps,
        "fingerprint": contract.fingerprint_hex(),
        "prepare": contract.prepare,
        "versions": contract.versions,
        "overwrites_inputs": contract.overwrites_inputs,
        "inputs": tensors(&contract.inputs),
        "outputs": tensors(&contract.outputs),
        "params": tensors(&contract.params),
        "states": contract.states,
    })
}

fn tensor(tensor: &Tensor) -> Value {
    json!({
        "name": tensor.name,
        "dtype": tensor.dtype.name(),
        "shape": tensor.dims,
        "offset": tensor.pointer().map_or(Some(tensor.offset), |_| None),
        "pointer": tensor.pointer(),
        "bytes": tensor.bytes,
    })
}
