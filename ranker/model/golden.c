/* golden.c - requests with known margins, run at every load: a known answer guards against weights,
 * a tokenizer or a build that is not the one that the bundle was made with.
 *
 *   { "format": 1, "numerics_id": "...", "tolerance": {"f32": 1e-4},
 *     "requests": [ { "fields": {"query": "..."}, "user": [[..]],
 *                     "candidates": [ {"fields": {...}, "vectors": [[..]], "image": [[..]]} ],
 * "margins": [..] } ] }
 *
 * Tolerance is relative to the largest margin of the request. A margin must be within it, and two
 * candidates whose margins differ by more than it must stand in the same order: kernel sets differ
 * in the last bits, never in meaning.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/file.h"
#include "core/hash.h"
#include "core/jsonl.h"
#include "core/rng.h"
#include "ranker/model/bundle_write.h"
#include "ranker/model/scorer.h"

#define GOLDEN_NAME           "golden.json"
#define TOLERANCE_F32         1e-4
#define MADE_CANDIDATES       8
#define MAX_GOLDEN_CANDIDATES 1024
#define MAX_FILE_BYTES        ((size_t)64 << 20)
#define REQUEST_MEMORY        ((size_t)256 << 20)

/* ---- reading --------------------------------------------------------------------------------- */

static mr_status read_fields(mr_arena *arena, const json_t *object, mr_fields *out, mr_error *err)
{
    const size_t n = json_object_size(object);
    mr_field *field = mr_arena_array(arena, mr_field, n);
    if (!field)
        return MR_FAIL(err, NO_MEMORY, "golden fields");
    size_t i = 0;
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)object, name, value)
    {
        if (!json_is_string(value))
            return MR_FAIL(err, INVALID, "golden.json: field '%s' is %s, expected a string", name,
                           mr_json_describe(value));
        field[i++] =
            (mr_field){mr_str_of(name), {json_string_value(value), json_string_length(value)}};
    }
    *out = (mr_fields){field, n};
    return MR_OK;
}

static mr_status read_vectors(mr_arena *arena, const json_t *rows, mr_vectors *out, mr_error *err)
{
    const size_t tokens = json_array_size(rows), dim = json_array_size(json_array_get(rows, 0));
    size_t count;
    *out = (mr_vectors){0};
    if (tokens == 0)
        return MR_OK;
    float *values = mr_size_mul(tokens, dim, &count) ? mr_arena_array(arena, float, count) : NULL;
    if (!values)
        return MR_FAIL(err, NO_MEMORY, "golden vectors");
    for (size_t t = 0; t < tokens; t++) {
        const json_t *row = json_array_get(rows, t);
        if (json_array_size(row) != dim)
            return MR_FAIL(err, INVALID, "golden.json: a vector has %zu numbers, the first has %zu",
                           json_array_size(row), dim);
        for (size_t i = 0; i < dim; i++) {
            const json_t *value = json_array_get(row, i);
            if (!json_is_number(value))
                return MR_FAIL(err, INVALID, "golden.json: a vector holds %s, expected a number",
                               mr_json_describe(value));
            values[t * dim + i] = (float)json_number_value(value);
        }
    }
    *out = (mr_vectors){values, tokens, dim};
    return MR_OK;
}

/* Margins of one request's candidates, [n] in the arena. */
static mr_status score_request(mr_scorer *scorer, mr_arena *arena, const json_t *request,
                               size_t index, double **margins, size_t *n, mr_error *err)
{
    mr_scorer_prefix prefix = {0};
    const json_t *list = json_object_get(request, "candidates");
    *n = json_array_size(list);
    if (*n == 0 || *n > MAX_GOLDEN_CANDIDATES)
        return MR_FAIL(err, INVALID, "golden request %zu has %zu candidates, expected 1 to %d",
                       index, *n, MAX_GOLDEN_CANDIDATES);
    mr_scorer_candidate *candidates = mr_arena_array(arena, mr_scorer_candidate, *n);
    mr_status *statuses = mr_arena_array(arena, mr_status, *n);
    *margins = mr_arena_array(arena, double, *n);
    if (!candidates || !statuses || !*margins)
        return MR_FAIL(err, NO_MEMORY, "golden candidates");
    mr_status status = read_fields(arena, json_object_get(request, "fields"), &prefix.fields, err);
    if (status == MR_OK)
        status = read_vectors(arena, json_object_get(request, "user"), &prefix.user, err);
    for (size_t i = 0; i < *n && status == MR_OK; i++) {
        const json_t *one = json_array_get(list, i);
        status = read_fields(arena, json_object_get(one, "fields"), &candidates[i].fields, err);
        if (status == MR_OK)
            status = read_vectors(arena, json_object_get(one, "vectors"), &candidates[i].item, err);
        if (status == MR_OK)
            status = read_vectors(arena, json_object_get(one, "image"), &candidates[i].image, err);
    }
    if (status == MR_OK)
        status = mr_scorer_begin(scorer, &prefix, err);
    mr_error first = {0};
    if (status == MR_OK)
        status = mr_scorer_score(scorer, candidates, *n, *margins, statuses, &first, err);
    for (size_t i = 0; i < *n && status == MR_OK; i++)
        if (statuses[i] != MR_OK)
            status = MR_FAIL(err, INVALID, "golden request %zu, candidate %zu: %s", index, i,
                             first.message);
    return status;
}

/* ---- checking -------------------------------------------------------------------------------- */

static mr_status compare(size_t request, const json_t *expected, const double *found, size_t n,
                         double tolerance, mr_error *err)
{
    if (json_array_size(expected) != n)
        return MR_FAIL(err, INVALID, "golden.json: request %zu has %zu margins for %zu candidates",
                       request, json_array_size(expected), n);
    double largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(json_number_value(json_array_get(expected, i))));
    const double allowed = tolerance * fmax(largest, 1e-3);
    for (size_t i = 0; i < n; i++) {
        const double want = json_number_value(json_array_get(expected, i));
        if (!(fabs(found[i] - want) <= allowed))
            return MR_FAIL(err, MISMATCH,
                           "golden request %zu, candidate %zu: margin %.8g, expected %.8g within "
                           "%.2g; weights, tokenizer or build are not those of the bundle",
                           request, i, found[i], want, allowed);
        for (size_t j = 0; j < i; j++) {
            const double other = json_number_value(json_array_get(expected, j));
            const bool apart = fabs(want - other) > allowed;
            if (apart && !(want > other ? found[i] > found[j] : found[i] < found[j]))
                return MR_FAIL(err, MISMATCH,
                               "golden request %zu: candidates %zu and %zu changed their order",
                               request, j, i);
        }
    }
    return MR_OK;
}

static mr_status golden_path(const mr_bundle *bundle, mr_arena *arena, char **out, mr_error *err)
{
    const json_t *value = json_object_get(bundle->root, "golden");
    const char *name = json_string_value(value);
    if (!name)
        return MR_FAIL(err, INVALID, "bundle.json: 'golden' is %s, expected a file name",
                       value ? mr_json_describe(value) : "missing");
    mr_status status = mr_path_check_relative(name, err);
    if (status != MR_OK)
        return mr_error_prefix(err, status, "bundle.json: 'golden'");
    *out = mr_path_join(arena, bundle->folder, name);
    return *out ? MR_OK : MR_FAIL(err, NO_MEMORY, "path of golden.json");
}

/* The requests and the tolerance of a golden.json, borrowed from root. */
static mr_status read_golden(const json_t *root, const json_t **requests, double *tolerance,
                             mr_error *err)
{
    mr_json_cursor cur = mr_json_cursor_of("golden.json", root, err);
    (void)mr_json_int(&cur, "format", 1, 1, MR_JSON_REQUIRED);
    *requests = mr_json_array(&cur, "requests", true);
    const json_t *tolerances = mr_json_object(&cur, "tolerance", true);
    if (cur.status != MR_OK)
        return cur.status;
    mr_json_cursor sub = mr_json_cursor_of("golden.json: tolerance", tolerances, err);
    *tolerance = mr_json_real(&sub, "f32", 0, 1, (double)NAN);
    if (sub.status == MR_OK && json_array_size(*requests) == 0)
        return MR_FAIL(err, INVALID, "golden.json: 'requests' is empty: it proves nothing");
    return sub.status;
}

static mr_status check_requests(const mr_bundle *bundle, const json_t *root, mr_error *err)
{
    mr_arena arena = {.limit = REQUEST_MEMORY};
    mr_scorer *scorer = NULL;
    const json_t *requests = NULL;
    double tolerance = 0;
    mr_status status = read_golden(root, &requests, &tolerance, err);
    if (status == MR_OK)
        status = mr_scorer_new(&scorer, bundle, NULL, err);
    for (size_t i = 0; status == MR_OK && i < json_array_size(requests); i++) {
        double *margins = NULL;
        size_t n = 0;
        const json_t *request = json_array_get(requests, i);
        mr_arena_rewind(&arena, (mr_arena_mark){0});
        status = score_request(scorer, &arena, request, i, &margins, &n, err);
        if (status == MR_OK)
            status = compare(i, json_object_get(request, "margins"), margins, n, tolerance, err);
    }
    mr_scorer_free(scorer);
    mr_arena_done(&arena);
    return status;
}

mr_status mr_bundle_check_golden(const mr_bundle *bundle, mr_error *err)
{
    mr_arena names = {0};
    json_t *root = NULL;
    char *path = NULL;
    mr_status status = golden_path(bundle, &names, &path, err);
    if (status == MR_OK)
        status = mr_json_load_file(&root, path, MAX_FILE_BYTES, err);
    if (status == MR_OK)
        status = check_requests(bundle, root, err);
    if (status != MR_OK)
        mr_error_prefix(err, status, "bundle '%s'", bundle->folder);
    json_decref(root);
    mr_arena_done(&names);
    return status;
}

/* ---- making ---------------------------------------------------------------------------------- */

static json_t *random_vectors(mr_rng *rng, size_t tokens, size_t dim)
{
    json_t *rows = json_array();
    for (size_t t = 0; t < tokens; t++) {
        json_t *row = json_array();
        for (size_t i = 0; i < dim; i++) /* few digits: exact in binary and short in the file */
            json_array_append_new(row, json_real(round(mr_rng_normal(rng) * 64.0) / 64.0));
        json_array_append_new(rows, row);
    }
    return rows;
}

static json_t *random_text(mr_rng *rng, size_t words)
{
    static const char *const word[] = {"text",   "editor", "fast", "image", "viewer", "music",
                                       "player", "small",  "game", "chess", "mail",   "network"};
    char text[512] = "";
    size_t used = 0;
    for (size_t i = 0; i < words && used < sizeof text - 16; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", i ? " " : "",
                                 word[mr_rng_below(rng, sizeof word / sizeof *word)]);
    return json_string(text);
}

static json_t *make_request(const mr_bundle *bundle, mr_rng *rng, bool with_user)
{
    json_t *candidates = json_array();
    for (size_t i = 0; i < MADE_CANDIDATES; i++) {
        json_t *one = json_object(), *fields = json_object();
        json_object_set_new(fields, "title", random_text(rng, 2));
        json_object_set_new(fields, "document", random_text(rng, 12));
        json_object_set_new(fields, "text", random_text(rng, 12));
        json_object_set_new(one, "fields", fields);
        if (bundle->mixed)
            json_object_set_new(one, "vectors",
                                random_vectors(rng, (size_t)bundle->item.tokens, bundle->item.dim));
        /* With and without a picture, where a candidate may be without. */
        if (mr_template_uses_slot(bundle->suffix, MR_SLOT_IMAGE) &&
            (i % 2 == 0 || mr_template_requires_slot(bundle->suffix, MR_SLOT_IMAGE)))
            json_object_set_new(
                one, "image", random_vectors(rng, (size_t)bundle->image.tokens, bundle->image.dim));
        json_array_append_new(candidates, one);
    }
    json_t *request = json_object(), *fields = json_object();
    json_object_set_new(fields, "query", random_text(rng, 3));
    if (bundle->defaults_instruction)
        json_object_set_new(fields, "instruction", json_string(bundle->defaults_instruction));
    json_object_set_new(request, "fields", fields);
    if (with_user && bundle->user.kind != MR_ENCODER_NONE)
        json_object_set_new(request, "user",
                            random_vectors(rng, (size_t)bundle->user.tokens, bundle->user.dim));
    json_object_set_new(request, "candidates", candidates);
    return request;
}

static mr_status load_requests(const char *path, json_t *out, mr_error *err)
{
    mr_jsonl reader = {0};
    mr_status status = mr_jsonl_open(&reader, path, MR_JSONL_MAX_LINE, err);
    json_t *row = NULL;
    while (status == MR_OK && (status = mr_jsonl_next(&reader, &row, err)) == MR_OK && row)
        json_array_append_new(out, row);
    mr_jsonl_close(&reader);
    return status;
}

/* Adds "margins" to every request. */
static mr_status fill_margins(const mr_bundle *bundle, json_t *requests, mr_error *err)
{
    mr_arena arena = {.limit = REQUEST_MEMORY};
    mr_scorer *scorer = NULL;
    mr_status status = mr_scorer_new(&scorer, bundle, NULL, err);
    for (size_t i = 0; status == MR_OK && i < json_array_size(requests); i++) {
        double *margins = NULL;
        size_t n = 0;
        json_t *request = json_array_get(requests, i);
        mr_arena_rewind(&arena, (mr_arena_mark){0});
        status = score_request(scorer, &arena, request, i, &margins, &n, err);
        json_t *list = json_array();
        for (size_t k = 0; status == MR_OK && k < n; k++) {
            if (!isfinite(margins[k]))
                status = MR_FAIL(err, INVALID, "golden request %zu, candidate %zu: margin %g", i, k,
                                 margins[k]);
            else
                json_array_append_new(list, json_real(margins[k]));
        }
        json_object_set_new(request, "margins", list);
    }
    mr_scorer_free(scorer);
    mr_arena_done(&arena);
    return status;
}

/* Names the file in bundle.json, with its digest. The digests of all else stay as they were made:
 * a part that was changed since must not become right by this. */
static mr_status note_golden(mr_bundle *bundle, const char *golden, const char *spec, mr_error *err)
{
    char digest[MR_SHA256_HEX];
    mr_status status = mr_hash_sha256_file(golden, digest, err);
    if (status != MR_OK)
        return status;
    json_t *files = json_object_get(bundle->root, "files");
    if ((files && json_object_set_new(files, GOLDEN_NAME, json_string(digest)) != 0) ||
        json_object_set_new(bundle->root, "golden", json_string(GOLDEN_NAME)) != 0)
        return MR_FAIL(err, NO_MEMORY, "bundle.json");
    return mr_json_save_file(bundle->root, spec, err);
}

mr_status mr_bundle_write_golden(const char *folder, const char *requests_path, size_t n_made,
                                 uint64_t seed, mr_error *err)
{
    mr_bundle *bundle = NULL;
    mr_arena arena = {0};
    json_t *requests = json_array(), *root = NULL;
    char *golden = mr_path_join(&arena, folder, GOLDEN_NAME);
    char *spec = mr_path_join(&arena, folder, "bundle.json");
    mr_status status = golden && spec && requests ? MR_OK : MR_FAIL(err, NO_MEMORY, GOLDEN_NAME);
    if (status == MR_OK)
        status = mr_bundle_load(&bundle, folder, 0, err);
    if (status == MR_OK && requests_path) {
        status = load_requests(requests_path, requests, err);
    } else if (status == MR_OK) {
        mr_rng rng = mr_rng_seed(seed);
        for (size_t i = 0; i < n_made; i++)
            json_array_append_new(requests, make_request(bundle, &rng, i % 2 == 0));
    }
    if (status == MR_OK && json_array_size(requests) == 0)
        status = MR_FAIL(err, INVALID, "no golden requests to write");
    if (status == MR_OK)
        status = fill_margins(bundle, requests, err);
    if (status == MR_OK) {
        root =
            json_pack("{s:i, s:s, s:{s:f}, s:O}", "format", 1, "numerics_id", bundle->numerics_id,
                      "tolerance", "f32", TOLERANCE_F32, "requests", requests);
        status = root ? mr_json_save_file(root, golden, err) : MR_FAIL(err, NO_MEMORY, GOLDEN_NAME);
    }
    if (status == MR_OK)
        status = note_golden(bundle, golden, spec, err);
    mr_bundle_close(bundle);
    json_decref(root);
    json_decref(requests);
    mr_arena_done(&arena);
    return status;
}
