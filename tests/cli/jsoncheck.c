/* jsoncheck.c - for the tests of the command line: is standard input JSON, and what does it say?
 *
 *     jsoncheck                    one value
 *     jsoncheck lines              one object on every line, at least one
 *     jsoncheck PATH               one value; prints what is at PATH
 *     jsoncheck lines PATH         the same of every line
 *
 * PATH is keys and indexes with dots between them: items.0.id. An array of objects takes a `*`:
 * items.*.id prints one line for each. A string is printed as it is, anything else as JSON. Exits
 * with 1 and a message when the input is no JSON or has nothing at the path.
 * SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int print_value(const json_t *value)
{
    char *text = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    puts(text ? text : json_string_value(value));
    free(text);
    return 0;
}

static int print_at(const json_t *value, const char *path)
{
    if (!value) {
        fprintf(stderr, "jsoncheck: nothing there\n");
        return 1;
    }
    if (!*path)
        return print_value(value);
    char key[256];
    const size_t len = strcspn(path, ".");
    if (len >= sizeof key) {
        fprintf(stderr, "jsoncheck: a key of the path is too long\n");
        return 1;
    }
    memcpy(key, path, len);
    key[len] = '\0';
    const char *rest = path + len + (path[len] == '.');
    if (strcmp(key, "*") == 0) {
        int failed = !json_is_array(value);
        for (size_t i = 0; i < json_array_size(value); i++)
            failed |= print_at(json_array_get(value, i), rest);
        return failed;
    }
    if (json_is_array(value))
        return print_at(json_array_get(value, strtoul(key, NULL, 10)), rest);
    return print_at(json_object_get(value, key), rest);
}

static int check(const char *text, size_t len, const char *path)
{
    json_error_t error;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!root) {
        fprintf(stderr, "jsoncheck: %s in: %.*s\n", error.text, (int)(len < 200 ? len : 200), text);
        return 1;
    }
    const int failed = path ? print_at(root, path) : 0;
    json_decref(root);
    return failed;
}

int main(int argc, char **argv)
{
    const int lines = argc > 1 && strcmp(argv[1], "lines") == 0;
    const char *path = argc > 1 + lines ? argv[1 + lines] : NULL;
    char *text = NULL;
    size_t capacity = 0;
    ssize_t len;
    int failed = 0, n = 0;
    while ((len = getdelim(&text, &capacity, lines ? '\n' : EOF, stdin)) > 0) {
        failed |= check(text, (size_t)len, path);
        n++;
    }
    free(text);
    if (n == 0)
        fprintf(stderr, "jsoncheck: the input is empty\n");
    return failed || n == 0;
}
