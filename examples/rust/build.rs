fn main() -> Result<(), rlx_aot_build::Error> {
    rlx_aot_build::compile("xor.json")
}
