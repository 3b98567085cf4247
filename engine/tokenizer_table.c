/* tokenizer_table.c - the two hash tables: string to id, pair of ids to merge.
 *
 * Both are filled once and then only read. A file can be made so that its keys collide under a
 * known hash, and filling a table would then take the square of its size; so a table whose longest
 * chain is far beyond chance is filled anew with another seed, and a file that defeats several
 * seeds is refused. What is found does not depend on the seed.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "engine/tokenizer_private.h"

/* At most half full, the longest chain of a million keys is around 60 by chance. */
#define CHAIN_MAX 1024
#define SEEDS     8

static uint64_t seed_of(int attempt)
{
    return mr_tok_mix((uint64_t)attempt + 1, UINT64_C(0x2545F4914F6CDD1D));
}

/* A power of two, at least twice n. */
static uint32_t slots_for(size_t n)
{
    uint32_t slots = 16;
    while (slots < 2 * n)
        slots *= 2;
    return slots;
}

static uint64_t hash_text(const char *text, size_t len, uint64_t seed)
{
    uint64_t hash = seed ^ len * UINT64_C(0x9E3779B97F4A7C15);
    uint64_t word;
    for (; len >= sizeof word; text += sizeof word, len -= sizeof word) {
        memcpy(&word, text, sizeof word);
        hash = mr_tok_mix(word, hash);
    }
    word = 0;
    if (len)
        memcpy(&word, text, len);
    return mr_tok_mix(word, hash);
}

/* *collided: the chain is too long for this seed. False when the string is there already. */
static bool strings_add(mr_tok_strings *table, int32_t id, bool *collided)
{
    const mr_tok_span span = table->spans[id];
    const char *text = table->bytes + span.offset;
    uint64_t hash = hash_text(text, span.len, table->seed);
    uint32_t at = (uint32_t)hash & table->mask;
    for (int chain = 0; table->slots[at]; chain++, at = (at + 1) & table->mask) {
        if (chain > CHAIN_MAX) {
            *collided = true;
            return true;
        }
        if (table->slots[at] >> 32 != hash >> 32)
            continue;
        const mr_tok_span other = table->spans[(uint32_t)table->slots[at] - 1];
        if (other.len == span.len && memcmp(table->bytes + other.offset, text, span.len) == 0)
            return false;
    }
    table->slots[at] = hash >> 32 << 32 | (uint32_t)(id + 1);
    return true;
}

mr_status mr_tok_strings_init(mr_tok_strings *table, mr_arena *arena, const char *bytes,
                              const mr_tok_span *spans, int32_t n_ids, const char *name,
                              mr_error *err)
{
    size_t n = 0;
    for (int32_t id = 0; id < n_ids; id++)
        n += spans[id].offset != MR_TOK_NO_SPAN;
    const uint32_t n_slots = slots_for(n);
    *table = (mr_tok_strings){.bytes = bytes, .spans = spans, .mask = n_slots - 1};
    table->slots = mr_arena_array(arena, uint64_t, n_slots);
    if (!table->slots)
        return MR_FAIL(err, NO_MEMORY, "%s: a table of %zu tokens", name, n);

    for (int attempt = 0; attempt < SEEDS; attempt++) {
        bool collided = false;
        table->seed = seed_of(attempt);
        memset(table->slots, 0, n_slots * sizeof *table->slots);
        for (int32_t id = 0; id < n_ids && !collided; id++) {
            if (spans[id].offset != MR_TOK_NO_SPAN && !strings_add(table, id, &collided)) {
                mr_str text = {bytes + spans[id].offset, spans[id].len};
                return MR_FAIL(err, CORRUPT, "%s: the token '%.*s' is there twice, once as %d",
                               name, MR_STR_ARG(text), (int)id);
            }
        }
        if (!collided)
            return MR_OK;
    }
    return MR_FAIL(err, CORRUPT, "%s: the vocabulary was made so that its hashes collide", name);
}

int32_t mr_tok_strings_find(const mr_tok_strings *table, const char *text, size_t len)
{
    uint64_t hash = hash_text(text, len, table->seed);
    for (uint32_t at = (uint32_t)hash & table->mask; table->slots[at];
         at = (at + 1) & table->mask) {
        if (table->slots[at] >> 32 != hash >> 32)
            continue;
        int32_t id = (int32_t)((uint32_t)table->slots[at] - 1);
        const mr_tok_span span = table->spans[id];
        if (span.len == len && memcmp(table->bytes + span.offset, text, len) == 0)
            return id;
    }
    return -1;
}

static bool merges_fill(mr_tok_merges *table, const mr_tok_merge *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t at = (uint32_t)mr_tok_mix(list[i].pair, table->seed) & table->mask;
        int chain = 0;
        while (table->slots[at].pair != MR_TOK_NO_PAIR && table->slots[at].pair != list[i].pair) {
            if (++chain > CHAIN_MAX)
                return false;
            at = (at + 1) & table->mask;
        }
        table->slots[at] = list[i];
    }
    return true;
}

mr_status mr_tok_merges_init(mr_tok_merges *table, mr_arena *arena, const mr_tok_merge *list,
                             size_t n, const char *name, mr_error *err)
{
    const uint32_t n_slots = slots_for(n);
    table->mask = n_slots - 1;
    table->slots = mr_arena_array(arena, mr_tok_merge, n_slots);
    if (!table->slots)
        return MR_FAIL(err, NO_MEMORY, "%s: a table of %zu merges", name, n);
    for (int attempt = 0; attempt < SEEDS; attempt++) {
        table->seed = seed_of(attempt);
        for (uint32_t at = 0; at < n_slots; at++)
            table->slots[at].pair = MR_TOK_NO_PAIR;
        if (merges_fill(table, list, n))
            return MR_OK;
    }
    return MR_FAIL(err, CORRUPT, "%s: the merges were made so that their hashes collide", name);
}
