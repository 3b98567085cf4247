/* test_model_reference.c - the checkpoints in data/models: as transformers wrote them, they bind,
 * and embedding and head give what it gives. The layers between are the session's tests.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/model.h"
#include "tests/support.h"

static const struct {
    const char *name;
    mr_dtype dtype;
} cases[] = {
    {"llama-bias", MR_DTYPE_F32},          {"llama-f16", MR_DTYPE_F16},
    {"llama-gqa-tied", MR_DTYPE_F32},      {"llama-headdim", MR_DTYPE_F32},
    {"llama-mha-untied", MR_DTYPE_F32},    {"llama3-rope-parameters", MR_DTYPE_F32},
    {"llama3-rope-scaling", MR_DTYPE_F32}, {"qwen2", MR_DTYPE_F32},
    {"qwen2-untied", MR_DTYPE_F32},        {"qwen3", MR_DTYPE_F32},
    {"qwen3-bf16", MR_DTYPE_BF16},         {"qwen3-long", MR_DTYPE_F32},
    {"qwen3-noprefix", MR_DTYPE_F32},      {"qwen3-sharded", MR_DTYPE_F32},
    {"qwen3-untied", MR_DTYPE_F32},
};
#define N_CASES (sizeof cases / sizeof *cases)

typedef struct {
    mr_model *model;
    mr_safetensors *reference;
    size_t n, C, V;
} opened;

static opened open_case(size_t i)
{
    opened o = {0};
    mr_error err = {0};
    char folder[128], path[160];
    const mr_model_options opt = MR_MODEL_OPTIONS_DEFAULT;
    snprintf(folder, sizeof folder, "data/models/%s", cases[i].name);
    snprintf(path, sizeof path, "%s/reference.safetensors", folder);
    print_message("%s\n", folder);
    assert_status(mr_model_open(&o.model, folder, &opt, &err), MR_OK, &err);
    assert_status(mr_safetensors_open(&o.reference, path, &err), MR_OK, &err);
    o.C = (size_t)o.model->config.C;
    o.V = (size_t)o.model->config.V;
    o.n = (size_t)mr_safetensors_find(o.reference, "input_ids")->shape[0];
    return o;
}

static void close_case(opened *o)
{
    mr_safetensors_close(o->reference);
    mr_model_close(o->model);
}

/* A copy: tensors in a file have no alignment. */
static float *floats_of(const opened *o, const char *name, size_t n)
{
    const mr_tensor *tensor = mr_safetensors_find(o->reference, name);
    float *copy = malloc(n * sizeof *copy);
    assert_non_null(tensor);
    assert_non_null(copy);
    assert_int_equal(tensor->bytes, n * sizeof *copy);
    memcpy(copy, tensor->data, tensor->bytes);
    return copy;
}

static void embeddings_are_those_of_transformers_bit_for_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        opened o = open_case(i);
        const mr_tensor *ids = mr_safetensors_find(o.reference, "input_ids");
        float *want = floats_of(&o, "hidden_states.0", o.n * o.C);
        float *got = malloc(o.C * sizeof *got);
        assert_non_null(got);
        for (size_t t = 0; t < o.n; t++) {
            int32_t id;
            memcpy(&id, (const char *)ids->data + t * sizeof id, sizeof id);
            mr_model_embed(o.model, id, got);
            assert_memory_equal(got, want + t * o.C, o.C * sizeof *got);
        }
        assert_int_equal(o.model->embedding.dtype, cases[i].dtype);
        assert_false(mr_model_is_untrained(o.model));
        free(want);
        free(got);
        close_case(&o);
    }
}

static void the_head_is_that_of_transformers(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        char last[64];
        opened o = open_case(i);
        snprintf(last, sizeof last, "hidden_states.%d", o.model->config.L);
        float *hidden = floats_of(&o, last, o.n * o.C);
        float *want = floats_of(&o, "logits", o.n * o.V);
        float *got = malloc(o.n * o.V * sizeof *got);
        assert_non_null(got);
        mr_model_logits(o.model, NULL, hidden, o.n, got);
        assert_floats_near(got, want, o.n * o.V, 1e-6);
        free(hidden);
        free(want);
        free(got);
        close_case(&o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embeddings_are_those_of_transformers_bit_for_bit),
        cmocka_unit_test(the_head_is_that_of_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
