//! Models written by hand as the compiler writes them: `y[r][c] = x[r][c] * weights[c] + p[c]`, negated if `negate` is set; and
//! an empty output.

use crate::abi::{Body, Context, Descriptor, RawState, RawTensor, weights_mode};
use crate::{Dtype, Error, Model, Pool, Role, Weights};
use core::ffi::c_void;
use core::ptr::null;

const WEIGHTS_SIZE: usize = 128;
const ARENA_SIZE: usize = 576;

struct Shared<T>(T);

// SAFETY: only constant data is in it.
unsafe impl<T> Sync for Shared<T> {}

#[repr(align(64))]
struct Aligned([f32; WEIGHTS_SIZE / 4]);

static WEIGHTS: Aligned = {
    let mut weights = [0.0; WEIGHTS_SIZE / 4];
    (weights[0], weights[1], weights[2]) = (2.0, 3.0, 5.0);
    Aligned(weights)
};

pub(crate) const fn tensor(
    name: &'static core::ffi::CStr,
    dims: &'static [i64],
    dtype: u32,
    place: u64,
    bytes: u64,
) -> RawTensor {
    RawTensor {
        name: name.as_ptr(),
        dims: dims.as_ptr(),
        rank: dims.len() as u32,
        dtype,
        offset: place,
        bytes,
    }
}

static INPUTS: Shared<[RawTensor; 2]> =
    Shared([tensor(c"x", &[2, 3], 1, 64, 24), tensor(c"negate", &[], 9, 256, 1)]);
static PARAMS: Shared<[RawTensor; 1]> = Shared([tensor(c"p", &[3], 1, 128, 12)]);
static OUTPUTS: Shared<[RawTensor; 2]> =
    Shared([tensor(c"y", &[2, 3], 1, 192, 24), tensor(c"empty", &[0, 4], 1, 320, 0)]);

unsafe extern "C" fn kernel(table: *const *const c_void, begin: i64, end: i64) {
    // SAFETY: `run` makes the table: x, weights, p, negate, y.
    unsafe {
        let at = |i: usize| (*table.add(i)).cast::<f32>();
        let sign = if *at(3).cast::<u8>() != 0 { -1.0 } else { 1.0 };
        for r in begin as usize..end as usize {
            for c in 0..3 {
                *at(4).cast_mut().add(r * 3 + c) =
                    sign * (*at(0).add(r * 3 + c) * *at(1).add(c) + *at(2).add(c));
            }
        }
    }
}

unsafe fn run(arena: *mut c_void, weights: *const c_void) -> i32 {
    // SAFETY: the caller gives an arena as the descriptor asks.
    unsafe {
        let base = arena.cast::<u8>();
        let context = &*arena.cast::<Context>();
        let at = |offset| base.add(offset).cast_const().cast::<c_void>();
        let table = [at(64), weights, at(128), at(256), at(192)];
        match context.parallel_for {
            Some(parallel_for) => {
                parallel_for(context.parallel_argument, kernel as Body, table.as_ptr(), 2, 1)
            }
            None => kernel(table.as_ptr(), 0, 2),
        }
        match *base.add(256) {
            0 | 1 => 0,
            2 => 64,
            _ => 99,
        }
    }
}

unsafe extern "C" fn run_embedded(arena: *mut c_void) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { run(arena, WEIGHTS.0.as_ptr().cast()) }
}

unsafe extern "C" fn run_external(arena: *mut c_void) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { run(arena, (*arena.cast::<Context>()).weights) }
}

unsafe extern "C" fn run_arena(arena: *mut c_void) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { run(arena, arena.byte_add(384)) }
}

pub(crate) fn descriptor(mode: u32) -> Descriptor {
    Descriptor {
        abi: 1,
        size: size_of::<Descriptor>() as u32,
        name: c"fake".as_ptr(),
        arena_size: ARENA_SIZE as u64,
        arena_align: 64,
        inputs: INPUTS.0.as_ptr(),
        outputs: OUTPUTS.0.as_ptr(),
        params: PARAMS.0.as_ptr(),
        input_count: 2,
        output_count: 2,
        param_count: 1,
        weights_mode: mode,
        weights: if mode == weights_mode::EMBEDDED { WEIGHTS.0.as_ptr().cast() } else { null() },
        weights_size: WEIGHTS_SIZE as u64,
        weights_offset: if mode == weights_mode::ARENA { 384 } else { 0 },
        fingerprint: [7; 32],
        run: Some(match mode {
            weights_mode::EXTERNAL => run_external,
            weights_mode::ARENA => run_arena,
            _ => run_embedded,
        }),
        prepare: None,
        states: null(),
        state_count: 0,
        guard: 0,
        region_size: 0,
    }
}

pub(crate) fn leak(descriptor: Descriptor) -> &'static Descriptor {
    Box::leak(Box::new(descriptor))
}

fn model(mode: u32) -> Model {
    Model::new(leak(descriptor(mode))).unwrap()
}

fn weights_bytes() -> Vec<u8> {
    WEIGHTS.0.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

const X: [f32; 6] = [1., 2., 3., 4., 5., 6.];
const Y: [f32; 6] = [12., 26., 45., 18., 35., 60.];

#[track_caller]
fn expect_inference(model: &mut Model) {
    model.set_input("x", &X).unwrap();
    model.set_param(0, &[10f32, 20., 30.]).unwrap();
    model.input_mut::<u8>(1).unwrap()[0] = 0;
    model.run().unwrap();
    assert_eq!(model.output::<f32>("y").unwrap(), Y);
    model.set_input("negate", &[1u8]).unwrap();
    model.run().unwrap();
    assert_eq!(model.output::<f32>(0).unwrap(), Y.map(|y| -y));
}

#[test]
fn runs() {
    let mut model = model(weights_mode::EMBEDDED);
    assert_eq!(
        (model.name(), model.arena_size(), model.fingerprint()),
        ("fake", ARENA_SIZE, &[7; 32])
    );
    assert!(!model.needs_weights());
    expect_inference(&mut model);
    assert_eq!(model.output::<f32>("empty").unwrap(), []);
    assert_eq!(model.input::<f32>("x").unwrap(), X);
    assert_eq!(model.param::<f32>("p").unwrap(), [10., 20., 30.]);
    assert_eq!(model.input_array::<f32, 6>("x").unwrap(), &X);
    assert_eq!(model.output_array::<f32, 6>("y").unwrap(), &Y.map(|y| -y));
    assert_eq!(model.param_array::<f32, 3>("p").unwrap()[2], 30.);
    model.param_array_mut::<f32, 3>("p").unwrap()[2] = 40.;
    model.input_array_mut::<u8, 1>("negate").unwrap()[0] = 0;
    model.run().unwrap();
    assert_eq!(model.output::<f32>("y").unwrap()[2], 55.);
    let x = model.inputs()[0];
    assert_eq!(
        (x.name(), x.shape(), x.dtype(), x.elements(), x.bytes()),
        ("x", &[2, 3][..], Dtype::F32, 6, 24)
    );
    assert_eq!(x.to_string(), r#""x" f32[2, 3]"#);
    assert_eq!(model.inputs()[1].elements(), 1);
    assert_eq!((model.outputs().len(), model.params().len()), (2, 1));
}

unsafe extern "C" fn prepare(arena: *mut c_void) -> i32 {
    // SAFETY: the caller gives an arena as the descriptor asks.
    unsafe {
        let place = arena.byte_add(320).cast::<[f32; 3]>();
        *place = *arena.byte_add(128).cast();
        (*arena.cast::<Context>()).prepared = 1;
    }
    0
}

unsafe extern "C" fn run_prepared(arena: *mut c_void) -> i32 {
    // SAFETY: as above.
    unsafe {
        if (*arena.cast::<Context>()).prepared == 0 {
            return 19;
        }
        *arena.byte_add(192).cast::<[f32; 3]>() = *arena.byte_add(320).cast();
    }
    0
}

#[test]
fn parameters_are_prepared() {
    let descriptor = Descriptor {
        run: Some(run_prepared),
        prepare: Some(prepare),
        ..descriptor(weights_mode::EMBEDDED)
    };
    let mut model = Model::new(leak(descriptor)).unwrap();
    let first = |model: &Model| model.output::<f32>("y").unwrap()[0];
    for value in [1f32, 2., 3.] {
        match value {
            1. => model.set_param("p", &[value; 3]).unwrap(),
            2. => model.param_mut::<f32>("p").unwrap()[0] = value,
            _ => model.param_array_mut::<f32, 3>("p").unwrap()[0] = value,
        }
        model.run().unwrap();
        assert_eq!(first(&model), value);
    }
    model.prepare().unwrap();
    let mut waiting = self::model(weights_mode::EXTERNAL);
    assert_eq!(waiting.prepare(), Err(Error::NoWeights));
}

#[test]
fn states_are_reset() {
    let state = |input, output| leak_state(RawState { input, output });
    let descriptor =
        Descriptor { states: state(0, 0), state_count: 1, ..descriptor(weights_mode::EMBEDDED) };
    let mut model = Model::new(leak(descriptor)).unwrap();
    assert_eq!(model.states(), [0]);
    expect_inference(&mut model);
    model.reset();
    assert_eq!(model.input::<f32>("x").unwrap(), [0.0; 6]);
    for (states, state_count) in [(null(), 1), (state(2, 0), 1), (state(0, 2), 1)] {
        let damaged =
            Descriptor { states, state_count, ..self::descriptor(weights_mode::EMBEDDED) };
        assert!(matches!(Model::new(leak(damaged)), Err(Error::Descriptor { .. })));
    }
}

#[test]
fn second_memory_lies_behind() {
    let with = |region_size| Descriptor { region_size, ..descriptor(weights_mode::EMBEDDED) };
    let mut model = Model::new(leak(with(100))).unwrap();
    let (arena, region) = model.memories();
    assert_eq!(region - arena, 576);
    expect_inference(&mut model);
    for size in [u64::MAX, u64::MAX - 500] {
        assert!(matches!(Model::new(leak(with(size))), Err(Error::Descriptor { .. })));
    }
}

fn leak_state(state: RawState) -> *const RawState {
    Box::leak(Box::new(state))
}

#[test]
fn moves_between_threads() {
    let mut model = model(weights_mode::EMBEDDED);
    expect_inference(&mut model);
    std::thread::spawn(move || expect_inference(&mut model)).join().unwrap();
}

#[test]
fn shares_a_pool() {
    let pool = Pool::new(3).unwrap();
    let mut model = model(weights_mode::EMBEDDED);
    model.set_pool(Some(&pool));
    drop(pool);
    for _ in 0..100 {
        expect_inference(&mut model);
    }
    model.set_pool(None);
    expect_inference(&mut model);
}

#[test]
fn wrong_keys_types_and_lengths() {
    let mut model = model(weights_mode::EMBEDDED);
    let message = |error: Error| error.to_string();
    assert_eq!(
        message(model.input_mut::<f32>("z").unwrap_err()),
        r#"no input is called "z"; there are: "x", "negate""#
    );
    assert_eq!(
        model.output::<f32>(2).unwrap_err(),
        Error::UnknownIndex { role: Role::Output, index: 2, count: 2 }
    );
    assert_eq!(
        message(model.param::<f32>("x").unwrap_err()),
        r#"no parameter is called "x"; there are: "p""#
    );
    assert_eq!(message(model.output::<f64>("y").unwrap_err()), r#""y" holds f32, not f64"#);
    assert_eq!(
        message(model.input_mut::<i8>("negate").unwrap_err()),
        r#""negate" holds bool, not i8"#
    );
    assert_eq!(
        message(model.set_input("x", &[0f32; 5]).unwrap_err()),
        r#""x" has 6 elements, not 5"#
    );
    assert_eq!(
        message(model.set_param("p", &[0f32; 4]).unwrap_err()),
        r#""p" has 3 elements, not 4"#
    );
}

#[test]
fn statuses_of_the_model() {
    let mut model = model(weights_mode::EMBEDDED);
    model.set_input("negate", &[2u8]).unwrap();
    assert_eq!(model.run(), Err(Error::Data));
    model.set_input("negate", &[3u8]).unwrap();
    assert_eq!(model.run(), Err(Error::Status(99)));
}

#[test]
fn weights_from_outside() {
    for mode in [weights_mode::EXTERNAL, weights_mode::ARENA] {
        let mut model = model(mode);
        assert!(model.needs_weights());
        assert_eq!(model.run(), Err(Error::NoWeights));
        let short = Weights::from_bytes(&weights_bytes()[1..]).unwrap();
        assert_eq!(model.bind_weights(&short), Err(Error::WeightsSize { model: 128, given: 127 }));
        assert_eq!(model.run(), Err(Error::NoWeights));
        let weights = Weights::from_bytes(&weights_bytes()).unwrap();
        model.bind_weights(&weights).unwrap();
        drop(weights);
        expect_inference(&mut model);

        let file = |print: &str| {
            let header = format!(
                r#"{{"__metadata__":{{"fingerprint":"{print}"}},"weights":{{"dtype":"U8","shape":[128],"data_offsets":[0,128]}}}}"#
            );
            Weights::from_file_bytes(
                &[&(header.len() as u64).to_le_bytes(), header.as_bytes(), &weights_bytes()]
                    .concat(),
            )
        };
        assert_eq!(model.bind_weights(&file(&"08".repeat(32)).unwrap()), Err(Error::WeightsModel));
        assert_eq!(file("07").unwrap_err(), Error::WeightsModel);
        expect_inference(&mut model);
        model.bind_weights(&file(&"07".repeat(32)).unwrap()).unwrap();
        expect_inference(&mut model);
    }
    let weights = Weights::from_bytes(&weights_bytes()).unwrap();
    for mode in [weights_mode::NONE, weights_mode::EMBEDDED] {
        assert_eq!(model(mode).bind_weights(&weights), Err(Error::WeightsMode));
    }
}

#[test]
fn static_weights() {
    let bytes: &'static [u8] = {
        // SAFETY: floats are bytes.
        unsafe { core::slice::from_raw_parts(WEIGHTS.0.as_ptr().cast(), WEIGHTS_SIZE) }
    };
    let mut model = model(weights_mode::EXTERNAL);
    model.bind_weights(&Weights::from_static(bytes).unwrap()).unwrap();
    expect_inference(&mut model);
    assert_eq!(Weights::from_static(&bytes[1..]).unwrap_err(), Error::WeightsAlign);
}

#[test]
fn fingerprint_of_another_build() {
    let descriptor = leak(descriptor(weights_mode::EMBEDDED));
    assert!(Model::with_fingerprint(descriptor, &[7; 32]).is_ok());
    assert_eq!(Model::with_fingerprint(descriptor, &[8; 32]).unwrap_err(), Error::Fingerprint);
}

#[test]
fn newer_object_with_a_longer_descriptor() {
    let mut longer = descriptor(weights_mode::EMBEDDED);
    longer.size += 8;
    expect_inference(&mut Model::new(leak(longer)).unwrap());
}

#[test]
fn damaged_descriptors() {
    type Damage = fn(&mut Descriptor);
    let refused = |mode: u32, damage: Damage| {
        let mut descriptor = descriptor(mode);
        damage(&mut descriptor);
        Model::new(leak(descriptor)).unwrap_err()
    };
    let damages: [Damage; 9] = [
        |d| d.run = None,
        |d| d.name = null(),
        |d| d.arena_align = 0,
        |d| d.arena_align = 96,
        |d| d.arena_size = 63,
        |d| d.arena_size = 200,
        |d| d.inputs = null(),
        |d| d.weights = null(),
        |d| d.weights_mode = 4,
    ];
    for damage in damages {
        assert!(matches!(refused(weights_mode::EMBEDDED, damage), Error::Descriptor { .. }));
    }
    let damages: [Damage; 3] = [
        |d| d.weights_offset = ARENA_SIZE as u64 - 127,
        |d| d.weights_offset = u64::MAX,
        |d| d.weights_offset = 0,
    ];
    for damage in damages {
        assert!(matches!(refused(weights_mode::ARENA, damage), Error::Descriptor { .. }));
    }
    assert_eq!(refused(0, |d| d.abi = 2), Error::Abi { object: 2 });
    assert_eq!(refused(0, |d| d.size = 135), Error::Abi { object: 1 });
    assert!(matches!(refused(0, |d| d.arena_size = 1 << 62), Error::OutOfMemory { .. }));
}

#[test]
fn damaged_tensors() {
    let damages: [fn(&mut RawTensor); 9] = [
        |t| t.name = null(),
        |t| t.dims = null(),
        |t| t.dtype = 8,
        |t| t.bytes = 28,
        |t| t.offset = 0,
        |t| t.offset = 66,
        |t| t.offset = ARENA_SIZE as u64 - 20,
        |t| t.offset = u64::MAX - 3,
        |t| t.dims = [-1, -6].as_ptr(),
    ];
    for damage in damages {
        let mut tensor = tensor(c"x", &[2, 3], 1, 64, 24);
        damage(&mut tensor);
        let mut descriptor = descriptor(weights_mode::EMBEDDED);
        descriptor.inputs = Box::leak(Box::new(tensor));
        descriptor.input_count = 1;
        assert!(matches!(Model::new(leak(descriptor)), Err(Error::Descriptor { .. })));
    }
}
