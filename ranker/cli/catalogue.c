/* catalogue.c - see catalogue.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/cli/catalogue.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "core/jsonl.h"
#include "featurestore/record.h"

#define CATALOGUE_MEMORY ((size_t)4 << 30)
#define MAX_ROW_FIELDS   32

struct mr_catalogue {
    mr_arena arena;
    mr_catalogue_item *items; /* owned, grows */
    size_t n, capacity;
    size_t *slots; /* open addressing: item index + 1, or 0 */
    size_t n_slots;
};

static mr_str copy_string(mr_arena *arena, const char *text, size_t len)
{
    char *copy = mr_arena_strndup(arena, text, len);
    return (mr_str){copy, copy ? len : 0};
}

static mr_status read_vector_row(const json_t *row, float *out, size_t dim, mr_error *err)
{
    if (!json_is_array(row) || json_array_size(row) != dim)
        return MR_FAIL(err, INVALID, "'vectors' has a row that is not an array of %zu numbers",
                       dim);
    for (size_t i = 0; i < dim; i++) {
        const json_t *value = json_array_get(row, i);
        out[i] = (float)json_number_value(value);
        if (!json_is_number(value) || !isfinite(out[i]))
            return MR_FAIL(err, INVALID, "'vectors' has %s at column %zu, expected a finite number",
                           mr_json_describe(value), i);
    }
    return MR_OK;
}

/* "vector": [..] is one token, "vectors": [[..], ..] several. */
static mr_status read_vectors(const json_t *row, mr_arena *arena, mr_catalogue_item *out,
                              mr_error *err)
{
    const json_t *one = json_object_get(row, "vector"), *many = json_object_get(row, "vectors");
    if (!one && !many)
        return MR_OK;
    const size_t tokens = one ? 1 : json_array_size(many);
    const size_t dim = json_array_size(one ? one : json_array_get(many, 0));
    if (tokens == 0 || tokens > MR_RECORD_MAX_TOKENS || dim == 0 || dim > MR_RECORD_MAX_DIM)
        return MR_FAIL(err, INVALID, "vectors are [%zu, %zu], expected 1 to %d rows of 1 to %d",
                       tokens, dim, MR_RECORD_MAX_TOKENS, MR_RECORD_MAX_DIM);
    float *values = mr_arena_array(arena, float, tokens *dim);
    if (!values)
        return MR_FAIL(err, NO_MEMORY, "vectors of an item");
    for (size_t t = 0; t < tokens; t++) {
        mr_status status =
            read_vector_row(one ? one : json_array_get(many, t), values + t * dim, dim, err);
        if (status != MR_OK)
            return status;
    }
    out->vectors = values;
    out->tokens = (uint16_t)tokens;
    out->dim = (uint16_t)dim;
    return MR_OK;
}

static bool is_text(const char *name, const json_t *value)
{
    return json_is_string(value) && strcmp(name, "id") != 0;
}

static mr_status read_texts(const json_t *row, mr_arena *arena, mr_fields *out, mr_error *err)
{
    const char *name;
    json_t *value;
    size_t n = 0;
    json_object_foreach((json_t *)row, name, value)
    {
        n += is_text(name, value);
    }
    if (n > MAX_ROW_FIELDS)
        return MR_FAIL(err, INVALID, "%zu texts in one item, expected at most %d", n,
                       MAX_ROW_FIELDS);
    mr_field *field = mr_arena_array(arena, mr_field, n);
    if (!field)
        return MR_FAIL(err, NO_MEMORY, "an item");
    n = 0;
    json_object_foreach((json_t *)row, name, value)
    {
        if (!is_text(name, value))
            continue;
        field[n] =
            (mr_field){copy_string(arena, name, strlen(name)),
                       copy_string(arena, json_string_value(value), json_string_length(value))};
        if (!field[n].name.data || !field[n].value.data)
            return MR_FAIL(err, NO_MEMORY, "texts of an item");
        n++;
    }
    *out = (mr_fields){field, n};
    return MR_OK;
}

mr_status mr_catalogue_read_row(const json_t *row, mr_arena *arena, mr_catalogue_item *out,
                                mr_error *err)
{
    *out = (mr_catalogue_item){0};
    const json_t *id = json_object_get(row, "id");
    if (!json_is_string(id) || json_string_length(id) == 0)
        return MR_FAIL(err, INVALID, "'id' is %s, expected a string that is not empty",
                       id ? mr_json_describe(id) : "missing");
    out->id = copy_string(arena, json_string_value(id), json_string_length(id));
    if (!out->id.data)
        return MR_FAIL(err, NO_MEMORY, "an item");
    mr_status status = read_texts(row, arena, &out->fields, err);
    if (status != MR_OK)
        return status;
    const json_t *prior = json_object_get(row, "prior");
    if (prior && !json_is_null(prior)) {
        if (!json_is_number(prior))
            return MR_FAIL(err, INVALID, "'prior' is %s, expected a number",
                           mr_json_describe(prior));
        out->prior = json_number_value(prior);
        out->has_prior = true;
    }
    return read_vectors(row, arena, out, err);
}

static size_t slot_of(const mr_catalogue *catalogue, mr_str id)
{
    size_t slot = (size_t)mr_hash_xxh3(id.data, id.len) & (catalogue->n_slots - 1);
    while (catalogue->slots[slot] &&
           !mr_str_equal(catalogue->items[catalogue->slots[slot] - 1].id, id))
        slot = (slot + 1) & (catalogue->n_slots - 1);
    return slot;
}

/* At most half full, so that a probe ends. */
static mr_status build_index(mr_catalogue *catalogue, const char *path, mr_error *err)
{
    catalogue->n_slots = 16;
    while (catalogue->n_slots < 2 * catalogue->n)
        catalogue->n_slots *= 2;
    catalogue->slots = calloc(catalogue->n_slots, sizeof *catalogue->slots);
    if (!catalogue->slots)
        return MR_FAIL(err, NO_MEMORY, "index of %zu items", catalogue->n);
    for (size_t i = 0; i < catalogue->n; i++) {
        const mr_str id = catalogue->items[i].id;
        const size_t slot = slot_of(catalogue, id);
        if (catalogue->slots[slot])
            return MR_FAIL(err, INVALID, "%s: item '%.*s' stands there twice", path,
                           MR_STR_ARG(id));
        catalogue->slots[slot] = i + 1;
    }
    return MR_OK;
}

static mr_status add_row(mr_catalogue *catalogue, const json_t *row, mr_error *err)
{
    if (catalogue->n == catalogue->capacity) {
        const size_t capacity = catalogue->capacity ? 2 * catalogue->capacity : 1024;
        mr_catalogue_item *bigger = realloc(catalogue->items, capacity * sizeof *bigger);
        if (!bigger)
            return MR_FAIL(err, NO_MEMORY, "%zu items", capacity);
        catalogue->items = bigger;
        catalogue->capacity = capacity;
    }
    mr_status status =
        mr_catalogue_read_row(row, &catalogue->arena, &catalogue->items[catalogue->n], err);
    catalogue->n += status == MR_OK;
    return status;
}

mr_status mr_catalogue_open(mr_catalogue **out, const char *path, mr_error *err)
{
    mr_catalogue *catalogue = calloc(1, sizeof *catalogue);
    if (!catalogue)
        return MR_FAIL(err, NO_MEMORY, "catalogue");
    catalogue->arena.limit = CATALOGUE_MEMORY;
    mr_jsonl reader = {0};
    mr_status status = mr_jsonl_open(&reader, path, MR_JSONL_MAX_LINE, err);
    while (status == MR_OK) {
        json_t *row = NULL;
        status = mr_jsonl_next(&reader, &row, err);
        if (status != MR_OK || !row)
            break;
        status = add_row(catalogue, row, err);
        if (status != MR_OK)
            mr_error_prefix(err, status, "line %llu of %s", (unsigned long long)reader.line_number,
                            reader.name);
        json_decref(row);
    }
    mr_jsonl_close(&reader);
    if (status == MR_OK)
        status = build_index(catalogue, path, err);
    if (status != MR_OK) {
        mr_catalogue_close(catalogue);
        return status;
    }
    *out = catalogue;
    return MR_OK;
}

void mr_catalogue_close(mr_catalogue *catalogue)
{
    if (!catalogue)
        return;
    mr_arena_done(&catalogue->arena);
    free(catalogue->items);
    free(catalogue->slots);
    free(catalogue);
}

const mr_catalogue_item *mr_catalogue_find(const mr_catalogue *catalogue, mr_str id)
{
    const size_t found = catalogue->slots[slot_of(catalogue, id)];
    return found ? &catalogue->items[found - 1] : NULL;
}

size_t mr_catalogue_count(const mr_catalogue *catalogue)
{
    return catalogue->n;
}

const mr_catalogue_item *mr_catalogue_at(const mr_catalogue *catalogue, size_t index)
{
    return &catalogue->items[index];
}
