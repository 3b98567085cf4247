/* test_training_forward.c - the training decoder's formulas against the engine's oracle, both in
 * double, where nothing but rounding may differ; and its margins for the prompts of data/mixed
 * against transformers, which ran each prompt alone and whole.
 *
 * test_decoder_forward.c holds it against sessions, in float.
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

#include "engine/oracle.h"
#include "tests/engine_support.h"
#include "tests/unit/decoder_fixture.h"
#include "tests/vision_support.h"

#define BOUND      1e-5
#define BOUND_F64  1e-12
#define CANDIDATES 32
#define WIDTH      32 /* of data/mixed */
#define REQUESTS   4

_Static_assert(MR_ROW_VECTOR == MR_ID_EMBED, "a prompt's ids are a pack's ids");

/* ---- The oracle ------------------------------------------------------------------------------ */

static double *widened(const float *values, size_t n)
{
    double *out = calloc(n + 1, sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < n; i++)
        out[i] = (double)values[i];
    return out;
}

/* The states of the last `own` rows; the rows before them are their prefix, none when own is all.
 */
static double check_oracle(const char *folder, size_t rows, size_t own)
{
    mr_error err = {0};
    mr_rng rng = mr_rng_seed(rows + own);
    mr_model *model = test_model_open(folder, MR_GEMM_SCORING, NULL);
    mr_input input = test_input_new(&rng, model, rows, 4);
    const size_t C = (size_t)model->config.C, n = own * C, skipped = (rows - own) * C;
    double *want = calloc(rows * C, sizeof *want), largest = 0, worst = 0;
    bool *wanted = calloc(rows, sizeof *wanted);
    assert_true(want && wanted);
    assert_status(mr_oracle_forward_f64(model, &input, want, NULL, &err), MR_OK, &err);

    decoder_fixture f;
    mr_decoder_f64 *run = NULL;
    size_t n_vectors, n_wanted;
    const mr_span spans[2] = {{0, rows - own, -1}, {rows - own, own, 0}}, whole = {0, rows, -1};
    const mr_pack pack = {.ids = input.ids,
                          .rows = rows,
                          .span = own < rows ? spans : &whole,
                          .n_spans = own < rows ? 2 : 1,
                          .wanted = wanted};
    memset(wanted + rows - own, true, own * sizeof *wanted);
    decoder_open(&f, folder);
    double *values = widened(f.values, f.weights.total);
    double *vectors = widened(input.embeds, input.n_embeds * C);
    assert_status(mr_pack_check(&pack, &f.config, &n_vectors, &n_wanted, &err), MR_OK, &err);
    assert_int_equal(n_vectors, input.n_embeds);
    assert_int_equal(n_wanted, own);
    assert_status(mr_decoder_new_f64(&run, &f.layout, &f.weights, mr_ops_select_f64(), rows, &err),
                  MR_OK, &err);
    const double *got = mr_decoder_forward_f64(run, values, &pack, vectors);
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(want[skipped + i]));
    for (size_t i = 0; i < n; i++) {
        const double error = fabs(got[i] - want[skipped + i]) / largest;
        if (!(error <= BOUND_F64))
            fail_msg("%s, %zu of %zu rows: row %zu, element %zu is %.17g, the oracle has %.17g",
                     folder, own, rows, i / C, i % C, got[i], want[skipped + i]);
        worst = fmax(worst, error);
    }
    mr_decoder_free_f64(run);
    decoder_close(&f);
    test_input_free(&input);
    mr_model_close(model);
    free(wanted);
    free(values);
    free(vectors);
    free(want);
    return worst;
}

static void in_double_the_states_are_those_of_the_oracle(void **state)
{
    static const char *const folders[] = {
        "data/models/llama-bias",          "data/models/llama-gqa-tied",
        "data/models/llama-headdim",       "data/models/llama-mha-untied",
        "data/models/llama3-rope-scaling", "data/models/qwen2",
        "data/models/qwen2-untied",        "data/models/qwen3",
        "data/models/qwen3-bf16",          "data/models/qwen3-untied",
        "data/training/decoder-llama",     "data/training/decoder-qwen2",
        "data/training/decoder-qwen3",     "data/mixed/llm",
    };
    double worst = 0;
    (void)state;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        worst = fmax(worst, check_oracle(folders[i], 1, 1));
        worst = fmax(worst, check_oracle(folders[i], 41, 41));
        worst = fmax(worst, check_oracle(folders[i], 41, 5));
    }
    /* More rows than the units that attention works in. */
    worst = fmax(worst, check_oracle("data/models/qwen3-long", 190, 190));
    worst = fmax(worst, check_oracle("data/models/qwen3-long", 190, 140));
    print_message("states: within %.2g of the oracle's largest\n", worst);
}

/* ---- Prompts of data/mixed ------------------------------------------------------------------- */

/* One request as a pack: its prefix, then its candidates. */
typedef struct {
    mr_pack pack;
    int32_t *ids;
    float *vectors;
    bool *wanted;
    mr_span span[CANDIDATES + 1];
    size_t n_vectors;
} request;

/* Appends "<name>.ids" and "<name>.vectors", which may be absent. */
static void append(request *r, const mr_safetensors *file, const char *name)
{
    char key[64];
    size_t n, n_values = 0, rows = r->pack.rows;
    snprintf(key, sizeof key, "%s.ids", name);
    int32_t *ids = test_reference_ids(file, key, &n);
    r->ids = realloc(r->ids, (rows + n) * sizeof *r->ids);
    r->wanted = realloc(r->wanted, (rows + n) * sizeof *r->wanted);
    assert_true(r->ids && r->wanted);
    memcpy(r->ids + rows, ids, n * sizeof *ids);
    memset(r->wanted + rows, false, n * sizeof *r->wanted);
    free(ids);
    snprintf(key, sizeof key, "%s.vectors", name);
    if (mr_safetensors_find(file, key)) {
        float *vectors = test_reference_floats(file, key, &n_values);
        r->vectors = realloc(r->vectors, (r->n_vectors * WIDTH + n_values) * sizeof *r->vectors);
        assert_non_null(r->vectors);
        memcpy(r->vectors + r->n_vectors * WIDTH, vectors, n_values * sizeof *vectors);
        r->n_vectors += n_values / WIDTH;
        free(vectors);
    }
    assert_true(r->pack.n_spans <= CANDIDATES);
    r->span[r->pack.n_spans] = (mr_span){rows, n, r->pack.n_spans ? 0 : -1};
    r->wanted[rows + n - 1] = r->pack.n_spans++ > 0;
    r->pack.rows += n;
}

static void read_request(request *r, const mr_safetensors *file, size_t index, size_t n_candidates)
{
    char name[48];
    *r = (request){0};
    snprintf(name, sizeof name, "%zu.prefix", index);
    append(r, file, name);
    for (size_t c = 0; c < n_candidates; c++) {
        snprintf(name, sizeof name, "%zu.suffix.%zu", index, c);
        append(r, file, name);
    }
    r->pack.ids = r->ids;
    r->pack.wanted = r->wanted;
    r->pack.span = r->span;
}

static void check_request(const decoder_fixture *f, const mr_ops_f32 *ops,
                          const mr_safetensors *file, size_t index, int32_t yes, int32_t no)
{
    char key[48], where[64];
    size_t n, n_vectors, n_wanted;
    mr_error err = {0};
    mr_decoder_f32 *run = NULL;
    request r;
    float margin[CANDIDATES];
    snprintf(where, sizeof where, "request %zu with %s", index, ops->name);
    snprintf(key, sizeof key, "%zu.margins", index);
    float *margins = test_reference_floats(file, key, &n);
    snprintf(key, sizeof key, "%zu.hidden_last", index);
    float *states = test_reference_floats(file, key, NULL);
    assert_in_range(n, 1, CANDIDATES);
    read_request(&r, file, index, n);
    assert_status(mr_pack_check(&r.pack, &f->config, &n_vectors, &n_wanted, &err), MR_OK, &err);
    assert_int_equal(n_vectors, r.n_vectors);
    assert_int_equal(n_wanted, n);
    assert_status(mr_decoder_new_f32(&run, &f->layout, &f->weights, ops, r.pack.rows, &err), MR_OK,
                  &err);
    const float *out = mr_decoder_forward_f32(run, f->values, &r.pack, r.vectors);
    decoder_check(where, "states", out, states, n * WIDTH, BOUND);
    mr_decoder_margins_f32(run, f->values, out, n, yes, no, margin);
    decoder_check(where, "margins", margin, margins, n, BOUND);
    mr_decoder_free_f32(run);
    free(r.ids);
    free(r.wanted);
    free(r.vectors);
    free(margins);
    free(states);
}

static void margins_behind_one_prefix_are_those_of_whole_prompts(void **state)
{
    (void)state;
    mr_error err = {0};
    json_t *json = NULL;
    decoder_fixture f;
    const mr_ops_f32 *sets[2];
    const size_t n_sets = decoder_sets(sets);
    mr_safetensors *file = test_reference_open("data/mixed/reference.safetensors");
    assert_status(mr_json_load_file(&json, "data/mixed/reference.json", MR_JSON_MAX_CONFIG, &err),
                  MR_OK, &err);
    const int32_t yes = (int32_t)json_integer_value(json_object_get(json, "id_yes"));
    const int32_t no = (int32_t)json_integer_value(json_object_get(json, "id_no"));
    assert_true(yes != no);
    assert_int_equal(json_array_size(json_object_get(json, "requests")), REQUESTS);
    decoder_open(&f, "data/mixed/llm");
    assert_int_equal(f.config.C, WIDTH);
    for (size_t i = 0; i < REQUESTS; i++)
        for (size_t s = 0; s < n_sets; s++)
            check_request(&f, sets[s], file, i, yes, no);
    decoder_close(&f);
    json_decref(json);
    mr_safetensors_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_double_the_states_are_those_of_the_oracle),
        cmocka_unit_test(margins_behind_one_prefix_are_those_of_whole_prompts),
    };
    return cmocka_run_group_tests_name("training forward", tests, NULL, NULL);
}
