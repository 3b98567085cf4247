/* bpe_table.c - strings with numbers: words, tokens, and pairs of tokens.
 *
 * Texts may come from anyone, and words can be chosen so that they collide under a hash that is
 * known. A chain far beyond chance makes the table change its seed; texts that defeat several seeds
 * are refused. Numbers do not depend on the seed.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "ranker/training/bpe_private.h"

/* At most half full, the longest chain of a million strings is around 60 by chance. */
#define CHAIN_MAX 1024
#define SEEDS     8
#define MAX_BYTES ((size_t)2 << 30)

mr_status mr_bpe_reserve(void **data, size_t *capacity, size_t n, size_t size, mr_error *err)
{
    if (n <= *capacity)
        return MR_OK;
    size_t wanted, bytes;
    if (!mr_size_add(n, n / 2, &wanted) || !mr_size_add(wanted, 64, &wanted) ||
        !mr_size_mul(wanted, size, &bytes))
        return MR_FAIL(err, NO_MEMORY, "BPE training: %zu elements of %zu bytes", n, size);
    void *grown = realloc(*data, bytes);
    if (!grown)
        return MR_FAIL(err, NO_MEMORY, "BPE training: %zu bytes", bytes);
    *data = grown;
    *capacity = wanted;
    return MR_OK;
}

static uint64_t mix(uint64_t value, uint64_t seed)
{
    value = (value ^ seed) * UINT64_C(0x9E3779B97F4A7C15);
    value ^= value >> 32;
    value *= UINT64_C(0xD6E8FEB86659FD93);
    return value ^ value >> 32;
}

static uint64_t hash_of(mr_str text, unsigned seed)
{
    uint64_t hash = mix(seed + 1u, text.len);
    uint64_t part;
    for (; text.len >= sizeof part; text.data += sizeof part, text.len -= sizeof part)
        hash = mix(mr_load_u64le(text.data), hash);
    part = 0;
    if (text.len)
        memcpy(&part, text.data, text.len);
    return mix(part, hash);
}

/* The slot of a string: its own or a free one. False: the chain is too long. */
static bool find_slot(const mr_bpe_strings *strings, mr_str text, uint64_t hash, size_t *slot)
{
    size_t at = (size_t)hash & (strings->n_slots - 1);
    for (int chain = 0; strings->slots[at]; at = (at + 1) & (strings->n_slots - 1)) {
        if (++chain > CHAIN_MAX)
            return false;
        const uint64_t found = strings->slots[at];
        if (found >> 32 == hash >> 32 &&
            mr_str_equal(mr_bpe_strings_at(strings, (uint32_t)found - 1), text))
            break;
    }
    *slot = at;
    return true;
}

static bool fill(mr_bpe_strings *strings)
{
    memset(strings->slots, 0, strings->n_slots * sizeof *strings->slots);
    for (uint32_t i = 0; i < strings->n; i++) {
        const mr_str text = mr_bpe_strings_at(strings, i);
        const uint64_t hash = hash_of(text, strings->seed);
        size_t slot;
        if (!find_slot(strings, text, hash, &slot))
            return false;
        strings->slots[slot] = hash >> 32 << 32 | (i + 1);
    }
    return true;
}

static mr_status reseed(mr_bpe_strings *strings, mr_error *err)
{
    while (++strings->seed < SEEDS) {
        if (fill(strings))
            return MR_OK;
    }
    return MR_FAIL(err, EXHAUSTED, "BPE training: the texts were made so that hashes collide");
}

static mr_status grow_slots(mr_bpe_strings *strings, mr_error *err)
{
    const size_t n = strings->n_slots ? 2 * strings->n_slots : 1024;
    uint64_t *grown = malloc(n * sizeof *grown);
    if (!grown)
        return MR_FAIL(err, NO_MEMORY, "BPE training: a table of %zu strings", n / 2);
    free(strings->slots);
    strings->slots = grown;
    strings->n_slots = n;
    return fill(strings) ? MR_OK : reseed(strings, err);
}

static mr_status append(mr_bpe_strings *strings, mr_str text, mr_error *err)
{
    if (text.len > MAX_BYTES - strings->n_bytes)
        return MR_FAIL(err, EXHAUSTED,
                       "BPE training: more than %zu bytes of distinct words; train on a sample of "
                       "the texts",
                       MAX_BYTES);
    void *bytes = strings->bytes, *ends = strings->ends;
    size_t capacity = strings->capacity;
    mr_status status =
        mr_bpe_reserve(&bytes, &strings->bytes_capacity, strings->n_bytes + text.len, 1, err);
    strings->bytes = bytes;
    if (status == MR_OK)
        status = mr_bpe_reserve(&ends, &capacity, (size_t)strings->n + 1, sizeof(uint32_t), err);
    strings->ends = ends;
    strings->capacity = (uint32_t)capacity;
    if (status != MR_OK)
        return status;
    memcpy(strings->bytes + strings->n_bytes, text.data, text.len);
    strings->n_bytes += text.len;
    strings->ends[strings->n++] = (uint32_t)strings->n_bytes;
    return MR_OK;
}

mr_status mr_bpe_strings_add(mr_bpe_strings *strings, mr_str text, uint32_t *number, mr_error *err)
{
    mr_status status = MR_OK;
    if (2 * ((size_t)strings->n + 1) > strings->n_slots)
        status = grow_slots(strings, err);
    size_t slot = 0;
    uint64_t hash = 0;
    while (status == MR_OK) {
        hash = hash_of(text, strings->seed);
        if (find_slot(strings, text, hash, &slot))
            break;
        status = reseed(strings, err);
    }
    if (status != MR_OK)
        return status;
    if (strings->slots[slot]) {
        *number = (uint32_t)strings->slots[slot] - 1;
        return MR_OK;
    }
    status = append(strings, text, err);
    if (status != MR_OK)
        return status;
    *number = strings->n - 1;
    strings->slots[slot] = hash >> 32 << 32 | strings->n;
    return MR_OK;
}

void mr_bpe_strings_release(mr_bpe_strings *strings)
{
    free(strings->bytes);
    free(strings->ends);
    free(strings->slots);
    *strings = (mr_bpe_strings){0};
}
