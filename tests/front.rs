//! Files on the way in: what is refused, what is read beside a model, and what reading may cost.

use expect_test::expect;
use rlx_aot::error::{Class, Errors};
use rlx_aot::front::{ReadOptions, npy, pb, read, read_bytes, read_tensor};
use rlx_aot::tensor::Tensor;
use rlx_aot::types::{DType, Type};
use std::fs;
use std::path::Path;

/// Counts the bytes that are allocated at once, in this thread.
mod allocations {
    #![expect(unsafe_code, reason = "an allocator can be written in no other way")]

    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    struct Counting;

    thread_local! {
        static NOW: Cell<isize> = const { Cell::new(0) };
        static PEAK: Cell<isize> = const { Cell::new(0) };
    }

    fn count(bytes: isize) {
        // A thread that ends has no counters any more.
        let _ = NOW.try_with(|now| {
            now.set(now.get() + bytes);
            let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
        });
    }

    // SAFETY: everything is passed on to the system's allocator.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            count(layout.size() as isize);
            // SAFETY: the caller's promises are passed on.
            unsafe { System.alloc(layout) }
        }
        unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
            count(-(layout.size() as isize));
            // SAFETY: the caller's promises are passed on.
            unsafe { System.dealloc(at, layout) }
        }
    }

    #[global_allocator]
    static GLOBAL: Counting = Counting;

    /// Most bytes that `f` has allocated at once.
    pub(crate) fn peak(f: impl FnOnce()) -> usize {
        let before = NOW.with(Cell::get);
        PEAK.with(|peak| peak.set(before));
        f();
        (PEAK.with(Cell::get) - before).max(0) as usize
    }
}

/// A field of a message in the format of protocol buffers.
fn field(tag: u8, data: &[u8]) -> Vec<u8> {
    let mut out = vec![tag << 3 | 2];
    let mut length = data.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend(data);
    out
}

fn number(tag: u8, mut value: u64) -> Vec<u8> {
    let mut out = vec![tag << 3];
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// An ONNX model that gives its one initializer, `y`, which has these fields besides name and type.
fn onnx(tensor: &[Vec<u8>]) -> Vec<u8> {
    let tensor = [number(2, 1), field(8, b"y"), tensor.concat()].concat();
    let graph = [field(5, &tensor), field(12, &field(1, b"y"))].concat();
    let import = number(2, 17);
    [number(1, 8), field(7, &graph), field(8, &import)].concat()
}

/// A tensor of four elements in another file.
fn external(entries: &[(&str, &str)]) -> Vec<u8> {
    let entry = |(k, v): &(&str, &str)| {
        field(13, &[field(1, k.as_bytes()), field(2, v.as_bytes())].concat())
    };
    let entries: Vec<_> = entries.iter().map(entry).collect();
    onnx(&[number(1, 4), number(14, 1), entries.concat()])
}

fn options() -> ReadOptions {
    ReadOptions::default()
}

/// The message about a file, with its folder called FOLDER.
fn message(path: &Path) -> String {
    let folder = path.parent().expect("a file is in a folder").display().to_string();
    let text = match read(path, &options()) {
        Ok(_) => "accepted".to_owned(),
        Err(e) => format!("{} {e}", e.class().exit_code()),
    };
    text.replace(&folder, "FOLDER")
}

#[test]
fn no_models() {
    let folder = tempfile::tempdir().unwrap();
    let zip = [b"PK\x03\x04".as_slice(), b"archive/data.pkl"].concat();
    let safetensors = [&8u64.to_le_bytes()[..], b"{}      "].concat();
    let files: [(&str, &[u8]); 18] = [
        ("empty.onnx", b""),
        ("one.onnx", b"x"),
        ("spaces.json", b" \n"),
        ("lfs.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        ("a.onnx", b"\x1f\x8b\x08\x00"),
        ("b.onnx", b"PK\x03\x04zip"),
        ("c.pt", &zip),
        ("d.pkl", b"\x80\x04\x95"),
        ("e.onnx", b"<!DOCTYPE html><html>"),
        ("f.h5", b"\x89HDF\r\n\x1a\n"),
        ("g.tflite", b"\x1c\0\0\0TFL3"),
        ("h.gguf", b"GGUF\x03"),
        ("i.lir.bin", b"RLXLIR01"),
        ("j.lir.bin", b"\0\0\0"),
        ("k.safetensors", &safetensors),
        ("l.json", b"\xef\xbb\xbf{}"),
        ("m.o", b"\x7fELF\x02\x01\x01"),
        ("n.npy", b"\x93NUMPY\x01\x00"),
    ];
    let mut messages = vec![];
    for (name, data) in files {
        let path = folder.path().join(name);
        fs::write(&path, data).unwrap();
        messages.push(message(&path));
    }
    messages.push(message(&folder.path().join("missing.onnx")));
    messages.push(message(folder.path()).replace(&folder.path().display().to_string(), "FOLDER"));
    let name = folder.path().file_name().unwrap().to_string_lossy().into_owned();
    expect![[r#"
        1 error: the file is empty
         --> FOLDER/empty.onnx

        1 error: the file is not a valid ONNX model: invalid varint
         --> FOLDER/one.onnx
          = it is cut off or damaged, or of another kind (bytes read: 1)

        1 error: the file is empty
         --> FOLDER/spaces.json

        1 error: the file is a Git LFS pointer, not a model
         --> FOLDER/lfs.onnx
          = fetch what it points to: git lfs pull

        1 error: the file is compressed with gzip, not a model
         --> FOLDER/a.onnx
          = unpack it: gunzip

        1 error: the file is a ZIP archive, not a model
         --> FOLDER/b.onnx
          = unpack it; models are plain files

        1 error: the file is a PyTorch checkpoint, not a model
         --> FOLDER/c.pt
          = export the model to ONNX: torch.onnx.export(model, inputs, "model.onnx", dynamo=True)

        1 error: the file is a Python pickle, not a model
         --> FOLDER/d.pkl
          = export the model to ONNX: torch.onnx.export(model, inputs, "model.onnx", dynamo=True)

        1 error: the file is a web page, not a model
         --> FOLDER/e.onnx
          = the download went wrong: fetch the file itself

        1 error: the file is an HDF5 file (Keras), not a model
         --> FOLDER/f.h5
          = export the model to ONNX: model.export("model.onnx", format="onnx")

        1 error: the file is a TensorFlow Lite model, not a model
         --> FOLDER/g.tflite
          = convert it to ONNX: python -m tf2onnx.convert --tflite

        1 error: the file is a GGUF file, not a model
         --> FOLDER/h.gguf
          = it holds weights without a graph; export the model to ONNX

        3 unsupported: a lowered RLX module in binary form
         --> FOLDER/i.lir.bin
          = its layout changes with RLX's versions; write JSON instead: rlx_ir::serialize::lir_to_json(&module)

        3 unsupported: a lowered RLX module in binary form
         --> FOLDER/j.lir.bin
          = its layout changes with RLX's versions; write JSON instead: rlx_ir::serialize::lir_to_json(&module)

        1 error: the file is a safetensors file, not a model
         --> FOLDER/k.safetensors
          = it holds weights without a graph; give it with --params

        1 error: the file is text with a byte order mark, not a model
         --> FOLDER/l.json
          = JSON models are UTF-8 without one

        1 error: the file is an ELF object or program, not a model
         --> FOLDER/m.o
          = what is inside one: rlx-aot inspect

        1 error: the file is a NumPy array, not a model
         --> FOLDER/n.npy
          = arrays are given to `run` and `verify`

        4 error: there is no file "FOLDER/missing.onnx"

        4 error: "FOLDER/NAME" is a directory
          = name a file in it: FOLDER/NAME/a.onnx"#]].assert_eq(&messages.join("\n\n").replace(&name, "NAME"));
}

/// A path that leads nowhere is answered with what may have been meant.
#[test]
fn files_that_are_not_there() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.onnx"), "").unwrap();
    let says = |name: &str| message(&folder.path().join(name));
    assert!(
        says("modle.onnx").contains("did you mean \"FOLDER/model.onnx\"?"),
        "{}",
        says("modle.onnx")
    );
    assert!(says("no/model.onnx").contains("there is no folder \"FOLDER\""));
    let inside = says("");
    assert!(inside.contains("name a file in it: ") && inside.ends_with("/model.onnx"), "{inside}");
    assert!(!says("other").contains('='), "{}", says("other"));
}

#[test]
fn files_beside_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let weights: Vec<u8> = (0..5).flat_map(|v| (v as f32).to_le_bytes()).collect();
    fs::create_dir(path("sub")).unwrap();
    fs::write(path("sub/weights"), &weights).unwrap();
    let model = path("model.onnx");
    let whole = [("location", "sub/weights"), ("offset", "4"), ("length", "16"), ("checksum", "?")];
    fs::write(&model, external(&whole)).unwrap();
    let source = read(&model, &options()).unwrap();
    assert_eq!(source.files, [model.clone(), path("sub/weights")]);
    let y = source.graph.values[source.graph.outputs[0]].constant.clone().unwrap();
    assert_eq!(y.f64s(), [1.0, 2.0, 3.0, 4.0]);
    assert!(read_bytes("model", external(&whole).into(), &options()).is_err());

    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("weights"), &weights).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(outside.path(), path("link")).unwrap();
    let absolute = outside.path().join("weights").display().to_string();
    let cases: [&[(&str, &str)]; 16] = [
        &[("location", "missing")],
        &[("location", "../weights")],
        &[("location", "sub/../../weights")],
        &[("location", &absolute)],
        &[("location", "link/weights")],
        &[("location", "sub")],
        &[("location", "")],
        &[("location", "a\0b")],
        &[("location", "C:\\weights")],
        &[("offset", "0")],
        &[("location", "sub/weights"), ("location", "sub/weights")],
        &[("location", "sub/weights"), ("offset", "-1")],
        &[("location", "sub/weights"), ("offset", "8")],
        &[("location", "sub/weights"), ("offset", "18446744073709551615")],
        &[("location", "sub/weights"), ("length", "8")],
        &[("location", "sub/weights"), ("__class__", "x")],
    ];
    let mut messages = vec![];
    for case in cases {
        fs::write(&model, external(case)).unwrap();
        let text = message(&model).replace(&absolute, "OUTSIDE/weights");
        messages.push(text.replace("\n --> FOLDER/model.onnx", ""));
    }
    expect![[r#"
        4 error: initializer "y": there is no file "missing" in the model's folder
          = the model keeps tensors in that file: copy it to where the model is
        1 error: initializer "y": the file "../weights" is not named by a plain relative path
          = files beside a model must be inside its folder
        1 error: initializer "y": the file "sub/../../weights" is not named by a plain relative path
          = files beside a model must be inside its folder
        1 error: initializer "y": the file "OUTSIDE/weights" is not named by a plain relative path
          = files beside a model must be inside its folder
        1 error: initializer "y": the file "link/weights" is a link that leads out of the model's folder
          = files beside a model must be inside its folder
        4 error: initializer "y": "FOLDER/sub" is a directory
        1 error: initializer "y": the file "" has no usable name
          = files beside a model must be inside its folder
        1 error: initializer "y": the file "a\u{0}b" has no usable name
          = files beside a model must be inside its folder
        1 error: initializer "y": the file "C:\weights" is not named by a plain relative path
          = files beside a model must be inside its folder
        1 error: initializer "y": its external data name no file
        1 error: initializer "y": its external data have two of location
        1 error: initializer "y": offset of its external data is "-1", not a number
        1 error: initializer "y": f32[4] needs 16 bytes at 8 of "sub/weights", which has 20
        1 error: initializer "y": f32[4] needs 16 bytes at 18446744073709551615 of "sub/weights", which has 20
        1 error: initializer "y": f32[4] needs 16 bytes, and its external data have 8
        1 error: initializer "y": its external data have the key "__class__"
          = there are: location, offset, length, checksum"#]].assert_eq(&messages.join("\n"));
}

#[test]
fn parameters() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let f16 = half::f16::from_f32(0.5).to_le_bytes();
    let view = |dtype, data| safetensors::tensor::TensorView::new(dtype, vec![1], data).unwrap();
    let tensors =
        [("w", view(safetensors::Dtype::F16, &f16)), ("v", view(safetensors::Dtype::U8, &[1]))];
    let file = safetensors::serialize(tensors, None).unwrap();
    fs::write(path("weights.safetensors"), &file).unwrap();
    let model = |parameter: &str| {
        let text = format!(
            r#"{{"format": "rlx-aot/1", "parameters": [{parameter}], "nodes": [], "outputs": ["w"]}}"#
        );
        fs::write(path("model.json"), text).unwrap();
        let params = Some(path("weights.safetensors"));
        let params = params.filter(|_| !parameter.contains("file"));
        read(&path("model.json"), &ReadOptions { params, ..ReadOptions::default() })
    };
    for parameter in [
        r#"{"name": "w", "shape": [1]}"#,
        r#"{"name": "w", "shape": ["n"]}"#,
        r#"{"name": "w", "shape": [1], "file": "weights.safetensors"}"#,
    ] {
        let source = model(parameter).unwrap();
        assert_eq!(source.files, [path("model.json"), path("weights.safetensors")]);
        let value = source.graph.values[source.graph.outputs[0]].constant.clone().unwrap();
        assert_eq!(value, Tensor::from_f32s([1], &[0.5]));
    }
    let refused = [
        r#"{"name": "w", "shape": [2]}"#,
        r#"{"name": "w", "dtype": "i32", "shape": [1]}"#,
        r#"{"name": "x", "shape": [1]}"#,
        r#"{"name": "w", "shape": [1], "file": "weights.safetensors", "tensor": "ww"}"#,
        r#"{"name": "w", "shape": [1], "file": "model.json"}"#,
    ];
    let text = |e: Errors| e.to_string().replace(&folder.path().display().to_string(), "FOLDER");
    let messages: Vec<_> = refused.iter().map(|p| text(model(p).unwrap_err())).collect();
    expect![[r#"
        error: parameter "w": "FOLDER/weights.safetensors": "w" is f16[1] there, and must be f32[2]
         --> FOLDER/model.json

        error: parameter "w": "FOLDER/weights.safetensors": "w" is f16[1] there, and must be i32[1]
         --> FOLDER/model.json

        error: nothing defines "w"
         --> FOLDER/model.json
          = did you mean "x"?

        error: parameter "w": "weights.safetensors": it has no tensor "ww"
         --> FOLDER/model.json
          = did you mean "w"?

        error: parameter "w": "model.json": not a valid safetensors file: header too large
         --> FOLDER/model.json"#]]
    .assert_eq(&messages.join("\n\n"));
}

#[test]
fn tensor_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let tensor = Tensor::from_f32s([2], &[1.5, -0.0]);
    fs::write(path("x.npy"), npy::write(&tensor)).unwrap();
    fs::write(path("x.pb"), pb::write("x", &tensor)).unwrap();
    fs::write(path("x.raw"), tensor.bytes()).unwrap();
    for name in ["x.npy", "x.pb", "x.raw"] {
        assert_eq!(read_tensor(&path(name), Some(tensor.ty())).unwrap(), tensor);
        let other = Type::new(DType::F32, [3]);
        assert_eq!(read_tensor(&path(name), Some(&other)).unwrap_err().class(), Class::Wrong);
    }
    assert!(read_tensor(&path("x.raw"), None).is_err());
    let whole = pb::write("x", &tensor);
    for end in 0..whole.len() {
        fs::write(path("x.pb"), &whole[..end]).unwrap();
        assert!(read_tensor(&path("x.pb"), None).is_err());
    }
}

#[test]
fn small_files_take_little_memory() {
    const MUCH: u64 = 1 << 37;
    let raw = |dims: u64| onnx(&[number(1, dims), field(9, &[0; 4])]);
    let json = |shape: &str| {
        format!(
            r#"{{"format": "rlx-aot/1", "parameters": [{{"name": "y", "shape": [{shape}], "data": [1]}}],
            "nodes": [], "outputs": ["y"]}}"#
        )
    };
    let files = [
        raw(MUCH),
        onnx(&[number(1, MUCH), number(1, 0)]),
        external(&[("location", "missing")]),
        json("137438953472").into_bytes(),
        json("0, 137438953472").into_bytes(),
    ];
    for file in files {
        let peak = allocations::peak(|| _ = read_bytes("model", file.into(), &options()));
        assert!(peak < 1 << 16, "{peak} bytes");
    }
    let header = b"{'descr': '<f8', 'fortran_order': True, 'shape': (4294967296, 32), }\n";
    let npy =
        [b"\x93NUMPY\x01\x00".as_slice(), &(header.len() as u16).to_le_bytes(), header].concat();
    let peak = allocations::peak(|| assert!(npy::read(&npy.into()).is_err()));
    assert!(peak < 1 << 16, "{peak} bytes");
}
