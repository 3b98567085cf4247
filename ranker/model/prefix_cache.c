/* prefix_cache.c - see prefix_cache.h.
 *
 * A table of chains over boundaries' hashes; each boundary of an entry is a node in it, unless
 * another entry already answers for the same beginning. When that other one goes, the beginning is
 * computed once more and then answered for by whoever computed it: simpler than handing nodes over,
 * and an instruction's few tokens are cheap.
 * SPDX-License-Identifier: Apache-2.0 */
#include "ranker/model/prefix_cache.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/hash.h"

#define BUCKETS 4096 /* a power of two; entries are thousands at most */

typedef struct node node;
struct node {
    node *next; /* in its chain */
    mr_prefix_entry *entry;
    uint64_t hash;
    size_t n, n_embeds; /* positions before the boundary, vectors among them */
    bool indexed;
};

struct mr_prefix_entry {
    mr_prefix_entry *newer, *older; /* by last use */
    mr_timeline *timeline;          /* owned */
    int32_t *ids;                   /* [n], owned */
    float *embeds;                  /* [n_embeds][C], owned */
    size_t n, n_embeds, C;
    size_t takers;
    size_t bytes;
    node node[MR_PREFIX_MAX_BOUNDARIES + 1]; /* the last one is the whole prefix */
    size_t n_nodes;
};

struct mr_prefix_cache {
    const mr_model *model;
    uint64_t max_bytes;
    mr_prefix_entry *newest, *oldest;
    node *bucket[BUCKETS];
    mr_prefix_cache_stats stats;
};

mr_status mr_prefix_cache_new(mr_prefix_cache **out, const mr_model *model, uint64_t max_bytes,
                              mr_error *err)
{
    mr_prefix_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return MR_FAIL(err, NO_MEMORY, "a prefix cache");
    cache->model = model;
    cache->max_bytes = max_bytes;
    *out = cache;
    return MR_OK;
}

/* ---- entries --------------------------------------------------------------------------------- */

static void unlink_use(mr_prefix_cache *cache, mr_prefix_entry *entry)
{
    *(entry->newer ? &entry->newer->older : &cache->newest) = entry->older;
    *(entry->older ? &entry->older->newer : &cache->oldest) = entry->newer;
    entry->newer = entry->older = NULL;
}

static void link_newest(mr_prefix_cache *cache, mr_prefix_entry *entry)
{
    entry->older = cache->newest;
    *(cache->newest ? &cache->newest->newer : &cache->oldest) = entry;
    cache->newest = entry;
}

static void entry_free(mr_prefix_entry *entry)
{
    mr_timeline_free(entry->timeline);
    free(entry->ids);
    free(entry->embeds);
    free(entry);
}

static void forget(mr_prefix_cache *cache, mr_prefix_entry *entry)
{
    for (size_t i = 0; i < entry->n_nodes; i++) {
        if (!entry->node[i].indexed)
            continue;
        node **link = &cache->bucket[entry->node[i].hash % BUCKETS];
        while (*link != &entry->node[i])
            link = &(*link)->next;
        *link = entry->node[i].next;
    }
    unlink_use(cache, entry);
    cache->stats.bytes -= entry->bytes;
    cache->stats.entries--;
    entry_free(entry);
}

void mr_prefix_cache_free(mr_prefix_cache *cache)
{
    if (!cache)
        return;
    while (cache->newest)
        forget(cache, cache->newest);
    free(cache);
}

/* Makes room for `bytes` more, as far as what is not taken goes. */
static void make_room(mr_prefix_cache *cache, size_t bytes)
{
    mr_prefix_entry *entry = cache->oldest;
    while (entry && cache->stats.bytes + bytes > cache->max_bytes) {
        mr_prefix_entry *newer = entry->newer;
        if (entry->takers == 0) {
            forget(cache, entry);
            cache->stats.evictions++;
        }
        entry = newer;
    }
}

/* ---- beginnings ------------------------------------------------------------------------------ */

static uint64_t hash_beginning(const mr_input *input, size_t C, size_t n, size_t n_embeds)
{
    const uint64_t parts[2] = {
        mr_hash_xxh3(input->ids, n * sizeof *input->ids),
        n_embeds ? mr_hash_xxh3(input->embeds, n_embeds * C * sizeof *input->embeds) : 0};
    return mr_hash_xxh3(parts, sizeof parts);
}

/* The boundaries of a key with their hashes, the whole prefix last. Positions out of order or
 * beyond the end are left out. */
static size_t find_boundaries(const mr_prefix_key *key, size_t C,
                              node out[MR_PREFIX_MAX_BOUNDARIES + 1])
{
    size_t n_out = 0, at = 0, embeds = 0;
    for (size_t b = 0; b <= key->n_boundaries && b <= MR_PREFIX_MAX_BOUNDARIES; b++) {
        const size_t end = b < key->n_boundaries ? key->boundary[b] : key->input.n;
        if (end <= at || end > key->input.n || (b < key->n_boundaries && end == key->input.n))
            continue;
        for (; at < end; at++)
            embeds += key->input.ids[at] == MR_ID_EMBED;
        out[n_out++] = (node){
            .hash = hash_beginning(&key->input, C, end, embeds), .n = end, .n_embeds = embeds};
    }
    return n_out;
}

/* Who answers for a beginning, the same in every position; `whole`: that is nothing but it. */
static node *look_up(const mr_prefix_cache *cache, const node *wanted, const mr_input *input,
                     bool whole)
{
    const size_t C = (size_t)cache->model->config.C;
    for (node *n = cache->bucket[wanted->hash % BUCKETS]; n; n = n->next) {
        if (n->hash == wanted->hash && n->n == wanted->n && n->n_embeds == wanted->n_embeds &&
            (!whole || n->entry->n == n->n) &&
            memcmp(n->entry->ids, input->ids, n->n * sizeof *input->ids) == 0 &&
            (n->n_embeds == 0 ||
             memcmp(n->entry->embeds, input->embeds, n->n_embeds * C * sizeof *input->embeds) == 0))
            return n;
    }
    return NULL;
}

/* ---- take and give --------------------------------------------------------------------------- */

static mr_status entry_new(const mr_prefix_cache *cache, const mr_input *input,
                           mr_prefix_entry **out, mr_error *err)
{
    const size_t ids_bytes = input->n * sizeof *input->ids;
    const size_t embed_bytes =
        input->n_embeds * (size_t)cache->model->config.C * sizeof *input->embeds;
    mr_prefix_entry *entry = calloc(1, sizeof *entry);
    mr_status status = MR_OK;
    if (entry) {
        entry->n = input->n;
        entry->n_embeds = input->n_embeds;
        entry->C = (size_t)cache->model->config.C;
        entry->ids = malloc(ids_bytes ? ids_bytes : 1);
        entry->embeds = malloc(embed_bytes ? embed_bytes : 1);
    }
    if (!entry || !entry->ids || !entry->embeds)
        status = MR_FAIL(err, NO_MEMORY, "a prefix of %zu positions", input->n);
    else
        status = mr_timeline_new(&entry->timeline, cache->model, input->n, err);
    if (status != MR_OK) {
        if (entry)
            entry_free(entry);
        return status;
    }
    memcpy(entry->ids, input->ids, ids_bytes);
    if (embed_bytes)
        memcpy(entry->embeds, input->embeds, embed_bytes);
    entry->bytes = sizeof *entry + ids_bytes + embed_bytes + mr_timeline_bytes(entry->timeline);
    *out = entry;
    return MR_OK;
}

/* The entry that is this whole prefix, if there is one; else the one that holds the longest
 * beginning of it and how many positions that is. An entry that is still being computed lends
 * nothing. */
static mr_prefix_entry *longest(const mr_prefix_cache *cache, const node *boundary, size_t n,
                                const mr_input *input, bool *whole, size_t *common)
{
    node *found = n ? look_up(cache, &boundary[n - 1], input, true) : NULL;
    *whole = found != NULL;
    *common = found ? mr_timeline_length(found->entry->timeline) : 0;
    if (found)
        return found->entry;
    for (size_t i = n; i-- > 0;) {
        found = look_up(cache, &boundary[i], input, false);
        if (found && mr_timeline_length(found->entry->timeline) >= boundary[i].n) {
            *common = boundary[i].n;
            return found->entry;
        }
    }
    return NULL;
}

size_t mr_prefix_cache_lacking(const mr_prefix_cache *cache, const mr_prefix_key *key,
                               const mr_prefix_entry **entry)
{
    node boundary[MR_PREFIX_MAX_BOUNDARIES + 1];
    const size_t n = find_boundaries(key, (size_t)cache->model->config.C, boundary);
    bool whole;
    size_t common;
    const mr_prefix_entry *found = longest(cache, boundary, n, &key->input, &whole, &common);
    *entry = whole ? found : NULL;
    return key->input.n - common;
}

mr_status mr_prefix_cache_take(mr_prefix_cache *cache, const mr_prefix_key *key,
                               mr_prefix_entry **out, mr_error *err)
{
    node boundary[MR_PREFIX_MAX_BOUNDARIES + 1];
    const size_t n = find_boundaries(key, (size_t)cache->model->config.C, boundary);
    bool whole;
    size_t common;
    mr_prefix_entry *found = longest(cache, boundary, n, &key->input, &whole, &common);
    cache->stats.tokens += key->input.n;
    if (found) {
        unlink_use(cache, found);
        link_newest(cache, found);
    }
    if (whole) {
        found->takers++;
        cache->stats.hits++;
        cache->stats.tokens_cached += common;
        *out = found;
        return MR_OK;
    }

    mr_prefix_entry *entry = NULL;
    mr_status status = entry_new(cache, &key->input, &entry, err);
    if (status == MR_OK && found)
        status = mr_timeline_copy(entry->timeline, found->timeline, common, err);
    if (status != MR_OK) {
        if (entry)
            entry_free(entry);
        return status;
    }
    *(common ? &cache->stats.branches : &cache->stats.misses) += 1;
    cache->stats.tokens_cached += common;

    entry->takers = 1;
    make_room(cache, entry->bytes);
    for (size_t i = 0; i < n; i++) {
        node *mine = &entry->node[entry->n_nodes++];
        *mine = boundary[i];
        mine->entry = entry;
        if (i + 1 < n && look_up(cache, mine, &key->input, false))
            continue;
        mine->indexed = true;
        mine->next = cache->bucket[mine->hash % BUCKETS];
        cache->bucket[mine->hash % BUCKETS] = mine;
    }
    link_newest(cache, entry);
    cache->stats.entries++;
    cache->stats.bytes += entry->bytes;
    *out = entry;
    return MR_OK;
}

void mr_prefix_cache_give(mr_prefix_cache *cache, mr_prefix_entry *entry)
{
    if (--entry->takers > 0)
        return;
    if (entry->n_nodes == 0 || mr_timeline_length(entry->timeline) < entry->n)
        forget(cache, entry);
    make_room(cache, 0);
}

mr_timeline *mr_prefix_entry_timeline(const mr_prefix_entry *entry)
{
    return entry->timeline;
}

mr_input mr_prefix_entry_pending(const mr_prefix_entry *entry)
{
    const mr_input whole = {
        .ids = entry->ids, .n = entry->n, .embeds = entry->embeds, .n_embeds = entry->n_embeds};
    return mr_input_from(&whole, mr_timeline_length(entry->timeline), entry->C);
}

void mr_prefix_cache_stat(const mr_prefix_cache *cache, mr_prefix_cache_stats *out)
{
    *out = cache->stats;
}
