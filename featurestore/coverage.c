/* coverage.c - see coverage.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "featurestore/coverage.h"

#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "featurestore/record.h"

#define BATCH 512

typedef struct {
    mr_store *store;
    mr_entity entity;
    uint64_t next;
    mr_coverage_lacking lacking;
    mr_coverage_progress progress;
    void *context;
    mr_coverage *out;
    mr_error *err;
    mr_status status; /* of the lookups; the walk ends with the first failure */
    mr_arena arena;   /* ids of the batch */
    size_t n;
    mr_str ids[BATCH];
    uint64_t versions[BATCH]; /* of the current records */
} survey;

double mr_coverage_share(const mr_coverage *coverage)
{
    return coverage->ids == 0
               ? 1
               : (double)(coverage->covered + coverage->removed) / (double)coverage->ids;
}

static void on_next(void *context, size_t i, mr_bytes record)
{
    survey *s = context;
    mr_record_info info = {0};
    if (!record.data)
        s->out->missing++;
    else if (mr_record_check(NULL, record, &info, NULL) != MR_OK || info.space != s->next)
        s->out->damaged++;
    else if (info.tombstone)
        s->out->removed++;
    else {
        s->out->covered++;
        s->out->older += info.version < s->versions[i];
        return;
    }
    if (s->lacking && !info.tombstone)
        s->lacking(s->context, s->ids[i]);
}

static void look_up(survey *s)
{
    if (s->n && s->status == MR_OK)
        s->status = mr_store_fetch(s->store, s->entity, s->next, s->ids, s->n, on_next, s, s->err);
    s->n = 0;
    mr_arena_rewind(&s->arena, (mr_arena_mark){0});
    if (s->progress && s->status == MR_OK)
        s->progress(s->context, s->out->ids + s->out->tombstones);
}

static bool on_current(void *context, mr_str id, mr_bytes record)
{
    survey *s = context;
    mr_record_info info = {0};
    /* A current record that is damaged is an id that is ranked by its prior; the next space is to
     * have it all the same. */
    if (mr_record_peek(NULL, record, &info, NULL) == MR_OK && info.tombstone) {
        s->out->tombstones++;
        return true;
    }
    char *copy = mr_arena_strndup(&s->arena, id.data, id.len);
    if (!copy) {
        s->status = MR_FAIL(s->err, NO_MEMORY, "ids of a coverage report");
        return false;
    }
    s->out->ids++;
    s->ids[s->n] = (mr_str){copy, id.len};
    s->versions[s->n++] = info.version;
    if (s->n == BATCH)
        look_up(s);
    return s->status == MR_OK;
}

mr_status mr_store_coverage(mr_store *store, mr_entity entity, uint64_t current, uint64_t next,
                            mr_coverage_lacking lacking, mr_coverage_progress progress,
                            void *context, mr_coverage *out, mr_error *err)
{
    mr_coverage counted = {0};
    survey *s = calloc(1, sizeof *s);
    if (!s)
        return MR_FAIL(err, NO_MEMORY, "a coverage report");
    s->store = store;
    s->entity = entity;
    s->next = next;
    s->lacking = lacking;
    s->progress = progress;
    s->context = context;
    s->out = &counted;
    s->err = err;
    mr_status status = mr_store_walk(store, entity, current, on_current, s, err);
    if (status == MR_OK)
        look_up(s);
    if (s->status != MR_OK)
        status = s->status;
    if (status == MR_OK)
        *out = counted;
    mr_arena_done(&s->arena);
    free(s);
    return status;
}
