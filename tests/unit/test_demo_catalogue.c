/* test_demo_catalogue.c - the demo catalogue as a whole, from an invented archive to its files.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/demo_fixture.h"

/* ---- items ----------------------------------------------------------------------------------- */

static void items_are_one_program_per_source(void **state)
{
    (void)state;
    place *p = place_new();
    demo_summary summary = build_ok(p);
    assert_int_equal(summary.items, 27);
    assert_int_equal(summary.icons, 3);
    assert_int_equal(summary.icons_missing, 3); /* leaves the folder, GIF, not there */
    json_t *items = rows_of(p, "items.jsonl");
    assert_int_equal(json_array_size(items), 27);

    static const struct {
        const char *id, *title, *section, *fold, *image;
    } want[] = {
        {"acornpad", "AcornPad", "editors", "train", "icons/acornpad_acornpad.png"},
        {"birchwriter", "Birch & Co: Writer", "editors", "test", NULL},
        {"cedarnote",
         "C\xc3\xa9"
         "darnote \xe2\x80\x93 notes",
         "editors", "train", NULL},
        {"glasspaint", "Glasspaint", "graphics", "test", NULL},
        {"mosspuzzle", "Moss Puzzle", "games", "test", NULL},
        {"wavecount", "wavecount", "sound", "train", NULL},
        {"zinniasuite", "zinniasuite", "office", "train", "icons/zinniasuite-slides_slides.png"},
    };
    for (size_t i = 0; i < COUNT(want); i++) {
        const json_t *row = row_of(items, want[i].id);
        assert_non_null(row);
        assert_string_equal(text_of(row, "title"), want[i].title);
        assert_string_equal(text_of(row, "section"), want[i].section);
        assert_string_equal(text_of(row, "fold"), want[i].fold);
        const char *image = text_of(row, "image");
        assert_string_equal(image ? image : "none", want[i].image ? want[i].image : "none");
        if (image)
            assert_true(mr_file_exists(test_path(p->options.out, image)));
    }
    static const char *const dropped[] = {
        "libacorn1",          "libacorn-dev", "acornpad-data",          "acornpad-doc",
        "old-acornpad",       "demo-tasks",   "education-desktop-demo", "everything",
        "zinniasuite-slides", "xshort"};
    for (size_t i = 0; i < COUNT(dropped); i++)
        assert_null(row_of(items, dropped[i]));
    json_decref(items);
    place_free(p);
}

static void texts_are_cut_and_clean(void **state)
{
    (void)state;
    place *p = place_new();
    edit(p, "Translation-en", "alarm clock with a",
         "alarm\x1b"
         "clock \xff with\xc3 a");
    build_ok(p);
    json_t *items = rows_of(p, "items.jsonl");
    json_t *longs = rows_of(p, "items_long.jsonl");

    const char *text = text_of(row_of(items, "wavecount"), "text");
    assert_contains(text, "counts waves in a recording Counts how often");
    assert_contains(text, " word230");
    assert_null(strstr(text, "word231")); /* 20 words come before word1 */
    const char *detail = text_of(row_of(longs, "wavecount"), "text");
    assert_null(strstr(detail, "counts waves in a recording"));
    assert_true(strstr(text, detail) != NULL);

    /* A blank line of the description leaves no dot behind. */
    assert_contains(text_of(row_of(items, "acornpad"), "text"), "on a sheet. The manual has");
    assert_contains(text_of(row_of(items, "willowclock"), "text"),
                    "alarm clock \xef\xbf\xbd with\xef\xbf\xbd a snooze");
    json_decref(items);
    json_decref(longs);
    place_free(p);
}

/* ---- queries --------------------------------------------------------------------------------- */

/* {"E1-00001": {"acornpad": 3, ...}, ...} */
static json_t *labels_of(const place *p)
{
    json_t *labels = json_object();
    for (size_t i = QRELS_BEGIN; i < QRELS_END; i++) {
        char *text = read_out(p, files[i], NULL);
        char *rest = text;
        for (char *line; (line = strtok_r(rest, "\n", &rest)) != NULL;) {
            char query[64], zero[4], item[64];
            int grade;
            assert_int_equal(sscanf(line, "%63s %3s %63s %d", query, zero, item, &grade), 4);
            assert_string_equal(zero, "0");
            if (!json_object_get(labels, query))
                json_object_set_new(labels, query, json_object());
            json_object_set_new(json_object_get(labels, query), item, json_integer(grade));
        }
        free(text);
    }
    return labels;
}

static void check_person(const json_t *query, const json_t *users, const char *own)
{
    const json_t *user = row_of(users, text_of(query, "user"));
    assert_non_null(user);
    assert_string_equal(text_of(user, "fold"), text_of(query, "split"));
    const json_t *basket = json_object_get(user, "history");
    const json_t *history = json_object_get(query, "history");
    const json_t *candidates = json_object_get(query, "candidates");
    assert_true(list_holds(basket, own));
    assert_false(list_holds(history, own));
    assert_true(json_array_size(history) >= 2);
    for (size_t i = 0; i < json_array_size(history); i++) {
        const char *item = json_string_value(json_array_get(history, i));
        assert_true(list_holds(basket, item));
        assert_false(list_holds(candidates, item));
    }
    for (size_t i = 0; i < json_array_size(candidates); i++) {
        const char *item = json_string_value(json_array_get(candidates, i));
        assert_true(strcmp(item, own) == 0 || !list_holds(basket, item));
    }
}

static void check_folds(const json_t *list, const json_t *items, const char *want)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        assert_string_equal(
            text_of(row_of(items, json_string_value(json_array_get(list, i))), "fold"), want);
}

static void queries_keep_their_promises(void **state)
{
    (void)state;
    place *p = place_new();
    demo_summary summary = build_ok(p);
    json_t *items = rows_of(p, "items.jsonl"), *users = rows_of(p, "users.jsonl");
    json_t *queries = rows_of(p, "queries.jsonl"), *labels = labels_of(p);
    json_t *seen = json_object();
    assert_int_equal(json_array_size(queries), summary.queries);
    assert_int_equal(json_object_size(labels), summary.queries);
    for (size_t i = 0; i < json_array_size(queries); i++) {
        const json_t *query = json_array_get(queries, i);
        const char *task = text_of(query, "task"), *split = text_of(query, "split");
        const json_t *graded = json_object_get(labels, text_of(query, "id"));
        const json_t *candidates = json_object_get(query, "candidates");
        char kind[64];
        snprintf(kind, sizeof kind, "%s %s", task, split);
        json_object_set_new(seen, kind, json_true());

        const char *own = NULL, *item;
        json_t *grade;
        int best = 0;
        json_object_foreach((json_t *)(uintptr_t)graded, item, grade)
        {
            assert_true(!candidates || list_holds(candidates, item));
            if (json_integer_value(grade) > best) {
                best = (int)json_integer_value(grade);
                own = item;
            }
        }
        assert_non_null(own);
        assert_int_equal(best, strncmp(task, "E1", 2) == 0 ? 3 : 1);
        assert_int_equal(!candidates, strstr(task, "-all") != NULL);
        assert_in_range(json_array_size(candidates), candidates ? 2 : 0, small_rules.candidates);
        for (size_t a = 0; a < json_array_size(candidates); a++)
            for (size_t b = 0; b < a; b++)
                assert_string_not_equal(json_string_value(json_array_get(candidates, a)),
                                        json_string_value(json_array_get(candidates, b)));
        bool personal = task[0] == 'E' || task[0] == 'D';
        assert_int_equal(json_object_get(query, "user") != NULL, personal);
        assert_int_equal(text_of(query, "query")[0] == '\0', task[0] == 'D');
        if (personal)
            check_person(query, users, own);
        bool test = strcmp(split, "test") == 0;
        if (strstr(task, "-cold")) {
            check_folds(candidates, items, test ? "test" : "train");
            if (!test)
                check_folds(json_object_get(query, "history"), items, "train");
        }
        if (task[0] == 'C') {
            assert_string_equal(text_of(row_of(items, own), "fold"), test ? "test" : "train");
            if (!test)
                check_folds(candidates, items, "train");
        }
    }
    static const char *const wanted[] = {
        "E1 train", "E1 valid",   "E1 test",       "E1-cold train", "E1-cold test",
        "D1 train", "D1 test",    "D1-cold train", "D1-cold test",  "C train",
        "C test",   "C-all test", "B1-all test",   "B3 test",       "B4 test",
    };
    for (size_t i = 0; i < COUNT(wanted); i++)
        if (!json_object_get(seen, wanted[i]))
            fail_msg("no query of %s", wanted[i]);
    json_decref(items);
    json_decref(users);
    json_decref(queries);
    json_decref(labels);
    json_decref(seen);
    place_free(p);
}

static void queries_do_not_give_their_answer_away(void **state)
{
    (void)state;
    place *p = place_new();
    build_ok(p);
    json_t *queries = rows_of(p, "queries.jsonl"), *labels = labels_of(p);
    size_t first = 0, n = 0;
    for (size_t i = 0; i < json_array_size(queries); i++) {
        const json_t *query = json_array_get(queries, i);
        const char *item;
        json_t *grade;
        json_object_foreach(json_object_get(labels, text_of(query, "id")), item,
                            grade) if (strncmp(text_of(query, "task"), "C", 1) == 0)
            assert_nowhere("a query", text_of(query, "query"), strlen(text_of(query, "query")),
                           item);
        const json_t *candidates = json_object_get(query, "candidates");
        if (text_of(query, "task")[0] != 'D' || !candidates)
            continue;
        n++;
        first += json_object_get(json_object_get(labels, text_of(query, "id")),
                                 json_string_value(json_array_get(candidates, 0))) != NULL;
    }
    /* One answer among up to eight candidates: it may be first, not always and not never. */
    assert_in_range(first, 1, n / 2);
    json_decref(queries);
    json_decref(labels);
    place_free(p);
}

/* ---- files ----------------------------------------------------------------------------------- */

static void equal_input_gives_equal_bytes(void **state)
{
    (void)state;
    place *p = place_new(), *q = place_new();
    build_ok(p);
    build_ok(q);
    build_ok(q); /* over an older catalogue */
    for (size_t i = 0; i < COUNT(files); i++) {
        size_t p_len, q_len;
        char *a = read_out(p, files[i], &p_len), *b = read_out(q, files[i], &q_len);
        assert_int_equal(p_len, q_len);
        assert_memory_equal(a, b, p_len);
        free(a);
        free(b);
    }
    place_free(p);
    place_free(q);
}

static void the_manifest_counts_and_digests_every_file(void **state)
{
    (void)state;
    place *p = place_new();
    demo_summary summary = build_ok(p);
    json_t *manifest = NULL;
    mr_error err = {0};
    assert_status(mr_json_load_file(&manifest, test_path(p->options.out, "manifest.json"),
                                    MR_JSON_MAX_CONFIG, &err),
                  MR_OK, &err);
    assert_string_equal(text_of(json_object_get(manifest, "archive"), "suite"), "demo");
    assert_string_equal(text_of(json_object_get(manifest, "archive"), "date"),
                        "Sat, 01 Jan 2022 00:00:00 UTC");
    const json_t *entries = json_object_get(manifest, "files");
    for (size_t i = 0; i < COUNT(files); i++) {
        if (strcmp(files[i], "manifest.json") == 0)
            continue;
        char hex[MR_SHA256_HEX];
        assert_status(mr_hash_sha256_file(test_path(p->options.out, files[i]), hex, &err), MR_OK,
                      &err);
        assert_string_equal(text_of(json_object_get(entries, files[i]), "sha256"), hex);
    }
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(entries, "items.jsonl"), "rows")),
        summary.items);
    assert_int_equal(strlen(text_of(manifest, "digest")), 64);
    json_decref(manifest);
    place_free(p);
}

static void pictures_may_lie_in_the_catalogue_already(void **state)
{
    (void)state;
    place *p = place_new();
    build_ok(p);
    free((char *)p->options.icons);
    p->options.icons = keep(test_path(p->options.out, "icons"));
    assert_int_equal(build_ok(p).icons, 3);
    char *text = read_out(p, "icons/fernview_fernview.png", NULL);
    assert_contains(text + 8, "and so on");
    free(text);
    place_free(p);
}

static void bad_input_gets_one_clear_error_and_keeps_the_old_files(void **state)
{
    (void)state;
    static const struct {
        const char *file, *text; /* NULL: the file is not there */
        mr_status status;
        const char *message;
    } row[] = {
        {"Packages", NULL, MR_NOT_FOUND, "Packages"},
        {"Packages", "", MR_CORRUPT, "Packages: the file is empty"},
        {"Packages", "Version: 1\n\n", MR_CORRUPT, "the stanza at line 1 has no 'Package'"},
        {"Packages", "Package: a\n\nPackage: b\nSect", MR_CORRUPT, "line 4: the file ends within"},
        {"Packages", "Package: libx\nSection: libs\n", MR_INVALID,
         "none of 1 packages is a program"},
        {"Translation-en", "Package: a\n", MR_CORRUPT,
         "Translation-en: the stanza at line 1 has no 'Description-md5'"},
        {"Translation-en", "<html>\n", MR_CORRUPT, "Translation-en, line 1: <html> is not"},
        {"Sources", "Maintainer: x\n", MR_CORRUPT,
         "Sources: the stanza at line 1 has no 'Package'"},
        {"Sources", NULL, MR_NOT_FOUND, "Sources"},
        {"Components.yml", "", MR_CORRUPT, "Components.yml, line 1: found no document"},
        {"Components.yml", "---\na: [\n", MR_CORRUPT, "Components.yml, line 3"},
        {"Release", "Suite: stable\n", MR_CORRUPT, "Release: no 'Codename:'"},
        {"vocabulary", "Tag: a::b\n", MR_CORRUPT, "the tag vocabulary: the stanza at line 1"},
        {"vocabulary", NULL, MR_NOT_FOUND, "vocabulary"},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        place *p = place_new();
        build_ok(p);
        if (row[i].text)
            test_file_write(test_path(p->folder, row[i].file), row[i].text, strlen(row[i].text));
        else
            assert_int_equal(remove(test_path(p->folder, row[i].file)), 0);
        demo_summary summary;
        mr_error err = {0};
        assert_status(demo_catalogue_build(&p->options, &summary, &err), row[i].status, &err);
        assert_contains(err.message, row[i].message);
        for (size_t f = 0; f < COUNT(files); f++)
            assert_true(mr_file_exists(test_path(p->options.out, files[f])));
        place_free(p);
    }
}

static void an_output_that_is_a_file_is_refused(void **state)
{
    (void)state;
    place *p = place_new();
    test_file_write(p->options.out, "x", 1);
    demo_summary summary;
    mr_error err = {0};
    assert_int_not_equal(demo_catalogue_build(&p->options, &summary, &err), MR_OK);
    assert_contains(err.message, "/out");
    place_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_are_one_program_per_source),
        cmocka_unit_test(texts_are_cut_and_clean),
        cmocka_unit_test(queries_keep_their_promises),
        cmocka_unit_test(queries_do_not_give_their_answer_away),
        cmocka_unit_test(equal_input_gives_equal_bytes),
        cmocka_unit_test(the_manifest_counts_and_digests_every_file),
        cmocka_unit_test(pictures_may_lie_in_the_catalogue_already),
        cmocka_unit_test(bad_input_gets_one_clear_error_and_keeps_the_old_files),
        cmocka_unit_test(an_output_that_is_a_file_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
