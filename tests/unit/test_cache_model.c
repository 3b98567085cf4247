/* test_cache_model.c - 100,000 random steps of a cache before a store whose records change, against
 * a model that knows what the cache was told.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/rng.h"
#include "tests/unit/cache_fixture.h"

enum { KEYS = 300, OPEN = 8, STEPS = 100000 };

/* A store whose records have versions, and changes that are told a while after they happen. What
 * the cache gives out must be what the store had at the last telling, or later. */
typedef struct {
    unsigned now[KEYS];  /* 0: none */
    unsigned told[KEYS]; /* in force when the cache was last told */
    size_t len[KEYS];    /* the record's, in its version now */
} model;

typedef struct {
    mr_cache_fill *fill, *joined;
    size_t key;
    bool read;
    unsigned version;
    size_t len;
} open_fill;

/* Says which it is, and is filled up with bytes that belong to the version; len is at least 32. */
static void model_record(unsigned version, size_t len, size_t key, char out[4096])
{
    memset(out, (int)(version % 251), len);
    (void)snprintf(out, 32, "%zu.%u.%zu.", key, version, len);
}

/* The version of an entry; fails the test when its bytes are not a record of the key. */
static unsigned version_of(const mr_cache_entry *entry, size_t key)
{
    const mr_bytes record = mr_cache_record(entry);
    char want[4096];
    size_t found_key = 0, len = 0;
    unsigned version = 0;
    if (!record.data)
        return 0;
    assert_int_equal(sscanf(record.data, "%zu.%u.%zu.", &found_key, &version, &len), 3);
    assert_int_equal(found_key, key);
    assert_int_equal(len, record.len);
    model_record(version, len, key, want);
    assert_memory_equal(record.data, want, len);
    return version;
}

static void change(mr_rng *rng, model *m, size_t key)
{
    m->now[key]++;
    m->len[key] = 32 + mr_rng_below(rng, mr_rng_below(rng, 10) ? 1200 : 4000);
}

static void end_fill(mr_cache *cache, model *m, open_fill *open)
{
    char record[4096];
    if (!open->read) {
        open->version = m->now[open->key];
        open->len = m->len[open->key];
    }
    model_record(open->version, open->len, open->key, record);
    const bool came = open->key % 17 != 0 || open->version % 3 != 0; /* some never get an answer */
    mr_cache_entry *entry =
        mr_cache_end(cache, open->fill, came, (mr_bytes){open->version ? record : NULL, open->len});
    assert_int_equal(entry != NULL, came);
    if (open->joined) {
        bool told = !came;
        mr_cache_entry *waited = mr_cache_wait(cache, open->joined, 0, &told);
        assert_int_equal(told, came);
        assert_ptr_equal(waited, entry);
        mr_cache_release(waited);
    }
    if (entry)
        assert_int_equal(version_of(entry, open->key), open->version);
    mr_cache_release(entry);
    *open = (open_fill){.fill = NULL};
}

static void random_steps_agree_with_a_store_of_versions(void **state)
{
    (void)state;
    static model m;
    open_fill open[OPEN] = {{.fill = NULL}};
    mr_rng rng = mr_rng_seed(99);
    mr_cache *cache = cache_new(64 * KIB);
    size_t hits = 0, exact = 0;
    memset(&m, 0, sizeof m);
    for (size_t step = 0; step < STEPS; step++) {
        const size_t key = (size_t)(mr_rng_uniform(&rng) * mr_rng_uniform(&rng) * KEYS);
        open_fill *slot = &open[mr_rng_below(&rng, OPEN)];
        switch (mr_rng_below(&rng, 32)) {
        case 0: change(&rng, &m, key); break;
        case 1: /* all that happened to the key up to here is told */
            m.told[key] = m.now[key];
            mr_cache_changed(cache, key_of(key));
            break;
        case 2: /* the store reads for a fill; its answer comes later */
        case 3:
        case 4:
        case 5:
            if (slot->fill && !slot->read) {
                slot->read = true;
                slot->version = m.now[slot->key];
                slot->len = m.len[slot->key];
            }
            break;
        case 6:
        case 7:
        case 8:
        case 9:
        case 10:
        case 11:
        case 12:
        case 13:
            if (slot->fill) {
                end_fill(cache, &m, slot);
            } else {
                mr_cache_fill *fill;
                if (begin(cache, key_of(key), &fill) == MR_CACHE_FILL_OURS) {
                    *slot = (open_fill){.fill = fill, .key = key};
                } else { /* joins one of ours */
                    bool came;
                    open_fill *whose = NULL;
                    for (size_t i = 0; i < OPEN; i++)
                        if (open[i].fill == fill)
                            whose = &open[i];
                    assert_non_null(whose);
                    assert_int_equal(whose->key, key);
                    if (whose->joined)
                        assert_null(mr_cache_wait(cache, fill, 0, &came));
                    else
                        whose->joined = fill;
                }
            }
            break;
        default: {
            mr_cache_entry *entry = mr_cache_get(cache, key_of(key));
            if (entry) {
                const unsigned version = version_of(entry, key);
                if (version < m.told[key] || version > m.now[key])
                    fail_msg("step %zu: key %zu has version %u, expected %u to %u", step, key,
                             version, m.told[key], m.now[key]);
                hits++;
                exact += version == m.now[key];
            }
            mr_cache_release(entry);
        }
        }
        if (step % 9973 == 9972) {
            mr_cache_flush(cache);
            memcpy(m.told, m.now, sizeof m.told);
            assert_int_equal(stat_of(cache).entries, 0);
        }
        assert_true(stat_of(cache).bytes <= 64 * KIB);
    }
    for (size_t i = 0; i < OPEN; i++)
        if (open[i].fill)
            end_fill(cache, &m, &open[i]);
    assert_true(hits > STEPS / 20);
    assert_true(exact > hits / 3 && exact < hits);
    assert_true(stat_of(cache).evictions > 500);
    mr_cache_free(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_steps_agree_with_a_store_of_versions),
    };
    return cmocka_run_group_tests_name("cache_model", tests, NULL, NULL);
}
