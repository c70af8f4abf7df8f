//! What a C program needs beside the object: the runtime's source and a `main.c` that compiles as it
//! is.

use super::contract::Contract;
use std::fmt::Write;

/// The runtime's header.
pub const RUNTIME_HEADER: &str = include_str!("../../runtime/rlx_rt.h");

/// The runtime's source.
pub const RUNTIME_SOURCE: &str = include_str!("../../runtime/rlx_rt.c");

/// A program that runs the model once on zeros and prints the first values of its outputs as bytes.
/// `weights`: the name of the file with its weights, if they are in one.
pub fn main_c(contract: &Contract, weights: Option<&str>) -> String {
    let prefix = &contract.prefix;
    let mut c = format!(
        "/* Runs {prefix} once. Build and start it with

       cc -O2 -o {prefix} main.c rlx_rt.c {prefix}.o && ./{prefix}
*/
#include <stdio.h>
#include <stdlib.h>

#include \"rlx_rt.h\"

#include \"{prefix}.h\"

static int failed(const char *what, int32_t status) {{
  fprintf(stderr, \"%s: %s\\n\", what, rlx_status_string(status));
  return 1;
}}

int main(void) {{
  rlx_instance model;
  int32_t status = rlx_create(&model, &{prefix}_model);
  if (status != RLX_OK)
    return failed(\"create\", status);
"
    );
    if let Some(file) = weights {
        let _ = write!(
            c,
            "  status = rlx_map_weights(&model, \"{file}\");
  if (status != RLX_OK)
    return failed(\"{file}\", status);
"
        );
    }
    let tensors = [&contract.inputs, &contract.params, &contract.outputs];
    if tensors.into_iter().flatten().any(|tensor| tensor.pointer().is_some()) {
        c.push_str("\n  /* What is outside of the arena is memory of the program: yours, in place of this. */\n");
        for (kind, list) in [("input", "inputs"), ("param", "params"), ("output", "outputs")] {
            let _ = write!(
                c,
                "  for (uint32_t i = 0; i < {prefix}_model.{kind}_count; i++) {{
    const rlx_tensor *tensor = &{prefix}_model.{list}[i];
    if (tensor->offset & RLX_OUTSIDE) {{
      status = rlx_bind_{kind}(&model, i, calloc(1, (size_t)tensor->bytes), tensor->bytes);
      if (status != RLX_OK)
        return failed(tensor->name, status);
    }}
  }}
"
            );
        }
    }
    let _ = write!(
        c,
        "
  /* The inputs are zero until you set them:
     rlx_set_input(&model, index, data, bytes), or through the pointer of rlx_input. */
  status = rlx_run(&model);
  if (status != RLX_OK)
    return failed(\"run\", status);

  for (uint32_t i = 0; i < {prefix}_model.output_count; i++) {{
    const rlx_tensor *tensor = &{prefix}_model.outputs[i];
    const void *data = NULL;
    status = rlx_output(&model, i, &data);
    if (status != RLX_OK)
      return failed(tensor->name, status);
    printf(\"%s:\", tensor->name);
    for (uint64_t k = 0; k < 10; k++) {{
      if (tensor->dtype == RLX_F32 && k < tensor->bytes / sizeof(float))
        printf(\" %g\", (double)((const float *)data)[k]);
      else if (tensor->dtype != RLX_F32 && k < tensor->bytes)
        printf(\" %02x\", ((const unsigned char *)data)[k]);
    }}
    printf(\"\\n\");
  }}
  return rlx_destroy(&model);
}}
"
    );
    c
}
