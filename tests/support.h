/* support.h - what many tests need: temporary folders, asserts that print both sides.
 *
 *     char *folder = test_folder_new();
 *     test_file_write(test_path(folder, "a.json"), "{}", 2);
 *     assert_status(mr_json_load_file(&root, test_path(folder, "a.json"), 100, &err), MR_OK, &err);
 *     assert_contains(err.message, "expected");
 *     test_folder_free(folder);
 *
 * Include after cmocka.h. Linked into every mr_test().
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef MR_TESTS_SUPPORT_H
#define MR_TESTS_SUPPORT_H

#include <stddef.h>

#include "core/error.h"

/* A new folder under $TMPDIR or /tmp; free removes it with all that is in it. */
char *test_folder_new(void);
void test_folder_free(char *folder);

/* folder/name; one of 16 static buffers in turn. */
const char *test_path(const char *folder, const char *name);

void test_file_write(const char *path, const void *data, size_t len);
/* Terminated, for free(); *len may be NULL. */
char *test_file_read(const char *path, size_t *len);

/* Runs body(context) with standard error going to a file; returns what it wrote, for free(). */
char *test_capture_stderr(void (*body)(const void *context), const void *context);

/* max |got - want| / max |want|: the error measure of the whole project. NaN anywhere: infinity. */
double test_relative_error(const float *got, const float *want, size_t n);

/* The actual status must be the expected one; shows both names and the message otherwise. */
#define assert_status(actual, expected, err) \
    test_assert_status((actual), (expected), (err), #actual, __FILE__, __LINE__)
#define assert_contains(haystack, needle) \
    test_assert_contains((haystack), (needle), __FILE__, __LINE__)
/* Shows the error, the bound and the first element that is farthest off. */
#define assert_floats_near(got, want, n, bound) \
    test_assert_floats_near((got), (want), (n), (bound), #got, __FILE__, __LINE__)

void test_assert_status(mr_status actual, mr_status expected, const mr_error *err,
                        const char *expression, const char *file, int line);
void test_assert_contains(const char *haystack, const char *needle, const char *file, int line);
void test_assert_floats_near(const float *got, const float *want, size_t n, double bound,
                             const char *expression, const char *file, int line);

#endif
