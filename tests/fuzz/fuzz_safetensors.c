/* fuzz_safetensors.c - whatever a file holds, it is refused or every tensor in it can be read.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/safetensors.h"
#include "tests/fuzz/fuzz.h"

/* So that reading is not optimised away. */
static volatile unsigned sink;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mr_error err = {0};
    mr_safetensors *file = NULL;
    if (mr_safetensors_parse(&file, "fuzz", data, size, &err) != MR_OK) {
        if (file || err.message[0] == '\0')
            abort();
        return 0;
    }
    size_t bytes = 0;
    for (size_t i = 0; i < mr_safetensors_count(file); i++) {
        const mr_tensor *tensor = mr_safetensors_at(file, i);
        mr_tensor found;
        if (mr_safetensors_find(file, tensor->name) != tensor)
            abort();
        if (mr_safetensors_need(file, tensor->name, tensor->n_dims, tensor->shape, &found, &err) !=
                MR_OK &&
            mr_dtype_is_weight(tensor->dtype))
            abort();
        for (size_t k = 0; k < tensor->bytes; k++)
            sink += ((const uint8_t *)tensor->data)[k];
        bytes += tensor->bytes;
    }
    if (bytes > size)
        abort();
    (void)mr_safetensors_metadata(file, "format");
    mr_safetensors_close(file);
    return 0;
}
