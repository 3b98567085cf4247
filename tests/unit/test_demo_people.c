/* test_demo_people.c - what leaves the program of the people in an archive: baskets and nothing
 * else.
 *
 * The people of the archive are invented, so that their names may stand here. The tests look for
 * everything that the program could know them by: names, addresses, and hashes of both.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/demo_fixture.h"

static const char *const people[] = {
    "Alice Example",         "alice@example.org", "other@example.org",
    "Boris Sample",          "boris@example.net", "Carla Muster",
    "carla@example.org",     "Example, Dora",     "dora@example.com",
    "Erik Beispiel",         "erik@example.org",  "Fran\xc3\xa7oise Exemple",
    "francoise@example.net", "Gus Placeholder",   "gus@example.com",
    "Hanna Mustermann",      "hanna@example.org", "Example Packaging Team",
};

static void baskets_belong_to_people_not_to_teams(void **state)
{
    (void)state;
    place *p = place_new();
    demo_summary summary = build_ok(p);
    assert_int_equal(summary.users, 8);
    json_t *users = rows_of(p, "users.jsonl");
    size_t two_spellings = 0, quoted = 0;
    for (size_t i = 0; i < json_array_size(users); i++) {
        const json_t *row = json_array_get(users, i);
        const json_t *history = json_object_get(row, "history");
        char id[32];
        snprintf(id, sizeof id, "u%06zu", i + 1);
        assert_string_equal(text_of(row, "id"), id);
        for (size_t k = 1; k < json_array_size(history); k++)
            assert_true(strcmp(json_string_value(json_array_get(history, k - 1)),
                               json_string_value(json_array_get(history, k))) < 0);
        /* "Alice Example" and "ALICE EXAMPLE" are one, "Example, Dora" is whole. */
        two_spellings += list_holds(history, "tidalnet") && list_holds(history, "wavecount");
        quoted += json_array_size(history) == 8 && list_holds(history, "emberlog") &&
                  list_holds(history, "kitestar");
    }
    assert_int_equal(two_spellings, 1);
    assert_int_equal(quoted, 1);
    json_decref(users);
    place_free(p);
}

static void assert_unknown(const char *where, const char *text, size_t len)
{
    static const char *const mixed_in[] = {"", "split", "valid"};
    for (size_t i = 0; i < COUNT(people); i++) {
        assert_nowhere(where, text, len, people[i]);
        char lower[128], salted[256], hex[MR_SHA256_HEX];
        size_t n = strlen(people[i]);
        for (size_t k = 0; k <= n; k++)
            lower[k] = (char)tolower((unsigned char)people[i][k]);
        char digest[MR_SHA256_HEX];
        assert_status(mr_hash_sha256_hex(lower, n, digest, NULL), MR_OK, NULL);
        digest[12] = '\0';
        const char *const form[] = {people[i], lower, digest};
        for (size_t f = 0; f < COUNT(form); f++) {
            for (size_t s = 0; s < COUNT(mixed_in); s++) {
                snprintf(salted, sizeof salted, "%s%s", mixed_in[s], form[f]);
                assert_status(mr_hash_sha256_hex(salted, strlen(salted), hex, NULL), MR_OK, NULL);
                hex[8] = '\0';
                assert_nowhere(where, text, len, hex);
            }
            char xxh[24];
            snprintf(xxh, sizeof xxh, "%016llx",
                     (unsigned long long)mr_hash_xxh3(form[f], strlen(form[f])));
            assert_nowhere(where, text, len, xxh);
        }
    }
}

static void build_to_report(const void *context)
{
    place *p = (place *)(uintptr_t)context;
    build_ok(p);
}

static void no_output_knows_a_person(void **state)
{
    (void)state;
    place *p = place_new();
    FILE *report = fopen(test_path(p->folder, "report"), "w");
    assert_non_null(report);
    p->options.report = report;
    char *talk = test_capture_stderr(build_to_report, p);
    fclose(report);
    assert_unknown("standard error", talk, strlen(talk));
    free(talk);
    size_t len;
    char *text = test_file_read(test_path(p->folder, "report"), &len);
    assert_contains(text, "people with  2 items or more");
    assert_unknown("the report", text, len);
    free(text);
    for (size_t i = 0; i < COUNT(files); i++) {
        text = read_out(p, files[i], &len);
        assert_true(len > 0);
        assert_unknown(files[i], text, len);
        free(text);
    }
    place_free(p);
}

static void a_broken_source_index_is_refused_without_a_name(void **state)
{
    (void)state;
    static const char *const broken[] = {"Alice Example <alice@example.org>\n",
                                         "Maintainer: Alice Example <alice@example.org>\n",
                                         "Alice Example"};
    for (size_t i = 0; i < COUNT(broken); i++) {
        place *p = place_new();
        size_t len;
        char *text = test_file_read(test_path(p->folder, "Sources"), &len);
        mr_strbuf changed = {0};
        mr_strbuf_append(&changed, text,
                         len - 1); /* without the last blank line: the stanza goes on */
        mr_strbuf_puts(&changed, broken[i]);
        test_file_write(test_path(p->folder, "Sources"), changed.data, changed.len);
        demo_summary summary;
        mr_error err = {0};
        assert_status(demo_catalogue_build(&p->options, &summary, &err), MR_CORRUPT, &err);
        assert_contains(err.message, "Sources, line ");
        assert_unknown("the message", err.message, strlen(err.message));
        mr_strbuf_release(&changed);
        free(text);
        place_free(p);
    }
}

/* The numbers follow from the baskets: the order of the index and the names say nothing. */
static void pseudonyms_do_not_follow_the_index(void **state)
{
    (void)state;
    place *p = place_new();
    build_ok(p);
    char *before = read_out(p, "users.jsonl", NULL);

    size_t len;
    char *text = test_file_read(test_path(p->folder, "Sources"), &len);
    mr_strbuf turned = {0};
    for (char *end = text + len; end > text;) {
        char *begin = end - 2;
        while (begin > text && !(begin[0] == '\n' && begin[-1] == '\n'))
            begin--;
        begin += begin > text;
        mr_strbuf_append(&turned, begin, (size_t)(end - begin));
        end = begin;
    }
    assert_int_equal(turned.len, len);
    test_file_write(test_path(p->folder, "Sources"), turned.data, turned.len);
    build_ok(p);
    char *after = read_out(p, "users.jsonl", NULL);
    assert_string_equal(after, before);
    free(before);
    free(after);
    free(text);
    mr_strbuf_release(&turned);
    place_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(baskets_belong_to_people_not_to_teams),
        cmocka_unit_test(no_output_knows_a_person),
        cmocka_unit_test(a_broken_source_index_is_refused_without_a_name),
        cmocka_unit_test(pseudonyms_do_not_follow_the_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
