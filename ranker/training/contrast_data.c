/* contrast_data.c - see contrast_data.h.
 *
 * Pairs come in blocks of one section: the other pairs of a block are hard negatives.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/training/contrast_data.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "core/jsonl.h"
#include "core/rng.h"
#include "ranker/training/item_table.h"
#include "ranker/training/lists.h"

#define BLOCK       8  /* pairs of one section that stand together */
#define VALID_EVERY 50 /* blocks of pairs */

typedef struct {
    size_t a, b;
    uint32_t section;
    uint32_t group; /* pairs of one group are no negatives of each other */
} pair;

/* A query of the lists and what is relevant to it anywhere in the training rows. */
typedef struct {
    uint64_t hash;
    uint32_t item;
} relevance;

typedef struct {
    const mr_task_row *row;
    size_t text; /* of the query */
    uint64_t query;
} query_row;

struct mr_contrast_data {
    uint64_t seed;
    mr_text_table texts;
    pair *pair;
    size_t n_pairs, pair_capacity;
    size_t *section_begin; /* [n_sections + 1] pairs are sorted by section */
    size_t n_sections;
    size_t *block_section; /* [n_blocks] */
    size_t *block_index;   /* [n_blocks] within its section */
    size_t n_blocks;

    mr_lists lists;
    bool has_lists;
    size_t first_item; /* text of item 0 */
    query_row *query;
    size_t n_queries;
    relevance *relevant; /* sorted */
    size_t n_relevant;
};

/* ---- Reading --------------------------------------------------------------------------------- */

typedef struct {
    mr_contrast_data *data;
    const mr_trainer *trainer;
    const char *path; /* of the pairs */
    mr_prompt prompt;
} reader;

static mr_status add_text(reader *r, const char *name, mr_str text, size_t *out, mr_error *err)
{
    const mr_trainer_spec *spec = &r->trainer->spec;
    const mr_field field = {mr_str_of(name), text};
    const int32_t eos = spec->item_append_eos ? r->trainer->encoder.decoder.config.eos_id : -1;
    *out = r->data->texts.n;
    return mr_text_table_add(&r->data->texts, spec->item_text, (mr_fields){&field, 1},
                             spec->item_tokens, r->trainer->recipe->max_tokens, eos, &r->prompt,
                             err);
}

static mr_status read_pair(void *context, const json_t *row, uint64_t line, mr_error *err)
{
    (void)line;
    reader *r = context;
    mr_contrast_data *data = r->data;
    mr_json_cursor cur = mr_json_cursor_of(r->path, row, err);
    const char *a = mr_json_string(&cur, "a", NULL, true);
    const char *b = mr_json_string(&cur, "b", NULL, true);
    const char *section = mr_json_string(&cur, "section", "", false);
    const char *group = mr_json_string(&cur, "group", NULL, false);
    if (cur.status != MR_OK)
        return cur.status;
    if (data->n_pairs == data->pair_capacity) {
        const size_t capacity = data->pair_capacity ? 2 * data->pair_capacity : 1024;
        pair *grown = realloc(data->pair, capacity * sizeof *grown);
        if (!grown)
            return MR_FAIL(err, NO_MEMORY, "%zu pairs", capacity);
        data->pair = grown;
        data->pair_capacity = capacity;
    }
    pair *to = &data->pair[data->n_pairs];
    to->section = (uint32_t)mr_hash_xxh3(section, strlen(section));
    to->group = (uint32_t)(group ? mr_hash_xxh3(group, strlen(group)) : data->n_pairs);
    mr_status status = add_text(r, "text", mr_str_of(a), &to->a, err);
    if (status == MR_OK)
        status = add_text(r, "text", mr_str_of(b), &to->b, err);
    if (status == MR_OK)
        data->n_pairs++;
    return status;
}

static mr_status read_pairs(reader *r, const char *path, mr_error *err)
{
    uint64_t line;
    r->path = path;
    mr_status status = mr_jsonl_each(path, MR_JSONL_MAX_LINE, read_pair, r, &line, err);
    return line ? mr_error_prefix(err, status, "%s, line %" PRIu64, path, line) : status;
}

static int by_section(const void *x, const void *y)
{
    const pair *a = x, *b = y;
    if (a->section != b->section)
        return a->section < b->section ? -1 : 1;
    return (a->a > b->a) - (a->a < b->a);
}

/* Sorts pairs by section and cuts each section into whole blocks; fewer than BLOCK pairs at the end
 * of a section are left out. */
static mr_status make_blocks(mr_contrast_data *data, mr_error *err)
{
    if (data->n_pairs > 0)
        qsort(data->pair, data->n_pairs, sizeof *data->pair, by_section);
    data->section_begin = calloc(data->n_pairs + 1, sizeof(size_t));
    data->block_section = calloc(data->n_pairs / BLOCK + 1, sizeof(size_t));
    data->block_index = calloc(data->n_pairs / BLOCK + 1, sizeof(size_t));
    if (!data->section_begin || !data->block_section || !data->block_index)
        return MR_FAIL(err, NO_MEMORY, "%zu pairs", data->n_pairs);
    for (size_t i = 0; i < data->n_pairs;) {
        const size_t begin = i;
        while (i < data->n_pairs && data->pair[i].section == data->pair[begin].section)
            i++;
        for (size_t b = 0; b < (i - begin) / BLOCK; b++) {
            data->block_section[data->n_blocks] = data->n_sections;
            data->block_index[data->n_blocks++] = b;
        }
        data->section_begin[data->n_sections++] = begin;
    }
    data->section_begin[data->n_sections] = data->n_pairs;
    if (data->n_blocks == 0)
        return MR_FAIL(err, INVALID, "data.pairs has %zu pairs and no section with %d",
                       data->n_pairs, BLOCK);
    return MR_OK;
}

static int by_relevance(const void *x, const void *y)
{
    const relevance *a = x, *b = y;
    if (a->hash != b->hash)
        return a->hash < b->hash ? -1 : 1;
    return (a->item > b->item) - (a->item < b->item);
}

static mr_status read_queries(reader *r, mr_error *err)
{
    mr_contrast_data *data = r->data;
    size_t rows = 0, labels = 0;
    for (size_t s = 0; s < data->lists.n_sources; s++) {
        for (size_t i = 0; i < data->lists.source[s].n_train; i++)
            labels += data->lists.source[s].train[i]->n_labels;
        rows += data->lists.source[s].n_train;
    }
    data->query = calloc(rows + 1, sizeof *data->query);
    data->relevant = calloc(labels + 1, sizeof *data->relevant);
    if (!data->query || !data->relevant)
        return MR_FAIL(err, NO_MEMORY, "%zu rows", rows);
    for (size_t s = 0; s < data->lists.n_sources; s++) {
        for (size_t i = 0; i < data->lists.source[s].n_train; i++) {
            const mr_task_row *row = data->lists.source[s].train[i];
            if (row->query.len == 0)
                continue; /* asked with a history alone */
            query_row *query = &data->query[data->n_queries];
            query->row = row;
            query->query = mr_hash_xxh3(row->query.data, row->query.len);
            mr_status status = add_text(r, "text", row->query, &query->text, err);
            if (status != MR_OK)
                return mr_error_prefix(err, status, "row '%.*s'", MR_STR_ARG(row->id));
            data->n_queries++;
            for (size_t k = 0; k < row->n_labels; k++)
                if (row->labels[k].grade > 0)
                    data->relevant[data->n_relevant++] =
                        (relevance){query->query, row->labels[k].item};
        }
    }
    qsort(data->relevant, data->n_relevant, sizeof *data->relevant, by_relevance);
    return MR_OK;
}

mr_status mr_contrast_data_open(mr_contrast_data **out, const mr_trainer *trainer, mr_error *err)
{
    const mr_recipe *recipe = trainer->recipe;
    if (recipe->data.users_weight > 0 && recipe->data.n_lists == 0)
        return MR_FAIL(err, INVALID,
                       "data.users_weight is %g: baskets are drawn beside data.lists, whose items "
                       "they are made of, and the recipe has none",
                       recipe->data.users_weight);
    mr_contrast_data *data = calloc(1, sizeof *data);
    if (!data)
        return MR_FAIL(err, NO_MEMORY, "data of pairs");
    data->seed = recipe->seed;
    reader r = {.data = data, .trainer = trainer};
    mr_status status = MR_OK;
    for (size_t i = 0; status == MR_OK && i < recipe->data.n_pairs; i++)
        status = read_pairs(&r, recipe->data.pairs[i], err);
    if (status == MR_OK && recipe->data.n_pairs > 0)
        status = make_blocks(data, err);
    if (status == MR_OK && recipe->data.n_lists > 0) {
        status = mr_lists_open(&data->lists, recipe, err);
        data->has_lists = status == MR_OK;
        data->first_item = data->texts.n;
        if (status == MR_OK)
            status =
                mr_item_texts_add(&data->texts, trainer, &data->lists, recipe->max_tokens, err);
        if (status == MR_OK)
            status = read_queries(&r, err);
    }
    mr_prompt_release(&r.prompt);
    if (status == MR_OK)
        *out = data;
    else
        mr_contrast_data_close(data);
    return status;
}

void mr_contrast_data_close(mr_contrast_data *data)
{
    if (!data)
        return;
    if (data->has_lists)
        mr_lists_close(&data->lists);
    mr_text_table_release(&data->texts);
    free(data->pair);
    free(data->section_begin);
    free(data->block_section);
    free(data->block_index);
    free(data->query);
    free(data->relevant);
    free(data);
}

/* ---- Drawing --------------------------------------------------------------------------------- */

const mr_text_table *mr_contrast_data_texts(const mr_contrast_data *data)
{
    return &data->texts;
}

static size_t valid_blocks(const mr_contrast_data *data)
{
    return data->n_blocks / VALID_EVERY;
}

uint64_t mr_contrast_data_count(const mr_contrast_data *data, mr_contrast_source source, bool valid)
{
    switch (source) {
    case MR_FROM_PAIRS:
        return BLOCK * (valid ? valid_blocks(data) : data->n_blocks - valid_blocks(data));
    case MR_FROM_LISTS: return valid ? 0 : data->n_queries;
    case MR_FROM_BASKETS: return valid ? 0 : mr_lists_n_picks(&data->lists);
    case MR_FROM_COUNT: break;
    }
    return 0;
}

/* Blocks VALID_EVERY - 1, 2 VALID_EVERY - 1, ... are the valid split; the others count on, and are
 * shuffled among each other. */
static mr_contrast_example pair_at(const mr_contrast_data *data, bool valid, uint64_t i)
{
    const uint64_t blocks = mr_contrast_data_count(data, MR_FROM_PAIRS, valid) / BLOCK;
    const uint64_t epoch = i / BLOCK / blocks, number = i / BLOCK % blocks;
    const uint64_t place = valid ? number * VALID_EVERY + VALID_EVERY - 1
                                 : mr_shuffle_at(data->seed, epoch, blocks, number);
    const uint64_t block = valid ? place : place + place / (VALID_EVERY - 1);
    const size_t section = data->block_section[block];
    const size_t begin = data->section_begin[section];
    const pair *p = &data->pair[begin + data->block_index[block] * BLOCK + i % BLOCK];
    return (mr_contrast_example){p->a, p->b, p->group, p->group};
}

static mr_contrast_example query_at(const mr_contrast_data *data, uint64_t i)
{
    const uint64_t n = data->n_queries;
    const size_t at = (size_t)mr_shuffle_at(data->seed + 1, i / n, n, i % n);
    const mr_task_row *row = data->query[at].row;
    size_t relevant = 0;
    for (size_t k = 0; k < row->n_labels; k++)
        relevant += row->labels[k].grade > 0;
    mr_rng rng = mr_rng_seed(data->seed ^ (i * 2 + 1) * UINT64_C(0x9E3779B97F4A7C15));
    uint64_t wanted = mr_rng_below(&rng, relevant);
    uint32_t item = 0;
    for (size_t k = 0; k < row->n_labels; k++)
        if (row->labels[k].grade > 0 && wanted-- == 0)
            item = row->labels[k].item;
    return (mr_contrast_example){data->query[at].text, data->first_item + item, (uint32_t)at, item};
}

static mr_contrast_example basket_at(const mr_contrast_data *data, uint64_t i)
{
    mr_rng rng = mr_rng_seed(data->seed ^ (i * 2 + 2) * UINT64_C(0x9E3779B97F4A7C15));
    const uint32_t number = (uint32_t)mr_rng_below(&rng, data->lists.n_baskets);
    const mr_lists_basket *basket = &data->lists.basket[number];
    const uint64_t x = mr_rng_below(&rng, basket->n);
    uint64_t y = mr_rng_below(&rng, basket->n - 1);
    y += y >= x;
    return (mr_contrast_example){data->first_item + basket->item[x],
                                 data->first_item + basket->item[y], number, basket->item[y]};
}

mr_contrast_example mr_contrast_data_example(const mr_contrast_data *data,
                                             mr_contrast_source source, bool valid, uint64_t i)
{
    switch (source) {
    case MR_FROM_PAIRS: return pair_at(data, valid, i);
    case MR_FROM_LISTS: return query_at(data, i);
    default: return basket_at(data, i);
    }
}

bool mr_contrast_data_related(const mr_contrast_data *data, mr_contrast_source source,
                              const mr_contrast_example *x, const mr_contrast_example *y)
{
    if (x->b == y->b)
        return true;
    if (source == MR_FROM_PAIRS)
        return x->key_a == y->key_a;
    if (source == MR_FROM_LISTS) {
        const relevance wanted = {data->query[x->key_a].query, y->key_b};
        return bsearch(&wanted, data->relevant, data->n_relevant, sizeof wanted, by_relevance);
    }
    if (source == MR_FROM_BASKETS)
        return mr_lists_holds(&data->lists.basket[x->key_a], y->key_b);
    return false;
}
