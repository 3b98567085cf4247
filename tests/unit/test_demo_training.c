/* test_demo_training.c - what training may read of the demo catalogue, and what must not be in it.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "deploy/demo/training.h"
#include "tests/unit/demo_fixture.h"

static json_t *manifest_of(const place *p)
{
    json_t *manifest = NULL;
    mr_error err = {0};
    assert_status(mr_json_load_file(&manifest, test_path(p->options.out, "manifest.json"),
                                    MR_JSON_MAX_CONFIG, &err),
                  MR_OK, &err);
    return manifest;
}

static void assert_count(const json_t *manifest, const char *part, const char *key, int want)
{
    const json_t *counts = json_object_get(json_object_get(manifest, "training"), part);
    const json_t *count = json_object_get(counts, key);
    assert_non_null(count);
    if (json_integer_value(count) != want)
        fail_msg("training.%s.%s is %d, expected %d", part, key, (int)json_integer_value(count),
                 want);
}

/* More packages in the index, with their descriptions inline. */
static void add_packages(const place *p, const char *stanzas)
{
    char *text = test_file_read(test_path(p->folder, "Packages"), NULL);
    mr_strbuf more = {0};
    mr_strbuf_puts(&more, text);
    mr_strbuf_puts(&more, "\n");
    mr_strbuf_puts(&more, stanzas);
    test_file_write(test_path(p->folder, "Packages"), more.data, more.len);
    mr_strbuf_release(&more);
    free(text);
}

/* Figures quote the digest: these files are what they were before there were any for training. A
 * change of the archive in data/debian-fixture changes it, a change of the program should not. */
static void files_of_the_evaluation_are_what_they_were(void **state)
{
    (void)state;
    place *p = place_new();
    build_ok(p);
    json_t *manifest = manifest_of(p);
    assert_string_equal(text_of(manifest, "digest"),
                        "f416520ab2ab898f9765fe28b15a18b3056fd96ce1c10cabb93bbbb31ef69087");
    assert_int_equal(strlen(text_of(manifest, "training_digest")), 64);
    json_decref(manifest);
    place_free(p);
}

/* ---- texts.jsonl ----------------------------------------------------------------------------- */

static size_t count_text(const json_t *rows, const char *text, const char *id)
{
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        n +=
            strcmp(text_of(row, "text"), text) == 0 && (!id || strcmp(text_of(row, "id"), id) == 0);
    }
    return n;
}

static void every_text_is_there_once_and_a_package_is_in_one_piece(void **state)
{
    (void)state;
    place *p = place_new();
    /* Before acornpad in order of name, with acornpad's paragraph and one of its own twice. */
    add_packages(p, "Package: aaa-data\nSource: acornpad\nSection: doc\nDescription: aaa\n"
                    " The manual  has a\n page for every menu.\n .\n .\n Twice.\n .\n Twice.\n");
    demo_summary summary = build_ok(p);
    json_t *rows = rows_of(p, "texts.jsonl");
    assert_int_equal(json_array_size(rows), summary.texts);

    json_t *seen = json_object(), *ids = json_object();
    const char *last = "";
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        const char *id = text_of(row, "id"), *text = text_of(row, "text");
        if (json_object_get(seen, text))
            fail_msg("'%s' is there twice", text);
        json_object_set_new(seen, text, json_true());
        if (strcmp(id, last) != 0) {
            assert_true(strcmp(last, id) < 0);
            assert_null(json_object_get(ids, id));
            json_object_set_new(ids, id, json_true());
            last = id;
        }
        assert_null(strstr(text, "  "));
        assert_true(strlen(text) > 0);
    }
    assert_int_equal(count_text(rows, "The manual has a page for every menu.", "acornpad"), 1);
    assert_int_equal(count_text(rows, "Twice.", "aaa-data"), 1);
    assert_int_equal(count_text(rows, "aaa", "aaa-data"), 1);
    /* Short before long, and texts of test items are in. */
    assert_int_equal(count_text(rows, "paints with water and light", "glasspaint"), 1);
    for (size_t i = 0; i + 1 < json_array_size(rows); i++) {
        if (strcmp(text_of(json_array_get(rows, i), "text"), "paints with water and light") == 0)
            assert_contains(text_of(json_array_get(rows, i + 1), "text"), "Brushes behave");
    }
    json_decref(rows);
    json_decref(seen);
    json_decref(ids);
    place_free(p);
}

static void a_long_paragraph_is_cut_and_broken_bytes_are_replaced(void **state)
{
    (void)state;
    place *p = place_new();
    edit(p, "Translation-en", "alarm clock with a",
         "alarm\x1b"
         "clock \xff with\xc3 a");
    build_ok(p);
    json_t *rows = rows_of(p, "texts.jsonl");
    bool cut = false, clean = false;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const char *text = text_of(json_array_get(rows, i), "text");
        if (strncmp(text, "Counts how often", 16) == 0) {
            cut = true;
            assert_contains(text, " word230");
            assert_null(strstr(text, "word231"));
        }
        clean |= strcmp(text, "alarm clock \xef\xbf\xbd with\xef\xbf\xbd a snooze list") == 0;
    }
    assert_true(cut);
    assert_true(clean);
    json_decref(rows);
    place_free(p);
}

static void addresses_are_found(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool want;
    } row[] = {
        {"write to nut@example.org, please", true},
        {"<nut.oak+x@mail.example.org>", true},
        {"a@b.c", true},
        {"nut@example.org.", true},
        {"", false},
        {"@", false},
        {"@example.org", false},
        {"the @click.option decorator", false},
        {"3 nuts @ 2.50 each", false},
        {"user@host", false},
        {"user@host. A sentence", false},
        {"user@.org", false},
        {"nut@example. org", false},
        {"mean@10.5 of it", false},
    };
    for (size_t i = 0; i < COUNT(row); i++)
        if (demo_has_address(mr_str_of(row[i].text)) != row[i].want)
            fail_msg("'%s' %s an address", row[i].text, row[i].want ? "has" : "has not");
}

static void texts_with_an_address_stay_out(void **state)
{
    (void)state;
    place *p = place_new();
    add_packages(p, "Package: bbb\nSection: libs\nDescription: draws garden birds and owls\n"
                    " Feathers, wings and beaks of birds.\n .\n Questions: owl@example.org\n");
    build_ok(p);
    json_t *texts = rows_of(p, "texts.jsonl"), *pairs = rows_of(p, "pairs.jsonl");
    json_t *manifest = manifest_of(p);
    assert_int_equal(count_text(texts, "Feathers, wings and beaks of birds.", "bbb"), 1);
    assert_int_equal(count_text(texts, "Questions: owl@example.org", NULL), 0);
    assert_null(row_of(pairs, "bbb"));
    assert_count(manifest, "texts", "addressed", 1);
    assert_count(manifest, "pairs", "addressed", 1);
    json_decref(texts);
    json_decref(pairs);
    json_decref(manifest);
    place_free(p);
}

/* ---- pairs.jsonl ----------------------------------------------------------------------------- */

static void pairs_are_a_short_description_and_its_long_one(void **state)
{
    (void)state;
    place *p = place_new();
    add_packages(p, "Package: libbirds2\nSource: birds (2.0)\nSection: libs\n"
                    "Description: Birds: feathers, beaks and wings (libbirds2)\n"
                    " The library draws  any\n feather.\n .\n And beaks.\n");
    demo_summary summary = build_ok(p);
    json_t *pairs = rows_of(p, "pairs.jsonl");
    assert_int_equal(json_array_size(pairs), summary.pairs);
    const json_t *row = row_of(pairs, "libbirds2");
    assert_non_null(row);
    assert_string_equal(text_of(row, "a"), "feathers beaks and wings");
    assert_string_equal(text_of(row, "b"), "The library draws any feather. And beaks.");
    assert_string_equal(text_of(row, "section"), "libs");
    assert_string_equal(text_of(row, "group"), "birds");
    assert_int_equal(json_object_size(row), 5);

    const char *longest = text_of(row_of(pairs, "wavecount"), "b");
    assert_contains(longest, " word230");
    assert_null(strstr(longest, "word231"));
    json_decref(pairs);
    place_free(p);
}

/* glasspaint is a test item, pebblechess one that C validates with, acornpad a train item. */
static void pairs_hold_nothing_of_what_c_tests_or_validates_with(void **state)
{
    (void)state;
    static const struct {
        const char *id, *stanza;
        const char *reason; /* NULL: it is a row */
    } row[] = {
        {"acornpad-extra",
         "Source: acornpad\nDescription: more paper for every notebook\n Ruled, dotted and plain.",
         NULL},
        {"ownsource", "Description: sings loudly in every kitchen\n Songs for pots and pans.",
         NULL},
        /* Siblings of held-out items. */
        {"glasspaint-extra",
         "Source: glasspaint (3.1)\nDescription: more brushes for every painter\n Hair and wool.",
         "of_test_items"},
        {"pebblechess-extra",
         "Source: pebblechess\nDescription: more problems for one person\n Mate in two.",
         "of_valid_items"},
        /* Of other sources, with a text of theirs. */
        {"copied-query",
         "Description: paints with water and light\n Something else is said about it here.",
         "like_held_out"},
        {"copied-paragraph",
         "Description: bright colours for painting programs\n Brushes behave like water colours: "
         "they\n"
         " run, dry and mix. Layers can be lit from behind as stained glass would be.\n .\n"
         " These are its colours.",
         "like_held_out"},
        {"copied-sibling", "Description: warm wool for painting programs\n Hair and wool.",
         "like_held_out"},
        {"copied-valid",
         "Description: old newspapers for puzzle programs\n Two thousand problems from old "
         "newspapers,\n"
         " sorted by the number of moves. It explains why an answer is wrong.",
         "like_held_out"},
        /* A phrase that all have is no copy. */
        {"common-phrase",
         "Description: hand drawn menus of the other program\n The manual has a page for every "
         "menu.",
         NULL},
        {"no-words", "Description: no-words\n Its summary is its name.", "short_query"},
        {"no-text", "Description: says nothing more than this", "short_query"},
        {"repeats-a", "Description: sings loudly in every kitchen\n Other songs.", "repeated"},
        {"repeats-b", "Description: hums softly in every kitchen\n Songs for pots and pans.",
         "repeated"},
    };
    static const char *const reason[] = {"of_test_items", "of_valid_items", "like_held_out",
                                         "short_query", "repeated"};
    place *p = place_new();
    build_ok(p);
    json_t *before = manifest_of(p);
    mr_strbuf stanzas = {0};
    for (size_t i = 0; i < COUNT(row); i++)
        mr_strbuf_printf(&stanzas, "Package: %s\nSection: libs\n%s\n\n", row[i].id, row[i].stanza);
    add_packages(p, stanzas.data);
    build_ok(p);
    json_t *pairs = rows_of(p, "pairs.jsonl"), *after = manifest_of(p);
    for (size_t i = 0; i < COUNT(row); i++)
        if ((row_of(pairs, row[i].id) == NULL) != (row[i].reason != NULL))
            fail_msg("%s is %s the pairs", row[i].id, row[i].reason ? "in" : "not in");
    for (size_t r = 0; r < COUNT(reason); r++) {
        const json_t *was = json_object_get(json_object_get(before, "training"), "pairs");
        int want = (int)json_integer_value(json_object_get(was, reason[r]));
        for (size_t i = 0; i < COUNT(row); i++)
            want += row[i].reason && strcmp(row[i].reason, reason[r]) == 0;
        assert_count(after, "pairs", reason[r], want);
    }
    json_decref(before);
    json_decref(after);
    json_decref(pairs);
    mr_strbuf_release(&stanzas);
    place_free(p);
}

static void no_pair_is_a_label_of_c_outside_of_training(void **state)
{
    (void)state;
    place *p = place_new();
    build_ok(p);
    json_t *pairs = rows_of(p, "pairs.jsonl"), *items = rows_of(p, "items_long.jsonl");
    json_t *queries = rows_of(p, "queries.jsonl");
    char *labels = read_out(p, "qrels/C.txt", NULL);
    size_t n = 0, in_training = 0;
    for (size_t i = 0; i < json_array_size(queries); i++) {
        const json_t *query = json_array_get(queries, i);
        if (strcmp(text_of(query, "task"), "C") != 0)
            continue;
        char wanted[64], item[64];
        snprintf(wanted, sizeof wanted, "%s 0 ", text_of(query, "id"));
        const char *label = strstr(labels, wanted);
        assert_non_null(label);
        assert_int_equal(sscanf(label + strlen(wanted), "%63s", item), 1);
        if (strcmp(text_of(query, "split"), "train") == 0) {
            in_training += row_of(pairs, item) != NULL;
            continue;
        }
        n++;
        for (size_t k = 0; k < json_array_size(pairs); k++) {
            const json_t *pair = json_array_get(pairs, k);
            assert_string_not_equal(text_of(pair, "id"), item);
            assert_string_not_equal(text_of(pair, "group"), item);
            assert_string_not_equal(text_of(pair, "a"), text_of(query, "query"));
            assert_string_not_equal(text_of(pair, "b"), text_of(row_of(items, item), "text"));
        }
    }
    assert_in_range(n, 5, 20);
    assert_in_range(in_training, 5, 20);
    for (size_t i = 0; i < json_array_size(items); i++) {
        const json_t *item = json_array_get(items, i);
        if (strcmp(text_of(item, "fold"), "test") == 0)
            assert_null(row_of(pairs, text_of(item, "id")));
    }
    free(labels);
    json_decref(pairs);
    json_decref(items);
    json_decref(queries);
    place_free(p);
}

/* ---- training_lists.jsonl -------------------------------------------------------------------- */

/* How many training people hold the item. */
static size_t holders_of(const json_t *users, const char *item)
{
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(users); i++) {
        const json_t *user = json_array_get(users, i);
        n += strcmp(text_of(user, "fold"), "train") == 0 &&
             list_holds(json_object_get(user, "history"), item);
    }
    return n;
}

static void check_list(const json_t *row, const json_t *users, const json_t *items)
{
    const json_t *user = row_of(users, text_of(row, "user"));
    assert_non_null(user);
    assert_string_equal(text_of(user, "fold"), "train");
    assert_string_equal(text_of(row, "split"), "train");
    assert_true(text_of(row, "query")[0] != '\0');
    const json_t *basket = json_object_get(user, "history");
    const json_t *history = json_object_get(row, "history");
    const json_t *candidates = json_object_get(row, "candidates");
    const json_t *grades = json_object_get(row, "grades");
    bool cold = strcmp(text_of(row, "task"), "E1-cold-more") == 0;
    assert_true(cold || strcmp(text_of(row, "task"), "E1-more") == 0);
    assert_in_range(json_array_size(candidates), 2, small_rules.candidates);
    assert_int_equal(json_array_size(grades), json_array_size(candidates));

    size_t own = 0, matches = 0;
    for (size_t i = 0; i < json_array_size(candidates); i++) {
        const char *item = json_string_value(json_array_get(candidates, i));
        json_int_t grade = json_integer_value(json_array_get(grades, i));
        own += grade == 3;
        matches += grade == 1;
        assert_true(grade == 0 || grade == 1 || grade == 3);
        assert_int_equal(list_holds(basket, item), grade == 3);
        assert_in_range(holders_of(users, item), 1, 8);
        assert_false(list_holds(history, item));
        if (cold)
            assert_string_equal(text_of(row_of(items, item), "fold"), "train");
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(json_string_value(json_array_get(candidates, k)), item);
    }
    assert_int_equal(own, 1);
    assert_in_range(matches, small_rules.cold_matches_min, small_rules.matches_max);
    assert_true(json_array_size(history) >= 2);
    for (size_t i = 0; i < json_array_size(history); i++) {
        const char *item = json_string_value(json_array_get(history, i));
        assert_true(list_holds(basket, item));
        if (cold)
            assert_string_equal(text_of(row_of(items, item), "fold"), "train");
    }
}

static const char *own_of(const json_t *row)
{
    const json_t *grades = json_object_get(row, "grades");
    for (size_t i = 0; i < json_array_size(grades); i++)
        if (json_integer_value(json_array_get(grades, i)) == 3)
            return json_string_value(json_array_get(json_object_get(row, "candidates"), i));
    return "";
}

static void lists_name_training_people_and_cold_ones_train_items_only(void **state)
{
    (void)state;
    place *p = place_new();
    demo_summary summary = build_ok(p);
    json_t *rows = rows_of(p, "training_lists.jsonl"), *users = rows_of(p, "users.jsonl");
    json_t *items = rows_of(p, "items.jsonl"), *seen = json_object();
    size_t n[2] = {0}, test_items = 0;
    assert_int_equal(json_array_size(rows), summary.lists);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        bool cold = strcmp(text_of(row, "task"), "E1-cold-more") == 0;
        check_list(row, users, items);
        char want[64], question[256];
        snprintf(want, sizeof want, "%s-%05zu", text_of(row, "task"), ++n[cold]);
        assert_string_equal(text_of(row, "id"), want);
        snprintf(question, sizeof question, "%s %s %s %s", text_of(row, "task"),
                 text_of(row, "user"), own_of(row), text_of(row, "query"));
        if (json_object_get(seen, question))
            fail_msg("asked twice: %s", question);
        json_object_set_new(seen, question, json_true());
        test_items += strcmp(text_of(row_of(items, own_of(row)), "fold"), "test") == 0;
    }
    assert_in_range(n[0], 5, 100);
    assert_in_range(n[1], 3, 100);
    assert_in_range(test_items, 1, n[0]); /* the check above could have failed */

    /* E1's own training rows are not among them. */
    json_t *queries = rows_of(p, "queries.jsonl");
    size_t compared = 0;
    for (int cold = 0; cold < 2; cold++) {
        char *labels = read_out(p, cold ? "qrels/E1-cold.txt" : "qrels/E1.txt", NULL);
        for (size_t i = 0; i < json_array_size(queries); i++) {
            const json_t *query = json_array_get(queries, i);
            if (strcmp(text_of(query, "task"), cold ? "E1-cold" : "E1") != 0 ||
                strcmp(text_of(query, "split"), "train") != 0)
                continue;
            char wanted[64], item[64], question[256];
            int grade;
            snprintf(wanted, sizeof wanted, "%s 0 ", text_of(query, "id"));
            const char *label = strstr(labels, wanted);
            assert_non_null(label);
            assert_int_equal(sscanf(label + strlen(wanted), "%63s %d", item, &grade), 2);
            assert_int_equal(grade, 3);
            snprintf(question, sizeof question, "%s-more %s %s %s", text_of(query, "task"),
                     text_of(query, "user"), item, text_of(query, "query"));
            if (json_object_get(seen, question))
                fail_msg("asked in %s already: %s", text_of(query, "id"), question);
            compared++;
        }
        free(labels);
    }
    assert_in_range(compared, 5, 100);
    json_decref(rows);
    json_decref(users);
    json_decref(items);
    json_decref(seen);
    json_decref(queries);
    place_free(p);
}

static void the_share_of_a_person_is_bounded_and_goes_round_the_items(void **state)
{
    (void)state;
    place *p = place_new();
    p->options.rules.search_basket = 100; /* E1 asks nobody: many tags are left to ask by */
    p->options.rules.lists_per_person = 3;
    build_ok(p);
    json_t *rows = rows_of(p, "training_lists.jsonl"), *asked = json_object();
    size_t whole = 0;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        char who[64];
        snprintf(who, sizeof who, "%s %s", text_of(row, "task"), text_of(row, "user"));
        if (!json_object_get(asked, who))
            json_object_set_new(asked, who, json_array());
        json_t *items = json_object_get(asked, who);
        /* Everybody here has three items to ask for. */
        assert_false(list_holds(items, own_of(row)));
        json_array_append_new(items, json_string(own_of(row)));
        assert_in_range(json_array_size(items), 1, 3);
        whole += json_array_size(items) == 3;
    }
    assert_in_range(whole, 3, 10);
    json_decref(rows);
    json_decref(asked);

    p->options.rules.lists_per_person = 0;
    assert_int_equal(build_ok(p).lists, 0);
    place_free(p);
}

/* Without ids and people's numbers, which shift when somebody leaves. */
static char *lists_without_numbers(const place *p)
{
    json_t *rows = rows_of(p, "training_lists.jsonl");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        json_object_del(json_array_get(rows, i), "id");
        json_object_del(json_array_get(rows, i), "user");
    }
    char *text = json_dumps(rows, JSON_INDENT(1));
    assert_non_null(text);
    json_decref(rows);
    return text;
}

/* With and without one of the test people in the index, training reads the same. */
static void what_a_test_person_holds_changes_no_list(void **state)
{
    (void)state;
    place *p = place_new();
    build_ok(p);
    json_t *users = rows_of(p, "users.jsonl");
    size_t n_users = json_array_size(users);
    bool is_test = false;
    for (size_t i = 0; i < n_users; i++) {
        const json_t *basket = json_object_get(json_array_get(users, i), "history");
        if (list_holds(basket, "tidalnet") && list_holds(basket, "wavecount"))
            is_test = strcmp(text_of(json_array_get(users, i), "fold"), "test") == 0;
    }
    assert_true(is_test);
    json_decref(users);
    char *with = lists_without_numbers(p);

    char *text = test_file_read(test_path(p->folder, "Sources"), NULL);
    size_t removed = 0;
    for (char *at = text; *at; at++) {
        if (strncmp(at, "Alice Example", 13) == 0 || strncmp(at, "ALICE EXAMPLE", 13) == 0) {
            memcpy(at, "Some Big Team", 13);
            removed++;
        }
    }
    assert_in_range(removed, 8, 20);
    test_file_write(test_path(p->folder, "Sources"), text, strlen(text));
    free(text);
    assert_int_equal(build_ok(p).users, n_users - 1);
    char *without = lists_without_numbers(p);
    assert_string_equal(without, with);
    free(with);
    free(without);
    place_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_of_the_evaluation_are_what_they_were),
        cmocka_unit_test(every_text_is_there_once_and_a_package_is_in_one_piece),
        cmocka_unit_test(a_long_paragraph_is_cut_and_broken_bytes_are_replaced),
        cmocka_unit_test(addresses_are_found),
        cmocka_unit_test(texts_with_an_address_stay_out),
        cmocka_unit_test(pairs_are_a_short_description_and_its_long_one),
        cmocka_unit_test(pairs_hold_nothing_of_what_c_tests_or_validates_with),
        cmocka_unit_test(no_pair_is_a_label_of_c_outside_of_training),
        cmocka_unit_test(lists_name_training_people_and_cold_ones_train_items_only),
        cmocka_unit_test(the_share_of_a_person_is_bounded_and_goes_round_the_items),
        cmocka_unit_test(what_a_test_person_holds_changes_no_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
