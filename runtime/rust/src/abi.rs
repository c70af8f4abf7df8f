//! The structures that an object carries, as `rlx_rt.h` declares them.

use core::ffi::{c_char, c_void};

/// The version of the layout that this crate reads.
pub const ABI_VERSION: u32 = 1;

/// How generated code hands a loop to whoever runs it: iterations `begin..end` of a kernel.
pub(crate) type Body = unsafe extern "C" fn(table: *const *const c_void, begin: i64, end: i64);

/// Covers `0..extent` by calls of `body`, each iteration once.
pub(crate) type ParallelFor = unsafe extern "C" fn(
    argument: *mut c_void,
    body: Body,
    table: *const *const c_void,
    extent: i64,
    grain: i64,
);

/// What a descriptor has of a model's code: all of it works on an arena, and returns a status.
pub(crate) type Function = unsafe extern "C" fn(arena: *mut c_void) -> i32;

/// `rlx_tensor`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct RawTensor {
    pub(crate) name: *const c_char,
    pub(crate) dims: *const i64,
    pub(crate) rank: u32,
    pub(crate) dtype: u32,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// `rlx_state`: an input that has the value that an output had in the last run.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawState {
    pub(crate) input: u32,
    pub(crate) output: u32,
}

/// What a compiled object says about its model: the symbol `<prefix>_model`.
///
/// It cannot be made in Rust; the way to one is to declare the object's symbol,
///
/// ```
/// # use rlx_aot_runtime::Descriptor;
/// unsafe extern "C" {
///     safe static mlp_model: Descriptor;
/// }
/// ```
///
/// which vouches that the linked symbol is one that rlx-aot made. All else is checked by [`Model::new`](crate::Model::new).
#[repr(C)]
#[derive(Debug)]
pub struct Descriptor {
    pub(crate) abi: u32,
    pub(crate) size: u32,
    pub(crate) name: *const c_char,
    pub(crate) arena_size: u64,
    pub(crate) arena_align: u64,
    pub(crate) inputs: *const RawTensor,
    pub(crate) outputs: *const RawTensor,
    pub(crate) params: *const RawTensor,
    pub(crate) input_count: u32,
    pub(crate) output_count: u32,
    pub(crate) param_count: u32,
    pub(crate) weights_mode: u32,
    pub(crate) weights: *const c_void,
    pub(crate) weights_size: u64,
    pub(crate) weights_offset: u64,
    pub(crate) fingerprint: [u8; 32],
    pub(crate) run: Option<Function>,
    pub(crate) prepare: Option<Function>,
    pub(crate) states: *const RawState,
    pub(crate) state_count: u32,
    pub(crate) guard: u32,
    pub(crate) region_size: u64,
}

// SAFETY: a descriptor and all that it points to is constant data of the object.
unsafe impl Sync for Descriptor {}

/// Where a model's constant weights are.
pub(crate) mod weights_mode {
    pub(crate) const NONE: u32 = 0;
    pub(crate) const EMBEDDED: u32 = 1;
    pub(crate) const EXTERNAL: u32 = 2;
    pub(crate) const ARENA: u32 = 3;
}

/// `rlx_context`, the first 64 bytes of an arena.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) weights: *const c_void,
    pub(crate) parallel_for: Option<ParallelFor>,
    pub(crate) parallel_argument: *mut c_void,
    pub(crate) prepared: u64,
    pub(crate) processor: u64,
    pub(crate) region: *mut c_void,
    pub(crate) reserved: [u64; 2],
}

const _: () = assert!(size_of::<Context>() == 64 || usize::BITS != 64);

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;
    use std::fmt::Write;
    use std::process::Command;

    /// `C type, C field, offset here` for every field.
    fn fields() -> Vec<(&'static str, &'static str, usize)> {
        macro_rules! fields {
            ($($rust:ident $c:literal: $($field:ident)+;)+) => { vec![$($(($c, stringify!($field), offset_of!($rust, $field)),)+)+] };
        }
        fields! {
            RawTensor "rlx_tensor": name dims rank dtype offset bytes;
            Descriptor "rlx_model": abi size name arena_size arena_align inputs outputs params input_count output_count
                param_count weights_mode weights weights_size weights_offset fingerprint run prepare states state_count guard region_size;
            RawState "rlx_state": input output;
            Context "rlx_context": weights parallel_for parallel_argument prepared processor region reserved;
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(
            (size_of::<RawTensor>(), size_of::<Descriptor>(), size_of::<Context>()),
            (40, 168, 64)
        );
    }

    #[test]
    fn layout_is_that_of_the_c_header() {
        let header = concat!(env!("CARGO_MANIFEST_DIR"), "/../rlx_rt.h");
        if !std::path::Path::new(header).exists()
            || Command::new("cc").arg("--version").output().is_err()
        {
            return;
        }
        let mut text = format!(
            "#include \"{header}\"\n_Static_assert(RLX_ABI_VERSION == {ABI_VERSION}, \"version\");\n"
        );
        for (ty, field, offset) in fields() {
            writeln!(
                text,
                "_Static_assert(offsetof({ty}, {field}) == {offset}, \"{ty}.{field}\");"
            )
            .unwrap();
        }
        let source = std::env::temp_dir().join(format!("rlx-layout-{}.c", std::process::id()));
        std::fs::write(&source, text).unwrap();
        let output =
            Command::new("cc").args(["-std=c11", "-fsyntax-only"]).arg(&source).output().unwrap();
        std::fs::remove_file(source).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
