/* load.h - the events of a chaos run: made from a seed, shuffled as networks do, and replayed by a
 * plain loop, which is what the refresher's store must equal in the end.
 *
 * Items carry versions (a tombstone in its header), so that events may come twice and out of order.
 * Users carry none: their version is the offset, and the last message of a key is the newest.
 * Poison has keys of its own and is sent once.
 * Threads: one.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_CHAOS_LOAD_H
#define MR_TESTS_CHAOS_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHAOS_ITEMS      "chaos-items"
#define CHAOS_USERS      "chaos-users"
#define CHAOS_PARTITIONS 6

typedef enum { CHAOS_PUT, CHAOS_TOMBSTONE, CHAOS_POISON } chaos_kind;
enum { CHAOS_POISONS = 5 };
extern const char *const chaos_poison_codes[CHAOS_POISONS]; /* of the letters they become */

typedef struct {
    chaos_kind kind;
    bool user;
    int poison; /* which kind */
    uint32_t key;
    uint64_t version; /* of an item */
    float mark;
} chaos_event;

/* What a key must be in the end. */
typedef struct {
    bool written, tombstone;
    uint64_t version; /* of an item */
    float mark;
} chaos_record;

typedef struct {
    chaos_event *events; /* [n] */
    size_t n;
    uint32_t *order; /* [n_messages]: index of the event that goes next */
    size_t n_messages;
    size_t duplicates, late, tombstones, poison, poison_by_kind[CHAOS_POISONS];
    uint32_t n_items, n_users;
    chaos_record *items, *users; /* [n_items], [n_users]: the replay */
} chaos_load;

/* False when memory is out. */
bool chaos_load_make(chaos_load *out, size_t events, uint64_t seed);
void chaos_load_free(chaos_load *load);

/* Key of an item or user, or of the i-th event when that is poison. */
void chaos_key(const chaos_event *event, size_t i, char out[32]);

#endif
