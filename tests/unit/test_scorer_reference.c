/* test_scorer_reference.c - fusion and scoring against Hugging Face transformers: prompts of ids
 * and vectors (tests/data/README.md, "mixed/"), each run alone and whole there, here as suffixes of
 * one prefix.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/ranker_support.h"
#include "tests/support.h"

#define BOUND 1e-5
#define MOST  32 /* candidates of a request */

typedef struct {
    json_t *json;
    mr_safetensors *file;
    mr_bundle *bundle; /* for its model and tokenizer */
    char *folder;
    size_t C, V;
} reference;

static int set_up(void **state)
{
    static reference r;
    mr_error err = {0};
    r.folder = test_folder_new();
    const char *path = test_path(r.folder, "b");
    assert_status(mr_json_load_file(&r.json, "data/mixed/reference.json", MR_JSON_MAX_CONFIG, &err),
                  MR_OK, &err);
    assert_status(mr_safetensors_open(&r.file, "data/mixed/reference.safetensors", &err), MR_OK,
                  &err);
    assert_status(test_bundle_make(path, test_mixed_spec(1), NULL, &err), MR_OK, &err);
    r.bundle = test_bundle_open(path, 2);
    r.C = (size_t)r.bundle->llm->config.C;
    r.V = (size_t)r.bundle->llm->config.V;
    *state = &r;
    return 0;
}

static int tear_down(void **state)
{
    reference *r = *state;
    json_decref(r->json);
    mr_safetensors_close(r->file);
    mr_bundle_close(r->bundle);
    test_folder_free(r->folder);
    return 0;
}

static size_t n_requests(const reference *r)
{
    return json_array_size(json_object_get(r->json, "requests"));
}

static const json_t *request_at(const reference *r, size_t i)
{
    return json_array_get(json_object_get(r->json, "requests"), i);
}

static const json_t *candidate_at(const json_t *request, size_t i)
{
    return json_array_get(json_object_get(request, "candidates"), i);
}

static size_t n_candidates(const json_t *request)
{
    return json_array_size(json_object_get(request, "candidates"));
}

/* The ids and vectors under "<name>.ids" and "<name>.vectors"; release with free_input. */
static mr_input read_input(const reference *r, const char *name)
{
    char full[64];
    size_t n;
    snprintf(full, sizeof full, "%s.ids", name);
    const mr_tensor *ids = mr_safetensors_find(r->file, full);
    assert_non_null(ids);
    assert_int_equal(ids->dtype, MR_DTYPE_I32);
    int32_t *copy = malloc(ids->bytes + 1);
    assert_non_null(copy);
    memcpy(copy, ids->data, ids->bytes);
    snprintf(full, sizeof full, "%s.vectors", name);
    float *vectors = test_tensor(r->file, full, &n);
    return (mr_input){copy, ids->bytes / sizeof *copy, vectors, n / r->C};
}

static void free_input(mr_input *input)
{
    free((void *)(uintptr_t)input->ids);
    free((void *)(uintptr_t)input->embeds);
}

/* ---- the scatter ----------------------------------------------------------------------------- */

static void check_scatter(const reference *r, const char *name)
{
    mr_error err = {0};
    mr_input input = read_input(r, name);
    float *got = calloc(input.n * r->C + 1, sizeof *got);
    float *row = calloc(r->C, sizeof *row);
    assert_true(got && row);
    assert_status(mr_input_embeds(r->bundle->llm, &input, got, &err), MR_OK, &err);
    size_t next = 0;
    for (size_t i = 0; i < input.n; i++) {
        const float *want = row;
        if (input.ids[i] == -1)
            want = input.embeds + next++ * r->C;
        else
            mr_dtype_to_f32(
                row, (const char *)r->bundle->llm->embedding.data + (size_t)input.ids[i] * r->C * 2,
                MR_DTYPE_BF16, r->C);
        if (memcmp(got + i * r->C, want, r->C * sizeof *got) != 0)
            fail_msg("%s: position %zu (id %d) differs", name, i, (int)input.ids[i]);
    }
    assert_int_equal(next, input.n_embeds);
    free(got);
    free(row);
    free_input(&input);
}

static void the_scatter_is_bit_for_bit_masked_scatters(void **state)
{
    const reference *r = *state;
    assert_int_equal(r->bundle->llm->embedding.dtype, MR_DTYPE_BF16);
    for (size_t i = 0; i < n_requests(r); i++) {
        char name[64];
        snprintf(name, sizeof name, "%zu.prefix", i);
        check_scatter(r, name);
        for (size_t c = 0; c < n_candidates(request_at(r, i)); c++) {
            snprintf(name, sizeof name, "%zu.suffix.%zu", i, c);
            check_scatter(r, name);
        }
    }
}

/* ---- ids and vectors as they are, through a session ------------------------------------------ */

static void check_request(const reference *r, size_t index, double *worst)
{
    char name[64];
    size_t n;
    const json_t *request = request_at(r, index);
    const size_t N = n_candidates(request);
    mr_input prefix, suffixes[MOST];
    mr_error err = {0};
    mr_session *session = NULL;
    const mr_session_options opt = {.max_prefix = 512, .max_rows = 64, .pool = r->bundle->pool};
    assert_true(N <= MOST);
    snprintf(name, sizeof name, "%zu.prefix", index);
    prefix = read_input(r, name);
    for (size_t c = 0; c < N; c++) {
        snprintf(name, sizeof name, "%zu.suffix.%zu", index, c);
        suffixes[c] = read_input(r, name);
    }
    float *hidden = calloc(N * r->C, sizeof *hidden), *logits = calloc(N * r->V, sizeof *logits);
    float margins[MOST];
    const mr_batch batch = {.prefix = &prefix,
                            .suffixes = suffixes,
                            .n_suffixes = N,
                            .suffix_want = MR_WANT_LAST,
                            .n_last = 1};
    assert_true(hidden && logits);
    assert_status(mr_session_new(&session, r->bundle->llm, &opt, &err), MR_OK, &err);
    assert_status(mr_session_run(session, &batch, hidden, &err), MR_OK, &err);
    mr_model_logits(r->bundle->llm, r->bundle->pool, hidden, N, logits);
    for (size_t c = 0; c < N; c++) {
        float two[2];
        const int32_t labels[2] = {r->bundle->yes_id, r->bundle->no_id};
        mr_model_label_logits(r->bundle->llm, hidden + c * r->C, labels, 2, two);
        assert_memory_equal(&two[0], &logits[c * r->V + (size_t)labels[0]], sizeof *two);
        margins[c] = two[0] - two[1];
    }

    snprintf(name, sizeof name, "%zu.hidden_last", index);
    float *want = test_tensor(r->file, name, &n);
    assert_int_equal(n, N * r->C);
    assert_floats_near(hidden, want, n, BOUND);
    free(want);
    snprintf(name, sizeof name, "%zu.logits", index);
    want = test_tensor(r->file, name, &n);
    assert_int_equal(n, N * r->V);
    assert_floats_near(logits, want, n, BOUND);
    free(want);
    snprintf(name, sizeof name, "%zu.margins", index);
    want = test_tensor(r->file, name, &n);
    assert_int_equal(n, N);
    assert_floats_near(margins, want, n, BOUND);
    const double error = test_relative_error(margins, want, n);
    *worst = error > *worst ? error : *worst;
    free(want);

    mr_session_free(session);
    free(hidden);
    free(logits);
    free_input(&prefix);
    for (size_t c = 0; c < N; c++)
        free_input(&suffixes[c]);
}

static void every_margin_is_that_of_transformers(void **state)
{
    const reference *r = *state;
    double worst = 0;
    assert_int_equal(r->bundle->yes_id, json_integer_value(json_object_get(r->json, "id_yes")));
    assert_int_equal(r->bundle->no_id, json_integer_value(json_object_get(r->json, "id_no")));
    assert_true(n_requests(r) >= 4);
    for (size_t i = 0; i < n_requests(r); i++)
        check_request(r, i, &worst);
    print_message("margins: worst difference %.2g of the largest\n", worst);
}

/* ---- the same prompts, from templates, through the scorer ------------------------------------ */

/* Segments of the reference as a template: texts as fields, for they were tokenised as such. NULL
 * when a kind of slot would come twice, which templates do not have. */
static json_t *template_of(const json_t *segments, const char *slot, mr_field *fields, size_t *n,
                           char names[][8])
{
    json_t *out = json_array();
    size_t slots = 0;
    *n = 0;
    for (size_t i = 0; i < json_array_size(segments); i++) {
        json_t *segment = json_array_get(segments, i);
        if (json_is_string(segment)) {
            snprintf(names[*n], 8, "f%zu", *n);
            fields[*n] = (mr_field){mr_str_of(names[*n]), mr_str_of(json_string_value(segment))};
            json_array_append_new(out, json_pack("{s:s}", "field", names[(*n)++]));
        } else if (json_object_get(segment, "vectors")) {
            slots++;
            json_array_append_new(out, json_pack("{s:s}", "slot", slot));
        } else {
            json_array_append(out, segment);
        }
    }
    if (slots > 1) {
        json_decref(out);
        return NULL;
    }
    return out;
}

/* Scores one candidate with a bundle made for it; false when no template gives its prompt. */
static bool check_through_scorer(const reference *r, size_t index, size_t c, double *margin)
{
    char name[64], prefix_names[8][8], suffix_names[8][8];
    mr_field prefix_fields[8], suffix_fields[8];
    size_t n_prefix, n_suffix;
    mr_error err = {0};
    const json_t *request = request_at(r, index);
    const json_t *candidate = candidate_at(request, c);
    json_t *prefix = template_of(json_object_get(json_object_get(request, "prefix"), "segments"),
                                 "user", prefix_fields, &n_prefix, prefix_names);
    json_t *suffix = template_of(json_object_get(candidate, "segments"), "item", suffix_fields,
                                 &n_suffix, suffix_names);
    const bool mixed = json_integer_value(json_object_get(candidate, "n_vectors")) > 0;
    if (!prefix || !suffix) {
        json_decref(prefix);
        json_decref(suffix);
        return false;
    }
    json_t *spec = test_json(
        "{'format': 1, 'name': 'r', 'mode': '%s', 'score': {'yes': 'yes', 'no': 'no'},"
        " 'encoders': {'item': {'kind': 'external', 'name': 'i', 'dim': 32, 'tokens': 8},"
        "              'user': {'kind': 'external', 'name': 'u', 'dim': 32, 'tokens': 8}}}",
        mixed ? "mixed" : "text");
    json_object_set_new(spec, "prefix", prefix);
    json_object_set_new(spec, "suffix", suffix);
    char path[4096];
    snprintf(path, sizeof path, "%s/%zu-%zu", r->folder, index, c);
    assert_status(test_bundle_make(path, spec, NULL, &err), MR_OK, &err);
    mr_bundle *bundle = test_bundle_open(path, 1);
    mr_scorer *scorer = test_scorer(bundle, 0);

    snprintf(name, sizeof name, "%zu.prefix", index);
    mr_input user = read_input(r, name);
    snprintf(name, sizeof name, "%zu.suffix.%zu", index, c);
    mr_input item = read_input(r, name);
    const mr_scorer_prefix begin = {{prefix_fields, n_prefix}, {user.embeds, user.n_embeds, r->C}};
    const mr_scorer_candidate one = {.fields = {suffix_fields, n_suffix},
                                     .item = {item.embeds, item.n_embeds, r->C}};
    const mr_prompt *prompt = NULL;
    assert_status(mr_scorer_begin(scorer, &begin, &err), MR_OK, &err);
    prompt = mr_scorer_prefix_prompt(scorer);
    assert_int_equal(prompt->ids.n, user.n);
    assert_memory_equal(prompt->ids.data, user.ids, user.n * sizeof *user.ids);
    assert_status(mr_scorer_suffix_prompt(scorer, one.fields, one.item.tokens, 0, &prompt, &err),
                  MR_OK, &err);
    assert_int_equal(prompt->ids.n, item.n);
    assert_memory_equal(prompt->ids.data, item.ids, item.n * sizeof *item.ids);
    *margin = test_score(scorer, &one);

    free_input(&user);
    free_input(&item);
    mr_scorer_free(scorer);
    mr_bundle_close(bundle);
    return true;
}

static void templates_give_the_prompts_and_the_margins(void **state)
{
    const reference *r = *state;
    size_t done = 0;
    for (size_t i = 0; i < n_requests(r); i++) {
        char name[64];
        size_t n, n_got = 0;
        float got[MOST], want[MOST];
        snprintf(name, sizeof name, "%zu.margins", i);
        float *margins = test_tensor(r->file, name, &n);
        for (size_t c = 0; c < n; c++) {
            double margin;
            if (!check_through_scorer(r, i, c, &margin))
                continue;
            got[n_got] = (float)margin;
            want[n_got++] = margins[c];
        }
        if (n_got)
            assert_floats_near(got, want, n_got, BOUND);
        done += n_got;
        free(margins);
    }
    print_message("%zu prompts through templates\n", done);
    assert_true(done >= 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_scatter_is_bit_for_bit_masked_scatters),
        cmocka_unit_test(every_margin_is_that_of_transformers),
        cmocka_unit_test(templates_give_the_prompts_and_the_margins),
    };
    return cmocka_run_group_tests_name("scorer_reference", tests, set_up, tear_down);
}
