//! The same from Rust, by a module that the compiler of this build made from `build.rs`.

use super::*;

/// Tensors that the program borrows to the model or shares with it, a state, a second memory, guards.
#[test]
fn rust_programs() {
    let folder = folder("rust");
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("runtime");
    let crates = crates.display();
    std::fs::create_dir(folder.join("src")).unwrap();
    write(&folder, "m.json", accumulator("m", 3, "v"));
    write(&folder, "inner.json", accumulator("inner", 3, "v"));
    let manifest = format!(
        "[package]\nname = \"program\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n\
         rlx-aot-runtime = {{ path = \"{crates}/rust\" }}\n[build-dependencies]\n\
         rlx-aot-build = {{ path = \"{crates}/build\" }}\n"
    );
    write(&folder, "Cargo.toml", manifest);
    let build = r#"
fn main() -> Result<(), rlx_aot_build::Error> {
    let outside = rlx_aot_build::Builder::new("m.json").flag("--outside=inputs,outputs,params");
    outside.flag("--state=sum=sum1").flag("--region=fast=8K,keep").compile()?;
    rlx_aot_build::Builder::new("inner.json").flag("--guard=32").compile()
}
"#;
    write(&folder, "build.rs", build);
    let main = r#"#![deny(warnings)]
#![deny(unsafe_code)]
//! A test.
use std::sync::Arc;
rlx_aot_runtime::include_model!("m");
rlx_aot_runtime::include_model!("inner");

fn main() -> Result<(), m::Error> {
    let mut model = m::Model::new()?;
    let (x, w) = ([1.0, 2.0, 3.0], [0.5; 3]);
    let mut y = [0.0; 3];
    assert_eq!(model.bind().x(&x).y(&mut y).run(), Err(m::Error::NotBound));
    model.share_v(Arc::from([0.0f32; 3]))?;
    for _ in 0..2 {
        model.bind().x(&x).w(&w).y(&mut y).run()?;
    }
    println!("{y:?} {:.0?}", model.sum1());
    model.reset();
    // Another parameter is prepared, in the second memory too.
    model.share_v(Arc::from([1.0f32, 0.0, 0.0]))?;
    model.share_w(Arc::from([0.0f32; 3]))?;
    model.bind().x(&x).y(&mut y).run()?;
    println!("{y:?} {:.0?}", model.sum1());
    let mut inner = inner::Model::new()?;
    *inner.x_mut() = x;
    inner.run()?;
    inner.inner().check_guards()?;
    println!("{:?}", inner.sum1());
    Ok(())
}
"#;
    write(&folder, "src/main.rs", main);
    let run = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--offline"])
        .current_dir(&folder)
        .env("RLX_AOT", COMPILER)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{}: {errors}", run.status);
    let expected = "[0.5, 1.0, 1.5] [53, 87, 143]\n[1.0, 1.0, 1.0] [43, 43, 43]\n\
                    [16.0, 16.0, 16.0]\n";
    assert_eq!(String::from_utf8_lossy(&run.stdout), expected, "{errors}");
}
