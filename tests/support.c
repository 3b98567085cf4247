/* support.c - see support.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/remove_tree.h"
#include "tests/support.h"

#define PATHS     16
#define PATH_SIZE 4096

char *test_folder_new(void)
{
    const char *parent = getenv("TMPDIR");
    char pattern[PATH_SIZE];
    int n = snprintf(pattern, sizeof pattern, "%s/mixrank-test-XXXXXX", parent ? parent : "/tmp");
    if (n < 0 || n >= PATH_SIZE || !mkdtemp(pattern))
        fail_msg("cannot make a temporary folder '%s'", pattern);
    char *folder = malloc((size_t)n + 1);
    assert_non_null(folder);
    memcpy(folder, pattern, (size_t)n + 1);
    return folder;
}

void test_folder_free(char *folder)
{
    if (!folder)
        return;
    test_remove_tree(AT_FDCWD, folder);
    free(folder);
}

const char *test_path(const char *folder, const char *name)
{
    static char paths[PATHS][PATH_SIZE];
    static unsigned next;
    char *path = paths[next++ % PATHS];
    int n = snprintf(path, PATH_SIZE, "%s/%s", folder, name);
    assert_true(n > 0 && n < PATH_SIZE);
    return path;
}

void test_file_write(const char *path, const void *data, size_t len)
{
    FILE *stream = fopen(path, "wb");
    if (!stream || (len && fwrite(data, 1, len, stream) != len) || fclose(stream) != 0)
        fail_msg("cannot write '%s'", path);
}

char *test_file_read(const char *path, size_t *len)
{
    FILE *stream = fopen(path, "rb");
    if (!stream)
        fail_msg("cannot read '%s'", path);
    char *text = NULL;
    size_t used = 0, size = 0;
    for (;;) {
        if (size - used < 2) {
            size = size ? size * 2 : 4096;
            text = realloc(text, size);
            assert_non_null(text);
        }
        size_t got = fread(text + used, 1, size - used - 1, stream);
        if (got == 0)
            break;
        used += got;
    }
    assert_false(ferror(stream));
    fclose(stream);
    text[used] = '\0';
    if (len)
        *len = used;
    return text;
}

char *test_capture_stderr(void (*body)(const void *context), const void *context)
{
    char *folder = test_folder_new();
    const char *path = test_path(folder, "stderr");
    fflush(stderr);
    int saved = dup(STDERR_FILENO);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(saved >= 0 && fd >= 0);
    assert_true(dup2(fd, STDERR_FILENO) >= 0);
    body(context);
    fflush(stderr);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
    close(fd);
    char *text = test_file_read(path, NULL);
    test_folder_free(folder);
    return text;
}

double test_relative_error(const float *got, const float *want, size_t n)
{
    double difference = 0, scale = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)want[i]);
        double w = fabs((double)want[i]);
        if (isnan(d) || isnan(w))
            return (double)INFINITY;
        difference = d > difference ? d : difference;
        scale = w > scale ? w : scale;
    }
    return difference == 0 ? 0 : difference / scale;
}

void test_assert_status(mr_status actual, mr_status expected, const mr_error *err,
                        const char *expression, const char *file, int line)
{
    if (actual == expected)
        return;
    print_error("%s gave %s, expected %s%s%s\n", expression, mr_status_name(actual),
                mr_status_name(expected), actual != MR_OK && err ? ": " : "",
                actual != MR_OK && err ? err->message : "");
    _fail(file, line);
}

void test_assert_contains(const char *haystack, const char *needle, const char *file, int line)
{
    if (haystack && strstr(haystack, needle))
        return;
    print_error("\"%s\"\n  does not contain \"%s\"\n", haystack ? haystack : "(null)", needle);
    _fail(file, line);
}

void test_assert_floats_near(const float *got, const float *want, size_t n, double bound,
                             const char *expression, const char *file, int line)
{
    double error = test_relative_error(got, want, n);
    if (error <= bound)
        return;
    size_t worst = 0;
    double farthest = -1;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)want[i]);
        if (isnan(d))
            d = (double)INFINITY;
        if (d > farthest) {
            farthest = d;
            worst = i;
        }
    }
    print_error("%s is off by %.3g of the largest value, at most %.3g allowed; farthest at [%zu]: "
                "%.9g, expected %.9g\n",
                expression, error, bound, worst, (double)got[worst], (double)want[worst]);
    _fail(file, line);
}
