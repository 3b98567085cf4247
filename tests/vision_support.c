/* vision_support.c - see vision_support.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "tests/support.h"
#include "tests/vision_support.h"

mr_safetensors *test_reference_open(const char *path)
{
    mr_safetensors *file = NULL;
    mr_error err = {0};
    assert_status(mr_safetensors_open(&file, path, &err), MR_OK, &err);
    return file;
}

const mr_tensor *test_reference_find(const mr_safetensors *file, const char *name)
{
    const mr_tensor *tensor = mr_safetensors_find(file, name);
    if (!tensor)
        fail_msg("%s: no tensor '%s'", mr_safetensors_name(file), name);
    return tensor;
}

float *test_reference_floats(const mr_safetensors *file, const char *name, size_t *n)
{
    const mr_tensor *tensor = test_reference_find(file, name);
    const size_t count = tensor->bytes / mr_dtype_size(tensor->dtype);
    float *values = malloc((count + 1) * sizeof *values);
    assert_non_null(values);
    mr_dtype_to_f32(values, tensor->data, tensor->dtype, count);
    if (n)
        *n = count;
    return values;
}

int32_t *test_reference_ids(const mr_safetensors *file, const char *name, size_t *n)
{
    const mr_tensor *tensor = test_reference_find(file, name);
    assert_int_equal(tensor->dtype, MR_DTYPE_I32);
    int32_t *ids = malloc(tensor->bytes + 1);
    assert_non_null(ids);
    memcpy(ids, tensor->data, tensor->bytes);
    *n = tensor->bytes / sizeof *ids;
    return ids;
}

static void write_weights(const char *folder, const char *original, const test_variant *variant)
{
    mr_safetensors *file = test_reference_open(original);
    mr_error err = {0};
    mr_arena arena = {0};
    const size_t n = mr_safetensors_count(file);
    mr_tensor *tensors = mr_arena_array(&arena, mr_tensor, n + 1);
    size_t kept = 0;
    unsigned char *spoilt = NULL;
    for (size_t i = 0; i < n; i++) {
        mr_tensor tensor = *mr_safetensors_at(file, i);
        if (variant->drop && strcmp(tensor.name, variant->drop) == 0)
            continue;
        if (variant->transpose && strcmp(tensor.name, variant->transpose) == 0) {
            const int64_t first = tensor.shape[0];
            tensor.shape[0] = tensor.shape[tensor.n_dims - 1];
            tensor.shape[tensor.n_dims - 1] = first;
        }
        if (variant->spoil && strcmp(tensor.name, variant->spoil) == 0) {
            const float bad = NAN;
            spoilt = mr_arena_alloc(&arena, tensor.bytes, 1, 16);
            memcpy(spoilt, tensor.data, tensor.bytes);
            mr_dtype_from_f32(spoilt, tensor.dtype, &bad, 1);
            tensor.data = spoilt;
        }
        if (variant->prefix &&
            strncmp(tensor.name, variant->prefix, strlen(variant->prefix)) == 0) {
            char name[200];
            snprintf(name, sizeof name, "%s%s", variant->new_prefix,
                     tensor.name + strlen(variant->prefix));
            tensor.name = mr_arena_strndup(&arena, name, strlen(name));
        }
        tensors[kept++] = tensor;
    }
    if (variant->add_from) {
        tensors[kept] = *test_reference_find(file, variant->add_from);
        tensors[kept++].name = variant->add_as;
    }
    if ((variant->drop && kept == n) || (variant->spoil && !spoilt))
        fail_msg("%s: a variant that changes nothing", original);
    assert_status(
        mr_safetensors_write(test_path(folder, "model.safetensors"), tensors, kept, NULL, &err),
        MR_OK, &err);
    mr_arena_done(&arena);
    mr_safetensors_close(file);
}

static void write_config(const char *folder, const char *original, const test_variant *variant)
{
    size_t len;
    char *text = test_file_read(test_path(original, "config.json"), &len);
    if (!variant->config) {
        test_file_write(test_path(folder, "config.json"), text, len);
        free(text);
        return;
    }
    char *at = strstr(text, variant->config);
    if (!at)
        fail_msg("%s/config.json: no '%s'", original, variant->config);
    const size_t before = (size_t)(at - text), old = strlen(variant->config);
    const size_t other = strlen(variant->config_other);
    char *changed = malloc(len + other + 1);
    assert_non_null(changed);
    memcpy(changed, text, before);
    memcpy(changed + before, variant->config_other, other);
    memcpy(changed + before + other, at + old, len - before - old);
    test_file_write(test_path(folder, "config.json"), changed, len - old + other);
    free(changed);
    free(text);
}

void test_variant_write(const char *folder, const char *original, const test_variant *variant)
{
    static const char *const others[] = {"tokenizer.json", "generation_config.json",
                                         "preprocessor_config.json"};
    mr_error err = {0};
    assert_status(mr_file_make_folders(folder, &err), MR_OK, &err);
    write_weights(folder, original, variant);
    write_config(folder, original, variant);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (mr_file_exists(test_path(original, others[i])))
            assert_status(
                mr_file_copy(test_path(original, others[i]), test_path(folder, others[i]), &err),
                MR_OK, &err);
    }
}
