//! A network of two layers that computes "exclusive or", compiled by `build.rs` into a typed module.

rlx_aot_runtime::include_model!("xor");

fn main() -> Result<(), xor::Error> {
    let mut model = xor::Model::new()?;
    *model.x_mut() = [0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0];
    model.run()?;
    for (pair, y) in model.x().chunks(2).zip(model.y()) {
        println!("{} xor {} = {y}", pair[0], pair[1]);
    }
    Ok(())
}
