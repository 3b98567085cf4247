/* test_store_open.c - URLs, options, and everything that a path may hold.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <lmdb.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "tests/unit/store_fixture.h"

/* ---- URLs and options ------------------------------------------------------------------------ */

static void bad_urls_and_options_are_explained(void **state)
{
    (void)state;
    static char long_name[66], long_path[5000];
    memset(long_name, 'n', 65);
    memset(long_path, 'p', sizeof long_path - 1);
    const struct {
        const char *url;
        mr_store_options options;
        mr_status status;
        const char *message;
    } row[] = {
        {NULL, MR_STORE_OPTIONS_DEFAULT, MR_INVALID, "no store named"},
        {"", MR_STORE_OPTIONS_DEFAULT, MR_INVALID, "no store named"},
        {"lmdb:", MR_STORE_OPTIONS_DEFAULT, MR_INVALID, "has no path; write lmdb:PATH"},
        {"memory:/tmp", MR_STORE_OPTIONS_DEFAULT, MR_INVALID, "nothing goes behind"},
        {"rocksdb:/x", MR_STORE_OPTIONS_DEFAULT, MR_INVALID, "unknown scheme"},
        {"redis://h:0", MR_STORE_OPTIONS_DEFAULT, MR_INVALID, "is no server"},
        {long_path, MR_STORE_OPTIONS_DEFAULT, MR_INVALID, "is 4999 bytes long"},
        {"memory:", {.size = 0}, MR_INVALID, "begin with MR_STORE_OPTIONS_DEFAULT"},
        {"memory:",
         {.size = sizeof(mr_store_options), .read_only = true},
         MR_INVALID,
         "begins empty"},
        {"memory:",
         {.size = sizeof(mr_store_options), .name_space = ""},
         MR_INVALID,
         "0 bytes long"},
        {"memory:",
         {.size = sizeof(mr_store_options), .name_space = long_name},
         MR_INVALID,
         "is 65 bytes long, expected 1 to 64"},
        {"memory:",
         {.size = sizeof(mr_store_options), .name_space = "a:b"},
         MR_INVALID,
         "store namespace 'a:b' has a byte 0x3a"},
        {"lmdb:/nowhere/at/all",
         {.size = sizeof(mr_store_options), .max_bytes = 65535},
         MR_INVALID,
         "is 65535, expected 65536 to"},
        {"lmdb:/nowhere/at/all",
         {.size = sizeof(mr_store_options), .max_bytes = UINT64_MAX},
         MR_INVALID,
         "is 18446744073709551615, expected"},
        {"lmdb:/nowhere/at/all",
         {.size = sizeof(mr_store_options), .no_create = true},
         MR_NOT_FOUND,
         "there is no store at '/nowhere/at/all'"},
        {"/nowhere/at/all",
         {.size = sizeof(mr_store_options), .read_only = true},
         MR_NOT_FOUND,
         "there is no store at '/nowhere/at/all'"},
        {"lmdb:/dev/null", MR_STORE_OPTIONS_DEFAULT, MR_INVALID, "is a file"},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        mr_error err = {0};
        assert_status(store_open_status(row[i].url, &row[i].options, &err), row[i].status, &err);
        assert_contains(err.message, row[i].message);
    }
}

/* A program that was built with another version of the header. */
static void shorter_and_longer_options_work(void **state)
{
    (void)state;
    struct {
        mr_store_options options;
        uint64_t newer;
    } longer = {MR_STORE_OPTIONS_DEFAULT, 0};
    mr_error err = {0};
    longer.options.size = sizeof longer;
    assert_status(store_open_status("memory:", &longer.options, &err), MR_OK, &err);
    longer.newer = 1;
    assert_status(store_open_status("memory:", &longer.options, &err), MR_UNSUPPORTED, &err);
    assert_contains(err.message, "the program was built for a newer one");

    mr_store_options shorter = {.size = offsetof(mr_store_options, max_bytes),
                                .name_space = "short",
                                .read_only = true /* outside what size covers */};
    assert_status(store_open_status("memory:", &shorter, &err), MR_OK, &err);
    assert_status(store_open_status("memory:", NULL, &err), MR_OK, &err);
    mr_store_close(NULL);
}

/* ---- one file, several lives ----------------------------------------------------------------- */

static void a_store_keeps_everything_over_a_restart(void **state)
{
    const char *path = test_path(*state, "deep/er/store"); /* folders are made */
    mr_error err = {0};
    mr_store *store = store_open(path, NULL);
    assert_string_equal(mr_store_backend(store), "lmdb");
    put_ok(store, "a", 3, 1);
    put_ok(store, "b", 1, 2);
    assert_status(mr_store_set_note(store, "n", mr_str_of("v"), &err), MR_OK, &err);
    mr_store_close(store);

    store =
        store_open(path, &(mr_store_options){.size = sizeof(mr_store_options), .no_create = true});
    assert_true(fetch_one(store, "a").mark == 1 && fetch_one(store, "a").version == 3);
    assert_true(fetch_one(store, "b").mark == 2);
    assert_note(store, "n", "v");
    put_ok(store, "a", 4, 7);
    mr_store_close(store);

    store = store_open(path, NULL);
    assert_true(fetch_one(store, "a").mark == 7);
    mr_store_close(store);
}

static void namespaces_share_a_file_and_nothing_else(void **state)
{
    static const char *const names[] = {"a", "a.b", "mixrank", "mixrank-2"};
    for (size_t i = 0; i < COUNT(names); i++) {
        mr_error err = {0};
        mr_store_options options = {.size = sizeof options, .name_space = names[i]};
        mr_store *store = store_open(*state, &options);
        assert_false(fetch_one(store, "x").found);
        put_ok(store, "x", 5, (float)i + 1);
        assert_status(mr_store_set_note(store, "n", mr_str_of(names[i]), &err), MR_OK, &err);
        mr_store_close(store);
    }
    for (size_t i = 0; i < COUNT(names); i++) {
        mr_store_options options = {.size = sizeof options, .name_space = names[i]};
        mr_store_stats stats;
        size_t n;
        mr_error err = {0};
        mr_store *store = store_open(*state, &options);
        assert_true(fetch_one(store, "x").mark == (float)i + 1);
        assert_note(store, "n", names[i]);
        assert_status(mr_store_spaces(store, MR_ENTITY_ITEM, NULL, 0, &n, &err), MR_OK, &err);
        assert_int_equal(n, 1);
        assert_status(mr_store_stat(store, &stats, &err), MR_OK, &err);
        assert_int_equal(stats.records, COUNT(names));
        mr_store_close(store);
    }
}

static void a_read_only_store_reads_and_refuses_writes(void **state)
{
    mr_store_options options = {.size = sizeof options, .read_only = true};
    mr_error err = {0};
    mr_store *store = store_open(*state, NULL);
    put_ok(store, "a", 1, 1);
    mr_store_close(store);

    store = store_open(*state, &options);
    assert_true(fetch_one(store, "a").mark == 1);
    assert_status(put_record(store, MR_ENTITY_ITEM, SPACE, mr_str_of("a"), 2, 2, 4, NULL, &err),
                  MR_INVALID, &err);
    assert_contains(err.message, "was opened with read_only and takes no writes");
    assert_status(mr_store_set_note(store, "n", mr_str_of("v"), &err), MR_INVALID, &err);
    assert_status(mr_store_sync(store, &err), MR_OK, &err);
    assert_true(fetch_one(store, "a").mark == 1);
    mr_store_close(store);
}

static void a_path_is_open_once_in_a_process(void **state)
{
    const char *folder = *state, *link = test_path(folder, "link"), *path = test_path(folder, "s");
    mr_error err = {0};
    mr_store *store = store_open(path, NULL);
    assert_int_equal(symlink(path, link), 0);
    const char *const names[] = {path, link, test_path(folder, "./s/")};
    for (size_t i = 0; i < COUNT(names); i++) {
        mr_store_options options = {.size = sizeof options, .read_only = i % 2};
        assert_status(store_open_status(names[i], &options, &err), MR_INVALID, &err);
        assert_contains(err.message, "already open in this process");
    }
    put_ok(store, "a", 1, 1); /* the first handle is unharmed */
    mr_store *other = store_open(test_path(folder, "t"), NULL);
    mr_store_close(other);
    mr_store_close(store);
    store = store_open(link, NULL);
    assert_true(fetch_one(store, "a").found);
    mr_store_close(store);
}

/* ---- what is no store, or no longer ---------------------------------------------------------- */

static void foreign_files_are_refused(void **state)
{
    const char *file = test_path(*state, "data.mdb");
    static char junk[16384];
    memset(junk, 'j', sizeof junk);
    const struct {
        const char *data;
        size_t len;
        const char *message;
    } row[] = {
        {"hello", 5, "too short for an LMDB file"},
        {junk, 151, "too short for an LMDB file"},
        {junk, sizeof junk, "does not begin as an LMDB file does"},
        {"SQLite format 3", 16, "too short"},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        for (int read_only = 0; read_only < 2; read_only++) {
            mr_store_options options = {.size = sizeof options, .read_only = read_only};
            mr_error err = {0};
            test_file_write(file, row[i].data, row[i].len);
            assert_status(store_open_status(*state, &options, &err), MR_CORRUPT, &err);
            assert_contains(err.message, row[i].message);
            assert_contains(err.message, "/data.mdb' is damaged, or no LMDB file");
        }
    }
    memset(junk, 0, sizeof junk);
    test_file_write(file, junk, sizeof junk);
    mr_error err = {0};
    assert_status(store_open_status(*state, NULL, &err), MR_CORRUPT, &err);
}

static void an_empty_file_is_a_store_that_was_never_made(void **state)
{
    mr_store_options options = {.size = sizeof options, .read_only = true};
    mr_error err = {0};
    test_file_write(test_path(*state, "data.mdb"), "", 0);
    assert_status(store_open_status(*state, &options, &err), MR_NOT_FOUND, &err);
    assert_status(store_open_status(*state, NULL, &err), MR_OK, &err);
    assert_status(store_open_status(*state, &options, &err), MR_OK, &err);
}

/* Changes the store's file behind its back; value NULL makes a database with another name. */
static void edit_lmdb(const char *folder, const char *database, const char *key, const void *value,
                      size_t len)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_val k = {strlen(key), (void *)(uintptr_t)key}, v = {len, (void *)(uintptr_t)value};
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 4), 0);
    assert_int_equal(mdb_env_open(env, folder, 0, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, database, MDB_CREATE, &dbi), 0);
    assert_int_equal(mdb_put(txn, dbi, &k, &v, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

static void the_lmdb_file_of_another_program_is_refused(void **state)
{
    mr_error err = {0};
    edit_lmdb(*state, "mail", "subject", "hi", 2);
    for (int read_only = 0; read_only < 2; read_only++) {
        mr_store_options options = {.size = sizeof options, .read_only = read_only};
        assert_status(store_open_status(*state, &options, &err), MR_CORRUPT, &err);
        assert_contains(err.message, "LMDB file of another program");
    }
}

static void a_newer_format_is_refused(void **state)
{
    mr_error err = {0};
    assert_status(store_open_status(*state, NULL, &err), MR_OK, &err);
    edit_lmdb(*state, "notes", ":format", "mixrank store 2", 15);
    assert_status(store_open_status(*state, NULL, &err), MR_UNSUPPORTED, &err);
    assert_contains(err.message,
                    "has format 'mixrank store 2'; this build reads 'mixrank store 1'");
}

static void a_damaged_record_is_reported_by_its_key_and_healed_by_a_put(void **state)
{
    mr_bytes record = record_new(SPACE, 5, 1, 4);
    mr_error err = {0};
    seen_record seen;
    seen_list list = {.seen = &seen, .n = 1};
    mr_str id = mr_str_of("hurt");
    ((uint8_t *)(uintptr_t)record.data)[50] ^= 1;
    assert_status(store_open_status(*state, NULL, &err), MR_OK, &err);
    edit_lmdb(*state, "records", "mixrank:item:9f00c0ffee000001:hurt", record.data, record.len);
    record_free(record);

    mr_store *store = store_open(*state, NULL);
    assert_status(mr_store_fetch(store, MR_ENTITY_ITEM, SPACE, &id, 1, see_record, &list, &err),
                  MR_OK, &err);
    assert_true(list.damaged);
    put_ok(store, "hurt", 5, 9); /* the same version */
    assert_true(fetch_one(store, "hurt").mark == 9);
    mr_store_close(store);
}

static void make_store(const char *folder)
{
    mr_store *store = store_open(folder, NULL);
    for (int i = 0; i < 60; i++) {
        char id[16];
        snprintf(id, sizeof id, "r%d", i);
        put_ok(store, id, 1, (float)i);
    }
    mr_store_close(store);
}

/* True when opening fails cleanly, or what is asked of the store then ends in any status. */
static bool opens_or_refuses(const char *folder)
{
    mr_store *store = NULL;
    mr_error err = {0};
    mr_store_options options = {.size = sizeof options, .fast_writes = true};
    if (mr_store_open(&store, folder, &options, &err) != MR_OK)
        return err.message[0] != '\0';
    seen_record seen[1];
    seen_list list = {.seen = seen, .n = 1};
    mr_store_put_item item = {mr_str_of("r7"), record_new(SPACE, 2, 1, 4)};
    mr_store_stats stats;
    (void)!mr_store_fetch(store, MR_ENTITY_ITEM, SPACE, &item.id, 1, see_record, &list, &err);
    (void)!mr_store_stat(store, &stats, &err);
    (void)!mr_store_put(store, MR_ENTITY_ITEM, SPACE, &item, 1, NULL, &err);
    item.id = mr_str_of("new");
    (void)!mr_store_put(store, MR_ENTITY_ITEM, SPACE, &item, 1, NULL, &err);
    mr_store_close(store);
    return true;
}

static bool is_refused_as_corrupt(const char *folder)
{
    mr_error err = {0};
    return store_open_status(folder, NULL, &err) == MR_CORRUPT && strstr(err.message, "cut short");
}

static void a_file_cut_short_is_refused(void **state)
{
    const char *file = test_path(*state, "data.mdb");
    size_t len, page = (size_t)sysconf(_SC_PAGESIZE);
    make_store(*state);
    char *whole = test_file_read(file, &len);
    assert_true(len > 4 * page);
    for (size_t cut = len - 1; cut >= 2 * page; cut -= page / 2 - 1) {
        test_file_write(file, whole, cut);
        assert_int_equal(in_child(is_refused_as_corrupt, *state), 0);
    }
    test_file_write(file, whole, len);
    mr_store *store = store_open(*state, NULL);
    assert_true(fetch_one(store, "r7").mark == 7);
    mr_store_close(store);
    free(whole);
}

/* Shared with the child, so that the parent can say what ended it. */
static struct {
    size_t byte;
    int from, to;
} * damaged;

static bool bears_every_damage_to_its_header(const char *folder)
{
    enum { META = 152 };
    const char *file = test_path(folder, "data.mdb");
    size_t len, page = (size_t)sysconf(_SC_PAGESIZE);
    char *whole = test_file_read(file, &len);
    bool fine = true;
    for (size_t at = 0; at < 2 * META; at++) {
        size_t byte = at < META ? at : page + at - META;
        char before = whole[byte];
        for (int d = 0; d < 10; d++) { /* each bit, all bits, no bit */
            whole[byte] = (char)(d < 8 ? before ^ 1 << d : d == 8 ? ~before : 0);
            damaged->byte = byte;
            damaged->from = before & 255;
            damaged->to = whole[byte] & 255;
            test_file_write(file, whole, len);
            fine &= opens_or_refuses(folder);
        }
        whole[byte] = before;
    }
    free(whole);
    return fine;
}

static void a_damaged_header_never_ends_the_process(void **state)
{
    make_store(*state);
    damaged =
        mmap(NULL, sizeof *damaged, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(damaged != MAP_FAILED);
    int outcome = in_child(bears_every_damage_to_its_header, *state);
    if (outcome != 0)
        fail_msg("byte %zu from %02x to %02x: the child ended with %d", damaged->byte,
                 damaged->from, damaged->to, outcome);
    munmap(damaged, sizeof *damaged);
}

static bool is_refused_for_permissions(const char *folder)
{
    mr_error err = {0};
    if (geteuid() == 0 && setuid(65534) != 0)
        return true; /* root that may not stop being root cannot be refused anything */
    return store_open_status(folder, NULL, &err) == MR_IO && strstr(err.message, "lock.mdb");
}

static void missing_permissions_are_named(void **state)
{
    make_store(*state);
    assert_int_equal(chmod(*state, 0555), 0);
    assert_int_equal(chmod(test_path(*state, "data.mdb"), 0444), 0);
    assert_int_equal(chmod(test_path(*state, "lock.mdb"), 0444), 0);
    assert_int_equal(in_child(is_refused_for_permissions, *state), 0);
    assert_int_equal(chmod(*state, 0755), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_urls_and_options_are_explained),
        cmocka_unit_test(shorter_and_longer_options_work),
        WITH_FOLDER(a_store_keeps_everything_over_a_restart),
        WITH_FOLDER(namespaces_share_a_file_and_nothing_else),
        WITH_FOLDER(a_read_only_store_reads_and_refuses_writes),
        WITH_FOLDER(a_path_is_open_once_in_a_process),
        WITH_FOLDER(foreign_files_are_refused),
        WITH_FOLDER(an_empty_file_is_a_store_that_was_never_made),
        WITH_FOLDER(the_lmdb_file_of_another_program_is_refused),
        WITH_FOLDER(a_newer_format_is_refused),
        WITH_FOLDER(a_damaged_record_is_reported_by_its_key_and_healed_by_a_put),
        WITH_FOLDER(a_file_cut_short_is_refused),
        WITH_FOLDER(a_damaged_header_never_ends_the_process),
        WITH_FOLDER(missing_permissions_are_named),
    };
    return cmocka_run_group_tests_name("store_open", tests, NULL, NULL);
}
