/* bundle_system.c - vectors and rankings of a bundle. See bundle_system.h; dot is in bundle_dot.c.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/evaluation/bundle_system.h"

#include <math.h>
#include <stdlib.h>

#include "core/clock.h"
#include "ranker/evaluation/bundle_system_private.h"

/* Items that are encoded between two looks at the progress. */
#define BATCH ((size_t)64)
/* Of records in memory: 12,000 items of 50 tokens of 1,024 are 1.2 GB. */
#define STORE_BYTES ((uint64_t)16 << 30)
/* Words of each item's text that history_text takes. */
#define HISTORY_WORDS 12

mr_status mr_bundle_system_open(mr_bundle_system **out, const char *folder, const char *store,
                                int threads, mr_error *err)
{
    mr_bundle_system *system = calloc(1, sizeof *system);
    if (!system)
        return MR_FAIL(err, NO_MEMORY, "bundle '%s'", folder);
    mr_bundle_options options = MR_BUNDLE_OPTIONS_DEFAULT;
    options.threads = threads;
    mr_status status = mr_bundle_open(&system->bundle, folder, &options, err);
    if (status == MR_OK && store) {
        mr_store_options existing = MR_STORE_OPTIONS_DEFAULT;
        existing.no_create = true;
        existing.read_only = true;
        system->own_store = false;
        status = mr_store_open(&system->store, store, &existing, err);
    } else {
        system->own_store = true;
    }
    if (status == MR_OK)
        *out = system;
    else
        mr_bundle_system_close(system);
    return status;
}

static void drop_items(mr_bundle_system *system)
{
    free(system->mean);
    free(system->slot);
    system->mean = NULL;
    system->slot = NULL;
    system->n_slots = 0;
    system->record_bytes = 0;
    system->n_records = 0;
    mr_ranker_free(system->ranker);
    system->ranker = NULL;
    if (system->own_store) {
        mr_store_close(system->store);
        system->store = NULL;
    }
    system->tasks = NULL;
}

void mr_bundle_system_close(mr_bundle_system *system)
{
    if (!system)
        return;
    drop_items(system);
    mr_store_close(system->store);
    mr_text_encoder_close(system->encoder);
    mr_bundle_close(system->bundle);
    mr_arena_done(&system->arena);
    mr_strbuf_release(&system->text);
    free(system);
}

const mr_bundle *mr_bundle_system_bundle(const mr_bundle_system *system)
{
    return system->bundle;
}

/* ---- vectors --------------------------------------------------------------------------------- */

typedef struct {
    uint32_t item[BATCH];
    mr_fields fields[BATCH];
    float *values; /* [BATCH][T][dim] */
    uint16_t tokens[BATCH];
    mr_store_put_item put[BATCH];
} encode_batch;

static mr_status put_batch(mr_bundle_system *system, encode_batch *batch, size_t n, mr_error *err)
{
    const mr_encoder_spec *spec = &system->bundle->item;
    size_t n_put = 0;
    for (size_t i = 0; i < n; i++) {
        if (batch->tokens[i] == 0)
            continue; /* no text: an item without an embedding, as in serving */
        const mr_record_info info = {.dtype = MR_RECORD_BF16,
                                     .version = 1,
                                     .space = spec->space,
                                     .tokens = batch->tokens[i],
                                     .dim = (uint16_t)spec->dim};
        const size_t len = mr_record_bytes(&info);
        void *record = mr_arena_alloc(&system->arena, len, 1, 16);
        if (!record)
            return MR_FAIL(err, NO_MEMORY, "records of %zu items", n);
        const mr_str id = mr_tasks_item(system->tasks, batch->item[i])->id;
        mr_status status = mr_record_encode(
            &info, batch->values + i * (size_t)spec->tokens * spec->dim, record, err);
        if (status != MR_OK)
            return mr_error_prefix(err, status, "item '%.*s'", MR_STR_ARG(id));
        batch->put[n_put++] = (mr_store_put_item){id, {record, len}};
    }
    return mr_store_put(system->store, MR_ENTITY_ITEM, spec->space, batch->put, n_put, NULL, err);
}

static mr_status encode_items(mr_bundle_system *system, const uint8_t *needed,
                              mr_encode_progress progress, void *context, mr_error *err)
{
    const mr_encoder_spec *spec = &system->bundle->item;
    const size_t n_items = mr_tasks_n_items(system->tasks);
    size_t total = 0, done = 0, n = 0;
    for (size_t i = 0; i < n_items; i++)
        total += needed[i] != 0;
    encode_batch *batch = mr_arena_array(&system->arena, encode_batch, 1);
    if (batch)
        batch->values =
            mr_arena_array(&system->arena, float, BATCH *(size_t)spec->tokens * spec->dim);
    if (!batch || !batch->values)
        return MR_FAIL(err, NO_MEMORY, "a batch of %zu items", BATCH);
    const mr_arena_mark mark = mr_arena_now(&system->arena);
    for (size_t i = 0; i <= n_items; i++) {
        if (i < n_items && needed[i]) {
            batch->item[n] = (uint32_t)i;
            batch->fields[n++] = mr_tasks_item(system->tasks, (uint32_t)i)->fields;
        }
        if (n == 0 || (n < BATCH && i < n_items))
            continue;
        mr_status status = mr_text_encoder_run(system->encoder, batch->fields, n, batch->values,
                                               batch->tokens, NULL, err);
        if (status == MR_OK)
            status = put_batch(system, batch, n, err);
        mr_arena_rewind(&system->arena, mark);
        if (status != MR_OK)
            return status;
        done += n;
        n = 0;
        if (progress)
            progress(context, done, total);
    }
    return MR_OK;
}

/* Whether the prompt, or the user in it, is made of items' vectors. */
static bool needs_vectors(const mr_bundle *bundle)
{
    return bundle->mixed || bundle->user.kind == MR_ENCODER_HISTORY;
}

typedef struct {
    mr_bundle_system *system;
} count_visit;

static void on_counted(void *context, size_t i, mr_bytes record)
{
    mr_bundle_system *system = ((count_visit *)context)->system;
    (void)i;
    if (!record.data)
        return;
    system->record_bytes += record.len;
    system->n_records++;
}

static mr_status count_records(mr_bundle_system *system, const uint8_t *needed, mr_error *err)
{
    const mr_bundle *bundle = system->bundle;
    const size_t n_items = mr_tasks_n_items(system->tasks);
    mr_arena_rewind(&system->arena, (mr_arena_mark){0});
    mr_str *ids = mr_arena_array(&system->arena, mr_str, n_items);
    if (!ids)
        return MR_FAIL(err, NO_MEMORY, "%zu items", n_items);
    size_t n = 0;
    for (size_t i = 0; i < n_items; i++)
        if (needed[i])
            ids[n++] = mr_tasks_item(system->tasks, (uint32_t)i)->id;
    count_visit visit = {system};
    mr_status status = mr_store_fetch(system->store, MR_ENTITY_ITEM, bundle->item.space, ids, n,
                                      on_counted, &visit, err);
    if (status == MR_OK && n && system->n_records == 0)
        status = MR_FAIL(err, MISMATCH,
                         "the store has none of the %zu items in the space of bundle '%s': encode "
                         "them with this bundle, or leave store= out",
                         n, bundle->name);
    return status;
}

static void count_texts(mr_bundle_system *system, const uint8_t *needed)
{
    for (size_t i = 0; i < mr_tasks_n_items(system->tasks); i++)
        if (needed[i]) {
            const mr_item *item = mr_tasks_item(system->tasks, (uint32_t)i);
            system->record_bytes += mr_fields_get(item->fields, "text").len;
            system->n_records++;
        }
}

mr_status mr_bundle_system_prepare(mr_bundle_system *system, const mr_tasks *tasks,
                                   const uint8_t *needed, bool with_means,
                                   mr_encode_progress progress, void *context, mr_error *err)
{
    mr_status status = MR_OK;
    const mr_bundle *bundle = system->bundle;
    const bool vectors = with_means || needs_vectors(bundle);
    drop_items(system);
    system->tasks = tasks;
    if (bundle->mixed && system->own_store &&
        mr_template_requires_slot(bundle->suffix, MR_SLOT_IMAGE))
        return MR_FAIL(err, UNSUPPORTED,
                       "bundle '%s' must have pictures of items: put them into a store with "
                       "'mixrank encode' and give store=URL",
                       bundle->name);
    if (vectors && (system->own_store || with_means) && !system->encoder)
        status = mr_bundle_open_item_encoder(bundle, MR_GEMM_BLAS, 0, &system->encoder, err);
    if (status == MR_OK && vectors && system->own_store) {
        mr_store_options memory = MR_STORE_OPTIONS_DEFAULT;
        memory.max_bytes = STORE_BYTES;
        status = mr_store_open(&system->store, "memory:", &memory, err);
        mr_arena_rewind(&system->arena, (mr_arena_mark){0});
        if (status == MR_OK)
            status = encode_items(system, needed, progress, context, err);
    }
    if (status == MR_OK && vectors)
        status = count_records(system, needed, err);
    if (status == MR_OK && !bundle->mixed) {
        system->record_bytes = 0;
        system->n_records = 0;
        count_texts(system, needed);
    }
    if (status == MR_OK && with_means)
        status = mr_bundle_system_make_means(system, needed, err);
    mr_ranker_options options = MR_RANKER_OPTIONS_DEFAULT;
    options.max_candidates = mr_tasks_n_items(tasks);
    options.encode_missing = false;
    if (status == MR_OK)
        status = mr_ranker_new(&system->ranker, bundle, system->store, &options, err);
    return status == MR_OK ? status
                           : mr_error_prefix(err, status, "preparing bundle '%s'", bundle->name);
}

double mr_bundle_system_item_bytes(const mr_bundle_system *system)
{
    return system->n_records ? (double)system->record_bytes / (double)system->n_records : 0;
}

double mr_bundle_system_dot_bytes(const mr_bundle_system *system)
{
    const mr_record_info one = {
        .dtype = MR_RECORD_BF16, .tokens = 1, .dim = (uint16_t)system->bundle->item.dim};
    return (double)mr_record_bytes(&one);
}

/* ---- ranking --------------------------------------------------------------------------------- */

/* The first words of a text. */
static size_t first_words(mr_str text, size_t words)
{
    size_t at = 0;
    for (size_t n = 0; n < words && at < text.len; n++) {
        while (at < text.len && text.data[at] == ' ')
            at++;
        while (at < text.len && text.data[at] != ' ')
            at++;
    }
    return at;
}

/* "title: first words of the text; title: ..." of up to `most` items, the ones and in the order
 * that a history encoder would take (encoders/history.h, a set). Borrowed until the next call. */
static mr_status history_text(mr_bundle_system *system, const mr_task_row *row, size_t most,
                              mr_str *out, mr_error *err)
{
    const size_t n = row->n_history;
    void *scratch = mr_arena_alloc(&system->arena, mr_history_scratch_bytes(n), 1, 16);
    size_t *chosen = mr_arena_array(&system->arena, size_t, most);
    mr_str *ids = mr_arena_array(&system->arena, mr_str, n);
    if (!scratch || !chosen || !ids)
        return MR_FAIL(err, NO_MEMORY, "a history of %zu items", n);
    for (size_t i = 0; i < n; i++)
        ids[i] = mr_tasks_item(system->tasks, row->history[i])->id;
    const size_t n_chosen = mr_history_choose(ids, n, MR_HISTORY_SET, most, chosen, scratch);
    mr_strbuf_clear(&system->text);
    for (size_t i = 0; i < n_chosen; i++) {
        const mr_item *item = mr_tasks_item(system->tasks, row->history[chosen[i]]);
        const mr_str title = mr_fields_get(item->fields, "title");
        const mr_str text = mr_fields_get(item->fields, "text");
        mr_strbuf_puts(&system->text, i ? "; " : "");
        mr_strbuf_append(&system->text, title.data, title.len);
        mr_strbuf_puts(&system->text, title.len && text.len ? ": " : "");
        mr_strbuf_append(&system->text, text.data, first_words(text, HISTORY_WORDS));
    }
    if (system->text.failed)
        return MR_FAIL(err, NO_MEMORY, "a history of %zu items", n);
    *out = (mr_str){system->text.data, system->text.len};
    return MR_OK;
}

static mr_status set_user(mr_bundle_system *system, const mr_task_row *row,
                          const mr_bundle_variant *variant, mr_field *field,
                          mr_rank_request *request, mr_error *err)
{
    const mr_bundle *bundle = system->bundle;
    if (variant->no_user || row->n_history == 0)
        return MR_OK;
    if (bundle->user.kind == MR_ENCODER_HISTORY) {
        mr_str *ids = mr_arena_array(&system->arena, mr_str, row->n_history);
        if (!ids)
            return MR_FAIL(err, NO_MEMORY, "a history of %zu items", row->n_history);
        for (size_t i = 0; i < row->n_history; i++)
            ids[i] = mr_tasks_item(system->tasks, row->history[i])->id;
        request->history = ids;
        request->n_history = row->n_history;
    }
    if (mr_template_uses_field(bundle->prefix, "history")) {
        *field = (mr_field){mr_str_of("history"), {0}};
        request->fields = (mr_fields){field, 1};
        /* A request without a query must know somebody; without a user slot nobody is looked up. */
        if (!mr_template_uses_slot(bundle->prefix, MR_SLOT_USER))
            request->user_id = mr_str_of("-");
        return history_text(system, row, variant->history_items ? variant->history_items : 50,
                            &field->value, err);
    }
    return MR_OK;
}

mr_status mr_bundle_system_rank(mr_bundle_system *system, const mr_task_row *row,
                                const mr_bundle_variant *variant, double *scores,
                                mr_system_work *work, mr_error *err)
{
    mr_arena_rewind(&system->arena, (mr_arena_mark){0});
    mr_rank_request request = MR_RANK_REQUEST_DEFAULT;
    mr_field history;
    mr_candidate *candidates = mr_arena_array(&system->arena, mr_candidate, row->n_candidates);
    if (!candidates)
        return MR_FAIL(err, NO_MEMORY, "%zu candidates", row->n_candidates);
    for (size_t i = 0; i < row->n_candidates; i++) {
        const mr_item *item = mr_tasks_item(system->tasks, mr_task_candidate(row, i));
        candidates[i] = (mr_candidate){.id = item->id, .fields = item->fields};
        scores[i] = 0;
    }
    request.candidates = candidates;
    request.n_candidates = row->n_candidates;
    if (!variant->no_query)
        request.query = row->query;
    mr_status status = set_user(system, row, variant, &history, &request, err);
    if (status != MR_OK)
        return status;
    if (request.query.len == 0 && request.n_history == 0 && request.fields.n == 0)
        return MR_OK;
    mr_rank_reply *reply = NULL;
    status = mr_ranker_rank(system->ranker, &request, &reply, err);
    if (status != MR_OK)
        return mr_error_prefix(err, status, "bundle '%s', row '%.*s'", system->bundle->name,
                               MR_STR_ARG(row->id));
    for (size_t i = 0; i < reply->n_items; i++)
        scores[reply->items[i].index] = reply->items[i].margin;
    work->candidates += reply->n_candidates;
    work->unscored += reply->n_candidates - reply->n_scored;
    work->prefix_tokens += reply->work.prefix_tokens;
    work->suffix_tokens += reply->work.suffix_tokens;
    work->time_us += reply->work.total_us;
    mr_rank_reply_free(reply);
    return MR_OK;
}
