/* test_store_lmdb.c - other processes on the same file: writers that are killed, readers that die,
 * a file that grows, a disk that is full.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <sys/resource.h>

#include "core/rng.h"
#include "tests/unit/store_fixture.h"

enum { BATCH = 16 };

/* All records of a batch carry its number as version and mark, and a note goes along. */
static mr_status put_round(mr_store *store, uint64_t round, size_t width, mr_error *err)
{
    char names[BATCH][16], text[32];
    mr_store_put_item items[BATCH];
    for (size_t i = 0; i < BATCH; i++) {
        snprintf(names[i], sizeof names[i], "k%zu", i);
        items[i] =
            (mr_store_put_item){mr_str_of(names[i]), record_new(SPACE, round, (float)round, width)};
    }
    snprintf(text, sizeof text, "%llu", (unsigned long long)round);
    mr_status status = mr_store_put_with_note(store, MR_ENTITY_ITEM, SPACE, items, BATCH, "round",
                                              mr_str_of(text), NULL, err);
    for (size_t i = 0; i < BATCH; i++)
        record_free(items[i].record);
    return status;
}

/* The round that the store is at; all of it must agree. */
static uint64_t assert_whole_round(mr_store *store)
{
    char names[BATCH][16], text[32];
    mr_str ids[BATCH];
    seen_record seen[BATCH];
    for (size_t i = 0; i < BATCH; i++) {
        snprintf(names[i], sizeof names[i], "k%zu", i);
        ids[i] = mr_str_of(names[i]);
    }
    fetch_ids(store, MR_ENTITY_ITEM, SPACE, ids, BATCH, seen);
    for (size_t i = 0; i < BATCH; i++) {
        assert_true(seen[i].found);
        assert_int_equal(seen[i].version, seen[0].version);
        assert_true(seen[i].mark == (float)seen[0].version);
    }
    snprintf(text, sizeof text, "%llu", (unsigned long long)seen[0].version);
    assert_note(store, "round", text);
    return seen[0].version;
}

/* ---- children -------------------------------------------------------------------------------- */

typedef struct {
    pid_t process;
    int from; /* what it writes */
    int to;   /* what it reads */
} child;

/* The body gets two descriptors, to write to the parent and to read from it, and never returns. */
static child child_start(void (*body)(const char *folder, int out, int in), const char *folder)
{
    int up[2], down[2];
    assert_int_equal(pipe(up), 0);
    assert_int_equal(pipe(down), 0);
    fflush(NULL);
    pid_t process = fork();
    assert_true(process >= 0);
    if (process == 0) {
        close(up[0]);
        close(down[1]);
        alarm(60);
        body(folder, up[1], down[0]);
        _exit(1);
    }
    close(up[1]);
    close(down[0]);
    return (child){process, up[0], down[1]};
}

static void child_wait_word(const child *c)
{
    char byte;
    assert_int_equal(read(c->from, &byte, 1), 1);
}

static void child_say_word(const child *c)
{
    assert_int_equal(write(c->to, "g", 1), 1);
}

static int child_end(child *c, int signal_or_0)
{
    int status;
    if (signal_or_0)
        kill(c->process, signal_or_0);
    assert_true(waitpid(c->process, &status, 0) == c->process);
    close(c->from);
    close(c->to);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

static mr_store *open_in_child(const char *folder, const mr_store_options *options)
{
    mr_store *store = NULL;
    if (mr_store_open(&store, folder, options, NULL) != MR_OK)
        _exit(2);
    return store;
}

/* ---- killed ---------------------------------------------------------------------------------- */

/* Puts rounds for ever and tells of each that was accepted. */
static void put_for_ever(const char *folder, int out, bool fast)
{
    mr_store_options options = {.size = sizeof options, .fast_writes = fast};
    mr_store *store = open_in_child(folder, &options);
    for (uint64_t round = 1;; round++) {
        if (put_round(store, round, 200 + (size_t)(round % 5) * 200, NULL) != MR_OK)
            _exit(3);
        if (write(out, &round, sizeof round) != (ssize_t)sizeof round)
            _exit(4);
    }
}

static void put_for_ever_synced(const char *folder, int out, int in)
{
    (void)in;
    put_for_ever(folder, out, false);
}

static void put_for_ever_fast(const char *folder, int out, int in)
{
    (void)in;
    put_for_ever(folder, out, true);
}

static void a_killed_writer_leaves_whole_batches(void **state)
{
    mr_rng rng = mr_rng_seed(3);
    for (int life = 0; life < 12; life++) {
        char *folder = test_folder_new();
        child c = child_start(life % 2 ? put_for_ever_fast : put_for_ever_synced, folder);
        uint64_t accepted = 0, last = 5 + mr_rng_below(&rng, 20);
        while (accepted < last)
            assert_int_equal(read(c.from, &accepted, sizeof accepted), sizeof accepted);
        usleep((useconds_t)mr_rng_below(&rng, 3000)); /* to a random place within a put */
        kill(c.process, SIGKILL);
        uint64_t told;
        while (read(c.from, &told, sizeof told) == (ssize_t)sizeof told)
            accepted = told;
        assert_int_equal(child_end(&c, 0), 100 + SIGKILL);

        mr_store *store = store_open(folder, NULL);
        uint64_t held = assert_whole_round(store);
        assert_in_range(held, accepted, accepted + 1);
        mr_error err = {0};
        assert_status(put_round(store, held + 1, 100, &err), MR_OK, &err);
        assert_int_equal(assert_whole_round(store), held + 1);
        mr_store_close(store);
        test_folder_free(folder);
    }
    (void)state;
}

static void stop_in_visit(void *context, size_t index, mr_bytes record)
{
    (void)index;
    (void)record;
    if (write(*(int *)context, "r", 1) != 1)
        _exit(5);
    for (;;)
        pause();
}

static void read_and_stop(const char *folder, int out, int in)
{
    mr_store_options options = {.size = sizeof options, .read_only = true};
    mr_store *store = open_in_child(folder, &options);
    mr_str id = mr_str_of("k0");
    (void)in;
    if (mr_store_fetch(store, MR_ENTITY_ITEM, SPACE, &id, 1, stop_in_visit, &out, NULL) != MR_OK)
        _exit(3);
}

/* A snapshot that nobody ends keeps every page since from being used again. */
static void a_dead_reader_does_not_fill_the_store(void **state)
{
    mr_store_options options = {.size = sizeof options, .max_bytes = 1 << 20, .fast_writes = true};
    mr_store *store = store_open(*state, &options);
    mr_error err = {0};
    assert_status(put_round(store, 1, 900, &err), MR_OK, &err);
    child c = child_start(read_and_stop, *state);
    child_wait_word(&c);

    uint64_t round = 2;
    mr_status status = MR_OK;
    while (round < 1000 && (status = put_round(store, round, 900, &err)) == MR_OK)
        round++;
    assert_status(status, MR_EXHAUSTED, &err); /* it lives: the store may not take its pages */
    assert_int_equal(assert_whole_round(store), round - 1);

    assert_int_equal(child_end(&c, SIGKILL), 100 + SIGKILL);
    for (int i = 0; i < 100; i++, round++)
        assert_status(put_round(store, round, 900, &err), MR_OK, &err);
    assert_int_equal(assert_whole_round(store), round - 1);
    mr_store_close(store);
}

/* ---- side by side ---------------------------------------------------------------------------- */

static void write_large(const char *folder, int out, int in)
{
    char byte;
    mr_store_options options = {.size = sizeof options, .max_bytes = 64 << 20, .fast_writes = true};
    mr_store *store = open_in_child(folder, &options);
    if (write(out, "r", 1) != 1 || read(in, &byte, 1) != 1)
        _exit(3);
    for (int i = 0; i < 400; i++) {
        char id[16];
        snprintf(id, sizeof id, "big%d", i);
        mr_store_put_item item = {mr_str_of(id), record_new(SPACE, 1, 1, 1000)};
        if (mr_store_put(store, MR_ENTITY_ITEM, SPACE, &item, 1, NULL, NULL) != MR_OK)
            _exit(4);
        record_free(item.record);
    }
    mr_store_close(store);
    _exit(0);
}

typedef struct {
    const child *writer;
    mr_store *store;
    mr_status inside;
} grown;

static void let_it_grow(void *context, size_t index, mr_bytes record)
{
    grown *g = context;
    mr_str id = mr_str_of("big399");
    seen_record seen;
    seen_list list = {.seen = &seen, .n = 1};
    char byte;
    (void)index;
    (void)record;
    child_say_word(g->writer);
    assert_int_equal(read(g->writer->from, &byte, 1), 0); /* until it has ended */
    g->inside = mr_store_fetch(g->store, MR_ENTITY_ITEM, SPACE, &id, 1, see_record, &list, NULL);
}

static void a_file_that_outgrows_the_map_is_followed(void **state)
{
    mr_store_options options = {.size = sizeof options, .max_bytes = 256 << 10};
    mr_store *store = store_open(*state, &options);
    mr_error err = {0};
    mr_store_stats stats;
    mr_str id = mr_str_of("a");
    put_ok(store, "a", 1, 1);
    child c = child_start(write_large, *state);
    child_wait_word(&c);

    /* Within a visit the map may not move under the visitor: busy, not stuck, not dead. */
    grown g = {.writer = &c, .store = store};
    assert_status(mr_store_fetch(store, MR_ENTITY_ITEM, SPACE, &id, 1, let_it_grow, &g, &err),
                  MR_OK, &err);
    assert_int_equal(g.inside, MR_UNAVAILABLE);
    assert_int_equal(child_end(&c, 0), 0);

    assert_true(fetch_one(store, "big399").found);
    put_ok(store, "b", 1, 2);
    assert_true(fetch_one(store, "b").mark == 2 && fetch_one(store, "a").mark == 1);
    assert_status(mr_store_stat(store, &stats, &err), MR_OK, &err);
    assert_true(stats.max_bytes >= stats.used_bytes && stats.used_bytes > 256 << 10);
    mr_store_close(store);
}

static bool writes_as_a_second_process(const char *folder)
{
    mr_store_options options = {.size = sizeof options, .fast_writes = true};
    mr_store *store = open_in_child(folder, &options);
    bool fine = put_round(store, 77, 50, NULL) == MR_OK;
    mr_store_close(store);
    return fine;
}

static void a_reader_sees_what_another_process_writes(void **state)
{
    mr_store *store = store_open(*state, NULL);
    mr_error err = {0};
    assert_status(put_round(store, 1, 50, &err), MR_OK, &err);
    mr_store_close(store);
    mr_store_options options = {.size = sizeof options, .read_only = true};
    store = store_open(*state, &options);
    assert_int_equal(assert_whole_round(store), 1);
    assert_int_equal(in_child(writes_as_a_second_process, *state), 0);
    assert_int_equal(assert_whole_round(store), 77);
    mr_store_close(store);
}

/* ---- the disk -------------------------------------------------------------------------------- */

/* A file-size limit stands in for a full disk. */
static bool survives_a_full_disk(const char *folder)
{
    mr_store *store = open_in_child(folder, NULL);
    struct rlimit limit = {300 << 10, 300 << 10};
    mr_error err = {0};
    mr_status status = MR_OK;
    uint64_t round = 1;
    signal(SIGXFSZ, SIG_IGN);
    if (put_round(store, round, 900, &err) != MR_OK || setrlimit(RLIMIT_FSIZE, &limit) != 0)
        return false;
    for (size_t i = 0; i < 200 && status == MR_OK; i++) {
        char id[16];
        snprintf(id, sizeof id, "fill%zu", i);
        mr_store_put_item item = {mr_str_of(id), record_new(SPACE, 1, 1, 1000)};
        status = mr_store_put(store, MR_ENTITY_ITEM, SPACE, &item, 1, NULL, &err);
        record_free(item.record);
    }
    if (status != MR_EXHAUSTED && status != MR_IO)
        return false;
    if (!strstr(err.message, folder) || !strstr(err.message, "writing to"))
        return false;
    assert_whole_round(store);
    seen_record first = fetch_one(store, "fill0");
    mr_store_close(store);
    store = open_in_child(folder, NULL);
    assert_whole_round(store);
    mr_store_close(store);
    return first.found;
}

static void a_full_disk_loses_nothing(void **state)
{
    assert_int_equal(in_child(survives_a_full_disk, *state), 0);
    mr_error err = {0};
    mr_store *store = store_open(*state, NULL);
    assert_int_equal(assert_whole_round(store), 1);
    assert_status(put_round(store, 2, 900, &err), MR_OK, &err);
    assert_int_equal(assert_whole_round(store), 2);
    mr_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_writer_leaves_whole_batches),
        WITH_FOLDER(a_dead_reader_does_not_fill_the_store),
        WITH_FOLDER(a_file_that_outgrows_the_map_is_followed),
        WITH_FOLDER(a_reader_sees_what_another_process_writes),
        WITH_FOLDER(a_full_disk_loses_nothing),
    };
    return cmocka_run_group_tests_name("store_lmdb", tests, NULL, NULL);
}
