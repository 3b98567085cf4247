/* ranker_support.c - see ranker_support.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "featurestore/record.h"
#include "tests/ranker_support.h"
#include "tests/support.h"

json_t *test_json(const char *fmt, ...)
{
    char buffer[8192];
    va_list ap;
    va_start(ap, fmt);
    const int n = vsnprintf(buffer, sizeof buffer, fmt, ap);
    va_end(ap);
    assert_true(n >= 0 && (size_t)n < sizeof buffer);
    for (int i = 0; i < n; i++)
        if (buffer[i] == '\'')
            buffer[i] = '"';
    mr_error err = {0};
    json_t *out = NULL;
    assert_status(mr_json_parse(&out, buffer, (mr_str){buffer, (size_t)n}, &err), MR_OK, &err);
    return out;
}

json_t *test_mixed_spec(int tokens)
{
    return test_json(
        "{'format': 1, 'name': 'test', 'version': '1', 'mode': 'mixed', 'max_length': 200,"
        " 'prefix': ['Query: ', {'field': 'query', 'truncate': true},"
        "            {'slot': 'user', 'when': 'user'}, '\\n'],"
        " 'suffix': [{'slot': 'item'}, {'field': 'title', 'max_tokens': 12, 'when': 'title'},"
        "            {'token': '<|endoftext|>'}],"
        " 'score': {'yes': 'yes', 'no': 'no'},"
        " 'encoders': {'item': {'kind': 'causal_last_n', 'tokens': %d,"
        "                       'text': ['Item: ', {'field': 'text'}], 'max_tokens': 64},"
        "              'user': {'kind': 'history', 'tokens': 4}}}",
        tokens);
}

mr_status test_bundle_make(const char *path, json_t *spec, const char *projector, mr_error *err)
{
    const char *kind = json_string_value(
        json_object_get(json_object_get(json_object_get(spec, "encoders"), "item"), "kind"));
    const mr_bundle_create_options opt = {
        .spec = spec,
        .llm = "data/mixed/llm",
        .item_encoder = kind && strcmp(kind, "causal_last_n") == 0 ? "data/mixed/encoder" : NULL,
        .item_projector = projector,
    };
    mr_status status = mr_bundle_create(path, &opt, err);
    json_decref(spec);
    return status;
}

mr_bundle *test_bundle_open(const char *path, int threads)
{
    mr_bundle *bundle = NULL;
    mr_error err = {0};
    mr_bundle_options opt = MR_BUNDLE_OPTIONS_DEFAULT;
    opt.threads = threads;
    assert_status(mr_bundle_open(&bundle, path, &opt, &err), MR_OK, &err);
    return bundle;
}

void test_bundle_edit(const char *path, void (*edit)(json_t *root, const void *context),
                      const void *context)
{
    json_t *root = NULL;
    mr_error err = {0};
    const char *file = test_path(path, "bundle.json");
    assert_status(mr_json_load_file(&root, file, MR_JSON_MAX_CONFIG, &err), MR_OK, &err);
    edit(root, context);
    assert_status(mr_json_save_file(root, file, &err), MR_OK, &err);
    json_decref(root);
}

float *test_vectors(mr_rng *rng, size_t n, size_t dim)
{
    float *out = malloc((n * dim + 1) * sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < n * dim; i++)
        out[i] = (float)(0.3 * mr_rng_normal(rng));
    return out;
}

void *test_record(uint64_t space, const float *values, size_t tokens, size_t dim, size_t *len)
{
    const mr_record_info info = {.dtype = MR_RECORD_F32,
                                 .tombstone = !values,
                                 .version = 1,
                                 .space = space,
                                 .tokens = (uint16_t)(values ? tokens : 0),
                                 .dim = (uint16_t)(values ? dim : 0)};
    mr_error err = {0};
    *len = mr_record_bytes(&info);
    void *out = malloc(*len);
    assert_non_null(out);
    assert_status(mr_record_encode(&info, values, out, &err), MR_OK, &err);
    return out;
}

void test_store_put(mr_store *store, mr_entity entity, uint64_t space, const char *id,
                    const float *values, size_t tokens, size_t dim)
{
    mr_error err = {0};
    size_t len;
    void *record = test_record(space, values, tokens, dim, &len);
    const mr_store_put_item item = {mr_str_of(id), {record, len}};
    assert_status(mr_store_put(store, entity, space, &item, 1, NULL, &err), MR_OK, &err);
    free(record);
}

float *test_tensor(const mr_safetensors *file, const char *name, size_t *n)
{
    const mr_tensor *tensor = mr_safetensors_find(file, name);
    *n = 0;
    if (!tensor)
        return NULL;
    const size_t size = mr_dtype_size(tensor->dtype);
    *n = tensor->bytes / size;
    float *out = calloc(*n + 1, sizeof *out);
    assert_non_null(out);
    mr_dtype_to_f32(out, tensor->data, tensor->dtype, *n);
    return out;
}

size_t test_count_entries(const char *folder)
{
    DIR *dir = opendir(folder);
    size_t n = 0;
    struct dirent *entry;
    assert_non_null(dir);
    while ((entry = readdir(dir)))
        n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(dir);
    return n;
}

mr_scorer *test_scorer(const mr_bundle *bundle, size_t max_rows)
{
    mr_scorer *scorer = NULL;
    mr_error err = {0};
    const mr_scorer_options opt = {.max_rows = max_rows};
    assert_status(mr_scorer_new(&scorer, bundle, &opt, &err), MR_OK, &err);
    return scorer;
}

double test_score(mr_scorer *scorer, const mr_scorer_candidate *candidate)
{
    double margin = (double)NAN;
    mr_status status = MR_OK;
    mr_error first = {0}, err = {0};
    assert_status(mr_scorer_score(scorer, candidate, 1, &margin, &status, &first, &err), MR_OK,
                  &err);
    assert_status(status, MR_OK, &first);
    assert_false(isnan(margin));
    return margin;
}
