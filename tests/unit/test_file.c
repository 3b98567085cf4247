/* test_file.c - mapped and bounded reads, atomic writes, path checks.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "tests/support.h"

static int set_up(void **state)
{
    *state = test_folder_new();
    return 0;
}

static int tear_down(void **state)
{
    test_folder_free(*state);
    return 0;
}

static size_t entries_of(const char *folder)
{
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    size_t n = 0;
    while (readdir(dir))
        n++;
    closedir(dir);
    return n - 2; /* . and .. */
}

static void assert_holds(const char *path, const char *text)
{
    size_t len;
    char *found = test_file_read(path, &len);
    assert_string_equal(found, text);
    assert_int_equal(len, strlen(text));
    free(found);
}

static void a_mapping_shows_the_bytes_and_outlives_the_name(void **state)
{
    const char *path = test_path(*state, "a");
    test_file_write(path, "hello\0world", 11);
    mr_file_map map = {0};
    mr_error err = {0};
    assert_status(mr_file_map_open(&map, path, &err), MR_OK, &err);
    assert_int_equal(map.len, 11);
    assert_memory_equal(map.data, "hello\0world", 11);
    assert_status(mr_file_write(path, "other", 5, &err), MR_OK, &err);
    assert_memory_equal(map.data, "hello\0world", 11); /* replaced, not rewritten */
    assert_int_equal(unlink(path), 0);
    assert_memory_equal(map.data, "hello\0world", 11);
    mr_file_map_close(&map);
    assert_null(map.data);
    mr_file_map_close(&map);
    mr_file_map_close(NULL);
}

static void an_empty_file_maps_and_reads_as_nothing(void **state)
{
    const char *path = test_path(*state, "empty");
    test_file_write(path, "", 0);
    mr_file_map map = {"x", 1};
    mr_arena arena = {0};
    mr_error err = {0};
    assert_status(mr_file_map_open(&map, path, &err), MR_OK, &err);
    assert_null(map.data);
    assert_int_equal(map.len, 0);
    mr_file_map_close(&map);
    mr_str text;
    assert_status(mr_file_read(&arena, path, 0, &text, &err), MR_OK, &err);
    assert_int_equal(text.len, 0);
    assert_string_equal(text.data, "");
    mr_arena_done(&arena);
}

typedef mr_status (*open_function)(const char *path, mr_error *err);

static mr_status open_by_map(const char *path, mr_error *err)
{
    mr_file_map map = {0};
    mr_status status = mr_file_map_open(&map, path, err);
    mr_file_map_close(&map);
    return status;
}

static mr_status open_by_read(const char *path, mr_error *err)
{
    mr_arena arena = {0};
    mr_str text;
    mr_status status = mr_file_read(&arena, path, 1 << 20, &text, err);
    mr_arena_done(&arena);
    return status;
}

static mr_status open_by_copy(const char *path, mr_error *err)
{
    char target[4096];
    snprintf(target, sizeof target, "%s.copy", path);
    return mr_file_copy(path, target, err);
}

static void what_is_not_a_regular_file_is_refused_and_never_waited_for(void **state)
{
    static const open_function functions[] = {open_by_map, open_by_read, open_by_copy};
    const char *pipe_path = test_path(*state, "pipe");
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    const struct {
        const char *path;
        mr_status status;
        const char *message;
    } cases[] = {
        {test_path(*state, "none"), MR_NOT_FOUND, "/none': No such file or directory"},
        {test_path(*state, "pipe/x"), MR_NOT_FOUND, "Not a directory"},
        {*state, MR_INVALID, "is a folder, expected a regular file"},
        {pipe_path, MR_INVALID, "/pipe' is a pipe, expected a regular file"},
        {"/dev/null", MR_INVALID, "'/dev/null' is a device, expected a regular file"},
        {"", MR_NOT_FOUND, "cannot open ''"},
    };
    for (size_t f = 0; f < 3; f++) {
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            if (functions[f] == open_by_copy && strncmp(cases[i].path, *state, 5) != 0)
                continue; /* would write beside it */
            mr_error err = {0};
            assert_status(functions[f](cases[i].path, &err), cases[i].status, &err);
            assert_contains(err.message, cases[i].message);
        }
    }
    assert_int_equal(entries_of(*state), 1); /* the failed copies left nothing */
}

static void reading_is_bounded_and_terminated(void **state)
{
    const char *path = test_path(*state, "ten");
    test_file_write(path, "0123456789", 10);
    mr_arena arena = {0};
    mr_error err = {0};
    mr_str text = {"before", 6};
    assert_status(mr_file_read(&arena, path, 9, &text, &err), MR_EXHAUSTED, &err);
    assert_contains(err.message, "/ten' holds 10 bytes, expected at most 9");
    assert_string_equal(text.data, "before");
    assert_status(mr_file_read(&arena, path, 10, &text, &err), MR_OK, &err);
    assert_int_equal(text.len, 10);
    assert_string_equal(text.data, "0123456789");
    mr_arena_done(&arena);

    mr_arena small = {.limit = 10};
    assert_status(mr_file_read(&small, path, 10, &text, &err), MR_NO_MEMORY, &err);
    mr_arena_done(&small);
}

static void writing_replaces_whole_files_and_leaves_no_others(void **state)
{
    const char *path = test_path(*state, "out");
    mr_error err = {0};
    assert_status(mr_file_write(path, "first", 5, &err), MR_OK, &err);
    assert_holds(path, "first");
    assert_status(mr_file_write(path, NULL, 0, &err), MR_OK, &err);
    assert_holds(path, "");
    assert_status(mr_file_write(path, "third", 5, &err), MR_OK, &err);
    assert_holds(path, "third");
    assert_int_equal(entries_of(*state), 1);

    struct stat info;
    mode_t mask = umask(022);
    umask(mask);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0666 & ~mask);
    assert_int_equal(chmod(path, 0600), 0); /* private stays private */
    assert_status(mr_file_write(path, "secret", 6, &err), MR_OK, &err);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
}

static void an_abandoned_writer_leaves_the_old_file(void **state)
{
    const char *path = test_path(*state, "out");
    mr_error err = {0};
    mr_file_writer writer;
    assert_status(mr_file_write(path, "old", 3, &err), MR_OK, &err);
    assert_status(mr_file_writer_open(&writer, path, &err), MR_OK, &err);
    fputs("half of the ne", writer.stream);
    fflush(writer.stream);
    assert_holds(path, "old");
    mr_file_writer_abandon(&writer);
    assert_holds(path, "old");
    assert_int_equal(entries_of(*state), 1);
    mr_file_writer_abandon(&writer);
    mr_file_writer_abandon(NULL);

    assert_status(mr_file_writer_open(&writer, path, &err), MR_OK, &err);
    fputs("new", writer.stream);
    assert_status(mr_file_writer_commit(&writer, &err), MR_OK, &err);
    mr_file_writer_abandon(&writer); /* no-op after commit */
    assert_holds(path, "new");
    assert_status(mr_file_writer_commit(&writer, &err), MR_INTERNAL, &err);
}

/* /dev/full would do for a stream, but not for a file with a temporary beside it: a limit of file
 * size makes the write itself fail. */
static void a_write_that_does_not_fit_reports_it_and_keeps_the_old_file(void **state)
{
    const char *path = test_path(*state, "out");
    mr_error err = {0};
    assert_status(mr_file_write(path, "old", 3, &err), MR_OK, &err);
    char *large = calloc(1, 1 << 20);
    assert_non_null(large);
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 4096;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    mr_status status = mr_file_write(path, large, 1 << 20, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, handler);
    free(large);
    assert_status(status, MR_IO, &err);
    assert_contains(err.message, "/out' failed; is the disk full?");
    assert_holds(path, "old");
    assert_int_equal(entries_of(*state), 1);
}

static void writing_where_it_cannot_be_done_names_the_place(void **state)
{
    mr_error err = {0};
    assert_status(mr_file_write(test_path(*state, "no/such/out"), "x", 1, &err), MR_NOT_FOUND,
                  &err);
    assert_contains(err.message, "cannot create");
    assert_contains(err.message, "no/such/out");
    const char *folder = test_path(*state, "folder");
    assert_int_equal(mkdir(folder, 0777), 0);
    assert_status(mr_file_write(folder, "x", 1, &err), MR_INVALID, &err);
    assert_contains(err.message, "/folder': it is a folder, expected a regular file or a new name");
    assert_int_equal(entries_of(*state), 1);
}

/* A pipe stands for /dev/null here: a test that fails must not cost the machine its device. */
static void a_pipe_or_device_is_not_replaced_by_a_file(void **state)
{
    mr_error err = {0};
    struct stat info;
    const char *pipe_path = test_path(*state, "pipe"), *link_path = test_path(*state, "link");
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    assert_int_equal(symlink("pipe", link_path), 0); /* as /dev/stdout is one */
    assert_status(mr_file_write(pipe_path, "x", 1, &err), MR_INVALID, &err);
    assert_contains(err.message, "/pipe': it is a pipe, expected a regular file");
    assert_status(mr_file_write(link_path, "x", 1, &err), MR_INVALID, &err);
    assert_int_equal(lstat(pipe_path, &info), 0);
    assert_true(S_ISFIFO(info.st_mode));
    assert_int_equal(lstat(link_path, &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(entries_of(*state), 2);
}

static void copies_are_exact_also_beyond_one_chunk(void **state)
{
    const size_t len = (1 << 20) + 3;
    char *data = malloc(len);
    assert_non_null(data);
    for (size_t i = 0; i < len; i++)
        data[i] = (char)(i * 7 + i / 256);
    test_file_write(test_path(*state, "from"), data, len);
    mr_error err = {0};
    const char *to = test_path(*state, "to");
    assert_status(mr_file_copy(test_path(*state, "from"), to, &err), MR_OK, &err);
    size_t copied_len;
    char *copied = test_file_read(to, &copied_len);
    assert_int_equal(copied_len, len);
    assert_memory_equal(copied, data, len);
    free(copied);
    free(data);
}

static void folders_are_made_with_their_parents(void **state)
{
    mr_error err = {0};
    const char *deep = test_path(*state, "a/b//c/");
    assert_status(mr_file_make_folders(deep, &err), MR_OK, &err);
    assert_true(mr_file_is_folder(test_path(*state, "a/b/c")));
    assert_status(mr_file_make_folders(deep, &err), MR_OK, &err);
    test_file_write(test_path(*state, "file"), "", 0);
    assert_status(mr_file_make_folders(test_path(*state, "file"), &err), MR_EXISTS, &err);
    assert_contains(err.message, "/file' is there and not a folder");
    assert_status(mr_file_make_folders(test_path(*state, "file/x"), &err), MR_EXISTS, &err);
    assert_status(mr_file_make_folders("", &err), MR_INVALID, &err);
    assert_true(mr_file_exists(test_path(*state, "file")));
    assert_false(mr_file_is_folder(test_path(*state, "file")));
    assert_false(mr_file_exists(test_path(*state, "none")));
}

static void paths_join_with_one_slash(void **state)
{
    (void)state;
    static const struct {
        const char *folder, *name, *want;
    } cases[] = {
        {"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"/", "b", "/b"}, {"", "b", "b"}, {"a", "", "a/"},
    };
    mr_arena arena = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(mr_path_join(&arena, cases[i].folder, cases[i].name), cases[i].want);
    mr_arena_done(&arena);
    mr_arena tiny = {.limit = 2};
    assert_null(mr_path_join(&tiny, "a", "b"));
    mr_arena_done(&tiny);
}

static void relative_paths_may_not_leave_their_folder(void **state)
{
    (void)state;
    static const char *const good[] = {"a",   "a/b.json", "./a",     "a/",
                                       "..a", "a..",      "a/..b/c", "..."};
    static const struct {
        const char *path, *message;
    } bad[] = {
        {NULL, "empty"},
        {"", "empty"},
        {"/etc/passwd", "is absolute"},
        {"..", "through '..'"},
        {"../a", "'..'"},
        {"a/../b", "'..'"},
        {"a/..", "'..'"},
        {"a/b/../../..", "'..'"},
        {"a\\b", "backslash"},
        {"..\\a", "backslash"},
    };
    mr_error err = {0};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_status(mr_path_check_relative(good[i], &err), MR_OK, &err);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_status(mr_path_check_relative(bad[i].path, &err), MR_INVALID, &err);
        assert_contains(err.message, bad[i].message);
    }
}

static void failures_say_what_the_system_said(void **state)
{
    (void)state;
    mr_error err = {0};
    assert_status(mr_file_fail(&err, ENOSPC, "write", "f"), MR_EXHAUSTED, &err);
    assert_string_equal(err.message, "cannot write 'f': No space left on device");
    assert_status(mr_file_fail(&err, EACCES, "open", "f"), MR_IO, &err);
    assert_string_equal(err.message, "cannot open 'f': Permission denied");
    assert_status(mr_file_fail(&err, EMFILE, "open", "f"), MR_EXHAUSTED, &err);
    assert_contains(err.message, "Too many open files; raise the limit");
    assert_status(mr_file_fail(&err, ENOMEM, "map", "f"), MR_NO_MEMORY, &err);
    assert_status(mr_file_fail(&err, EEXIST, "make", "f"), MR_EXISTS, &err);
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(a_mapping_shows_the_bytes_and_outlives_the_name),
        WITH_FOLDER(an_empty_file_maps_and_reads_as_nothing),
        WITH_FOLDER(what_is_not_a_regular_file_is_refused_and_never_waited_for),
        WITH_FOLDER(reading_is_bounded_and_terminated),
        WITH_FOLDER(writing_replaces_whole_files_and_leaves_no_others),
        WITH_FOLDER(an_abandoned_writer_leaves_the_old_file),
        WITH_FOLDER(a_write_that_does_not_fit_reports_it_and_keeps_the_old_file),
        WITH_FOLDER(writing_where_it_cannot_be_done_names_the_place),
        WITH_FOLDER(a_pipe_or_device_is_not_replaced_by_a_file),
        WITH_FOLDER(copies_are_exact_also_beyond_one_chunk),
        WITH_FOLDER(folders_are_made_with_their_parents),
        cmocka_unit_test(paths_join_with_one_slash),
        cmocka_unit_test(relative_paths_may_not_leave_their_folder),
        cmocka_unit_test(failures_say_what_the_system_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
