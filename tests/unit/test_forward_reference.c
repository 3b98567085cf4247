/* test_forward_reference.c - hidden states and logits against Hugging Face transformers, and
 * against the oracle in double.
 *
 * Reference data: data/models/<case>, see data/README.md. The bound is the project's: of the
 * largest absolute value of a tensor, 1e-5.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/oracle.h"
#include "engine/safetensors.h"
#include "tests/engine_support.h"
#include "tests/support.h"

#define BOUND 1e-5
/* transformers run wholly in bf16 rounds every activation to 8 bits; we round weights only. */
#define BF16_BOUND 0.05

static const char *const cases[] = {
    "llama-mha-untied", "llama-gqa-tied", "llama3-rope-scaling", "llama3-rope-parameters",
    "llama-headdim",    "llama-bias",     "llama-f16",           "qwen2",
    "qwen2-untied",     "qwen3",          "qwen3-untied",        "qwen3-sharded",
    "qwen3-bf16",       "qwen3-noprefix", "qwen3-long",
};
#define N_CASES (sizeof cases / sizeof *cases)

/* A case's files, and what a run of ours gave. */
typedef struct {
    char folder[128];
    mr_safetensors *reference;
    mr_model *model;
    size_t n, C, V, L;
    float *layers; /* [L + 1][n][C], gathered by the tap */
    size_t filled[16];
} reference_run;

static const float *tensor_f32(const reference_run *r, const char *name, size_t rows,
                               size_t columns)
{
    const mr_tensor *tensor = mr_safetensors_find(r->reference, name);
    if (!tensor) {
        print_error("%s: no tensor '%s'\n", r->folder, name);
        fail();
        return NULL;
    }
    assert_int_equal(tensor->dtype, MR_DTYPE_F32);
    assert_int_equal(tensor->bytes, rows * columns * sizeof(float));
    assert_int_equal((uintptr_t)tensor->data % _Alignof(float), 0);
    return tensor->data;
}

static const int32_t *tensor_i32(const reference_run *r, const char *name, size_t *n)
{
    const mr_tensor *tensor = mr_safetensors_find(r->reference, name);
    assert_non_null(tensor);
    assert_int_equal(tensor->dtype, MR_DTYPE_I32);
    assert_int_equal((uintptr_t)tensor->data % _Alignof(int32_t), 0);
    *n = tensor->bytes / sizeof(int32_t);
    return tensor->data;
}

static void near(const reference_run *r, const char *what, const char *how, const float *got,
                 const float *want, size_t n, double bound)
{
    const double error = test_relative_error(got, want, n);
    if (error <= bound)
        return;
    print_error("%s, %s, %s: off by %.3g of the largest value, at most %.3g allowed\n", r->folder,
                how, what, error, bound);
    fail();
}

static void collect(void *context, int layer, const float *rows, size_t n_rows)
{
    reference_run *r = context;
    memcpy(r->layers + ((size_t)layer * r->n + r->filled[layer]) * r->C, rows,
           n_rows * r->C * sizeof *rows);
    r->filled[layer] += n_rows;
}

static void check_hidden_states(const reference_run *r, const char *how, const float *layers,
                                const float *hidden)
{
    char name[48];
    for (size_t l = 0; l < r->L; l++) {
        snprintf(name, sizeof name, "hidden_states.%zu", l);
        near(r, name, how, layers + l * r->n * r->C, tensor_f32(r, name, r->n, r->C), r->n * r->C,
             BOUND);
    }
    near(r, "pre_norm", how, layers + r->L * r->n * r->C, tensor_f32(r, "pre_norm", r->n, r->C),
         r->n * r->C, BOUND);
    snprintf(name, sizeof name, "hidden_states.%zu", r->L);
    near(r, name, how, hidden, tensor_f32(r, name, r->n, r->C), r->n * r->C, BOUND);
}

/* Both runs of the reference through a session whose passes take max_rows. */
static void check_session(reference_run *r, const char *how, size_t max_rows, mr_pool *pool)
{
    mr_error err = {0};
    size_t n_ids;
    const int32_t *ids = tensor_i32(r, "input_ids", &n_ids);
    float *hidden = malloc(r->n * r->C * sizeof *hidden);
    float *logits = malloc(r->n * r->V * sizeof *logits);
    int32_t *slots = malloc(r->n * sizeof *slots);
    assert_true(hidden && logits && slots);
    mr_session *session = test_session_new(r->model, r->n, max_rows, 0, pool);

    mr_input input = {.ids = ids, .n = r->n};
    mr_batch batch = {.prefix = &input, .prefix_want = MR_WANT_ALL};
    memset(r->filled, 0, sizeof r->filled);
    mr_session_set_tap(session, collect, r);
    assert_status(mr_session_run(session, &batch, hidden, &err), MR_OK, &err);
    check_hidden_states(r, how, r->layers, hidden);
    mr_model_logits(r->model, pool, hidden, r->n, logits);
    near(r, "logits", how, logits, tensor_f32(r, "logits", r->n, r->V), r->n * r->V, BOUND);
    if (mr_safetensors_find(r->reference, "logits_bf16")) {
        near(r, "hidden_last_bf16", how, hidden, tensor_f32(r, "hidden_last_bf16", r->n, r->C),
             r->n * r->C, BF16_BOUND);
        near(r, "logits_bf16", how, logits, tensor_f32(r, "logits_bf16", r->n, r->V), r->n * r->V,
             BF16_BOUND);
    }

    size_t n_mask, n_slots = 0;
    const int32_t *mask = tensor_i32(r, "embeds_mask", &n_mask);
    assert_int_equal(n_mask, r->n);
    for (size_t i = 0; i < r->n; i++) {
        slots[i] = mask[i] ? MR_ID_EMBED : ids[i];
        n_slots += mask[i] != 0;
    }
    assert_in_range(n_slots, 1, r->n);
    input = (mr_input){slots, r->n, tensor_f32(r, "embeds_vectors", n_slots, r->C), n_slots};
    float *embeds = r->layers;
    assert_status(mr_input_embeds(r->model, &input, embeds, &err), MR_OK, &err);
    assert_memory_equal(embeds, tensor_f32(r, "inputs_embeds", r->n, r->C),
                        r->n * r->C * sizeof *embeds);

    mr_session_set_tap(session, NULL, NULL);
    mr_session_reset(session);
    assert_status(mr_session_run(session, &batch, hidden, &err), MR_OK, &err);
    near(r, "embeds_hidden_last", how, hidden, tensor_f32(r, "embeds_hidden_last", r->n, r->C),
         r->n * r->C, BOUND);
    mr_model_logits(r->model, pool, hidden, r->n, logits);
    near(r, "embeds_logits", how, logits, tensor_f32(r, "embeds_logits", r->n, r->V), r->n * r->V,
         BOUND);

    mr_session_free(session);
    free(slots);
    free(logits);
    free(hidden);
}

static void open_case(reference_run *r, const char *name, mr_gemm_kind gemm,
                      const mr_kernels *kernels)
{
    char path[160];
    mr_error err = {0};
    *r = (reference_run){0};
    snprintf(r->folder, sizeof r->folder, "data/models/%s", name);
    snprintf(path, sizeof path, "%s/reference.safetensors", r->folder);
    assert_status(mr_safetensors_open(&r->reference, path, &err), MR_OK, &err);
    r->model = test_model_open(r->folder, gemm, kernels);
    (void)tensor_i32(r, "input_ids", &r->n);
    r->C = (size_t)r->model->config.C;
    r->V = (size_t)r->model->config.V;
    r->L = (size_t)r->model->config.L;
    assert_in_range(r->L, 1, 15);
    r->layers = malloc((r->L + 1) * r->n * r->C * sizeof *r->layers);
    assert_non_null(r->layers);
}

static void close_case(reference_run *r)
{
    free(r->layers);
    mr_model_close(r->model);
    mr_safetensors_close(r->reference);
}

/* Every kernel set, both back ends, one pass or several, one thread or two. */
static void every_family_gives_the_hidden_states_and_logits_of_transformers(void **state)
{
    (void)state;
    const mr_kernels *list[MR_KERNELS_MAX];
    const size_t n_sets = mr_kernels_available(list);
    mr_pool *pool = NULL;
    mr_error err = {0};
    assert_status(mr_pool_new(&pool, 2, &err), MR_OK, &err);

    for (size_t c = 0; c < N_CASES; c++) {
        for (size_t set = 0; set < n_sets; set++) {
            for (int gemm = 0; gemm < MR_GEMM_COUNT; gemm++) {
                reference_run r;
                char how[64];
                open_case(&r, cases[c], (mr_gemm_kind)gemm, list[set]);
                snprintf(how, sizeof how, "%s/%s", mr_gemm_name((mr_gemm_kind)gemm),
                         list[set]->name);
                check_session(&r, how, r.n, NULL);
                check_session(&r, how, 7, pool);
                close_case(&r);
            }
        }
    }
    mr_pool_free(pool);
}

static void the_oracle_gives_the_hidden_states_of_transformers_too(void **state)
{
    (void)state;
    for (size_t c = 0; c < N_CASES; c++) {
        reference_run r;
        mr_error err = {0};
        open_case(&r, cases[c], MR_GEMM_SCORING, NULL);
        const size_t n_layers = (r.L + 1) * r.n * r.C, n = r.n * r.C;
        float *hidden = malloc(n * sizeof *hidden);
        double *hidden64 = malloc(n * sizeof *hidden64);
        double *layers64 = malloc(n_layers * sizeof *layers64);
        assert_true(hidden && hidden64 && layers64);
        size_t n_ids;
        const mr_input input = {.ids = tensor_i32(&r, "input_ids", &n_ids), .n = r.n};

        assert_status(mr_oracle_forward_f32(r.model, &input, hidden, r.layers, &err), MR_OK, &err);
        check_hidden_states(&r, "oracle f32", r.layers, hidden);

        assert_status(mr_oracle_forward_f64(r.model, &input, hidden64, layers64, &err), MR_OK,
                      &err);
        for (size_t i = 0; i < n; i++)
            hidden[i] = (float)hidden64[i];
        for (size_t i = 0; i < n_layers; i++)
            r.layers[i] = (float)layers64[i];
        check_hidden_states(&r, "oracle f64", r.layers, hidden);
        free(hidden);
        free(hidden64);
        free(layers64);
        close_case(&r);
    }
}

/* Sizes that the reference folders do not have, with vectors among the ids. */
static void random_models_of_every_shape_agree_with_the_oracle(void **state)
{
    (void)state;
    const mr_kernels *list[MR_KERNELS_MAX];
    const size_t n_sets = mr_kernels_available(list);
    enum { N = 41 };
    for (size_t s = 0; s < test_n_shapes; s++) {
        char *folder = test_folder_new();
        test_model_write(folder, &test_shapes[s]);
        for (size_t set = 0; set < n_sets; set++) {
            for (int gemm = 0; gemm < MR_GEMM_COUNT; gemm++) {
                mr_error err = {0};
                mr_rng rng = mr_rng_seed(31);
                mr_model *model = test_model_open(folder, (mr_gemm_kind)gemm, list[set]);
                const size_t n = N * (size_t)model->config.C;
                mr_input input = test_input_new(&rng, model, N, 3);
                mr_batch batch = {.prefix = &input, .prefix_want = MR_WANT_ALL};
                mr_session *session = test_session_new(model, N, 16, 0, NULL);
                float *got = malloc(n * sizeof *got), *want = malloc(n * sizeof *want);
                double *want64 = malloc(n * sizeof *want64);
                assert_true(got && want && want64);
                assert_status(mr_session_run(session, &batch, got, &err), MR_OK, &err);
                assert_status(mr_oracle_forward_f64(model, &input, want64, NULL, &err), MR_OK,
                              &err);
                for (size_t i = 0; i < n; i++)
                    want[i] = (float)want64[i];
                const double error = test_relative_error(got, want, n);
                if (!(error <= BOUND)) {
                    print_error("%s, %s/%s: off by %.3g\n", test_shapes[s].name,
                                mr_gemm_name((mr_gemm_kind)gemm), list[set]->name, error);
                    fail();
                }
                free(got);
                free(want);
                free(want64);
                test_input_free(&input);
                mr_session_free(session);
                mr_model_close(model);
            }
        }
        test_folder_free(folder);
    }
}

static void the_oracle_refuses_what_sessions_refuse(void **state)
{
    (void)state;
    mr_error err = {0};
    float hidden[64];
    const int32_t ids[] = {1, 100000};
    const mr_input input = {.ids = ids, .n = 2};
    mr_model *model = test_model_open("data/models/qwen3", MR_GEMM_SCORING, NULL);
    assert_status(mr_oracle_forward_f32(model, &input, hidden, NULL, &err), MR_INVALID, &err);
    assert_contains(err.message, "id 100000 at position 1");
    mr_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_gives_the_hidden_states_and_logits_of_transformers),
        cmocka_unit_test(the_oracle_gives_the_hidden_states_of_transformers_too),
        cmocka_unit_test(random_models_of_every_shape_agree_with_the_oracle),
        cmocka_unit_test(the_oracle_refuses_what_sessions_refuse),
    };
    return cmocka_run_group_tests_name("forward against references", tests, NULL, NULL);
}
